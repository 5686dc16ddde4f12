"""Draws a person in a pose onto an easel, part by part, from far to near."""

from __future__ import annotations

import numpy as np

from ptlreid.datasets._synthetic.body_parts import Easel, draw_tube
from ptlreid.datasets._synthetic.clothes import cloth, covered, head, plain
from ptlreid.datasets._synthetic.people import Person
from ptlreid.datasets._synthetic.poses import Pose, Skeleton, View, skeleton

_SIDES = (0, 1)
# Half the breadth of the trunk, from the neck over shoulders, chest, waist and hips to the hem of a coat.
_HEIGHTS = (-0.835, -0.815, -0.79, -0.75, -0.68, -0.59, -0.51, -0.40, -0.28)
_WIDTHS = (0.034, 0.072, 0.110, 0.117, 0.110, 0.098, 0.104, 0.112, 0.122)


def draw_figure(easel: Easel, person: Person, pose: Pose, view: View) -> None:
    """Draw `person` with a shadow at the feet; what falls outside the canvas is cut."""
    joints = skeleton(pose, person.build)
    order = np.argsort(view.depth(joints.hips), kind="stable")
    _shadow(easel, view)
    behind = np.cos(view.yaw) > 0  # the back is turned away
    if person.bag == "backpack" and behind:
        _backpack(easel, person, joints, view)
    if person.hair == "long" and behind:
        _long_hair(easel, person, joints, view)
    for side in order:
        _leg(easel, person, joints, view, int(side))
    arms = view.depth(joints.elbows) - view.depth(joints.neck)
    for side in _SIDES:
        if arms[side] < -0.02:
            _arm(easel, person, joints, view, side)
    _trunk(easel, person, joints, view)
    _straps(easel, person, joints, view)
    if person.bag == "backpack" and not behind:
        _backpack(easel, person, joints, view)
    for side in _SIDES:
        if arms[side] >= -0.02:
            _arm(easel, person, joints, view, side)
    _head(easel, person, joints, view)
    if person.hair == "long" and not behind:
        _long_hair(easel, person, joints, view)


def _shadow(easel: Easel, view: View) -> None:
    """A dark patch on the ground, stretched away from the light."""
    rows, columns = easel.canvas.shape[:2]
    top, bottom = max(0, int(view.foot_y - 0.12 * view.height)), min(rows, int(view.foot_y + 0.12 * view.height))
    if top >= bottom:
        return
    x = (np.arange(columns, dtype=np.float32) - view.foot_x) / (0.2 * view.height)
    y = (np.arange(top, bottom, dtype=np.float32)[:, None] - view.foot_y) / (0.035 * view.height)
    dark = np.exp(-((x + 0.8 * np.sin(easel.light)) ** 2) - y**2)
    easel.canvas[top:bottom] *= (1.0 - 0.65 * dark)[..., None]


def _limb(view: View, upper: np.ndarray, lower: np.ndarray) -> np.ndarray:
    return view.project(np.stack([upper, lower]))


def _leg(easel: Easel, person: Person, joints: Skeleton, view: View, side: int) -> None:
    lower = person.lower
    hip, knee, ankle, toe = (part[side] for part in (joints.hips, joints.knees, joints.ankles, joints.toes))
    wide = person.build * (1.0 if person.skirt else lower.fullness)
    until = 1.0 if person.skirt else lower.hem  # a skirt is drawn with the trunk, over bare legs
    shoe = tuple(view.pixels(0, r) for r in (0.021, 0.026, 0.02))
    draw_tube(easel, _limb(view, ankle, toe), shoe, plain(person.shoes))
    # A bare calf is slimmer than a trouser leg.
    calf = 0.9 * person.build if lower.hem > 0.2 else wide
    shin = tuple(view.pixels(0.2, r * calf) for r in (0.038, 0.039, 0.027))
    draw_tube(easel, _limb(view, knee, ankle), shin, covered(lower, person.skin, view.yaw, (0.275, 0.035), until))
    thigh = tuple(view.pixels(0.4, r * wide) for r in (0.058, 0.053, 0.042))
    draw_tube(easel, _limb(view, hip, knee), thigh, covered(lower, person.skin, view.yaw, (0.51, 0.275), until))


def _arm(easel: Easel, person: Person, joints: Skeleton, view: View, side: int) -> None:
    upper = person.upper
    shoulder, elbow, hand = joints.shoulders[side], joints.elbows[side], joints.hands[side]
    wide = person.build * (0.55 + 0.45 * upper.fullness)
    until = 0.78 - 0.31 * upper.sleeve
    thick = wide if upper.sleeve > 0.5 else 0.9 * person.build
    draw_tube(easel, _limb(view, hand, hand), (view.pixels(0.45, 0.02),), plain(person.skin))
    fore = tuple(view.pixels(0.6, r * thick) for r in (0.029, 0.022))
    draw_tube(easel, _limb(view, elbow, hand), fore, covered(upper, person.skin, view.yaw, (0.63, 0.47), until))
    arm = tuple(view.pixels(0.7, r * wide) for r in (0.033, 0.034, 0.029))
    draw_tube(easel, _limb(view, shoulder, elbow), arm, covered(upper, person.skin, view.yaw, (0.78, 0.63), until))
    carries = (person.side > 0) == (side == 0)
    if person.bag == "handbag" and carries:
        low = hand - np.array([0.0, 0.13, 0.0])
        half = _breadth(view, 0.03, 0.075)
        draw_tube(easel, _limb(view, hand, low), (0.2 * half, 0.9 * half, half), plain(person.bag_colour), flat=4.0)


def _trunk(easel: Easel, person: Person, joints: Skeleton, view: View) -> None:
    """Lower garment over the hips or as a skirt, then neck and the upper garment down to its hem."""
    lower, upper = person.lower, person.upper
    low = lower.hem if person.skirt else 0.45
    heights = np.linspace(0.59, low, 6)
    widths = np.interp(-heights, (-0.59, -0.51, -0.45, -0.14), (0.090, 0.102, 0.104, 0.104 * lower.fullness + 0.03))
    depths = 0.72 * widths
    if person.skirt:  # it goes along with the knees
        knees = float(np.abs(joints.knees[:, 2]).max()) + 0.045
        depths = np.interp(-heights, (-0.51, -0.28, -0.14), (0.075, max(0.08, knees), max(0.08, knees)))
    radii = tuple(_breadth(view, person.build * w, person.build * d) for w, d in zip(widths, depths, strict=True))
    draw_tube(easel, _axis(joints, view, 0.59, low), radii, cloth(lower, view.yaw, (0.59, low)), flat=6.0)
    throat = joints.neck + np.array([[0.0, 0.04, 0.01], [0.0, -0.02, 0.0]])
    draw_tube(easel, view.project(throat), (view.pixels(0.9, 0.027),), plain(person.skin))
    heights = np.linspace(0.835, upper.hem, 14)
    widths = np.interp(-heights, _HEIGHTS, _WIDTHS) * np.interp(heights, (0.6, 0.75), (upper.fullness, 1.0))
    radii = tuple(_breadth(view, width, 0.66 * width) for width in person.build * widths)
    paint = cloth(upper, view.yaw, (0.835, upper.hem))
    draw_tube(easel, _axis(joints, view, 0.835, upper.hem), radii, paint, flat=6.0)


def _axis(joints: Skeleton, view: View, top: float, bottom: float) -> np.ndarray:
    """(2, 2) pixels of the line inside the trunk between two heights of the body."""
    heights = np.array([top, bottom])
    share = np.clip((heights - 0.51) / (0.835 - 0.51), None, 1.0)[:, None]
    points = joints.pelvis + share * (joints.neck - joints.pelvis)
    return view.project(points)


def _head(easel: Easel, person: Person, joints: Skeleton, view: View) -> None:
    chin = joints.crown - np.array([0.0, 0.135, 0.0])
    share = np.linspace(-1.0, 1.0, 9)
    size = _breadth(view, 0.049, 0.056)
    radii = tuple(np.maximum(0.12, np.sqrt(1.0 - np.abs(share) ** 2.4)) * size * (1.0 - 0.12 * np.maximum(share, 0)))
    if person.hair == "bun":
        back = joints.crown + np.array([0.0, -0.03, -0.06])
        draw_tube(easel, _limb(view, back, back), (view.pixels(1, 0.028),), plain(person.hair_colour))
    draw_tube(easel, _limb(view, joints.crown, chin), radii, head(person, view.yaw), flat=3.0)
    if person.hat is not None:
        brim = joints.crown + np.array([[0.0, -0.045, 0.03], [0.0, -0.05, 0.085]])
        draw_tube(easel, view.project(brim), (view.pixels(1, 0.016),), plain(person.hat), flat=2.0)


def _long_hair(easel: Easel, person: Person, joints: Skeleton, view: View) -> None:
    top = joints.crown + np.array([0.0, -0.04, -0.03])
    low = joints.crown + np.array([0.0, -0.22, -0.07])
    radii = tuple(_breadth(view, width, 0.03) for width in (0.05, 0.058, 0.05))
    draw_tube(easel, _limb(view, top, low), radii, plain(person.hair_colour), flat=1.5)


def _backpack(easel: Easel, person: Person, joints: Skeleton, view: View) -> None:
    top = joints.neck + np.array([0.0, -0.04, -0.115])
    low = joints.neck + np.array([0.0, -0.27, -0.125])
    radii = tuple(_breadth(view, width, 0.055) for width in (0.07, 0.09, 0.095, 0.09))
    draw_tube(easel, _limb(view, top, low), radii, plain(person.bag_colour), flat=3.0)


def _straps(easel: Easel, person: Person, joints: Skeleton, view: View) -> None:
    """What holds a bag: two straps seen from the front, or one across the chest and the bag at the hip."""
    paint = plain(person.bag_colour)
    thin = (view.pixels(0.7, 0.011),)
    front = 0.072 * person.build
    if person.bag == "backpack" and np.cos(view.yaw) > 0.2:
        for side in (-0.06, 0.06):
            ends = joints.neck + np.array([[side, -0.03, front * 0.7], [side * 1.25, -0.24, front]])
            draw_tube(easel, view.project(ends), thin, paint, flat=4.0)
    if person.bag == "shoulder":
        facing = np.sign(np.cos(view.yaw))
        hip = joints.pelvis + np.array([person.side * 0.125 * person.build, 0.03, 0.0])
        ends = np.stack([joints.neck + np.array([-person.side * 0.05, -0.02, front * facing * 0.6]), hip])
        draw_tube(easel, view.project(ends), thin, paint, flat=4.0)
        half = _breadth(view, 0.045, 0.08)
        draw_tube(easel, _limb(view, hip, hip - np.array([0.0, 0.11, 0.0])), (half, half), paint, flat=5.0)


def _breadth(view: View, width: float, depth: float) -> float:
    """Pixels of half the seen breadth of something with half-axes `width` and `depth`, turned by the yaw."""
    return float(np.hypot(width * np.cos(view.yaw), depth * np.sin(view.yaw))) * view.height
