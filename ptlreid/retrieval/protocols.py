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
        raise unknown("protocol", name, PROTOCOLS)
    return PROTOCOLS[name]


@dataclass(frozen=True)
class Pairs:
    """P pairs of a row and a column of a block, (P,) each, in ascending order of row, then column."""

    rows: np.ndarray
    columns: np.ndarray

    def select(self, mask: np.ndarray) -> Pairs:
        return Pairs(self.rows[mask], self.columns[mask])


class Judge:
    """Applies a protocol to blocks of queries; the gallery is put in order of pid once, so that a look-up is short."""

    def __init__(self, protocol: Protocol, pids: np.ndarray, camids: np.ndarray) -> None:
        """`pids`, `camids`: (G,) int64 of the gallery."""
        self._protocol = protocol
        self._camids = camids
        self._absent = np.flatnonzero((pids == JUNK) | ((pids == DISTRACTOR) & (not protocol.keep_distractors)))
        self._by_pid = np.argsort(pids, kind="stable")
        self._sorted_pids = pids[self._by_pid]

    def remove(self, keys: np.ndarray, pids: np.ndarray, camids: np.ndarray) -> None:
        """Writes infinity into `keys`, (B, G), where an image is absent for one of B queries."""
        keys[:, self._absent] = np.inf
        if self._protocol.ignore_own_camera_matches:
            people = self._same_person(pids)
            own = people.select(self._camids[people.columns] == camids[people.rows])
            keys[own.rows, own.columns] = np.inf
        if self._protocol.other_cameras_only:
            for camid in np.unique(camids):
                keys[np.ix_(camids == camid, self._camids == camid)] = np.inf

    def matches(self, pids: np.ndarray, camids: np.ndarray) -> Pairs:
        """The true matches of B queries; a query may have none, and one with a pid below 1 has none."""
        people = self._same_person(pids)
        if self._protocol.ignore_own_camera_matches or self._protocol.other_cameras_only:
            return people.select(self._camids[people.columns] != camids[people.rows])
        return people

    def _same_person(self, pids: np.ndarray) -> Pairs:
        firsts = np.searchsorted(self._sorted_pids, pids)
        counts = np.searchsorted(self._sorted_pids, pids, side="right") - firsts
        counts[pids <= DISTRACTOR] = 0
        within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        return Pairs(np.repeat(np.arange(len(pids)), counts), self._by_pid[np.repeat(firsts, counts) + within])
