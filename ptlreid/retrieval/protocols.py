"""The rules of an evaluation: which gallery images a query sees, and which of them are true matches."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ptlreid.plugins import unknown_name
from ptlreid.records import DISTRACTOR, JUNK


@dataclass(frozen=True)
class Protocol:
    """Rules that hold for every query of an evaluation.

    A true match has the query's pid, which must be 0 or more. Junk (pid -1) is always ignored.
    `ignore_own_camera_matches`: gallery images of the query's identity from the query's camera are ignored.
    `other_cameras_only`: all gallery images from the query's camera are. `single_shot`: the CMC sees one randomly
    sampled image per identity; each distractor counts as an identity of its own. `keep_distractors`: images with pid
    -2 stay in the gallery, as false matches. `leave_one_out`: a query that is in the gallery itself is ignored there,
    see `find_own_images`.
    """

    name: str
    ignore_own_camera_matches: bool = False
    other_cameras_only: bool = False
    single_shot: bool = False
    keep_distractors: bool = True
    leave_one_out: bool = False


PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        # Zheng et al., "Scalable person re-identification: a benchmark", ICCV 2015, section 3; the same rules in
        # DukeMTMC-reID (Zheng et al., ICCV 2017), CUHK03 767/700 (Zhong et al., CVPR 2017) and MSMT17 (Wei et al.,
        # CVPR 2018).
        Protocol("market", ignore_own_camera_matches=True),
        # Li et al., "DeepReID", CVPR 2014, section 6.1: the gallery is the other camera, one image per identity.
        Protocol("cuhk03-classic", other_cameras_only=True, single_shot=True),
        # The same rules, of datasets with two cameras: VIPeR (Gray et al., PETS 2007), PRID2011 (Hirzer et al., SCIA
        # 2011), and PRCC (Yang et al., TPAMI 2021).
        Protocol("single-shot", other_cameras_only=True, single_shot=True),
        # Liu et al., CVPR 2016 (VehicleID): no cameras are known, and no query is in the gallery.
        Protocol("any-image"),
        # Our own, for identities seen by one camera only, where the rules above would leave no match.
        Protocol("any-camera", leave_one_out=True),
    )
}


def find_protocol(name: str) -> Protocol:
    """The protocol called `name`; an `OptionError` with the nearest name when there is none."""
    if name not in PROTOCOLS:
        raise unknown_name("protocol", name, PROTOCOLS)
    return PROTOCOLS[name]


@dataclass(frozen=True)
class Verdict:
    """One query's true matches in the gallery, and the images ignored for this query: ascending columns."""

    matches: np.ndarray
    absent: np.ndarray


class Judge:
    """Applies a protocol to one query after another; the gallery is sorted once, so that each lookup is fast."""

    def __init__(self, protocol: Protocol, pids: np.ndarray, camids: np.ndarray) -> None:
        """`pids`, `camids`: (G,) int64 of the gallery."""
        self._protocol = protocol
        self._camids = camids
        self._by_pid = _columns_by_label(pids)
        self._by_camera = _columns_by_label(camids) if protocol.other_cameras_only else {}
        self._none = np.empty(0, dtype=np.int64)
        self._always_absent = np.flatnonzero((pids == JUNK) | ((pids == DISTRACTOR) & (not protocol.keep_distractors)))

    def verdict(self, pid: int, camid: int, own: np.ndarray | None = None) -> Verdict:
        """The protocol's verdict for a query, which may be without a match; a query with a negative pid always is.

        `own`: the columns of the query itself, which are ignored.
        """
        if own is not None:
            verdict = self.verdict(pid, camid)
            return Verdict(np.setdiff1d(verdict.matches, own), np.union1d(verdict.absent, own))
        images = self._by_pid.get(pid, self._none) if pid >= 0 else self._none
        own_camera = self._camids[images] == camid
        if self._protocol.other_cameras_only:
            return Verdict(images[~own_camera], self._by_camera.get(camid, self._none))
        if self._protocol.ignore_own_camera_matches:
            return Verdict(images[~own_camera], images[own_camera])
        return Verdict(images, self._none)

    def hide(self, keys: np.ndarray, verdict: Verdict) -> None:
        """Sets a query's `keys`, (G,), to infinity where an image is absent."""
        for absent in (self._always_absent, verdict.absent):
            if len(absent):
                keys[absent] = np.inf


def _columns_by_label(labels: np.ndarray) -> dict[int, np.ndarray]:
    """The ascending columns of each label."""
    order = np.argsort(labels, kind="stable")
    present, firsts = np.unique(labels[order], return_index=True)
    return dict(zip(present.tolist(), np.split(order, firsts[1:]), strict=True))
