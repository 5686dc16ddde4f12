"""What stands about in a scene: cars, bins, signs, bicycles, and doors and windows in the walls."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL.ImageDraw import ImageDraw

from ptlreid.datasets._synthetic.people import COLOURS

Rgb = tuple[int, int, int]


def furnish(pen: ImageDraw, columns: int, horizon: int, generator: np.random.Generator) -> None:
    """Put some things along the foot of the wall, a little before it."""
    x = float(generator.uniform(0, 120))
    while x < columns:
        thing = _THINGS[int(generator.integers(len(_THINGS)))]
        thing(pen, x, horizon + float(generator.uniform(4, 34)), generator)
        x += float(generator.uniform(70, 210))


def openings(pen: ImageDraw, columns: int, horizon: int, every: int, generator: np.random.Generator) -> None:
    """Windows and doors in a wall that ends at row `horizon`, one in `every` columns."""
    for left in range(20, columns, every):
        start = left + generator.uniform(0, 30)
        bottom = horizon if generator.random() < 0.35 else max(30, horizon - 50)
        shade = int(generator.uniform(35, 120))
        pen.rectangle((start - 4, 12, start + 48, bottom), (205, 202, 195))
        pen.rectangle((start, 16, start + 44, bottom - 4), (shade, shade + 8, shade + 16))


def some_colour(generator: np.random.Generator) -> Rgb:
    """Any colour that people wear will do for cars and goods too."""
    red, green, blue = tuple(COLOURS.values())[int(generator.integers(len(COLOURS)))]
    return int(255 * red), int(255 * green), int(255 * blue)


def _car(pen: ImageDraw, x: float, y: float, generator: np.random.Generator) -> None:
    paint = some_colour(generator)
    pen.rounded_rectangle((x, y - 38, x + 128, y - 6), 10, paint)
    pen.polygon([(x + 18, y - 36), (x + 38, y - 62), (x + 92, y - 62), (x + 112, y - 36)], paint)
    pen.polygon([(x + 28, y - 37), (x + 42, y - 57), (x + 88, y - 57), (x + 102, y - 37)], (60, 72, 82))
    for wheel in (x + 26, x + 100):
        pen.ellipse((wheel - 12, y - 20, wheel + 12, y + 4), (25, 25, 27))
        pen.ellipse((wheel - 5, y - 13, wheel + 5, y - 3), (140, 140, 140))


def _bin(pen: ImageDraw, x: float, y: float, generator: np.random.Generator) -> None:
    pen.rectangle((x, y - 40, x + 24, y), some_colour(generator))
    pen.rectangle((x - 2, y - 45, x + 26, y - 38), (50, 52, 52))


def _sign(pen: ImageDraw, x: float, y: float, generator: np.random.Generator) -> None:
    pen.line((x, y, x, y - 150), (120, 122, 124), width=4)
    pen.ellipse((x - 15, y - 160, x + 15, y - 130), some_colour(generator))


def _bicycle(pen: ImageDraw, x: float, y: float, generator: np.random.Generator) -> None:
    paint = some_colour(generator)
    for wheel in (x, x + 46):
        pen.ellipse((wheel - 16, y - 32, wheel + 16, y), outline=(30, 30, 30), width=3)
    frame = [(x, y - 16), (x + 16, y - 42), (x + 38, y - 42), (x + 20, y - 16), (x, y - 16)]
    pen.line([*frame, (x + 20, y - 16), (x + 38, y - 42), (x + 46, y - 16)], paint, width=3)
    pen.line((x + 36, y - 50, x + 46, y - 52), (40, 40, 40), width=3)


def _bench(pen: ImageDraw, x: float, y: float, generator: np.random.Generator) -> None:
    brown = int(generator.uniform(70, 140))
    for row in (y - 44, y - 34, y - 22):
        pen.rectangle((x, row, x + 90, row + 6), (brown, int(0.7 * brown), int(0.45 * brown)))
    for leg in (x + 8, x + 78):
        pen.rectangle((leg, y - 44, leg + 5, y), (45, 45, 45))


_THINGS: tuple[Callable[[ImageDraw, float, float, np.random.Generator], None], ...] = (
    _car,
    _bin,
    _sign,
    _bicycle,
    _bench,
)
