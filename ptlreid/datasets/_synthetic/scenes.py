"""Backgrounds: a wide panorama of the ground, the wall and the objects in front of each camera.

Every image gets a random crop of it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from PIL import Image
from PIL.ImageDraw import Draw, ImageDraw

from ptlreid.datasets._synthetic.people import COLOURS, Colour, choose

Ground = Literal["paving", "asphalt", "grass", "tiles"]
Wall = Literal["brick", "plaster", "shops", "hedge", "glass", "panels"]
Rgb = tuple[int, int, int]  # 0..255

ROWS = 256  # of the canvas that everything is rendered on
_COLUMNS = 1024


@dataclass(frozen=True)
class Scene:
    """The scene in front of one camera. `horizon`: where the ground begins, a fraction of the height."""

    ground: Ground
    wall: Wall
    ground_colour: Colour
    wall_colour: Colour
    horizon: float
    seed: int


def crop_scene(scene: Scene, columns: int, generator: np.random.Generator) -> np.ndarray:
    """(ROWS, columns, 3) float32 in 0..1: a part of the scene at a random place and zoom."""
    zoom = generator.uniform(0.7, 1.0)
    width, height = int(columns * zoom), int(ROWS * zoom)
    left, top = int(generator.integers(_COLUMNS - width + 1)), int(generator.integers(ROWS - height + 1))
    crop = Image.fromarray(_render_panorama(scene)[top : top + height, left : left + width])
    return np.asarray(crop.resize((columns, ROWS), Image.Resampling.BILINEAR), dtype=np.float32) / 255.0


def smooth_noise(rows: int, columns: int, cell: tuple[int, int], generator: np.random.Generator) -> np.ndarray:
    """(rows, columns) float32 with mean 0, blobs of `cell` = (rows, columns) pixels and a deviation below 1."""
    coarse = generator.normal(size=(rows // cell[0] + 2, columns // cell[1] + 2)).astype(np.float32)
    return np.asarray(Image.fromarray(coarse).resize((columns, rows), Image.Resampling.BICUBIC))


@lru_cache(maxsize=64)
def _render_panorama(scene: Scene) -> np.ndarray:
    """(ROWS, _COLUMNS, 3) uint8."""
    generator = np.random.default_rng(scene.seed)
    image = Image.new("RGB", (_COLUMNS, ROWS), _to_rgb(scene.wall_colour, 1.0))
    draw = Draw(image)
    horizon = int(scene.horizon * ROWS)
    wall_bottom = max(horizon, 80)  # room for windows and doors; the ground then covers what is too low
    _WALLS[scene.wall](draw, wall_bottom, scene.wall_colour, generator)
    _draw_ground(draw, scene, horizon, generator)
    _draw_objects(draw, horizon, generator)
    light = 1.0 + 0.14 * smooth_noise(ROWS, _COLUMNS, (48, 70), generator)
    light += 0.05 * smooth_noise(ROWS, _COLUMNS, (8, 14), generator)
    roughness = 0.14 if scene.ground == "grass" else 0.05
    light[horizon:] += roughness * smooth_noise(ROWS - horizon, _COLUMNS, (2, 2), generator)
    return np.clip(np.asarray(image, dtype=np.float32) * light[..., None], 0, 255).astype(np.uint8)


def _to_rgb(colour: Colour, brightness: float) -> Rgb:
    red, green, blue = (min(255, int(255 * value * brightness)) for value in colour)
    return red, green, blue


def _sample_rgb(generator: np.random.Generator) -> Rgb:
    """A random one of the colours of clothes, also used for cars and goods."""
    red, green, blue = choose(tuple(COLOURS.values()), generator)
    return int(255 * red), int(255 * green), int(255 * blue)


def _draw_ground(draw: ImageDraw, scene: Scene, horizon: int, generator: np.random.Generator) -> None:
    colour = scene.ground_colour
    draw.rectangle((0, horizon, _COLUMNS, ROWS), _to_rgb(colour, 1.0))
    draw.rectangle((0, horizon, _COLUMNS, horizon + 4), _to_rgb(colour, 0.6))
    match scene.ground:
        case "paving":
            _draw_joints(draw, horizon, 26, _to_rgb(colour, 0.72))
        case "tiles":
            _draw_joints(draw, horizon, 38, _to_rgb(colour, 1.25))
        case "asphalt":  # with a dashed line
            row = horizon + 0.4 * (ROWS - horizon)
            for x in range(int(generator.integers(80)), _COLUMNS, 160):
                draw.polygon([(x, row), (x + 70, row), (x + 78, row + 9), (x + 2, row + 9)], (205, 200, 180))
        case "grass":
            for _ in range(1500):
                x, y, slant = generator.uniform((0.0, horizon, -3.0), (_COLUMNS, ROWS, 3.0))
                draw.line((x, y, x + slant, y - 7), _to_rgb(colour, generator.uniform(0.6, 1.4)), width=2)


def _draw_joints(draw: ImageDraw, horizon: int, gap: int, colour: Rgb) -> None:
    """The joints between slabs, in perspective."""
    for step in range(1, 9):
        row = horizon + (ROWS - horizon) * (step / 8) ** 1.7
        draw.line((0, row, _COLUMNS, row), colour, width=2)
    middle = _COLUMNS / 2
    for x in range(-_COLUMNS, 2 * _COLUMNS, gap):
        draw.line((x, horizon, middle + (x - middle) * 2.2, ROWS), colour, width=2)


def _draw_brick(draw: ImageDraw, bottom: int, colour: Colour, generator: np.random.Generator) -> None:
    for row, top in enumerate(range(0, bottom, 9)):
        for left in range(-(row % 2) * 11, _COLUMNS, 22):
            draw.rectangle((left, top, left + 20, top + 7), _to_rgb(colour, generator.uniform(0.75, 1.15)))
    _draw_windows(draw, bottom, 150, generator)


def _draw_plaster(draw: ImageDraw, bottom: int, colour: Colour, generator: np.random.Generator) -> None:
    draw.rectangle((0, bottom - 24, _COLUMNS, bottom), _to_rgb(colour, 0.7))
    _draw_windows(draw, bottom, 95, generator)


def _draw_windows(draw: ImageDraw, bottom: int, spacing: int, generator: np.random.Generator) -> None:
    """Windows, and doors that reach the `bottom` of the wall, one every `spacing` columns."""
    for left in range(20, _COLUMNS, spacing):
        start = left + generator.uniform(0, 30)
        sill = bottom if generator.random() < 0.35 else max(30, bottom - 50)
        shade = int(generator.uniform(35, 120))
        draw.rectangle((start - 4, 12, start + 48, sill), (205, 202, 195))
        draw.rectangle((start, 16, start + 44, sill - 4), (shade, shade + 8, shade + 16))


def _draw_shops(draw: ImageDraw, bottom: int, colour: Colour, generator: np.random.Generator) -> None:
    for left in range(0, _COLUMNS, 110):
        draw.rectangle((left, 0, left + 104, bottom), _sample_rgb(generator))
        draw.rectangle((left + 8, 40, left + 96, bottom - 12), _to_rgb(colour, generator.uniform(0.4, 1.1)))
        for _ in range(9):
            x, y = generator.uniform(left + 10, left + 80), generator.uniform(44, max(50, bottom - 40))
            draw.rectangle((x, y, x + generator.uniform(5, 16), y + 24), _sample_rgb(generator))


def _draw_hedge(draw: ImageDraw, bottom: int, colour: Colour, generator: np.random.Generator) -> None:
    for _ in range(2000):
        x, y, r = generator.uniform((0.0, -5.0, 3.0), (_COLUMNS, bottom, 11.0))
        draw.ellipse((x - r, y - r, x + r, y + r), _to_rgb(colour, generator.uniform(0.45, 1.3)))


def _draw_glass(draw: ImageDraw, bottom: int, colour: Colour, generator: np.random.Generator) -> None:
    for left in range(0, _COLUMNS, 64):
        draw.rectangle((left, 0, left + 60, bottom), _to_rgb(colour, generator.uniform(0.7, 1.25)))
        draw.line((left + 8, bottom, left + 44, 0), _to_rgb(colour, 1.4), width=6)
    draw.rectangle((0, bottom // 2, _COLUMNS, bottom // 2 + 4), _to_rgb(colour, 0.5))


def _draw_panels(draw: ImageDraw, bottom: int, colour: Colour, generator: np.random.Generator) -> None:
    for left in range(0, _COLUMNS, 82):
        draw.rectangle((left, 0, left + 79, bottom), _to_rgb(colour, generator.uniform(0.88, 1.1)))
        if generator.random() < 0.4:  # a poster
            draw.rectangle((left + 14, 30, left + 66, max(60, bottom - 30)), _sample_rgb(generator))


def _draw_objects(draw: ImageDraw, horizon: int, generator: np.random.Generator) -> None:
    """Random objects along the wall, a little in front of it."""
    x = float(generator.uniform(0, 120))
    while x < _COLUMNS:
        draw_object = choose(_OBJECTS, generator)
        draw_object(draw, x, horizon + float(generator.uniform(4, 34)), generator)
        x += float(generator.uniform(70, 210))


def _draw_car(draw: ImageDraw, x: float, y: float, generator: np.random.Generator) -> None:
    colour = _sample_rgb(generator)
    draw.rounded_rectangle((x, y - 38, x + 128, y - 6), 10, colour)
    draw.polygon([(x + 18, y - 36), (x + 38, y - 62), (x + 92, y - 62), (x + 112, y - 36)], colour)
    draw.polygon([(x + 28, y - 37), (x + 42, y - 57), (x + 88, y - 57), (x + 102, y - 37)], (60, 72, 82))
    for wheel in (x + 26, x + 100):
        draw.ellipse((wheel - 12, y - 20, wheel + 12, y + 4), (25, 25, 27))
        draw.ellipse((wheel - 5, y - 13, wheel + 5, y - 3), (140, 140, 140))


def _draw_bin(draw: ImageDraw, x: float, y: float, generator: np.random.Generator) -> None:
    draw.rectangle((x, y - 40, x + 24, y), _sample_rgb(generator))
    draw.rectangle((x - 2, y - 45, x + 26, y - 38), (50, 52, 52))


def _draw_sign(draw: ImageDraw, x: float, y: float, generator: np.random.Generator) -> None:
    draw.line((x, y, x, y - 150), (120, 122, 124), width=4)
    draw.ellipse((x - 15, y - 160, x + 15, y - 130), _sample_rgb(generator))


def _draw_bicycle(draw: ImageDraw, x: float, y: float, generator: np.random.Generator) -> None:
    colour = _sample_rgb(generator)
    for wheel in (x, x + 46):
        draw.ellipse((wheel - 16, y - 32, wheel + 16, y), outline=(30, 30, 30), width=3)
    frame = [(x, y - 16), (x + 16, y - 42), (x + 38, y - 42), (x + 20, y - 16), (x, y - 16)]
    draw.line([*frame, (x + 20, y - 16), (x + 38, y - 42), (x + 46, y - 16)], colour, width=3)
    draw.line((x + 36, y - 50, x + 46, y - 52), (40, 40, 40), width=3)


def _draw_bench(draw: ImageDraw, x: float, y: float, generator: np.random.Generator) -> None:
    brown = int(generator.uniform(70, 140))
    for row in (y - 44, y - 34, y - 22):
        draw.rectangle((x, row, x + 90, row + 6), (brown, int(0.7 * brown), int(0.45 * brown)))
    for leg in (x + 8, x + 78):
        draw.rectangle((leg, y - 44, leg + 5, y), (45, 45, 45))


_WALLS: dict[Wall, Callable[[ImageDraw, int, Colour, np.random.Generator], None]] = {
    "brick": _draw_brick,
    "plaster": _draw_plaster,
    "shops": _draw_shops,
    "hedge": _draw_hedge,
    "glass": _draw_glass,
    "panels": _draw_panels,
}
_OBJECTS: tuple[Callable[[ImageDraw, float, float, np.random.Generator], None], ...] = (
    _draw_car,
    _draw_bin,
    _draw_sign,
    _draw_bicycle,
    _draw_bench,
)
