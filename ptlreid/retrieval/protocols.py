"""The rules of an evaluation, as values: which gallery images a query sees, and which of them are right."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ptlreid.plugins import unknown
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
        # DukeMTMC-reID (Zheng et al., ICCV 2017), MSMT17 (Wei et al., CVPR 2018) and CUHK03 767/700 (Zhong et al., CVPR 2017).
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
        raise unknown("protocol", name, PROTOCOLS)
    return PROTOCOLS[name]


@dataclass(frozen=True)
class Verdict:
    """What one query finds in the gallery, as ascending columns: its true matches, and who leaves for it alone."""

    matches: np.ndarray
    absent: np.ndarray


class Judge:
    """Gives the `Verdict` for each query of an evaluation; sorts the gallery by pid once, so that a look-up is short.

    `absent`: gallery columns that leave for every query.
    """

    def __init__(self, protocol: Protocol, pids: np.ndarray, camids: np.ndarray) -> None:
        """`pids`, `camids`: (G,) int64 of the gallery."""
        leaves = (pids == JUNK) | ((pids == DISTRACTOR) & (not protocol.keep_distractors))
        self.absent = np.flatnonzero(leaves)
        self._protocol = protocol
        self._camids = camids
        self._by_pid = np.argsort(pids, kind="stable")
        self._sorted_pids = pids[self._by_pid]
        self._by_camera: dict[int, np.ndarray] = {}
        if protocol.other_cameras_only:
            self._by_camera = {int(camid): np.flatnonzero(camids == camid) for camid in np.unique(camids)}

    def verdict(self, pid: int, camid: int) -> Verdict:
        """Who is right and who is absent for a query; no one is right for a pid below 1."""
        first, last = np.searchsorted(self._sorted_pids, (pid, pid + 1)) if pid > DISTRACTOR else (0, 0)
        people = self._by_pid[first:last]
        own_camera = self._camids[people] == camid
        if self._protocol.other_cameras_only:
            return Verdict(people[~own_camera], self._by_camera.get(camid, people[:0]))
        if self._protocol.ignore_own_camera_matches:
            return Verdict(people[~own_camera], people[own_camera])
        return Verdict(people, people[:0])
