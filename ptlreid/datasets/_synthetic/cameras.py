"""What a camera makes of what it sees: viewpoint, crop, colour, light over the day, blur, noise and JPEG."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageFilter

from ptlreid.datasets._synthetic.scenes import Scene


@dataclass(frozen=True)
class Camera:
    """One camera of a site.

    `tilt`: radians it looks down. `path`: yaw at which most people pass it. `light`: radians right of the camera,
    `ambient`: the share of light without direction. `tightness`: person's share of the crop's height; `jitter`: how
    much crops vary. `colours`: (3, 3) rows that make red, green, blue. `drift`: how far the log exposure moves from
    the first frame of the day to the last. `haze`: light added everywhere. `detail`: rows resolved per crop.
    """

    scene: Scene
    tilt: float
    path: float
    light: float
    ambient: float
    tightness: float
    jitter: float
    occlusion: float
    colours: tuple[tuple[float, float, float], ...]
    exposure: float
    drift: float
    gamma: float
    haze: float
    detail: int
    motion: float
    noise: float
    quality: int


def photograph(
    canvas: np.ndarray, camera: Camera, hour: float, size: tuple[int, int], generator: np.random.Generator
) -> Image.Image:
    """The canvas as `camera` would deliver it at `hour` (0 first frame of the day, 1 last), `size` = (height, width).

    `canvas`: (rows, columns, 3) float32 in 0..1.
    """
    height, width = size
    rows = min(height, round(camera.detail * generator.uniform(0.85, 1.15)))
    columns = max(8, round(rows * width / height))
    seen = _image(canvas).resize((columns, rows), Image.Resampling.BOX)
    seen = seen.filter(ImageFilter.BoxBlur((camera.motion * generator.uniform(0.0, 1.5), 0.2)))
    light = np.asarray(seen, dtype=np.float32) / 255.0
    light = np.einsum("hwc,dc->hwd", light, np.asarray(camera.colours, dtype=np.float32))
    level = camera.exposure * np.exp(camera.drift * (2.0 * hour - 1.0) + generator.normal(0.0, 0.08))
    # A soft shoulder, as film and sensors have: what is very bright keeps some drawing.
    light = np.tanh(np.maximum(light * np.float32(level) + camera.haze, 0.0)) / np.float32(0.9)
    light = light ** np.float32(camera.gamma)
    light += camera.noise * generator.standard_normal(light.shape, dtype=np.float32)
    return _image(light).resize((width, height), Image.Resampling.BICUBIC)


def colour_matrix(warmth: float, tint: float, saturation: float) -> tuple[tuple[float, float, float], ...]:
    """(3, 3) of a cast: `warmth` in stops from blue to red, `tint` in stops from green to magenta."""
    grey = np.tile((0.30, 0.59, 0.11), (3, 1))
    mixed = saturation * np.eye(3) + (1.0 - saturation) * grey
    gains = 2.0 ** np.array([warmth + 0.3 * tint, -tint, -warmth + 0.3 * tint])
    rows = gains[:, None] * mixed
    return tuple((float(red), float(green), float(blue)) for red, green, blue in rows)


def _image(light: np.ndarray) -> Image.Image:
    return Image.fromarray((np.clip(light, 0.0, 1.0) * 255.0 + 0.5).astype(np.uint8))
