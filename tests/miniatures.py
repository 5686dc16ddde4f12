"""A few images in the layout of each public dataset, named like the real files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np
from conftest import write_image
from scipy.io import savemat

from ptlreid.datasets import cuhk03

# By hand: 4 training identities, 2 cameras, 2 images each; 3 test identities, a query and a gallery image per camera.
MARKET = {
    "train_images": 16,
    "train_identities": 4,
    "query_images": 6,
    "query_identities": 3,
    "gallery_images": 8,  # with one junk image and one distractor
    "gallery_identities": 3,
    "cameras": 2,
}
# As Market's miniature, plus one identity that is only in the gallery.
DUKE = {**MARKET, "gallery_images": 7, "gallery_identities": 4}
# 3 training identities x 3 cameras, the third in list_val; 2 test identities x 2 cameras x 1 query and 1 gallery image.
MSMT17 = {
    "train_images": 6,
    "train_identities": 3,
    "query_images": 4,
    "query_identities": 2,
    "gallery_images": 4,
    "gallery_identities": 2,
    "cameras": 3,
}


def write_market(folder: Path) -> None:
    """`0002_c1s1_000451_03.jpg`, with a junk image and a distractor."""
    _write_parts(folder, "{pid:04d}_c{camid}s1_{frame:06d}_00.jpg", (1, 2))
    write_image(folder / "bounding_box_test" / "-1_c1s1_000003_00.jpg", 1001)
    write_image(folder / "bounding_box_test" / "0000_c2s1_000004_00.jpg", 1002)


def write_duke(folder: Path) -> None:
    """`0002_c1_f0044158.jpg`."""
    _write_parts(folder, "{pid:04d}_c{camid}_f{frame:07d}.jpg", (2, 5))
    write_image(folder / "bounding_box_test" / "0008_c5_f0050120.jpg", 1001)


def _write_parts(folder: Path, name: str, cameras: tuple[int, int]) -> None:
    seed = 0
    for pid in range(1, 8):
        for camid in cameras:
            for test_part, frame in (("query", 1), ("bounding_box_test", 2)):
                part = test_part if pid > 4 else "bounding_box_train"
                seed += 1
                write_image(folder / part / name.format(pid=pid, camid=camid, frame=frame), seed)


def write_msmt17(folder: Path, version: str) -> None:
    """`train/0000/0000_000_01_0303morning_0008_0.jpg`, and the four lists; V2 masks faces and adds `_ex` to names."""
    train, test, end = ("train", "test", "") if version == "v1" else ("mask_train_v2", "mask_test_v2", "_ex")
    lists: dict[str, list[str]] = {"train": [], "val": [], "query": [], "gallery": []}
    for pid in range(3):
        for number, camid in enumerate((1, 4, 12)):
            name = f"{pid:04d}/{pid:04d}_{number:03d}_{camid:02d}_0303morning_{number + 8:04d}_0{end}.jpg"
            write_image(folder / train / name, 10 * pid + number)
            lists["val" if camid == 12 else "train"].append(f"{name} {pid}")
    for pid in range(2):
        for number, (part, camid) in enumerate((("query", 1), ("gallery", 1), ("query", 4), ("gallery", 4))):
            name = f"{pid:04d}/{pid:04d}_{number:03d}_{camid:02d}_0113afternoon_{number + 8:04d}_2{end}.jpg"
            write_image(folder / test / name, 1000 + 10 * pid + number)
            lists[part].append(f"{name} {pid}")
    for part, lines in lists.items():
        (folder / f"list_{part}.txt").write_text("\n".join(lines) + "\n")


# Identities per camera pair; the real split has some of them in training and others in the test set.
CUHK03_PERSONS = (9, 4, 2, 1, 1)


def cuhk03_rows() -> list[dict[str, str]]:
    """The rows of the real 767/700 split for the identities of the miniature."""
    wanted = {
        f"{pair}_{person:03d}" for pair, persons in enumerate(CUHK03_PERSONS, 1) for person in range(1, persons + 1)
    }
    return [row for row in cuhk03.read_new_split() if row["file"][:5] in wanted]


def write_cuhk03(file: Path, rows: Sequence[dict[str, str]]) -> None:
    """`cuhk-03.mat` as MATLAB writes it (v7.3), with an image for each row."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(file, "w", userblock_size=512) as content:
        store = content.create_group("#refs#")

        def store_array(value: np.ndarray) -> h5py.Reference:
            return store.create_dataset(f"r{len(store)}", data=value).ref

        def cells(shape: tuple[int, ...], references: list[h5py.Reference]) -> np.ndarray:
            array = np.empty(shape, dtype=h5py.ref_dtype)
            array.ravel()[:] = references
            return array

        for labelling in ("labeled", "detected"):
            existing = {row["file"] for row in rows if row["labelling"] == labelling}
            pairs = []
            for pair, persons in enumerate(CUHK03_PERSONS, 1):
                images = []
                for image in range(10):  # the first axis in HDF5, the second in MATLAB
                    for person in range(persons):
                        name = f"{pair}_{person + 1:03d}_{1 if image < 5 else 2}_{image + 1:02d}"
                        images.append(store_array(cuhk03_image(labelling, name).T if name in existing else _empty()))
                pairs.append(store.create_dataset(f"p{len(store)}", data=cells((10, persons), images)).ref)
            content.create_dataset(labelling, data=cells((1, 5), pairs), dtype=h5py.ref_dtype)
        # Set k tests persons k and k + 1 (cyclically) of the first pair, and person 2 of the second.
        sets = [np.array([[1, 1, 2], [k % 9 + 1, (k + 1) % 9 + 1, 2]], dtype=np.float64) for k in range(20)]
        content.create_dataset(
            "testsets", data=cells((1, 20), [store_array(one) for one in sets]), dtype=h5py.ref_dtype
        )
    with file.open("r+b") as stream:
        stream.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\x00\x02IM")


def cuhk03_image(labelling: str, name: str) -> np.ndarray:
    """(64, 32, 3) uint8, determined by labelling and name."""
    seed = int(name.replace("_", "")) * 2 + (labelling == "detected")
    return np.random.default_rng(seed).integers(0, 256, size=(64, 32, 3), dtype=np.uint8)


def _empty() -> np.ndarray:
    return np.zeros(2, dtype=np.uint64)  # MATLAB keeps the size of an empty array, [0 0]


def write_veri(folder: Path) -> None:
    """`image_train/0001_c001_00016450_0.jpg`."""
    _write_parts(folder, "{pid:04d}_c{camid:03d}_{frame:08d}_0.jpg", (1, 2))
    for old, new in (
        ("bounding_box_train", "image_train"),
        ("query", "image_query"),
        ("bounding_box_test", "image_test"),
    ):
        (folder / old).rename(folder / new)


def write_viper(folder: Path, persons: int = 6) -> None:
    """`cam_a/000_45.bmp`, the persons counted from 0."""
    for number in range(2 * persons):
        name = f"{number // 2:03d}_{(0, 90)[number % 2]}.bmp"
        write_image(folder / ("cam_a", "cam_b")[number % 2] / name, number)


def write_prid2011(folder: Path) -> None:
    """`single_shot/cam_a/person_0001.png`, persons 1 to 6 by A and 1 to 9 by B: at 4 shared ones, 5 and 6 are two."""
    for camera, last in (("a", 6), ("b", 9)):
        for pid in range(1, last + 1):
            write_image(folder / "single_shot" / f"cam_{camera}" / f"person_{pid:04d}.png", pid + 100 * (camera == "b"))
    write_image(folder / "multi_shot" / "cam_a" / "person_0001" / "0001.png", 999)


def write_prcc(folder: Path) -> None:
    """`rgb/train/001/A_cropped_rgb001.jpg`, `rgb/test/A/004/cropped_rgb001.jpg`: 3 and 3 persons, two images each."""
    for pid in range(1, 7):
        for number, camera in enumerate("ABC"):
            for frame in (1, 2):
                seed, name = 100 * pid + 10 * number + frame, f"cropped_rgb{frame:03d}.jpg"
                place = f"train/{pid:03d}/{camera}_{name}" if pid < 4 else f"test/{camera}/{pid:03d}/{name}"
                write_image(folder / "rgb" / place, seed)
    for pid in (1, 2, 3):
        write_image(folder / "rgb" / "val" / f"{pid:03d}" / "C_cropped_rgb009.jpg", 2000 + pid)


def write_ltcc(folder: Path) -> None:
    """`train/001_1_c1_000001.png`: persons 0 to 2 train, and 3 to 5 are tested, each in clothes 1, 2 by cameras 1, 2.

    Person 5 has one set of clothes.
    """
    for pid in range(6):
        for clothes in (1, 2) if pid < 5 else (1,):
            for camid in (1, 2):
                for test_part, frame in (("query", 1), ("test", 2)):
                    seed = 1000 * pid + 100 * clothes + 10 * camid + frame
                    name = f"{pid:03d}_{clothes}_c{camid}_{seed:06d}.png"
                    write_image(folder / (test_part if pid > 2 else "train") / name, seed)


def write_vehicleid(folder: Path) -> None:
    """`image/0000001.jpg` and the lists: vehicles 1 to 3 train, 4 to 6 in all test sets, and 7 in the larger two."""
    rows = [(3 * vehicle + number, vehicle) for vehicle in range(1, 8) for number in range(3)]
    tests = {"test_list_800": (4, 5, 6), "test_list_1600": (4, 5, 6, 7), "test_list_2400": (4, 5, 6, 7)}
    for name, vehicles in {"train_list": (1, 2, 3), **tests}.items():
        lines = [f"{image:07d} {vehicle}\n" for image, vehicle in rows if vehicle in vehicles]
        (folder / "train_test_split").mkdir(parents=True, exist_ok=True)
        (folder / "train_test_split" / f"{name}.txt").write_text("".join(lines))
    for image, _ in [*rows, (99, 0)]:  # the last is in no list
        write_image(folder / "image" / f"{image:07d}.jpg", image)


# Person, camera and number of frames of each tracklet; the test part has junk (-1) and a distractor (0) as well.
MARS_TRACKS = {
    "train": ((1, 1, 2), (1, 2, 3), (3, 1, 1), (3, 6, 4)),
    "test": ((-1, 1, 2), (0, 2, 3), (2, 1, 3), (2, 1, 2), (2, 4, 5), (4, 1, 2), (4, 2, 1)),
}
MARS_QUERIES = (3, 5, 7)  # rows of the test part, from 1


def write_mars(folder: Path) -> None:
    """`bbox_test/0002/0002C1T0001F001.jpg`, and the five lists in `info`, with lines that end as on Windows."""
    (folder / "info").mkdir(parents=True)
    for part, tracks in MARS_TRACKS.items():
        names: list[str] = []
        rows = []
        for number, (pid, camid, frames) in enumerate(tracks, start=1):
            person = "00-1" if pid == -1 else f"{pid:04d}"
            rows.append((len(names) + 1, len(names) + frames, pid, camid))
            for frame in range(1, frames + 1):
                names.append(f"{person}C{camid}T{number:04d}F{frame:03d}.jpg")
                seed = 1000 * (part == "test") + len(names)
                write_image(folder / f"bbox_{part}" / person / names[-1], seed)
        (folder / "info" / f"{part}_name.txt").write_bytes("".join(f"{name}\r\n" for name in names).encode())
        table = {f"track_{part}_info": np.array(rows, dtype=float)}
        savemat(folder / "info" / f"tracks_{part}_info.mat", table, do_compression=True)
    savemat(folder / "info" / "query_IDX.mat", {"query_IDX": np.array([MARS_QUERIES], float)})
