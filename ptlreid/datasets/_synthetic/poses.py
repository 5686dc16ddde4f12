"""How a body stands before a camera: joints in space, then on the picture.

Body space: x to the body's left, y up from the ground, z forward; the unit is the height of the person.
Index 0 is the left side, 1 the right.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Pose:
    """`yaw`: radians between where the body faces and the camera, 0 is the front; `phase` of the gait in
    radians; `stride`: largest angle of the thighs; `bends`: (2,) of the elbows; `lean` forward."""

    yaw: float
    phase: float
    stride: float
    bends: tuple[float, float]
    lean: float


@dataclass(frozen=True)
class Skeleton:
    """Joints in body space: (3,) in the middle of the body, (2, 3) where there are two."""

    pelvis: np.ndarray
    neck: np.ndarray
    crown: np.ndarray
    shoulders: np.ndarray
    elbows: np.ndarray
    hands: np.ndarray
    hips: np.ndarray
    knees: np.ndarray
    ankles: np.ndarray
    toes: np.ndarray


@dataclass(frozen=True)
class View:
    """Where a body falls on the picture. `foot_x`, `foot_y`: the point between its feet, in pixels; `height`:
    pixels from ground to crown; `tilt`: radians that the camera looks down."""

    foot_x: float
    foot_y: float
    height: float
    tilt: float
    yaw: float

    def project(self, points: np.ndarray) -> np.ndarray:
        """(..., 2) pixels of (..., 3) points; what is higher up is nearer to a camera that looks down."""
        across = points[..., 0] * np.cos(self.yaw) + points[..., 2] * np.sin(self.yaw)
        up = points[..., 1] * np.cos(self.tilt) - self.depth(points) * np.sin(self.tilt)
        near = 1.0 + 0.45 * self.tilt * (points[..., 1] - 0.5)
        return np.stack([self.foot_x + across * near * self.height, self.foot_y - up * self.height], axis=-1)

    def depth(self, points: np.ndarray) -> np.ndarray:
        """(...) distance towards the camera, in body heights."""
        return np.asarray(points[..., 2] * np.cos(self.yaw) - points[..., 0] * np.sin(self.yaw))

    def pixels(self, height: float, length: float) -> float:
        """`length` body heights, seen at `height` above the ground, in pixels."""
        return length * self.height * (1.0 + 0.45 * self.tilt * (height - 0.5))


def skeleton(pose: Pose, build: float) -> Skeleton:
    """The joints of a body of breadth `build` in `pose`, its lower foot on the ground."""
    sides = np.array([1.0, -1.0])
    swing = pose.stride * np.sin(pose.phase) * sides
    bend = 0.08 + 1.3 * pose.stride * np.maximum(0.0, np.cos(pose.phase) * sides)  # the leg that comes forward
    hips = np.stack([0.052 * build * sides, np.full(2, 0.51), np.zeros(2)], axis=-1)
    knees = hips + _hanging(0.235, swing)
    ankles = knees + _hanging(0.235, swing - bend)
    toes = ankles + np.stack([0.012 * sides, np.full(2, -0.022), np.full(2, 0.075)], axis=-1)
    tilt = np.array([0.0, 0.0, pose.lean])
    shoulders = np.stack([0.100 * build * sides, np.full(2, 0.780), np.zeros(2)], axis=-1) + tilt
    arms = -0.9 * swing
    elbows = shoulders + _hanging(0.165, arms) + np.stack([0.022 * sides, np.zeros(2), np.zeros(2)], axis=-1)
    hands = elbows + _hanging(0.16, arms + np.asarray(pose.bends))
    ground = np.array([0.0, 0.035 - ankles[:, 1].min(), 0.0])
    return Skeleton(
        pelvis=np.array([0.0, 0.51, 0.0]) + ground,
        neck=np.array([0.0, 0.835, 0.0]) + tilt + ground,
        crown=np.array([0.0, 1.0, 0.02]) + 1.2 * tilt + ground,
        shoulders=shoulders + ground,
        elbows=elbows + ground,
        hands=hands + ground,
        hips=hips + ground,
        knees=knees + ground,
        ankles=ankles + ground,
        toes=toes + ground,
    )


def _hanging(length: float, angles: np.ndarray) -> np.ndarray:
    """(2, 3) from the upper end of two bones to the lower, `angles` forward of straight down."""
    return np.stack([np.zeros(2), -length * np.cos(angles), length * np.sin(angles)], axis=-1)
