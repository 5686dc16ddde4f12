"""Where people are seen: a wide picture of each camera's ground and walls, cut anew for every image."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from PIL import Image, ImageDraw

from ptlreid.drawing.people import Colour

Ground = Literal["paving", "asphalt", "grass", "tiles"]
Wall = Literal["brick", "plaster", "shops", "hedge", "glass", "panels"]

ROWS = 256  # of the picture that everything is drawn on
_COLUMNS = 768


@dataclass(frozen=True)
class Scene:
    """One camera's place. `horizon`: row where the ground begins, as a share of the height; `key` seeds the rest."""

    ground: Ground
    wall: Wall
    ground_colour: Colour
    wall_colour: Colour
    horizon: float
    key: int


def cut_scene(scene: Scene, columns: int, generator: np.random.Generator) -> np.ndarray:
    """(ROWS, columns, 3) float32 in 0..1: a piece of the scene at a place and with a zoom drawn by lot."""
    zoom = generator.uniform(0.7, 1.0)
    wide = min(max(1, int(columns * zoom)), _COLUMNS)
    rows = int(ROWS * zoom)
    left = int(generator.integers(_COLUMNS - wide + 1))
    top = int(generator.integers(ROWS - rows + 1))
    piece = Image.fromarray(_panorama(scene)[top : top + rows, left : left + wide])
    return np.asarray(piece.resize((columns, ROWS), Image.Resampling.BILINEAR), dtype=np.float32) / 255.0


def grain(rows: int, columns: int, cell: tuple[int, int], generator: np.random.Generator) -> np.ndarray:
    """(rows, columns) float32 smooth noise about 0 with blobs of `cell` = (rows, columns) pixels, sd near 1."""
    coarse = generator.normal(size=(rows // cell[0] + 2, columns // cell[1] + 2)).astype(np.float32)
    return np.asarray(Image.fromarray(coarse).resize((columns, rows), Image.Resampling.BICUBIC))


@lru_cache(maxsize=64)
def _panorama(scene: Scene) -> np.ndarray:
    """(ROWS, _COLUMNS, 3) uint8."""
    generator = np.random.default_rng(scene.key)
    picture = Image.new("RGB", (_COLUMNS, ROWS), _rgb(scene.wall_colour, 1.0))
    pen = ImageDraw.Draw(picture)
    horizon = int(scene.horizon * ROWS)
    _draw_wall(pen, scene, max(horizon, 80), generator)  # the ground covers what is too low
    _draw_ground(pen, scene, horizon, generator)
    pixels = np.asarray(picture, dtype=np.float32)
    rough = 0.16 if scene.ground == "grass" else 0.05
    light = 1.0 + 0.10 * grain(ROWS, _COLUMNS, (48, 90), generator)
    light += 0.05 * grain(ROWS, _COLUMNS, (8, 14), generator)
    light[horizon:] += rough * grain(ROWS - horizon, _COLUMNS, (2, 2), generator)
    return np.clip(pixels * light[..., None], 0, 255).astype(np.uint8)


def _draw_wall(pen: ImageDraw.ImageDraw, scene: Scene, horizon: int, generator: np.random.Generator) -> None:
    colour = scene.wall_colour
    match scene.wall:
        case "brick":
            for row, top in enumerate(range(0, horizon, 9)):
                for left in range(-(row % 2) * 11, _COLUMNS, 22):
                    pen.rectangle((left, top, left + 20, top + 7), _rgb(colour, generator.uniform(0.75, 1.15)))
            _openings(pen, horizon, generator, (0.25, 0.29, 0.33), every=150)
        case "plaster":
            _openings(pen, horizon, generator, (0.20, 0.24, 0.28), every=95)
        case "shops":
            for left in range(0, _COLUMNS, 110):
                tone = tuple(float(value) for value in generator.uniform(0.15, 0.95, 3))
                pen.rectangle((left, 0, left + 104, horizon), _rgb((tone[0], tone[1], tone[2]), 1.0))
                pen.rectangle((left + 8, 40, left + 96, horizon - 12), _rgb((0.75, 0.70, 0.55), generator.uniform(0.4, 1.1)))
                for _ in range(9):
                    x, y = generator.uniform(left + 10, left + 80), generator.uniform(44, max(50, horizon - 40))
                    goods = tuple(float(value) for value in generator.uniform(0.1, 0.9, 3))
                    pen.rectangle((x, y, x + generator.uniform(5, 16), y + 24), _rgb((goods[0], goods[1], goods[2]), 1.0))
        case "hedge":
            for _ in range(1500):
                x, y, size = generator.uniform(0, _COLUMNS), generator.uniform(-5, horizon), generator.uniform(3, 11)
                pen.ellipse((x - size, y - size, x + size, y + size), _rgb(colour, generator.uniform(0.45, 1.3)))
        case "glass":
            for left in range(0, _COLUMNS, 64):
                pen.rectangle((left, 0, left + 60, horizon), _rgb(colour, generator.uniform(0.7, 1.25)))
                pen.line((left + 8, horizon, left + 44, 0), _rgb(colour, 1.4), width=6)
            pen.rectangle((0, horizon // 2, _COLUMNS, horizon // 2 + 4), _rgb(colour, 0.5))
        case "panels":
            for left in range(0, _COLUMNS, 82):
                pen.rectangle((left, 0, left + 79, horizon), _rgb(colour, generator.uniform(0.88, 1.1)))
                if generator.random() < 0.4:
                    tone = tuple(float(value) for value in generator.uniform(0.2, 0.9, 3))
                    pen.rectangle((left + 14, 30, left + 66, max(60, horizon - 30)), _rgb((tone[0], tone[1], tone[2]), 1.0))


def _openings(
    pen: ImageDraw.ImageDraw, horizon: int, generator: np.random.Generator, colour: Colour, every: int
) -> None:
    """Windows and doors in a wall."""
    for left in range(20, _COLUMNS, every):
        start = left + generator.uniform(0, 30)
        bottom = horizon if generator.random() < 0.35 else max(30, horizon - 50)
        pen.rectangle((start - 4, 12, start + 48, bottom), (205, 202, 195))
        pen.rectangle((start, 16, start + 44, bottom - 4), _rgb(colour, generator.uniform(0.6, 1.6)))


def _draw_ground(pen: ImageDraw.ImageDraw, scene: Scene, horizon: int, generator: np.random.Generator) -> None:
    colour = scene.ground_colour
    pen.rectangle((0, horizon, _COLUMNS, ROWS), _rgb(colour, 1.0))
    pen.rectangle((0, horizon, _COLUMNS, horizon + 4), _rgb(colour, 0.6))
    if scene.ground in {"paving", "tiles"}:
        seam = _rgb(colour, 0.72 if scene.ground == "paving" else 1.25)
        gap = 26 if scene.ground == "paving" else 38
        for step in range(1, 9):
            row = horizon + (ROWS - horizon) * (step / 8) ** 1.7
            pen.line((0, row, _COLUMNS, row), seam, width=2)
        for x in range(-_COLUMNS, 2 * _COLUMNS, gap):
            pen.line((x, horizon, _COLUMNS / 2 + (x - _COLUMNS / 2) * 2.2, ROWS), seam, width=2)
    elif scene.ground == "asphalt":
        row = horizon + 0.4 * (ROWS - horizon)
        for x in range(int(generator.integers(80)), _COLUMNS, 160):
            pen.polygon([(x, row), (x + 70, row), (x + 78, row + 9), (x + 2, row + 9)], (205, 200, 180))
    else:
        for _ in range(1200):
            x, y = generator.uniform(0, _COLUMNS), generator.uniform(horizon, ROWS)
            pen.line((x, y, x + generator.uniform(-3, 3), y - 7), _rgb(colour, generator.uniform(0.6, 1.4)), width=2)


def _rgb(colour: Colour, shade: float) -> tuple[int, int, int]:
    red, green, blue = (min(255, int(255 * value * shade)) for value in colour)
    return red, green, blue
