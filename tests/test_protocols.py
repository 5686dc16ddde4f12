"""The rules of each protocol, on galleries small enough to read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ptlreid.errors import DataError, OptionError
from ptlreid.records import Records
from ptlreid.retrieval.protocols import PROTOCOLS, Judge, Protocol, find_protocol

#                 0   1  2  3  4  5
PIDS = np.array([-1, -2, 7, 7, 8, 8])
CAMIDS = np.array([1, 1, 1, 2, 1, 2])
CLOTHES = np.array([5, 5, 5, 6, 6, 5])


def images(pids, camids, clothes=None) -> Records:
    return Records.make([Path()] * len(pids), pids, camids, "some", clothes)


def seen(protocol: Protocol, pid: int, camid: int, clothes: int = 5) -> tuple[list[int], list[int]]:
    """The columns that one query sees, and its true matches."""
    judge = Judge(protocol, images([pid], [camid], [clothes]), images(PIDS, CAMIDS, CLOTHES))
    verdict = judge.verdict(0)
    keys = np.zeros(len(PIDS), dtype=np.float32)
    judge.hide(keys, verdict)
    return np.flatnonzero(keys < np.inf).tolist(), verdict.matches.tolist()


def test_market_hides_junk_and_the_persons_own_camera():
    assert seen(find_protocol("market"), 7, 1) == ([1, 3, 4, 5], [3])
    assert seen(find_protocol("market"), 8, 3) == ([1, 2, 3, 4, 5], [4, 5])


def test_cloth_changing_hides_the_persons_own_camera_and_clothes():
    """Clothes count from their own number for each person: columns 4 and 5 are of another one."""
    changing = find_protocol("cloth-changing")
    assert seen(changing, 7, 1, 5) == ([1, 3, 4, 5], [3])
    assert seen(changing, 7, 1, 6) == ([1, 4, 5], [])
    assert seen(changing, 8, 3, 5) == ([1, 2, 3, 4], [4])
    assert seen(changing, 8, 3, 9) == ([1, 2, 3, 4, 5], [4, 5])


@pytest.mark.parametrize("missing", ["query", "gallery", "query and gallery"])
def test_cloth_changing_needs_the_clothes(missing):
    labelled, none = images([7], [1], [5]), images([7], [1])
    sides = [none if name in missing else labelled for name in ("query", "gallery")]
    with pytest.raises(DataError, match=rf"'cloth-changing' needs the clothes of every image, and {missing} have none"):
        Judge(find_protocol("cloth-changing"), *sides)
    assert Judge(find_protocol("market"), *sides).verdict(0).absent.tolist() == [0]


def test_classic_cuhk03_hides_the_whole_camera():
    assert seen(find_protocol("cuhk03-classic"), 7, 1) == ([3, 5], [3])
    assert find_protocol("cuhk03-classic").single_shot


def test_any_camera_hides_junk_alone():
    assert seen(find_protocol("any-camera"), 7, 1) == ([1, 2, 3, 4, 5], [2, 3])


def test_distractors_can_be_left_out():
    assert seen(Protocol("own", keep_distractors=False), 7, 1) == ([2, 3, 4, 5], [2, 3])


@pytest.mark.parametrize("pid", [-1, -2, 9])
def test_junk_distractors_and_strangers_match_nobody(pid: int):
    assert all(seen(protocol, pid, 2)[1] == [] for protocol in PROTOCOLS.values())


def test_a_near_miss_is_answered_with_a_hint():
    with pytest.raises(OptionError, match="Did you mean 'market'"):
        find_protocol("markt")


def test_every_protocol_is_found_by_its_name():
    assert [find_protocol(name) for name in PROTOCOLS] == list(PROTOCOLS.values())
    assert set(PROTOCOLS) == {"market", "cloth-changing", "cuhk03-classic", "single-shot", "any-image", "any-camera"}
