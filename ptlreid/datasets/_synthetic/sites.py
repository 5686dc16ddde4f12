"""Three places with cameras of their own and people who dress differently."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from ptlreid.datasets._synthetic.cameras import Camera, colour_matrix
from ptlreid.datasets._synthetic.people import COLOURS, Colour, Crowd
from ptlreid.datasets._synthetic.scenes import Ground, Scene
from ptlreid.datasets._synthetic.walls import Wall

_GOLDEN = 0.6180339887  # multiples of it spread evenly over 0..1, however many cameras are asked for


@dataclass(frozen=True)
class Site:
    """A place with `cameras` cameras. Ranges are (lowest, highest) over the cameras; `key` seeds them."""

    name: str
    key: int
    crowd: Crowd
    grounds: tuple[Ground, ...]
    walls: tuple[Wall, ...]
    tilt: tuple[float, float]
    ambient: tuple[float, float]
    warmth: tuple[float, float]
    saturation: tuple[float, float]
    exposure: tuple[float, float]
    detail: tuple[float, float]
    noise: tuple[float, float]
    quality: tuple[float, float]
    cameras: int = 16


SITES: dict[str, Site] = {
    "a": Site(
        name="a",
        key=11,
        crowd=Crowd(
            uppers=(
                "white",
                "white",
                "black",
                "grey",
                "sky",
                "red",
                "yellow",
                "green",
                "pink",
                "navy",
                "teal",
                "orange",
            ),
            lowers=("denim", "denim", "navy", "black", "beige", "grey", "olive", "white"),
            patterned=0.62,
            short_sleeves=0.75,
            coats=0.04,
            skirts=0.25,
            shorts=0.40,
            hats=0.15,
            backpacks=0.35,
            bags=0.25,
        ),
        grounds=("paving", "grass", "asphalt"),
        walls=("brick", "hedge", "plaster", "glass"),
        tilt=(0.10, 0.40),
        ambient=(0.45, 0.75),
        warmth=(-0.34, 0.34),
        saturation=(0.65, 1.15),
        exposure=(0.85, 1.35),
        detail=(72, 128),
        noise=(0.010, 0.035),
        quality=(55, 92),
    ),
    "b": Site(
        name="b",
        key=23,
        crowd=Crowd(
            uppers=("black", "black", "charcoal", "navy", "grey", "brown", "wine", "olive", "beige", "purple", "red"),
            lowers=("black", "black", "charcoal", "denim", "navy", "brown", "wine"),
            patterned=0.55,
            short_sleeves=0.05,
            coats=0.55,
            skirts=0.20,
            shorts=0.0,
            hats=0.35,
            backpacks=0.20,
            bags=0.50,
        ),
        grounds=("asphalt", "paving"),
        walls=("shops", "plaster", "glass"),
        tilt=(0.25, 0.60),
        ambient=(0.60, 0.85),
        warmth=(-0.48, 0.18),
        saturation=(0.25, 0.90),
        exposure=(0.55, 1.25),
        detail=(44, 100),
        noise=(0.015, 0.045),
        quality=(40, 80),
    ),
    "c": Site(
        name="c",
        key=37,
        crowd=Crowd(
            uppers=("silver", "white", "pink", "purple", "lime", "orange", "sky", "beige", "charcoal", "teal", "wine"),
            lowers=("black", "grey", "silver", "beige", "brown", "purple", "denim", "teal"),
            patterned=0.70,
            short_sleeves=0.40,
            coats=0.15,
            skirts=0.40,
            shorts=0.15,
            hats=0.10,
            backpacks=0.25,
            bags=0.45,
        ),
        grounds=("tiles",),
        walls=("panels", "shops", "glass"),
        tilt=(0.35, 0.75),
        ambient=(0.70, 0.95),
        warmth=(-0.12, 0.52),
        saturation=(0.45, 1.40),
        exposure=(0.80, 1.50),
        detail=(52, 128),
        noise=(0.010, 0.040),
        quality=(50, 90),
    ),
}


@lru_cache(maxsize=64)
def camera(site: Site, number: int) -> Camera:
    """Camera `number` (from 1) of a site; the same whatever is drawn with it."""
    generator = np.random.default_rng((site.key, number))
    spread = np.mod(number * _GOLDEN * np.arange(1, 8) + site.key * 0.37, 1.0)  # one even spread per property
    return Camera(
        scene=_scene(site, number, generator),
        tilt=_between(site.tilt, spread[1]),
        path=float(2.0 * np.pi * spread[2]),
        light=float(generator.uniform(-1.1, 1.1)),
        ambient=_between(site.ambient, generator.random()),
        tightness=float(generator.uniform(0.80, 0.95)),
        jitter=float(generator.uniform(0.03, 0.08)),
        occlusion=float(generator.uniform(0.05, 0.22)),
        colours=colour_matrix(
            _between(site.warmth, spread[0]),
            float(generator.uniform(-0.14, 0.14)),
            _between(site.saturation, spread[4]),
        ),
        exposure=_between(site.exposure, spread[3]),
        drift=float(generator.uniform(0.18, 0.40) * (-1.0) ** number),
        gamma=float(generator.uniform(0.75, 1.35)),
        haze=float(generator.uniform(0.0, 0.10)),
        detail=round(_between(site.detail, generator.random())),
        motion=float(generator.uniform(0.0, 1.2)),
        noise=_between(site.noise, generator.random()),
        quality=round(_between(site.quality, generator.random())),
    )


def _scene(site: Site, number: int, generator: np.random.Generator) -> Scene:
    ground, wall = site.grounds[number % len(site.grounds)], site.walls[number % len(site.walls)]
    grounds = ("olive",) if ground == "grass" else ("grey", "silver", "beige", "charcoal")
    walls = {"hedge": ("olive",), "brick": ("brown", "wine", "beige"), "glass": ("sky", "teal", "grey")}
    return Scene(
        ground=ground,
        wall=wall,
        ground_colour=_shade(grounds, generator),
        wall_colour=_shade(walls.get(wall, ("silver", "beige", "white", "grey")), generator),
        horizon=float(generator.uniform(0.10, 0.60)),
        key=int(generator.integers(2**31)),
    )


def _shade(names: tuple[str, ...], generator: np.random.Generator) -> Colour:
    red, green, blue = COLOURS[names[int(generator.integers(len(names)))]]
    light = float(generator.uniform(0.75, 1.1))
    return red * light, green * light, blue * light


def _between(limits: tuple[float, float], share: float) -> float:
    return float(limits[0] + (limits[1] - limits[0]) * share)
