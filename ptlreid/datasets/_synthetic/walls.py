"""The walls behind people, as seen straight on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
from PIL.ImageDraw import ImageDraw

from ptlreid.datasets._synthetic.furniture import Rgb, openings, some_colour
from ptlreid.datasets._synthetic.people import Colour

Wall = Literal["brick", "plaster", "shops", "hedge", "glass", "panels"]
DrawWall = Callable[[ImageDraw, tuple[int, int], Colour, np.random.Generator], None]


def shaded(colour: Colour, shade: float) -> Rgb:
    """`colour` times `shade`, 0..255."""
    red, green, blue = (min(255, int(255 * value * shade)) for value in colour)
    return red, green, blue


def _brick(pen: ImageDraw, size: tuple[int, int], colour: Colour, generator: np.random.Generator) -> None:
    columns, foot = size
    for row, top in enumerate(range(0, foot, 9)):
        for left in range(-(row % 2) * 11, columns, 22):
            pen.rectangle((left, top, left + 20, top + 7), shaded(colour, generator.uniform(0.75, 1.15)))
    openings(pen, columns, foot, 150, generator)


def _plaster(pen: ImageDraw, size: tuple[int, int], colour: Colour, generator: np.random.Generator) -> None:
    pen.rectangle((0, size[1] - 24, *size), shaded(colour, 0.7))
    openings(pen, *size, 95, generator)


def _shops(pen: ImageDraw, size: tuple[int, int], colour: Colour, generator: np.random.Generator) -> None:
    columns, foot = size
    for left in range(0, columns, 110):
        pen.rectangle((left, 0, left + 104, foot), some_colour(generator))
        pen.rectangle((left + 8, 40, left + 96, foot - 12), shaded(colour, generator.uniform(0.4, 1.1)))
        for _ in range(9):
            x, y = generator.uniform(left + 10, left + 80), generator.uniform(44, max(50, foot - 40))
            pen.rectangle((x, y, x + generator.uniform(5, 16), y + 24), some_colour(generator))


def _hedge(pen: ImageDraw, size: tuple[int, int], colour: Colour, generator: np.random.Generator) -> None:
    for _ in range(2000):
        x, y, r = generator.uniform((0.0, -5.0, 3.0), (size[0], size[1], 11.0))
        pen.ellipse((x - r, y - r, x + r, y + r), shaded(colour, generator.uniform(0.45, 1.3)))


def _glass(pen: ImageDraw, size: tuple[int, int], colour: Colour, generator: np.random.Generator) -> None:
    columns, foot = size
    for left in range(0, columns, 64):
        pen.rectangle((left, 0, left + 60, foot), shaded(colour, generator.uniform(0.7, 1.25)))
        pen.line((left + 8, foot, left + 44, 0), shaded(colour, 1.4), width=6)
    pen.rectangle((0, foot // 2, columns, foot // 2 + 4), shaded(colour, 0.5))


def _panels(pen: ImageDraw, size: tuple[int, int], colour: Colour, generator: np.random.Generator) -> None:
    columns, foot = size
    for left in range(0, columns, 82):
        pen.rectangle((left, 0, left + 79, foot), shaded(colour, generator.uniform(0.88, 1.1)))
        if generator.random() < 0.4:  # a poster
            pen.rectangle((left + 14, 30, left + 66, max(60, foot - 30)), some_colour(generator))


# Each draws over `size` = (columns, row of the wall's foot).
WALLS: dict[Wall, DrawWall] = {
    "brick": _brick,
    "plaster": _plaster,
    "shops": _shops,
    "hedge": _hedge,
    "glass": _glass,
    "panels": _panels,
}
