"""Where people are seen: a wide picture of each camera's ground and walls, cut anew for every image."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from PIL import Image, ImageDraw

from ptlreid.datasets._synthetic.furniture import furnish
from ptlreid.datasets._synthetic.people import Colour
from ptlreid.datasets._synthetic.walls import WALLS, Wall, shaded

Ground = Literal["paving", "asphalt", "grass", "tiles"]

ROWS = 256  # of the picture that everything is drawn on
_COLUMNS = 1024


@dataclass(frozen=True)
class Scene:
    """One camera's place. `horizon`: where the ground begins, a share of the height; `key` seeds the rest."""

    ground: Ground
    wall: Wall
    ground_colour: Colour
    wall_colour: Colour
    horizon: float
    key: int


def cut_scene(scene: Scene, columns: int, generator: np.random.Generator) -> np.ndarray:
    """(ROWS, columns, 3) float32 in 0..1: a piece of the scene at a place and with a zoom drawn by lot."""
    zoom = generator.uniform(0.7, 1.0)
    wide, high = int(columns * zoom), int(ROWS * zoom)
    left, top = int(generator.integers(_COLUMNS - wide + 1)), int(generator.integers(ROWS - high + 1))
    piece = Image.fromarray(_panorama(scene)[top : top + high, left : left + wide])
    return np.asarray(piece.resize((columns, ROWS), Image.Resampling.BILINEAR), dtype=np.float32) / 255.0


def grain(rows: int, columns: int, cell: tuple[int, int], generator: np.random.Generator) -> np.ndarray:
    """(rows, columns) float32 smooth noise about 0 with blobs of `cell` = (rows, columns) pixels, sd below 1."""
    coarse = generator.normal(size=(rows // cell[0] + 2, columns // cell[1] + 2)).astype(np.float32)
    return np.asarray(Image.fromarray(coarse).resize((columns, rows), Image.Resampling.BICUBIC))


@lru_cache(maxsize=64)
def _panorama(scene: Scene) -> np.ndarray:
    """(ROWS, _COLUMNS, 3) uint8."""
    generator = np.random.default_rng(scene.key)
    picture = Image.new("RGB", (_COLUMNS, ROWS), shaded(scene.wall_colour, 1.0))
    pen = ImageDraw.Draw(picture)
    horizon = int(scene.horizon * ROWS)
    foot = max(horizon, 80)  # room for windows and doors; the ground then covers what is too low
    WALLS[scene.wall](pen, (_COLUMNS, foot), scene.wall_colour, generator)
    _draw_ground(pen, scene, horizon, generator)
    furnish(pen, _COLUMNS, horizon, generator)
    light = 1.0 + 0.14 * grain(ROWS, _COLUMNS, (48, 70), generator)
    light += 0.05 * grain(ROWS, _COLUMNS, (8, 14), generator)
    rough = 0.14 if scene.ground == "grass" else 0.05
    light[horizon:] += rough * grain(ROWS - horizon, _COLUMNS, (2, 2), generator)
    return np.clip(np.asarray(picture, dtype=np.float32) * light[..., None], 0, 255).astype(np.uint8)


def _draw_ground(pen: ImageDraw.ImageDraw, scene: Scene, horizon: int, generator: np.random.Generator) -> None:
    colour, deep = scene.ground_colour, ROWS - horizon
    pen.rectangle((0, horizon, _COLUMNS, ROWS), shaded(colour, 1.0))
    pen.rectangle((0, horizon, _COLUMNS, horizon + 4), shaded(colour, 0.6))
    match scene.ground:
        case "paving":
            _seams(pen, horizon, 26, shaded(colour, 0.72))
        case "tiles":
            _seams(pen, horizon, 38, shaded(colour, 1.25))
        case "asphalt":  # with a dashed line
            row = horizon + 0.4 * deep
            for x in range(int(generator.integers(80)), _COLUMNS, 160):
                pen.polygon([(x, row), (x + 70, row), (x + 78, row + 9), (x + 2, row + 9)], (205, 200, 180))
        case "grass":
            for _ in range(1500):
                x, y, slant = generator.uniform((0.0, horizon, -3.0), (_COLUMNS, ROWS, 3.0))
                pen.line((x, y, x + slant, y - 7), shaded(colour, generator.uniform(0.6, 1.4)), width=2)


def _seams(pen: ImageDraw.ImageDraw, horizon: int, gap: int, colour: tuple[int, int, int]) -> None:
    """Joints between slabs, in perspective: rows closer together far off, columns that spread towards us."""
    for step in range(1, 9):
        row = horizon + (ROWS - horizon) * (step / 8) ** 1.7
        pen.line((0, row, _COLUMNS, row), colour, width=2)
    middle = _COLUMNS / 2
    for x in range(-_COLUMNS, 2 * _COLUMNS, gap):
        pen.line((x, horizon, middle + (x - middle) * 2.2, ROWS), colour, width=2)
