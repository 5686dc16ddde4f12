"""The generator of synthetic pedestrians."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ptlreid.datasets import synthetic
from ptlreid.datasets._synthetic import SITES, Site, render, render_site
from ptlreid.datasets._synthetic.cameras import colour_matrix
from ptlreid.datasets._synthetic.plan import Shot, file_name, frame_number, plan_shots, sample_tracklet
from ptlreid.errors import OptionError, PtlreidError
from ptlreid.settings import SyntheticSettings

NAME = re.compile(r"(-1|\d{4,})_c(\d+)s(\d+)_(\d{6})_(\d{2})\.jpg")
FOLDERS = ("bounding_box_train", "query", "bounding_box_test")
SMALL = {"identities": 5, "cameras": 3, "images_per_camera": 3, "height": 64, "width": 32, "seed": 7}


def render_small(folder: Path, site: str = "a", processes: int = 1, **changes: int) -> Path:
    render_site(SITES[site], folder, processes=processes, **(SMALL | changes))
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
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return render_small(tmp_path_factory.mktemp("site"))


def test_the_counts_are_those_of_the_options(rendered):
    # 5 identities: 3 train, 2 test. 3 cameras x 3 images each; one query per test identity and camera.
    # Gallery: 2 x 3 x 2 = 12 images of identities, 12 x 0.05 / 0.85 = 0.7 junk, 12 x 0.10 / 0.85 = 1.4 distractors.
    assert {part: len(shots(rendered, part)) for part in FOLDERS} == {
        "bounding_box_train": 3 * 3 * 3,
        "query": 2 * 3,
        "bounding_box_test": 12 + 1 + 1,
    }


def test_a_twentieth_of_the_gallery_is_junk_and_a_tenth_distractors():
    # 34 test identities x 6 cameras x 1 image = 204 = 85% of 240; 12 and 24 are 5% and 10% of it.
    gallery = Counter(min(shot.pid, 1) for shot in plan_shots(68, 6, 2) if shot.split == "bounding_box_test")
    assert gallery == {1: 204, -1: 12, 0: 24}


def test_train_and_test_identities_are_disjoint_and_count_from_one(rendered):
    identities = {part: {pid for pid, *_ in shots(rendered, part) if pid > 0} for part in FOLDERS}
    assert identities == {"bounding_box_train": {1, 2, 3}, "query": {4, 5}, "bounding_box_test": {4, 5}}


def test_junk_and_distractors_are_only_in_the_gallery(rendered):
    without_identity = {part: {pid for pid, *_ in shots(rendered, part)} & {-1, 0} for part in FOLDERS}
    assert without_identity == {"bounding_box_train": set(), "query": set(), "bounding_box_test": {-1, 0}}


@pytest.mark.parametrize("images_per_camera", [2, 3])
@pytest.mark.parametrize("identities", [4, 7])
def test_every_query_has_a_match_from_another_camera(tmp_path, identities, images_per_camera):
    render_small(tmp_path, identities=identities, images_per_camera=images_per_camera, cameras=2)
    gallery = {(pid, camera) for pid, camera, *_ in shots(tmp_path, "bounding_box_test")}
    for pid, camera, *_ in shots(tmp_path, "query"):
        assert any((pid, other) in gallery for other in (1, 2) if other != camera)


def test_every_camera_sees_every_identity(rendered):
    for part, images in (("bounding_box_train", 3), ("query", 1), ("bounding_box_test", 2)):
        seen = Counter((pid, camera) for pid, camera, *_ in shots(rendered, part) if pid > 0)
        assert set(seen.values()) == {images}
        assert {camera for _, camera in seen} == {1, 2, 3}


def test_a_second_run_writes_the_same_bytes(rendered, tmp_path):
    assert contents(render_small(tmp_path)) == contents(rendered)


def test_the_number_of_workers_does_not_change_a_byte(rendered, tmp_path):
    assert contents(render_small(tmp_path, processes=2)) == contents(rendered)


def test_more_identities_and_cameras_leave_the_images_of_a_training_identity_as_they_were(rendered, tmp_path):
    few, many = contents(rendered), contents(render_small(tmp_path, identities=6, cameras=4, images_per_camera=4))
    train = [name for name in few if name.startswith("bounding_box_train")]
    assert train
    assert all(many[name] == few[name] for name in train)


@pytest.mark.parametrize("changes", [{"seed": 8}, {"site": "b"}, {"site": "c"}])
def test_another_seed_or_site_gives_other_images(rendered, tmp_path, changes):
    first, other = contents(rendered), contents(render_small(tmp_path, **changes))
    assert not set(first.values()) & set(other.values())


def test_two_images_of_an_identity_at_a_camera_differ_in_more_than_brightness(rendered):
    for pid in (1, 2, 3):
        for camera in (1, 2, 3):
            images = [pixels(path).ravel() for *who, _, path in shots(rendered, FOLDERS[0]) if who == [pid, camera]]
            alike = np.corrcoef(np.stack(images))
            assert alike[np.triu_indices(3, k=1)].max() < 0.97


@pytest.mark.parametrize(("height", "width"), [(128, 64), (96, 32), (32, 16), (48, 96)])
def test_images_have_the_size_asked_for(tmp_path, height, width):
    render_small(tmp_path, identities=4, cameras=2, images_per_camera=2, height=height, width=width)
    assert {pixels(path).shape for part in FOLDERS for *_, path in shots(tmp_path, part)} == {(height, width, 3)}


def test_images_are_neither_blank_nor_overexposed(rendered):
    for part in FOLDERS:
        for *_, path in shots(rendered, part):
            image = pixels(path)
            assert 15 < image.mean() < 240
            assert image.std() > 8


def test_the_exposure_of_a_camera_drifts_over_the_day(tmp_path):
    render_small(tmp_path, identities=60, cameras=2, images_per_camera=2, height=32, width=16)
    images = [shot for part in FOLDERS for shot in shots(tmp_path, part)]
    light = {shot: pixels(shot[-1]).mean() for shot in images}
    for camera in (1, 2):
        early = [light[shot] for shot in images if shot[1] == camera and shot[2] < 30_000]
        late = [light[shot] for shot in images if shot[1] == camera and shot[2] > 70_000]
        # The log exposure moves by 0.36 at least from the first frame to the last, so by half of it between these.
        assert abs(np.log(np.mean(late) / np.mean(early))) > 0.1


def test_identities_keep_their_clothes_and_differ_from_each_other(tmp_path):
    """At one camera, the colour of the middle of the body separates identities better than chance."""
    render_small(tmp_path, identities=24, cameras=2, images_per_camera=2, height=128, width=64)
    images = [shot for shot in shots(tmp_path, "bounding_box_train") if shot[1] == 1]
    pids = np.array([pid for pid, *_ in images])
    colours = np.stack([pixels(path)[32:80, 24:40].mean(axis=(0, 1)) for *_, path in images])
    apart = np.linalg.norm(colours[:, None] - colours[None], axis=-1)
    same = pids[:, None] == pids[None]
    own = apart[same & ~np.eye(len(pids), dtype=bool)]
    assert np.median(own) < 0.6 * np.median(apart[~same])


def test_cameras_of_a_site_see_the_same_identities_in_other_colours(tmp_path):
    render_small(tmp_path, identities=16, cameras=6, images_per_camera=2, height=32, width=16)
    images = shots(tmp_path, "bounding_box_train")
    casts = []
    for camera in range(1, 7):
        mean = np.stack([pixels(path).mean(axis=(0, 1)) for _, seen, _, path in images if seen == camera]).mean(axis=0)
        casts.append(np.log(mean[0] / mean[2]))  # red over blue
    assert max(casts) - min(casts) > 0.3


def test_frames_of_an_identity_at_a_camera_ascend_and_file_names_never_clash(tmp_path):
    render_small(tmp_path, identities=6, images_per_camera=4, height=32, width=16)
    names = [path.name for part in FOLDERS for *_, path in shots(tmp_path, part)]
    assert len(set(names)) == len(names)
    first = {(pid, camera): frame for pid, camera, frame, _ in shots(tmp_path, "query")}
    for pid, camera, frame, _ in shots(tmp_path, "bounding_box_test"):
        assert pid <= 0 or frame > first[pid, camera]


def test_file_names_of_many_distractors_at_one_camera_never_clash():
    for pid in (-1, 0):
        images = [Shot("bounding_box_test", pid, 1, index) for index in range(3000)]
        numbers = [frame_number(sample_tracklet(SITES["a"], 0, shot, 0.0), shot) for shot in images]
        names = {file_name(shot, number) for shot, number in zip(images, numbers, strict=True)}
        assert len(names) == 3000


def test_one_stop_of_warmth_doubles_red_and_halves_blue():
    np.testing.assert_allclose(colour_matrix(1.0, 0.0, 1.0), np.diag([2.0, 1.0, 0.5]))


def test_without_saturation_every_channel_is_the_luma():
    np.testing.assert_allclose(colour_matrix(0.0, 0.0, 0.0), [[0.30, 0.59, 0.11]] * 3)


def test_sequences_follow_the_time_of_day(rendered):
    for part in FOLDERS:
        for *_, frame, path in shots(rendered, part):
            match = NAME.fullmatch(path.name)
            assert match is not None
            assert int(match[3]) == (1 if frame < 33_334 else 2 if frame < 66_667 else 3)


@pytest.mark.parametrize("workers", [1, 2])
def test_progress_ascends_to_the_number_of_images(tmp_path, workers):
    reports: list[tuple[int, int]] = []
    render_site(
        SITES["a"], tmp_path, **SMALL, processes=workers, progress=lambda done, total: reports.append((done, total))
    )
    images = len(contents(tmp_path))
    assert reports[-1] == (images, images)
    assert [done for done, _ in reports] == sorted({done for done, _ in reports})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"identities": 3}, "identities = 3: expected at least 4"),
        ({"cameras": 1}, "cameras = 1: expected 2 to 16"),
        ({"cameras": 17}, "cameras = 17: expected 2 to 16"),
        ({"images_per_camera": 1}, "images_per_camera = 1: expected 2 to 1000"),
        ({"height": 31}, "height = 31: expected 32 to 1024"),
        ({"width": 15}, "width = 15: expected 16 to 128"),
        ({"height": 256, "width": 63}, "width = 63: expected 64 to 512"),
        ({"seed": -1}, "seed = -1: expected at least 0"),
        ({"processes": -2}, "processes = -2: expected at least 0"),
    ],
)
def test_numbers_out_of_range_are_refused_before_anything_is_written(tmp_path, changes, message):
    with pytest.raises(OptionError, match=re.escape(message)):
        render_small(tmp_path, **changes)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("site", ["a", "b", "c"])
def test_a_site_has_at_least_eight_cameras_and_the_last_of_them_renders(tmp_path, site):
    assert set(SITES) == {"a", "b", "c"}
    assert isinstance(SITES[site], Site)
    assert SITES[site].cameras >= 8
    render_small(tmp_path, site=site, identities=4, cameras=8, images_per_camera=2, height=32, width=16)
    assert {camera for _, camera, *_ in shots(tmp_path, "query")} == set(range(1, 9))


@pytest.mark.parametrize("workers", [1, 2])
def test_a_file_that_cannot_be_written_is_one_clear_message(tmp_path, monkeypatch, workers):
    # A file where the first folder should be: no process can write there.
    def plan_in_vain(*counts):
        for part in (tmp_path / "data").rglob("query"):
            part.rmdir()
            part.write_text("in the way")
        return plan_shots(*counts)

    monkeypatch.setattr(render, "plan_shots", plan_in_vain)
    real = render.render_site
    monkeypatch.setattr("ptlreid.datasets._synthetic.render_site", lambda *a, **k: real(*a, **k, processes=workers))
    with pytest.raises(PtlreidError, match=r"site: cannot be written \(Not a directory\): expected a folder"):
        synthetic.prepare(tmp_path / "data" / "site", "a", SyntheticSettings(**SMALL))
    assert list((tmp_path / "data").iterdir()) == []
