"""The camera model: colours, exposure over the day, blur, noise and resolution."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageFilter

from ptlreid.datasets._synthetic.scenes import Scene


@dataclass(frozen=True)
class Camera:
    """One camera of a site.

    `tilt`: radians by which it looks down. `direction`: yaw at which most people pass it. `light_angle`: radians right
    of the camera; `ambient`: the fraction of light without direction. `person_height`: fraction of a crop's height;
    `crop_jitter`: relative deviation of the crops. `colours`: (3, 3) colour matrix, a row for each of red, green and
    blue. `drift`: change of the log exposure from noon to the end of the day. `haze`: light added everywhere. `detail`:
    rows resolved per crop. `motion_blur`: pixels. `noise`: standard deviation. `jpeg_quality`: 0..100.
    """

    scene: Scene
    tilt: float
    direction: float
    light_angle: float
    ambient: float
    person_height: float
    crop_jitter: float
    occlusion_probability: float
    colours: tuple[tuple[float, float, float], ...]
    exposure: float
    drift: float
    gamma: float
    haze: float
    detail: int
    motion_blur: float
    noise: float
    jpeg_quality: int


def capture(
    pixels: np.ndarray, camera: Camera, time: float, size: tuple[int, int], generator: np.random.Generator
) -> Image.Image:
    """The image that `camera` takes of a canvas.

    `pixels`: (rows, columns, 3) float32 in 0..1. `time`: 0 at the first frame of the day, 1 at the last. `size`:
    (height, width).
    """
    height, width = size
    rows = min(height, round(camera.detail * generator.uniform(0.85, 1.15)))
    columns = max(8, round(rows * width / height))
    image = _to_image(pixels).resize((columns, rows), Image.Resampling.BOX)
    image = image.filter(ImageFilter.BoxBlur((camera.motion_blur * generator.uniform(0.0, 1.5), 0.2)))
    light = np.asarray(image, dtype=np.float32) / 255.0
    light = np.einsum("hwc,dc->hwd", light, np.asarray(camera.colours, dtype=np.float32))
    level = camera.exposure * np.exp(camera.drift * (2.0 * time - 1.0) + generator.normal(0.0, 0.08))
    # A soft shoulder, as film and sensors have: very bright areas keep some contrast.
    light = np.tanh(np.maximum(light * np.float32(level) + camera.haze, 0.0)) / np.float32(0.9)
    light = light ** np.float32(camera.gamma)
    light += camera.noise * generator.standard_normal(light.shape, dtype=np.float32)
    return _to_image(light).resize((width, height), Image.Resampling.BICUBIC)


def colour_matrix(warmth: float, tint: float, saturation: float) -> tuple[tuple[float, float, float], ...]:
    """(3, 3) of a colour cast: `warmth` in stops from blue to red, `tint` in stops from green to magenta."""
    grey = np.tile((0.30, 0.59, 0.11), (3, 1))
    mixed = saturation * np.eye(3) + (1.0 - saturation) * grey
    gains = 2.0 ** np.array([warmth + 0.3 * tint, -tint, -warmth + 0.3 * tint])
    rows = gains[:, None] * mixed
    return tuple((float(red), float(green), float(blue)) for red, green, blue in rows)


def _to_image(light: np.ndarray) -> Image.Image:
    return Image.fromarray((np.clip(light, 0.0, 1.0) * 255.0 + 0.5).astype(np.uint8))
