"""The generator of synthetic pedestrians."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ptlreid.datasets._synthetic import SITES, Site, crews, draw_site
from ptlreid.datasets._synthetic.cameras import colour_matrix
from ptlreid.datasets._synthetic.plans import Shot, file_name, frame_number, plan, visit
from ptlreid.errors import DataError, OptionError

NAME = re.compile(r"(-1|\d{4,})_c(\d+)s(\d+)_(\d{6})_(\d{2})\.jpg")
FOLDERS = ("bounding_box_train", "query", "bounding_box_test")
SMALL = {"identities": 5, "cameras": 3, "images_per_camera": 3, "height": 64, "width": 32, "seed": 7}


def draw(folder: Path, site: str = "a", workers: int = 1, **changes: int) -> Path:
    draw_site(SITES[site], folder, workers=workers, **(SMALL | changes))
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*.jpg"))}


def shots(folder: Path, part: str) -> list[tuple[int, int, int, Path]]:
    """Person, camera, frame and path of every image in one of the three folders."""
    found = []
    for path in sorted((folder / part).iterdir()):
        match = NAME.fullmatch(path.name)
        assert match is not None, path.name
        found.append((int(match[1]), int(match[2]), int(match[4]), path))
    return found


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image, dtype=np.float64)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw(tmp_path_factory.mktemp("site"))


def test_the_counts_are_those_of_the_options(drawn):
    # 5 people: 3 train, 2 test. 3 cameras x 3 images each; one query per test person and camera.
    # Gallery: 2 x 3 x 2 = 12 images of people, 12 x 0.05 / 0.85 = 0.7 junk, 12 x 0.10 / 0.85 = 1.4 distractors.
    assert {part: len(shots(drawn, part)) for part in FOLDERS} == {
        "bounding_box_train": 3 * 3 * 3,
        "query": 2 * 3,
        "bounding_box_test": 12 + 1 + 1,
    }


def test_a_twentieth_of_the_gallery_is_junk_and_a_tenth_distractors():
    # 34 test people x 6 cameras x 1 image = 204 = 85% of 240; 12 and 24 are 5% and 10% of it.
    gallery = Counter(min(shot.pid, 1) for shot in plan(68, 6, 2) if shot.split == "bounding_box_test")
    assert gallery == {1: 204, -1: 12, 0: 24}


def test_train_and_test_people_are_disjoint_and_count_from_one(drawn):
    people = {part: {pid for pid, *_ in shots(drawn, part) if pid > 0} for part in FOLDERS}
    assert people == {"bounding_box_train": {1, 2, 3}, "query": {4, 5}, "bounding_box_test": {4, 5}}


def test_junk_and_distractors_are_in_the_gallery_alone(drawn):
    strangers = {part: {pid for pid, *_ in shots(drawn, part)} & {-1, 0} for part in FOLDERS}
    assert strangers == {"bounding_box_train": set(), "query": set(), "bounding_box_test": {-1, 0}}


@pytest.mark.parametrize("images_per_camera", [2, 3])
@pytest.mark.parametrize("identities", [4, 7])
def test_every_query_has_a_match_from_another_camera(tmp_path, identities, images_per_camera):
    draw(tmp_path, identities=identities, images_per_camera=images_per_camera, cameras=2)
    gallery = {(pid, camera) for pid, camera, *_ in shots(tmp_path, "bounding_box_test")}
    for pid, camera, *_ in shots(tmp_path, "query"):
        assert any((pid, other) in gallery for other in (1, 2) if other != camera)


def test_every_camera_sees_every_person(drawn):
    for part, images in (("bounding_box_train", 3), ("query", 1), ("bounding_box_test", 2)):
        seen = Counter((pid, camera) for pid, camera, *_ in shots(drawn, part) if pid > 0)
        assert set(seen.values()) == {images}
        assert {camera for _, camera in seen} == {1, 2, 3}


def test_a_second_run_writes_the_same_bytes(drawn, tmp_path):
    assert contents(draw(tmp_path)) == contents(drawn)


def test_the_number_of_workers_does_not_change_a_byte(drawn, tmp_path):
    assert contents(draw(tmp_path, workers=2)) == contents(drawn)


def test_more_people_and_cameras_leave_the_images_of_a_training_person_as_they_were(drawn, tmp_path):
    few, many = contents(drawn), contents(draw(tmp_path, identities=6, cameras=4, images_per_camera=4))
    train = [name for name in few if name.startswith("bounding_box_train")]
    assert train
    assert all(many[name] == few[name] for name in train)


@pytest.mark.parametrize("changes", [{"seed": 8}, {"site": "b"}, {"site": "c"}])
def test_another_seed_or_site_gives_other_images(drawn, tmp_path, changes):
    first, other = contents(drawn), contents(draw(tmp_path, **changes))
    assert not set(first.values()) & set(other.values())


def test_two_images_of_a_person_at_a_camera_differ_in_more_than_light(drawn):
    for pid in (1, 2, 3):
        for camera in (1, 2, 3):
            images = [pixels(path).ravel() for *who, _, path in shots(drawn, FOLDERS[0]) if who == [pid, camera]]
            alike = np.corrcoef(np.stack(images))
            assert alike[np.triu_indices(3, k=1)].max() < 0.97


@pytest.mark.parametrize(("height", "width"), [(128, 64), (96, 32), (32, 16), (48, 96)])
def test_images_have_the_size_asked_for(tmp_path, height, width):
    draw(tmp_path, identities=4, cameras=2, images_per_camera=2, height=height, width=width)
    assert {pixels(path).shape for part in FOLDERS for *_, path in shots(tmp_path, part)} == {(height, width, 3)}


def test_images_are_neither_blank_nor_burnt_out(drawn):
    for part in FOLDERS:
        for *_, path in shots(drawn, part):
            image = pixels(path)
            assert 15 < image.mean() < 240
            assert image.std() > 8


def test_the_exposure_of_a_camera_drifts_over_the_day(tmp_path):
    draw(tmp_path, identities=60, cameras=2, images_per_camera=2, height=32, width=16)
    images = [shot for part in FOLDERS for shot in shots(tmp_path, part)]
    light = {shot: pixels(shot[-1]).mean() for shot in images}
    for camera in (1, 2):
        early = [light[shot] for shot in images if shot[1] == camera and shot[2] < 30_000]
        late = [light[shot] for shot in images if shot[1] == camera and shot[2] > 70_000]
        # The log exposure moves by 0.36 at least from the first frame to the last, so by half of it between these.
        assert abs(np.log(np.mean(late) / np.mean(early))) > 0.1


def test_people_keep_their_clothes_and_differ_from_each_other(tmp_path):
    """At one camera, the middle of the body tells people apart better than chance."""
    draw(tmp_path, identities=24, cameras=2, images_per_camera=2, height=128, width=64)
    images = [shot for shot in shots(tmp_path, "bounding_box_train") if shot[1] == 1]
    pids = np.array([pid for pid, *_ in images])
    colours = np.stack([pixels(path)[32:80, 24:40].mean(axis=(0, 1)) for *_, path in images])
    apart = np.linalg.norm(colours[:, None] - colours[None], axis=-1)
    same = pids[:, None] == pids[None]
    own = apart[same & ~np.eye(len(pids), dtype=bool)]
    assert np.median(own) < 0.6 * np.median(apart[~same])


def test_cameras_of_a_site_see_the_same_people_in_other_colours(tmp_path):
    draw(tmp_path, identities=16, cameras=6, images_per_camera=2, height=32, width=16)
    images = shots(tmp_path, "bounding_box_train")
    casts = []
    for camera in range(1, 7):
        mean = np.stack([pixels(path).mean(axis=(0, 1)) for _, seen, _, path in images if seen == camera]).mean(axis=0)
        casts.append(np.log(mean[0] / mean[2]))  # red over blue
    assert max(casts) - min(casts) > 0.3


def test_frames_of_a_person_at_a_camera_ascend_and_file_names_never_clash(tmp_path):
    draw(tmp_path, identities=6, images_per_camera=4, height=32, width=16)
    names = [path.name for part in FOLDERS for *_, path in shots(tmp_path, part)]
    assert len(set(names)) == len(names)
    first = {(pid, camera): frame for pid, camera, frame, _ in shots(tmp_path, "query")}
    for pid, camera, frame, _ in shots(tmp_path, "bounding_box_test"):
        assert pid <= 0 or frame > first[pid, camera]


def test_file_names_of_many_strangers_at_one_camera_never_clash():
    for pid in (-1, 0):
        strangers = [Shot("bounding_box_test", pid, 1, index) for index in range(3000)]
        numbers = [frame_number(visit(SITES["a"], 0, shot, 0.0), shot) for shot in strangers]
        names = {file_name(shot, number) for shot, number in zip(strangers, numbers, strict=True)}
        assert len(names) == 3000


def test_one_stop_of_warmth_doubles_red_and_halves_blue():
    np.testing.assert_allclose(colour_matrix(1.0, 0.0, 1.0), np.diag([2.0, 1.0, 0.5]))


def test_without_saturation_every_channel_is_the_luma():
    np.testing.assert_allclose(colour_matrix(0.0, 0.0, 0.0), [[0.30, 0.59, 0.11]] * 3)


def test_sequences_follow_the_time_of_day(drawn):
    for part in FOLDERS:
        for *_, frame, path in shots(drawn, part):
            match = NAME.fullmatch(path.name)
            assert match is not None
            assert int(match[3]) == (1 if frame < 33_334 else 2 if frame < 66_667 else 3)


@pytest.mark.parametrize("workers", [1, 2])
def test_progress_ascends_to_the_number_of_images(tmp_path, workers):
    told: list[tuple[int, int]] = []
    draw_site(SITES["a"], tmp_path, **SMALL, workers=workers, progress=lambda done, total: told.append((done, total)))
    images = len(contents(tmp_path))
    assert told[-1] == (images, images)
    assert [done for done, _ in told] == sorted({done for done, _ in told})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"identities": 3}, "identities: 3 given, at least 4 expected"),
        ({"cameras": 1}, "cameras: 1 given, 2 to 16 expected"),
        ({"cameras": 17}, "cameras: 17 given, 2 to 16 expected"),
        ({"images_per_camera": 1}, "images_per_camera: 1 given, 2 to 1000 expected"),
        ({"height": 31}, "height: 31 given, 32 to 1024 expected"),
        ({"width": 15}, "width: 15 given, 16 to 128 expected"),
        ({"height": 256, "width": 63}, "width: 63 given, 64 to 512 expected"),
        ({"seed": -1}, "seed: -1 given, at least 0 expected"),
        ({"workers": -2}, "workers: -2 given, at least 0 expected"),
    ],
)
def test_options_without_meaning_are_refused_before_anything_is_written(tmp_path, changes, message):
    with pytest.raises(OptionError, match=re.escape(message)):
        draw(tmp_path, **changes)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("site", ["a", "b", "c"])
def test_a_site_has_eight_cameras_at_least_and_the_last_of_them_draws(tmp_path, site):
    assert set(SITES) == {"a", "b", "c"}
    assert isinstance(SITES[site], Site)
    assert SITES[site].cameras >= 8
    draw(tmp_path, site=site, identities=4, cameras=8, images_per_camera=2, height=32, width=16)
    assert {camera for _, camera, *_ in shots(tmp_path, "query")} == set(range(1, 9))


def test_a_process_that_fails_is_an_error_that_tells_why(tmp_path, monkeypatch):
    # A file where the first image goes: no process can write there, and none can be asked in another way.
    real = crews.plan

    def planned(*counts):
        for part in FOLDERS:
            (tmp_path / part).rmdir()
            (tmp_path / part).write_text("in the way")
        return real(*counts)

    monkeypatch.setattr(crews, "plan", planned)
    with pytest.raises(DataError, match="NotADirectoryError"):
        draw(tmp_path, workers=2)
