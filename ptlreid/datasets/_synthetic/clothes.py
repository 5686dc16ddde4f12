"""Paint for cloth, heads and plain things: colour by place on the body."""

from __future__ import annotations

import numpy as np

from ptlreid.datasets._synthetic.body_parts import Paint
from ptlreid.datasets._synthetic.people import Colour, Garment, Person


def plain(colour: Colour) -> Paint:
    """One colour all over."""
    return lambda angle, share: np.asarray(colour, dtype=np.float32)


def cloth(garment: Garment, yaw: float, span: tuple[float, float]) -> Paint:
    """The pattern of a garment on a part of the body that reaches over `span`: its heights, upper end first."""

    def paint(angle: np.ndarray, share: np.ndarray) -> np.ndarray:
        weight = _weave(garment, _turned(angle, yaw), _height(span, share))
        return _mix(garment.colour, garment.second, weight)

    return paint


def covered(garment: Garment, skin: Colour, yaw: float, span: tuple[float, float], until: float) -> Paint:
    """Cloth down to the height `until` and skin below it."""
    inner = cloth(garment, yaw, span)

    def paint(angle: np.ndarray, share: np.ndarray) -> np.ndarray:
        bare = _height(span, share) < until
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
        colour = _over(colour, eyes, _darker(person.skin, 0.45))
        mouth = (np.abs(share - 0.80) < 0.04) & (turn < 0.35)
        colour = _over(colour, mouth, _darker(person.skin, 0.65))
        if person.hair != "bald":
            line = np.where(turn < 1.0, 0.27, np.where(turn < 1.7, 0.52, 0.86))
            colour = _over(colour, share < line, person.hair_colour)
        if person.hat is not None:
            colour = _over(colour, share < np.where(turn < 1.0, 0.36, 0.42), person.hat)
        return colour

    return paint


def _weave(garment: Garment, turn: np.ndarray, height: np.ndarray) -> np.ndarray:
    """(...) share of the second colour at `turn` radians from the front and `height` above the ground."""
    pitch = garment.pitch
    match garment.pattern:
        case "across":
            weight = _stripes(height / pitch)
        case "down":
            weight = _stripes(turn / (8.0 * pitch) + 0.25)
        case "checks":
            weight = 0.5 * _stripes(height / pitch) + 0.5 * _stripes(turn / (8.0 * pitch) + 0.25)
        case "blocks":
            weight = height < 0.66
        case "logo":
            weight = (np.abs(turn) < 0.75) & (np.abs(height - 0.70) < 0.8 * pitch)
        case "open":
            weight = np.abs(turn) < 0.45
        case "yoke":
            weight = height > 0.755
        case "plain":
            weight = np.zeros_like(height)
    return weight.astype(np.float32)


def _stripes(place: np.ndarray) -> np.ndarray:
    return np.mod(place, 1.0) < 0.5


def _height(span: tuple[float, float], share: np.ndarray) -> np.ndarray:
    return span[0] + (span[1] - span[0]) * share


def _turned(angle: np.ndarray, yaw: float) -> np.ndarray:
    """The angle from the body's front, in -π..π, of what is seen at `angle`."""
    return np.mod(angle - yaw + np.pi, 2.0 * np.pi) - np.pi


def _mix(first: Colour, second: Colour, weight: np.ndarray) -> np.ndarray:
    base = np.asarray(first, dtype=np.float32)
    return base + weight[..., None] * (np.asarray(second, dtype=np.float32) - base)


def _over(colour: np.ndarray, where: np.ndarray, top: Colour) -> np.ndarray:
    return np.where(where[..., None], np.asarray(top, dtype=np.float32), colour)


def _darker(colour: Colour, share: float) -> Colour:
    red, green, blue = colour
    return red * share, green * share, blue * share
