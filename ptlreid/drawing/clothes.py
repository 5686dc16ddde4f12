"""Paint for cloth, heads and plain things: colour by place on the body."""

from __future__ import annotations

import numpy as np

from ptlreid.drawing.people import Colour, Garment, Person
from ptlreid.drawing.tubes import Paint


def plain(colour: Colour) -> Paint:
    """One colour all over."""
    return lambda angle, share: np.asarray(colour, dtype=np.float32)


def cloth(garment: Garment, yaw: float, top: float, bottom: float) -> Paint:
    """The pattern of a garment on a part of the body that reaches from height `top` to `bottom`."""

    def paint(angle: np.ndarray, share: np.ndarray) -> np.ndarray:
        weight = _weave(garment, _turned(angle, yaw), top + (bottom - top) * share)
        return _mix(garment.colour, garment.second, weight)

    return paint


def covered(garment: Garment, skin: Colour, yaw: float, top: float, bottom: float, until: float) -> Paint:
    """Cloth down to the height `until` and skin below it."""
    inner = cloth(garment, yaw, top, bottom)

    def paint(angle: np.ndarray, share: np.ndarray) -> np.ndarray:
        bare = top + (bottom - top) * share < until
        return np.where(bare[..., None], np.asarray(skin, dtype=np.float32), inner(angle, share))

    return paint


def head(person: Person, yaw: float) -> Paint:
    """Hair, face and hat, from the crown (share 0) to the chin (share 1)."""

    def paint(angle: np.ndarray, share: np.ndarray) -> np.ndarray:
        turn = np.abs(_turned(angle, yaw))
        colour = np.broadcast_to(np.asarray(person.skin, dtype=np.float32), (*angle.shape, 3))
        if person.beard:
            colour = _over(colour, (share > 0.74) & (turn < 1.4), person.hair_colour)
        eyes = (np.abs(share - 0.53) < 0.06) & (turn > 0.2) & (turn < 0.75)
        colour = _over(colour, eyes, (0.16, 0.11, 0.10))
        mouth = (np.abs(share - 0.80) < 0.04) & (turn < 0.35)
        colour = _over(colour, mouth, (0.50, 0.22, 0.20))
        if person.hair != "bald":
            line = np.where(turn < 1.0, 0.27, np.where(turn < 1.7, 0.52, 0.86))
            colour = _over(colour, share < line, person.hair_colour)
        if person.hat is not None:
            colour = _over(colour, share < np.where(turn < 1.0, 0.36, 0.42), person.hat)
        return colour

    return paint


def _weave(garment: Garment, turn: np.ndarray, height: np.ndarray) -> np.ndarray:
    """(...) share of the second colour at `turn` radians from the front and `height` above the ground."""
    bands = np.mod(height / garment.pitch, 1.0) < 0.5
    columns = np.mod(turn / (garment.pitch * 8.0) + 0.25, 1.0) < 0.5
    match garment.pattern:
        case "across":
            weight = bands
        case "down":
            weight = columns
        case "checks":
            return 0.5 * bands + 0.5 * columns
        case "blocks":
            weight = height < 0.66
        case "logo":
            weight = (np.abs(turn) < 0.75) & (np.abs(height - 0.70) < garment.pitch * 0.8)
        case "open":
            weight = (np.abs(turn) < 0.45) & (height > 0.3)
        case "yoke":
            weight = height > 0.755
        case "plain":
            weight = np.zeros_like(bands)
    return weight.astype(np.float32)


def _turned(angle: np.ndarray, yaw: float) -> np.ndarray:
    """The angle from the body's front, in -π..π, of what is seen at `angle`."""
    return np.mod(angle - yaw + np.pi, 2.0 * np.pi) - np.pi


def _mix(first: Colour, second: Colour, weight: np.ndarray) -> np.ndarray:
    base = np.asarray(first, dtype=np.float32)
    return base + weight[..., None] * (np.asarray(second, dtype=np.float32) - base)


def _over(colour: np.ndarray, where: np.ndarray, top: Colour) -> np.ndarray:
    return np.where(where[..., None], np.asarray(top, dtype=np.float32), colour)
