"""Renders a person in a pose: body parts as shaded tubes, from far to near."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ptlreid.datasets._synthetic.people import Person, Texture, cloth_texture, head_texture, limb_texture, solid_texture
from ptlreid.datasets._synthetic.poses import Pose, Skeleton, View, build_skeleton

_SIDES = (0, 1)
# Half the width of the trunk, from the neck over shoulders, chest, waist and hips to the hem of a coat.
_HEIGHTS = (-0.835, -0.815, -0.79, -0.75, -0.68, -0.59, -0.51, -0.40, -0.28)
_WIDTHS = (0.034, 0.072, 0.110, 0.117, 0.110, 0.098, 0.104, 0.112, 0.122)


@dataclass(frozen=True)
class Canvas:
    """An image in the making, and the light on it.

    `pixels`: (rows, columns, 3) float32 in 0..1, changed in place. `folds`: (rows, columns) the shading by creases in
    cloth, about 0. `light_angle`: radians right of the camera. `ambient`: the fraction of light without direction.
    """

    pixels: np.ndarray
    folds: np.ndarray
    light_angle: float
    ambient: float


def render_figure(canvas: Canvas, person: Person, pose: Pose, view: View) -> None:
    """Render `person` with a shadow at the feet; anything outside the canvas is cut off."""
    joints = build_skeleton(pose, person.build)
    leg_order = np.argsort(view.depth(joints.hips), kind="stable")
    _render_shadow(canvas, view)
    facing = np.cos(view.yaw) > 0  # what is on the back is then farther away than the body
    if person.bag == "backpack" and facing:
        _render_backpack(canvas, person, joints, view)
    if person.hair == "long" and facing:
        _render_long_hair(canvas, person, joints, view)
    for side in leg_order:
        _render_leg(canvas, person, joints, view, int(side))
    arm_depths = view.depth(joints.elbows) - view.depth(joints.neck)
    for side in _SIDES:
        if arm_depths[side] < -0.02:
            _render_arm(canvas, person, joints, view, side)
    _render_trunk(canvas, person, joints, view)
    _render_straps(canvas, person, joints, view)
    if person.bag == "backpack" and not facing:
        _render_backpack(canvas, person, joints, view)
    for side in _SIDES:
        if arm_depths[side] >= -0.02:
            _render_arm(canvas, person, joints, view, side)
    _render_head(canvas, person, joints, view)
    if person.hair == "long" and not facing:
        _render_long_hair(canvas, person, joints, view)


def render_tube(
    canvas: Canvas, ends: np.ndarray, radii: tuple[float, ...], texture: Texture, *, flatness: float = 1.0
) -> None:
    """Render one shaded, textured tube with soft edges: the one shape that bodies are made of.

    `ends`: (2, 2) pixels x and y, the upper end first. `radii`: pixels, evenly spaced from end to end. `texture`
    gets the visible angle, -π/2 at the left edge to π/2 at the right one. `flatness`: 1 rounds the ends like a
    capsule, more flattens them.
    """
    pixels = canvas.pixels
    reach = max(radii) + 1.0
    left, top = np.maximum(np.floor(ends.min(axis=0) - reach), 0).astype(int)
    right, bottom = np.minimum(np.ceil(ends.max(axis=0) + reach) + 1, (pixels.shape[1], pixels.shape[0])).astype(int)
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
    across = x * axis[1] - y * axis[0]
    inside = np.clip(along, 0.0, length)
    position = inside / length
    radius = np.interp(position, np.linspace(0.0, 1.0, len(radii)), radii).astype(np.float32)
    coverage = np.clip(radius - np.hypot(across, (along - inside) * flatness) + 0.5, 0.0, 1.0)
    angle = np.arcsin(np.clip(across / radius, -1.0, 1.0))
    shade = canvas.ambient + (1.0 - canvas.ambient) * np.cos(angle - canvas.light_angle)
    shade += canvas.folds[top:bottom, left:right]
    box = pixels[top:bottom, left:right]
    box += coverage[..., None] * (texture(angle, position) * shade[..., None] - box)


def _render_shadow(canvas: Canvas, view: View) -> None:
    """A dark patch on the ground, away from the light."""
    rows, columns = canvas.pixels.shape[:2]
    top, bottom = max(0, int(view.foot_y - 0.12 * view.height)), min(rows, int(view.foot_y + 0.12 * view.height))
    if top >= bottom:
        return
    x = (np.arange(columns, dtype=np.float32) - view.foot_x) / (0.2 * view.height)
    y = (np.arange(top, bottom, dtype=np.float32)[:, None] - view.foot_y) / (0.035 * view.height)
    darkness = np.exp(-((x + 0.8 * np.sin(canvas.light_angle)) ** 2) - y**2)
    canvas.pixels[top:bottom] *= (1.0 - 0.65 * darkness)[..., None]


def _render_leg(canvas: Canvas, person: Person, joints: Skeleton, view: View, side: int) -> None:
    lower = person.lower
    hip, knee, ankle, toe = (part[side] for part in (joints.hips, joints.knees, joints.ankles, joints.toes))
    width = person.build * (1.0 if person.skirt else lower.width)
    hem = 1.0 if person.skirt else lower.hem  # a skirt is rendered with the trunk, over bare legs
    shoe = tuple(view.pixels(0, r) for r in (0.021, 0.026, 0.02))
    render_tube(canvas, view.project_segment(ankle, toe), shoe, solid_texture(person.shoes))
    # A bare calf is slimmer than a trouser leg.
    calf_width = 0.9 * person.build if lower.hem > 0.2 else width
    calf = tuple(view.pixels(0.2, r * calf_width) for r in (0.038, 0.039, 0.027))
    texture = limb_texture(lower, person.skin, view.yaw, (0.275, 0.035), hem)
    render_tube(canvas, view.project_segment(knee, ankle), calf, texture)
    thigh = tuple(view.pixels(0.4, r * width) for r in (0.058, 0.053, 0.042))
    texture = limb_texture(lower, person.skin, view.yaw, (0.51, 0.275), hem)
    render_tube(canvas, view.project_segment(hip, knee), thigh, texture)


def _render_arm(canvas: Canvas, person: Person, joints: Skeleton, view: View, side: int) -> None:
    upper = person.upper
    shoulder, elbow, hand = joints.shoulders[side], joints.elbows[side], joints.hands[side]
    width = person.build * (0.55 + 0.45 * upper.width)
    sleeve_end = 0.78 - 0.31 * upper.sleeve
    forearm_width = width if upper.sleeve > 0.5 else 0.9 * person.build
    fist = (view.pixels(0.45, 0.02),)
    render_tube(canvas, view.project_segment(hand, hand), fist, solid_texture(person.skin))
    forearm = tuple(view.pixels(0.6, r * forearm_width) for r in (0.029, 0.022))
    texture = limb_texture(upper, person.skin, view.yaw, (0.63, 0.47), sleeve_end)
    render_tube(canvas, view.project_segment(elbow, hand), forearm, texture)
    upper_arm = tuple(view.pixels(0.7, r * width) for r in (0.033, 0.034, 0.029))
    texture = limb_texture(upper, person.skin, view.yaw, (0.78, 0.63), sleeve_end)
    render_tube(canvas, view.project_segment(shoulder, elbow), upper_arm, texture)
    carries = (person.bag_side > 0) == (side == 0)
    if person.bag == "handbag" and carries:
        bottom = hand - np.array([0.0, 0.13, 0.0])
        radius = view.radius(0.03, 0.075)
        bag = (0.2 * radius, 0.9 * radius, radius)
        render_tube(canvas, view.project_segment(hand, bottom), bag, solid_texture(person.bag_colour), flatness=4.0)


def _render_trunk(canvas: Canvas, person: Person, joints: Skeleton, view: View) -> None:
    """The lower garment over the hips or as a skirt, then the neck, and the upper garment down to its hem."""
    _render_hips(canvas, person, joints, view)
    throat = joints.neck + np.array([[0.0, 0.04, 0.01], [0.0, -0.02, 0.0]])
    render_tube(canvas, view.project(throat), (view.pixels(0.9, 0.027),), solid_texture(person.skin))
    upper = person.upper
    heights = np.linspace(0.835, upper.hem, 14)
    widths = np.interp(-heights, _HEIGHTS, _WIDTHS) * np.interp(heights, (0.6, 0.75), (upper.width, 1.0))
    radii = tuple(view.radius(width, 0.66 * width) for width in person.build * widths)
    texture = cloth_texture(upper, view.yaw, (0.835, upper.hem))
    render_tube(canvas, _project_trunk(joints, view, 0.835, upper.hem), radii, texture, flatness=6.0)


def _render_hips(canvas: Canvas, person: Person, joints: Skeleton, view: View) -> None:
    lower = person.lower
    bottom = lower.hem if person.skirt else 0.45
    heights = np.linspace(0.59, bottom, 6)
    widths = np.interp(-heights, (-0.59, -0.51, -0.45, -0.14), (0.090, 0.102, 0.104, 0.104 * lower.width + 0.03))
    depths = 0.72 * widths
    if person.skirt:  # it moves with the knees
        knees = float(np.abs(joints.knees[:, 2]).max()) + 0.045
        depths = np.interp(-heights, (-0.51, -0.28, -0.14), (0.075, max(0.08, knees), max(0.08, knees)))
    radii = tuple(view.radius(person.build * w, person.build * d) for w, d in zip(widths, depths, strict=True))
    texture = cloth_texture(lower, view.yaw, (0.59, bottom))
    render_tube(canvas, _project_trunk(joints, view, 0.59, bottom), radii, texture, flatness=6.0)


def _project_trunk(joints: Skeleton, view: View, top: float, bottom: float) -> np.ndarray:
    """(2, 2) pixels of the trunk's axis between two heights of the body."""
    heights = np.array([top, bottom])
    position = np.clip((heights - 0.51) / (0.835 - 0.51), None, 1.0)[:, None]
    points = joints.pelvis + position * (joints.neck - joints.pelvis)
    return view.project(points)


def _render_head(canvas: Canvas, person: Person, joints: Skeleton, view: View) -> None:
    chin = joints.crown - np.array([0.0, 0.135, 0.0])
    position = np.linspace(-1.0, 1.0, 9)
    size = view.radius(0.049, 0.056)
    outline = np.maximum(0.12, np.sqrt(1.0 - np.abs(position) ** 2.4))
    radii = tuple(outline * size * (1.0 - 0.12 * np.maximum(position, 0)))
    if person.hair == "bun":
        back = joints.crown + np.array([0.0, -0.03, -0.06])
        bun = (view.pixels(1, 0.028),)
        render_tube(canvas, view.project_segment(back, back), bun, solid_texture(person.hair_colour))
    head = view.project_segment(joints.crown, chin)
    render_tube(canvas, head, radii, head_texture(person, view.yaw), flatness=3.0)
    if person.hat is not None:
        brim = joints.crown + np.array([[0.0, -0.045, 0.03], [0.0, -0.05, 0.085]])
        render_tube(canvas, view.project(brim), (view.pixels(1, 0.016),), solid_texture(person.hat), flatness=2.0)


def _render_long_hair(canvas: Canvas, person: Person, joints: Skeleton, view: View) -> None:
    top = joints.crown + np.array([0.0, -0.04, -0.03])
    bottom = joints.crown + np.array([0.0, -0.22, -0.07])
    radii = tuple(view.radius(width, 0.03) for width in (0.05, 0.058, 0.05))
    texture = solid_texture(person.hair_colour)
    render_tube(canvas, view.project_segment(top, bottom), radii, texture, flatness=1.5)


def _render_backpack(canvas: Canvas, person: Person, joints: Skeleton, view: View) -> None:
    top = joints.neck + np.array([0.0, -0.04, -0.115])
    bottom = joints.neck + np.array([0.0, -0.27, -0.125])
    radii = tuple(view.radius(width, 0.055) for width in (0.07, 0.09, 0.095, 0.09))
    texture = solid_texture(person.bag_colour)
    render_tube(canvas, view.project_segment(top, bottom), radii, texture, flatness=3.0)


def _render_straps(canvas: Canvas, person: Person, joints: Skeleton, view: View) -> None:
    """Both straps of a backpack seen from the front, or the one across the chest with its bag at the hip."""
    texture = solid_texture(person.bag_colour)
    thin = (view.pixels(0.7, 0.011),)
    chest = 0.072 * person.build
    if person.bag == "backpack" and np.cos(view.yaw) > 0.2:
        for side in (-0.06, 0.06):
            ends = joints.neck + np.array([[side, -0.03, chest * 0.7], [side * 1.25, -0.24, chest]])
            render_tube(canvas, view.project(ends), thin, texture, flatness=4.0)
    if person.bag == "shoulder bag":
        direction = np.sign(np.cos(view.yaw))
        hip = joints.pelvis + np.array([person.bag_side * 0.125 * person.build, 0.03, 0.0])
        shoulder = joints.neck + np.array([-person.bag_side * 0.05, -0.02, chest * direction * 0.6])
        render_tube(canvas, view.project(np.stack([shoulder, hip])), thin, texture, flatness=4.0)
        radius = view.radius(0.045, 0.08)
        bottom = hip - np.array([0.0, 0.11, 0.0])
        render_tube(canvas, view.project_segment(hip, bottom), (radius, radius), texture, flatness=5.0)
