"""The people of a site: their bodies, hair, clothes and bags, and the colours and patterns that these show."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np

T = TypeVar("T")
Colour = tuple[float, float, float]  # red, green, blue in 0..1
Pattern = Literal[
    "plain", "horizontal stripes", "vertical stripes", "checks", "two-tone", "logo", "open jacket", "shoulders"
]
Hair = Literal["bald", "short", "long", "bun"]
Bag = Literal["none", "backpack", "shoulder bag", "handbag"]

# The colour of each point on a body part: (angle round the part, position along it from 0 to 1) -> (..., 3).
Texture = Callable[[np.ndarray, np.ndarray], np.ndarray]

COLOURS: dict[str, Colour] = {
    "black": (0.09, 0.09, 0.10),
    "charcoal": (0.22, 0.23, 0.25),
    "grey": (0.50, 0.51, 0.52),
    "silver": (0.72, 0.73, 0.74),
    "white": (0.92, 0.92, 0.90),
    "navy": (0.11, 0.15, 0.32),
    "denim": (0.25, 0.36, 0.55),
    "sky": (0.48, 0.68, 0.88),
    "teal": (0.08, 0.46, 0.47),
    "green": (0.14, 0.48, 0.22),
    "olive": (0.37, 0.38, 0.20),
    "lime": (0.62, 0.80, 0.25),
    "yellow": (0.92, 0.79, 0.20),
    "orange": (0.90, 0.46, 0.13),
    "red": (0.78, 0.13, 0.13),
    "wine": (0.42, 0.09, 0.16),
    "pink": (0.92, 0.60, 0.69),
    "purple": (0.42, 0.22, 0.54),
    "brown": (0.37, 0.24, 0.15),
    "beige": (0.78, 0.68, 0.52),
}
_SKIN_COLOURS = ((0.93, 0.76, 0.65), (0.85, 0.66, 0.52), (0.70, 0.50, 0.37), (0.50, 0.34, 0.24), (0.35, 0.23, 0.17))
_HAIR_COLOURS = ((0.08, 0.07, 0.07), (0.20, 0.13, 0.09), (0.36, 0.23, 0.13), (0.72, 0.56, 0.32), (0.60, 0.59, 0.58))


@dataclass(frozen=True)
class Garment:
    """A piece of clothing.

    `period` of the pattern and `hem`, the height above the ground where the garment ends, are in body heights;
    `sleeve`: the covered fraction of the arm; `width`: 1 is a close fit.
    """

    pattern: Pattern
    colour: Colour
    second_colour: Colour
    period: float
    hem: float
    sleeve: float
    width: float


@dataclass(frozen=True)
class Person:
    """Everything about a person that is the same in front of every camera.

    `skirt`: the lower garment is one piece instead of two legs. `bag_side`: +1 left, -1 right.
    """

    build: float
    skin: Colour
    hair: Hair
    hair_colour: Colour
    hat: Colour | None
    beard: bool
    upper: Garment
    lower: Garment
    skirt: bool
    shoes: Colour
    bag: Bag
    bag_colour: Colour
    bag_side: float


@dataclass(frozen=True)
class Population:
    """The distribution of clothes at a site: names of `COLOURS`, frequent ones repeated, and probabilities."""

    upper_colours: tuple[str, ...]
    lower_colours: tuple[str, ...]
    patterned: float
    short_sleeves: float
    coats: float
    skirts: float
    shorts: float
    hats: float
    backpacks: float
    bags: float


def sample_person(population: Population, generator: np.random.Generator) -> Person:
    """A random person of `population`."""
    # The order of the fields is the order of the random numbers: another order would give other people.
    skirt = bool(generator.random() < population.skirts)
    hair: Hair = choose(("long", "bun", "short") if skirt else ("short", "short", "short", "long", "bald"), generator)
    return Person(
        build=float(generator.uniform(0.86, 1.22)),
        skin=choose(_SKIN_COLOURS, generator),
        hair=hair,
        hair_colour=choose(_HAIR_COLOURS, generator),
        hat=_sample_dye(choose(tuple(COLOURS), generator), generator) if generator.random() < population.hats else None,
        beard=bool(hair in {"short", "bald"} and generator.random() < 0.25),
        upper=_sample_upper(population, generator),
        lower=_sample_lower(population, generator, skirt=skirt),
        skirt=skirt,
        shoes=_sample_dye(
            choose(("black", "black", "brown", "white", "white", "red", "beige", "navy"), generator), generator
        ),
        bag=_sample_bag(population, generator),
        bag_colour=_sample_dye(
            choose(("black", "navy", "red", "brown", "teal", "yellow", "grey"), generator), generator
        ),
        bag_side=float(generator.choice((-1.0, 1.0))),
    )


def _sample_upper(population: Population, generator: np.random.Generator) -> Garment:
    pattern: Pattern = "plain"
    if generator.random() < population.patterned:
        pattern = choose(
            ("horizontal stripes", "vertical stripes", "checks", "two-tone", "logo", "open jacket", "shoulders"),
            generator,
        )
    name = choose(population.upper_colours, generator)
    coat = generator.random() < population.coats
    short = not coat and generator.random() < population.short_sleeves
    return Garment(
        pattern=pattern,
        colour=_sample_dye(name, generator),
        second_colour=_sample_dye(_choose_contrast(name, generator), generator),
        period=float(generator.choice((0.045, 0.07, 0.11))),
        hem=float(generator.uniform(0.28, 0.40) if coat else generator.uniform(0.45, 0.51)),
        sleeve=float(generator.choice((0.12, 0.42, 0.48))) if short else 0.96,
        width=float(generator.uniform(1.08, 1.3) if coat else generator.uniform(0.96, 1.16)),
    )


def _sample_lower(population: Population, generator: np.random.Generator, *, skirt: bool) -> Garment:
    name = choose(population.lower_colours, generator)
    hem = generator.uniform(0.02, 0.05)
    if skirt:
        hem = generator.uniform(0.14, 0.36)
    elif generator.random() < population.shorts:
        hem = generator.uniform(0.26, 0.36)
    return Garment(
        pattern="vertical stripes" if generator.random() < 0.1 else "plain",
        colour=_sample_dye(name, generator),
        second_colour=_sample_dye(_choose_contrast(name, generator), generator),
        period=0.07,
        hem=float(hem),
        sleeve=0.0,
        width=float(generator.uniform(0.92, 1.3)),
    )


def _sample_bag(population: Population, generator: np.random.Generator) -> Bag:
    number = generator.random()
    if number < population.backpacks:
        return "backpack"
    return choose(("shoulder bag", "handbag"), generator) if number < population.backpacks + population.bags else "none"


def _choose_contrast(name: str, generator: np.random.Generator) -> str:
    """A colour whose brightness differs by at least a quarter, so that a pattern shows in any light."""
    own = sum(COLOURS[name])
    return choose(tuple(other for other, colour in COLOURS.items() if abs(sum(colour) - own) > 0.75), generator)


def _sample_dye(name: str, generator: np.random.Generator) -> Colour:
    """A random shade of the colour called `name`: no two garments are quite the same."""
    red, green, blue = np.clip(COLOURS[name] + generator.normal(0.0, 0.03, 3), 0.03, 0.97)
    return float(red), float(green), float(blue)


def choose(choices: tuple[T, ...], generator: np.random.Generator) -> T:
    """One of `choices`, each equally likely."""
    return choices[int(generator.integers(len(choices)))]


def solid_texture(colour: Colour) -> Texture:
    """One colour all over."""
    return lambda angle, position: np.asarray(colour, dtype=np.float32)


def cloth_texture(garment: Garment, yaw: float, heights: tuple[float, float]) -> Texture:
    """The pattern of a garment on a body part between two `heights`, the upper one first."""

    def texture(angle: np.ndarray, position: np.ndarray) -> np.ndarray:
        height = _interpolate(heights, position)
        weight = _second_colour_weight(garment, _angle_from_front(angle, yaw), height)
        base = np.asarray(garment.colour, dtype=np.float32)
        return base + weight[..., None] * (np.asarray(garment.second_colour, dtype=np.float32) - base)

    return texture


def limb_texture(garment: Garment, skin: Colour, yaw: float, heights: tuple[float, float], hem: float) -> Texture:
    """Cloth down to the height `hem` and skin below it."""
    cloth = cloth_texture(garment, yaw, heights)

    def texture(angle: np.ndarray, position: np.ndarray) -> np.ndarray:
        return _overlay(cloth(angle, position), _interpolate(heights, position) < hem, skin)

    return texture


def head_texture(person: Person, yaw: float) -> Texture:
    """Hair, face and hat, from the crown (position 0) to the chin (position 1)."""

    def texture(angle: np.ndarray, position: np.ndarray) -> np.ndarray:
        turn = np.abs(_angle_from_front(angle, yaw))
        colour = np.broadcast_to(np.asarray(person.skin, dtype=np.float32), (*angle.shape, 3))
        if person.beard:
            colour = _overlay(colour, (position > 0.74) & (turn < 1.4), person.hair_colour)
        eyes = (np.abs(position - 0.53) < 0.06) & (turn > 0.2) & (turn < 0.75)
        colour = _overlay(colour, eyes, _darken(person.skin, 0.45))
        mouth = (np.abs(position - 0.80) < 0.04) & (turn < 0.35)
        colour = _overlay(colour, mouth, _darken(person.skin, 0.65))
        if person.hair != "bald":
            hairline = np.where(turn < 1.0, 0.27, np.where(turn < 1.7, 0.52, 0.86))
            colour = _overlay(colour, position < hairline, person.hair_colour)
        if person.hat is not None:
            colour = _overlay(colour, position < np.where(turn < 1.0, 0.36, 0.42), person.hat)
        return colour

    return texture


def _second_colour_weight(garment: Garment, turn: np.ndarray, height: np.ndarray) -> np.ndarray:
    """(...) in 0..1 at `turn` radians from the front and `height` above the ground."""
    horizontal, vertical = height / garment.period, turn / (8.0 * garment.period) + 0.25
    match garment.pattern:
        case "horizontal stripes":
            weight = _stripes(horizontal)
        case "vertical stripes":
            weight = _stripes(vertical)
        case "checks":
            weight = 0.5 * _stripes(horizontal) + 0.5 * _stripes(vertical)
        case "two-tone":
            weight = height < 0.66
        case "logo":
            weight = (np.abs(turn) < 0.75) & (np.abs(height - 0.70) < 0.8 * garment.period)
        case "open jacket":
            weight = np.abs(turn) < 0.45
        case "shoulders":
            weight = height > 0.755
        case "plain":
            weight = np.zeros_like(height)
    return weight.astype(np.float32)


def _stripes(periods: np.ndarray) -> np.ndarray:
    """True in the first half of each period."""
    return np.mod(periods, 1.0) < 0.5


def _interpolate(ends: tuple[float, float], position: np.ndarray) -> np.ndarray:
    return ends[0] + (ends[1] - ends[0]) * position


def _angle_from_front(angle: np.ndarray, yaw: float) -> np.ndarray:
    """The angle about the body, 0 in front, in -π..π, of what the camera sees at `angle`."""
    return np.mod(angle - yaw + np.pi, 2.0 * np.pi) - np.pi


def _overlay(colours: np.ndarray, where: np.ndarray, top: Colour) -> np.ndarray:
    return np.where(where[..., None], np.asarray(top, dtype=np.float32), colours)


def _darken(colour: Colour, factor: float) -> Colour:
    red, green, blue = colour
    return red * factor, green * factor, blue * factor
