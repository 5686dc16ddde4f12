"""The rules of an evaluation: which gallery images a query sees, and which of them are true matches."""

from __future__ import annotations

import typing
from dataclasses import dataclass

import numpy as np

from ptlreid.errors import DataError
from ptlreid.plugins import unknown_name
from ptlreid.records import DISTRACTOR, JUNK


@dataclass(frozen=True)
class Protocol:
    """Rules that hold for every query of an evaluation.

    A true match has the query's pid, which must be 0 or more. Junk (pid -1) is always ignored.
    `ignore_own_camera_matches`: gallery images of the query's identity from the query's camera are ignored.
    `ignore_own_clothes_matches`: those of the query's identity in the query's clothes are, too.
    `other_cameras_only`: all gallery images from the query's camera are. `single_shot`: the CMC sees one randomly
    sampled image per identity; each distractor counts as an identity of its own. `keep_distractors`: images with pid
    -2 stay in the gallery, as false matches. `leave_one_out`: a query that is in the gallery itself is ignored there,
    see `find_own_images`.
    """

    name: str
    ignore_own_camera_matches: bool = False
    ignore_own_clothes_matches: bool = False
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
        # Qian et al., ACCV 2020 (LTCC), the cloth-changing setting; their standard setting is that of Market-1501.
        Protocol("cloth-changing", ignore_own_camera_matches=True, ignore_own_clothes_matches=True),
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


class Labels(typing.Protocol):
    """What a protocol looks at, of N images: `Features` and `Records` have it."""

    @property
    def pids(self) -> np.ndarray: ...

    @property
    def camids(self) -> np.ndarray: ...

    @property
    def clothes(self) -> np.ndarray | None: ...


@dataclass(frozen=True)
class Verdict:
    """One query's true matches in the gallery, and the images ignored for this query: ascending columns."""

    matches: np.ndarray
    absent: np.ndarray


class Judge:
    """Applies a protocol to one query after another; the gallery is sorted once, so that each lookup is fast."""

    def __init__(self, protocol: Protocol, query: Labels, gallery: Labels) -> None:
        """Raises `DataError` if labels are missing that the protocol needs."""
        missing = [name for name, side in (("query", query), ("gallery", gallery)) if side.clothes is None]
        if protocol.ignore_own_clothes_matches and missing:
            raise DataError(
                f"The protocol {protocol.name!r} needs the clothes of every image, and {' and '.join(missing)} have "
                "none: expected a dataset that labels them, such as ltcc, or feature files with `clothes`. Choose "
                "another --protocol."
            )
        self._protocol = protocol
        self._query, self._gallery = query, gallery
        self._by_pid = columns_by_label(gallery.pids)
        self._by_camera = columns_by_label(gallery.camids) if protocol.other_cameras_only else {}
        self._none = np.empty(0, dtype=np.int64)
        junk, distractors = gallery.pids == JUNK, gallery.pids == DISTRACTOR
        self._always_absent = np.flatnonzero(junk | (distractors & (not protocol.keep_distractors)))

    def verdict(self, row: int, own: np.ndarray | None = None) -> Verdict:
        """The protocol's verdict for the query at `row`, which may be without a match; one with a negative pid always
        is.

        `own`: the columns of the query itself, which are ignored.
        """
        if own is not None:
            verdict = self.verdict(row)
            return Verdict(np.setdiff1d(verdict.matches, own), np.union1d(verdict.absent, own))
        pid, camid = int(self._query.pids[row]), int(self._query.camids[row])
        images = self._by_pid.get(pid, self._none) if pid >= 0 else self._none
        ignored = self._gallery.camids[images] == camid
        if self._protocol.other_cameras_only:
            return Verdict(images[~ignored], self._by_camera.get(camid, self._none))
        if not self._protocol.ignore_own_camera_matches:
            return Verdict(images, self._none)
        if self._protocol.ignore_own_clothes_matches:
            assert self._query.clothes is not None
            assert self._gallery.clothes is not None
            ignored |= self._gallery.clothes[images] == self._query.clothes[row]
        return Verdict(images[~ignored], images[ignored])

    def hide(self, keys: np.ndarray, verdict: Verdict) -> None:
        """Sets a query's `keys`, (G,), to infinity where an image is absent."""
        for absent in (self._always_absent, verdict.absent):
            if len(absent):
                keys[absent] = np.inf


def columns_by_label(labels: np.ndarray) -> dict[typing.Any, np.ndarray]:
    """The ascending columns of each label; none for no column."""
    if not len(labels):
        return {}
    order = np.argsort(labels, kind="stable")
    present, firsts = np.unique(labels[order], return_index=True)
    return dict(zip(present.tolist(), np.split(order, firsts[1:]), strict=True))
