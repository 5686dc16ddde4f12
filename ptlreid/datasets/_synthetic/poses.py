"""Poses: the joints of a body in space, and their projection to the image.

Body space: x to the body's left, y up from the ground, z forward; the unit is the height of the person.
Index 0 is the left side, 1 the right.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Pose:
    """`phase` of the gait in radians; `stride`: the largest angle of the thighs; `elbow_angles`: left and right;
    `lean`: how far the shoulders are in front of the hips, in body heights."""

    phase: float
    stride: float
    elbow_angles: tuple[float, float]
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
    """Where a body appears in the image.

    `foot_x`, `foot_y`: the point between its feet, in pixels; `height`: pixels from ground to crown; `tilt`: radians
    by which the camera looks down; `yaw`: radians between where the body faces and the camera, 0 is the front.
    """

    foot_x: float
    foot_y: float
    height: float
    tilt: float
    yaw: float

    def project(self, points: np.ndarray) -> np.ndarray:
        """(..., 2) pixels of (..., 3) points; to a camera that looks down, a higher point is nearer and so larger."""
        horizontal = points[..., 0] * np.cos(self.yaw) + points[..., 2] * np.sin(self.yaw)
        vertical = points[..., 1] * np.cos(self.tilt) - self.depth(points) * np.sin(self.tilt)
        scale = 1.0 + 0.45 * self.tilt * (points[..., 1] - 0.5)
        return np.stack([self.foot_x + horizontal * scale * self.height, self.foot_y - vertical * self.height], axis=-1)

    def project_segment(self, upper: np.ndarray, lower: np.ndarray) -> np.ndarray:
        """(2, 2) pixels of two (3,) points."""
        return self.project(np.stack([upper, lower]))

    def depth(self, points: np.ndarray) -> np.ndarray:
        """(...) position towards the camera, in body heights."""
        return np.asarray(points[..., 2] * np.cos(self.yaw) - points[..., 0] * np.sin(self.yaw))

    def pixels(self, height: float, length: float) -> float:
        """The pixels of `length` body heights, seen at `height` above the ground."""
        return length * self.height * (1.0 + 0.45 * self.tilt * (height - 0.5))

    def radius(self, width: float, depth: float) -> float:
        """The pixels of half the width that is visible of an ellipse with half-axes `width` and `depth`."""
        return float(np.hypot(width * np.cos(self.yaw), depth * np.sin(self.yaw))) * self.height


def build_skeleton(pose: Pose, build: float) -> Skeleton:
    """The joints of a body of relative width `build` in `pose`, with its lower foot on the ground."""
    sides = np.array([1.0, -1.0])
    swing = pose.stride * np.sin(pose.phase) * sides
    bend = 0.08 + 1.3 * pose.stride * np.maximum(0.0, np.cos(pose.phase) * sides)  # of the leg that comes forward
    hips = np.stack([0.052 * build * sides, np.full(2, 0.51), np.zeros(2)], axis=-1)
    knees = hips + _swing_bone(0.235, swing)
    ankles = knees + _swing_bone(0.235, swing - bend)
    toes = ankles + np.stack([0.012 * sides, np.full(2, -0.022), np.full(2, 0.075)], axis=-1)
    lean = np.array([0.0, 0.0, pose.lean])
    shoulders = np.stack([0.100 * build * sides, np.full(2, 0.780), np.zeros(2)], axis=-1) + lean
    arms = -0.9 * swing
    elbows = shoulders + _swing_bone(0.165, arms) + np.stack([0.022 * sides, np.zeros(2), np.zeros(2)], axis=-1)
    hands = elbows + _swing_bone(0.16, arms + np.asarray(pose.elbow_angles))
    ground = np.array([0.0, 0.035 - ankles[:, 1].min(), 0.0])
    return Skeleton(
        pelvis=np.array([0.0, 0.51, 0.0]) + ground,
        neck=np.array([0.0, 0.835, 0.0]) + lean + ground,
        crown=np.array([0.0, 1.0, 0.02]) + 1.2 * lean + ground,
        shoulders=shoulders + ground,
        elbows=elbows + ground,
        hands=hands + ground,
        hips=hips + ground,
        knees=knees + ground,
        ankles=ankles + ground,
        toes=toes + ground,
    )


def _swing_bone(length: float, angles: np.ndarray) -> np.ndarray:
    """(2, 3) vectors from the upper to the lower end of two bones, at `angles` forward of straight down."""
    return np.stack([np.zeros(2), -length * np.cos(angles), length * np.sin(angles)], axis=-1)
