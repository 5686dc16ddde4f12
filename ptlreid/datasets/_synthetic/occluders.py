"""What stands in the way: a pole, a bush or a car between the camera and the person."""

from __future__ import annotations

import numpy as np

from ptlreid.datasets._synthetic.body_parts import Easel, draw_tube
from ptlreid.datasets._synthetic.clothes import plain
from ptlreid.datasets._synthetic.scenes import grain


def draw_occluder(easel: Easel, generator: np.random.Generator) -> None:
    """Draw one of the three, kind and place by lot."""
    (_pole, _bush, _car)[int(generator.integers(3))](easel, generator)


def _pole(easel: Easel, generator: np.random.Generator) -> None:
    rows, columns = easel.canvas.shape[:2]
    x = float(generator.uniform(0.1, 0.9) * columns)
    tone = float(generator.uniform(0.2, 0.7))
    ends = np.array([[x, -5.0], [x, rows + 5.0]])
    draw_tube(easel, ends, (float(generator.uniform(0.03, 0.07) * columns),), plain((tone, tone, tone)), flat=4.0)


def _bush(easel: Easel, generator: np.random.Generator) -> None:
    rows, columns = easel.canvas.shape[:2]
    rough = grain(rows, columns, (9, 9), generator)
    edge = rows * generator.uniform(0.68, 0.88) + rows * 0.05 * rough[0]
    leaf = (np.arange(rows)[:, None] > edge)[..., None]
    green = np.array([0.16, 0.30, 0.10], dtype=np.float32) * (1.0 + 0.4 * rough)[..., None]
    np.copyto(easel.canvas, green, where=leaf)


def _car(easel: Easel, generator: np.random.Generator) -> None:
    """The bonnet of a parked car that enters from one side."""
    rows, columns = easel.canvas.shape[:2]
    tone = generator.uniform(0.1, 0.9, 3)
    paint = plain((float(tone[0]), float(tone[1]), float(tone[2])))
    y = rows * float(generator.uniform(0.86, 0.95))
    start = float(generator.choice((-0.3, 1.3)))
    end = float(generator.uniform(0.38, 0.62))
    ends = np.array([[columns * start, y], [columns * end, y + 4]])
    draw_tube(easel, ends, (rows * 0.13, rows * 0.12, rows * 0.10), paint, flat=1.5)
    wheel = np.array([[columns * (end + (start - end) * 0.35), rows * 0.98]] * 2)
    draw_tube(easel, wheel, (rows * 0.07,), plain((0.07, 0.07, 0.08)))
