"""Three sites: each with its own cameras, and with people who dress differently."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from ptlreid.datasets._synthetic.cameras import Camera, colour_matrix
from ptlreid.datasets._synthetic.people import COLOURS, Colour, Population, choose
from ptlreid.datasets._synthetic.scenes import Ground, Scene, Wall

_GOLDEN_RATIO = 0.6180339887  # its multiples modulo 1 are spread evenly, however many cameras there are


@dataclass(frozen=True)
class Site:
    """A place with up to `cameras` cameras. Pairs are the lowest and highest value of its cameras' properties."""

    name: str
    seed: int
    population: Population
    grounds: tuple[Ground, ...]
    walls: tuple[Wall, ...]
    tilt: tuple[float, float]
    ambient: tuple[float, float]
    warmth: tuple[float, float]
    saturation: tuple[float, float]
    exposure: tuple[float, float]
    detail: tuple[float, float]
    noise: tuple[float, float]
    jpeg_quality: tuple[float, float]
    cameras: int = 16


SITES: dict[str, Site] = {
    "a": Site(
        name="a",
        seed=11,
        population=Population(
            upper_colours=(
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
            lower_colours=("denim", "denim", "navy", "black", "beige", "grey", "olive", "white"),
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
        jpeg_quality=(55, 92),
    ),
    "b": Site(
        name="b",
        seed=23,
        population=Population(
            upper_colours=(
                "black",
                "black",
                "charcoal",
                "navy",
                "grey",
                "brown",
                "wine",
                "olive",
                "beige",
                "purple",
                "red",
            ),
            lower_colours=("black", "black", "charcoal", "denim", "navy", "brown", "wine"),
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
        jpeg_quality=(40, 80),
    ),
    "c": Site(
        name="c",
        seed=37,
        population=Population(
            upper_colours=(
                "silver",
                "white",
                "pink",
                "purple",
                "lime",
                "orange",
                "sky",
                "beige",
                "charcoal",
                "teal",
                "wine",
            ),
            lower_colours=("black", "grey", "silver", "beige", "brown", "purple", "denim", "teal"),
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
        jpeg_quality=(50, 90),
    ),
}


@lru_cache(maxsize=64)
def build_camera(site: Site, number: int) -> Camera:
    """Camera `number` (from 1) of a site: the same whatever the settings of a dataset."""
    # The order of the fields is the order of the random numbers: another order would give other cameras.
    generator = np.random.default_rng((site.seed, number))
    spread = np.mod(number * _GOLDEN_RATIO * np.arange(1, 8) + site.seed * 0.37, 1.0)  # one sequence per property
    return Camera(
        scene=_build_scene(site, number, generator),
        tilt=_interpolate(site.tilt, spread[1]),
        direction=float(2.0 * np.pi * spread[2]),
        light_angle=float(generator.uniform(-1.1, 1.1)),
        ambient=_interpolate(site.ambient, generator.random()),
        person_height=float(generator.uniform(0.80, 0.95)),
        crop_jitter=float(generator.uniform(0.03, 0.08)),
        occlusion_probability=float(generator.uniform(0.05, 0.22)),
        colours=colour_matrix(
            _interpolate(site.warmth, spread[0]),
            float(generator.uniform(-0.14, 0.14)),
            _interpolate(site.saturation, spread[4]),
        ),
        exposure=_interpolate(site.exposure, spread[3]),
        drift=float(generator.uniform(0.18, 0.40) * (-1.0) ** number),
        gamma=float(generator.uniform(0.75, 1.35)),
        haze=float(generator.uniform(0.0, 0.10)),
        detail=round(_interpolate(site.detail, generator.random())),
        motion_blur=float(generator.uniform(0.0, 1.2)),
        noise=_interpolate(site.noise, generator.random()),
        jpeg_quality=round(_interpolate(site.jpeg_quality, generator.random())),
    )


def _build_scene(site: Site, number: int, generator: np.random.Generator) -> Scene:
    ground, wall = site.grounds[number % len(site.grounds)], site.walls[number % len(site.walls)]
    ground_colours = ("olive",) if ground == "grass" else ("grey", "silver", "beige", "charcoal")
    wall_colours = {"hedge": ("olive",), "brick": ("brown", "wine", "beige"), "glass": ("sky", "teal", "grey")}
    return Scene(
        ground=ground,
        wall=wall,
        ground_colour=_sample_shade(ground_colours, generator),
        wall_colour=_sample_shade(wall_colours.get(wall, ("silver", "beige", "white", "grey")), generator),
        horizon=float(generator.uniform(0.10, 0.60)),
        seed=int(generator.integers(2**31)),
    )


def _sample_shade(names: tuple[str, ...], generator: np.random.Generator) -> Colour:
    red, green, blue = COLOURS[choose(names, generator)]
    brightness = float(generator.uniform(0.75, 1.1))
    return red * brightness, green * brightness, blue * brightness


def _interpolate(limits: tuple[float, float], position: float) -> float:
    return float(limits[0] + (limits[1] - limits[0]) * position)
