"""Who is seen: a person's body, hair, clothes and bag, drawn by lot from what a crowd tends to wear."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np

T = TypeVar("T")
Colour = tuple[float, float, float]  # red, green, blue in 0..1
Pattern = Literal["plain", "across", "down", "checks", "blocks", "logo", "open", "yoke"]
Hair = Literal["bald", "short", "long", "bun"]
Bag = Literal["none", "backpack", "shoulder", "handbag"]

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
_SKINS = ((0.93, 0.76, 0.65), (0.85, 0.66, 0.52), (0.70, 0.50, 0.37), (0.50, 0.34, 0.24), (0.35, 0.23, 0.17))
_HAIRS = ((0.08, 0.07, 0.07), (0.20, 0.13, 0.09), (0.36, 0.23, 0.13), (0.72, 0.56, 0.32), (0.60, 0.59, 0.58))


@dataclass(frozen=True)
class Garment:
    """A piece of clothing. `pitch`: period of the pattern, `hem`: height above the ground where the cloth
    ends, both in body heights; `sleeve`: covered share of the arm, 0..1; `fullness`: 1 fits closely."""

    pattern: Pattern
    colour: Colour
    second: Colour
    pitch: float
    hem: float
    sleeve: float
    fullness: float


@dataclass(frozen=True)
class Person:
    """Everything about someone that stays the same from camera to camera.

    `skirt`: the lower garment is one piece instead of two legs. `side`: +1 or -1, the hand that carries.
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
    side: float


@dataclass(frozen=True)
class Crowd:
    """What people wear at one place: names of `COLOURS` (repeated means more often) and shares in 0..1."""

    uppers: tuple[str, ...]
    lowers: tuple[str, ...]
    patterned: float
    short_sleeves: float
    coats: float
    skirts: float
    shorts: float
    hats: float
    backpacks: float
    bags: float


def sample_person(crowd: Crowd, generator: np.random.Generator) -> Person:
    """Someone from `crowd`."""
    skirt = bool(generator.random() < crowd.skirts)
    hair: Hair = _pick(("long", "bun", "short") if skirt else ("short", "short", "short", "long", "bald"), generator)
    return Person(
        build=float(generator.uniform(0.86, 1.22)),
        skin=_pick(_SKINS, generator),
        hair=hair,
        hair_colour=_pick(_HAIRS, generator),
        hat=_dye(_pick(tuple(COLOURS), generator), generator) if generator.random() < crowd.hats else None,
        beard=bool(hair in {"short", "bald"} and generator.random() < 0.25),
        upper=_upper(crowd, generator),
        lower=_lower(crowd, generator, skirt=skirt),
        skirt=skirt,
        shoes=_dye(_pick(("black", "black", "brown", "white", "white", "red", "beige", "navy"), generator), generator),
        bag=_bag(crowd, generator),
        bag_colour=_dye(_pick(("black", "navy", "red", "brown", "teal", "yellow", "grey"), generator), generator),
        side=float(generator.choice((-1.0, 1.0))),
    )


def _upper(crowd: Crowd, generator: np.random.Generator) -> Garment:
    pattern: Pattern = "plain"
    if generator.random() < crowd.patterned:
        pattern = _pick(("across", "down", "checks", "blocks", "logo", "open", "yoke"), generator)
    name = _pick(crowd.uppers, generator)
    coat = generator.random() < crowd.coats
    short = not coat and generator.random() < crowd.short_sleeves
    return Garment(
        pattern=pattern,
        colour=_dye(name, generator),
        second=_dye(_contrast(name, generator), generator),
        pitch=float(generator.choice((0.045, 0.07, 0.11))),
        hem=float(generator.uniform(0.28, 0.40) if coat else generator.uniform(0.45, 0.51)),
        sleeve=float(generator.choice((0.12, 0.42, 0.48))) if short else 0.96,
        fullness=float(generator.uniform(1.08, 1.3) if coat else generator.uniform(0.96, 1.16)),
    )


def _lower(crowd: Crowd, generator: np.random.Generator, *, skirt: bool) -> Garment:
    name = _pick(crowd.lowers, generator)
    hem = generator.uniform(0.02, 0.05)
    if skirt:
        hem = generator.uniform(0.14, 0.36)
    elif generator.random() < crowd.shorts:
        hem = generator.uniform(0.26, 0.36)
    return Garment(
        pattern="down" if generator.random() < 0.1 else "plain",
        colour=_dye(name, generator),
        second=_dye(_contrast(name, generator), generator),
        pitch=0.07,
        hem=float(hem),
        sleeve=0.0,
        fullness=float(generator.uniform(0.92, 1.3)),
    )


def _bag(crowd: Crowd, generator: np.random.Generator) -> Bag:
    chance = generator.random()
    if chance < crowd.backpacks:
        return "backpack"
    return _pick(("shoulder", "handbag"), generator) if chance < crowd.backpacks + crowd.bags else "none"


def _contrast(name: str, generator: np.random.Generator) -> str:
    """A colour whose brightness differs by a quarter at least, so that a pattern shows in any light."""
    own = sum(COLOURS[name])
    return _pick(tuple(other for other, colour in COLOURS.items() if abs(sum(colour) - own) > 0.75), generator)


def _dye(name: str, generator: np.random.Generator) -> Colour:
    """The colour called `name`, a little off: no two dyes are the same."""
    red, green, blue = np.clip(COLOURS[name] + generator.normal(0.0, 0.03, 3), 0.03, 0.97)
    return float(red), float(green), float(blue)


def _pick(choices: tuple[T, ...], generator: np.random.Generator) -> T:
    return choices[int(generator.integers(len(choices)))]
