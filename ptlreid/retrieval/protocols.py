"""The rules of an evaluation, as values: which gallery images a query sees, and which of them are right."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ptlreid.plugins import unknown_name
from ptlreid.records import DISTRACTOR, JUNK


@dataclass(frozen=True)
class Protocol:
    """Rules that hold for every query of an evaluation.

    A true match has the query's pid, which must be 1 or more. Junk (pid -1) always leaves the gallery.
    `ignore_own_camera_matches`: a gallery image of the same person in the same camera leaves, neither right nor
    wrong. `other_cameras_only`: every gallery image of the query's camera leaves. `single_shot`: the CMC sees
    one image, drawn at random, of each identity; a distractor is drawn on its own, being no one in particular.
    `keep_distractors`: images with pid 0 stay, as wrong answers.
    """

    name: str
    ignore_own_camera_matches: bool = False
    other_cameras_only: bool = False
    single_shot: bool = False
    keep_distractors: bool = True


PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        # Zheng et al., "Scalable person re-identification: a benchmark", ICCV 2015, section 3; the same rules in
        # DukeMTMC-reID (Zheng et al., ICCV 2017), CUHK03 767/700 (Zhong et al., CVPR 2017) and MSMT17 (Wei et al.,
        # CVPR 2018).
        Protocol("market", ignore_own_camera_matches=True),
        # Li et al., "DeepReID", CVPR 2014, section 6.1: the gallery is the other camera, one image for each person.
        Protocol("cuhk03-classic", other_cameras_only=True, single_shot=True),
        # Our own, for people seen by one camera only, where the rules above would leave no match.
        Protocol("any-camera"),
    )
}


def find(name: str) -> Protocol:
    """The protocol called `name`; an `OptionError` with the nearest name when there is none."""
    if name not in PROTOCOLS:
        raise unknown_name("protocol", name, PROTOCOLS)
    return PROTOCOLS[name]


@dataclass(frozen=True)
class Verdict:
    """One query's true matches in the gallery, and the images that leave it for this query: ascending columns."""

    matches: np.ndarray
    absent: np.ndarray


class Judge:
    """Applies a protocol to one query after another; the gallery is put in order once, so that a look-up is short."""

    def __init__(self, protocol: Protocol, pids: np.ndarray, camids: np.ndarray) -> None:
        """`pids`, `camids`: (G,) int64 of the gallery."""
        self._protocol = protocol
        self._camids = camids
        self._people = _columns(pids)
        self._cameras = _columns(camids) if protocol.other_cameras_only else {}
        self._nobody = np.empty(0, dtype=np.int64)
        self._always_absent = np.flatnonzero((pids == JUNK) | ((pids == DISTRACTOR) & (not protocol.keep_distractors)))

    def verdict(self, pid: int, camid: int) -> Verdict:
        """What the protocol says for a query; a query may have no match, and one with a pid below 1 has none."""
        people = self._people.get(pid, self._nobody) if pid > DISTRACTOR else self._nobody
        own_camera = self._camids[people] == camid
        if self._protocol.other_cameras_only:
            return Verdict(people[~own_camera], self._cameras.get(camid, self._nobody))
        if self._protocol.ignore_own_camera_matches:
            return Verdict(people[~own_camera], people[own_camera])
        return Verdict(people, self._nobody)

    def hide(self, keys: np.ndarray, verdict: Verdict) -> None:
        """Writes infinity into a query's `keys`, (G,), where an image is absent."""
        for absent in (self._always_absent, verdict.absent):
            if len(absent):
                keys[absent] = np.inf


def _columns(labels: np.ndarray) -> dict[int, np.ndarray]:
    """The ascending columns of each label."""
    order = np.argsort(labels, kind="stable")
    present, firsts = np.unique(labels[order], return_index=True)
    return dict(zip(present.tolist(), np.split(order, firsts[1:]), strict=True))
