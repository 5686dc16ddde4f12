"""The one thing bodies are made of: a shaded, painted, soft-edged tube between two points of a picture."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

Paint = Callable[[np.ndarray, np.ndarray], np.ndarray]  # angle round the tube, share of its length -> (..., 3)


@dataclass(frozen=True)
class Easel:
    """What is drawn on and in which light. `canvas`: (rows, columns, 3) float32 in 0..1, changed in place;
    `folds`: (rows, columns), the creases of cloth about 0; `light`: radians right of the camera; `ambient`: 0..1."""

    canvas: np.ndarray
    folds: np.ndarray
    light: float
    ambient: float


def draw_tube(easel: Easel, ends: np.ndarray, radii: tuple[float, ...], paint: Paint, *, flat: float = 1.0) -> None:
    """Draw one tube on the easel.

    `ends`: (2, 2) pixels x and y, the upper end first. `radii`: pixels, evenly spaced from end to end. `paint`
    gets the angle as seen, -π/2 at the left edge to π/2 at the right one. `flat`: 1 has round ends, more cuts them.
    """
    canvas = easel.canvas
    reach = max(radii) + 1.0
    left, top = np.maximum(np.floor(ends.min(axis=0) - reach), 0).astype(int)
    right, bottom = np.minimum(np.ceil(ends.max(axis=0) + reach) + 1, (canvas.shape[1], canvas.shape[0])).astype(int)
    if left >= right or top >= bottom:
        return
    x = np.arange(left, right, dtype=np.float32) - np.float32(ends[0, 0])
    y = np.arange(top, bottom, dtype=np.float32)[:, None] - np.float32(ends[0, 1])
    axis = (ends[1] - ends[0]).astype(np.float32)
    length = float(np.hypot(axis[0], axis[1]))
    # Seen end on it is a disc, whatever the axis.
    axis = axis / length if length > 0.5 else np.array([0.0, 1.0], dtype=np.float32)
    length = max(length, 0.5)
    along = x * axis[0] + y * axis[1]
    aside = x * axis[1] - y * axis[0]
    inside = np.clip(along, 0.0, length)
    share = inside / length
    radius = np.interp(share, np.linspace(0.0, 1.0, len(radii)), radii).astype(np.float32)
    cover = np.clip(radius - np.hypot(aside, (along - inside) * flat) + 0.5, 0.0, 1.0)
    angle = np.arcsin(np.clip(aside / radius, -1.0, 1.0))
    shade = easel.ambient + (1.0 - easel.ambient) * np.cos(angle - easel.light)
    shade += easel.folds[top:bottom, left:right]
    box = canvas[top:bottom, left:right]
    box += cover[..., None] * (paint(angle, share) * shade[..., None] - box)
