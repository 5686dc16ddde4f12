"""Images in tar files: features, labels, caches and pictures are those of the same files unpacked."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import h5py
import numpy as np
import pytest
from conftest import write_image

import ptlreid as package
from ptlreid import contents
from ptlreid.cache import partial
from ptlreid.datasets._loose_images import LooseImages, find_loose_images
from ptlreid.errors import DataError
from ptlreid.features import Extractor
from ptlreid.image_check import check_images
from ptlreid.image_files import read_image
from ptlreid.progress import Silent


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)


def pack(path: str, members: dict[str, bytes]) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


def image(seed: int) -> bytes:
    write_image(Path("made.jpg"), seed)
    content = Path("made.jpg").read_bytes()
    Path("made.jpg").unlink()
    return content


def find(*sources: str, layout=None, pattern=None, listed=(), labelled=True) -> LooseImages:
    return find_loose_images(sources, layout=layout, pattern=pattern, listed=listed, labelled=labelled)


def rows(images: LooseImages) -> list[tuple[str, str, str]]:
    return list(zip(map(str, images.records.paths), images.identities, images.cameras, strict=True))


def paths(images: LooseImages) -> list[str]:
    return [str(path) for path in images.records.paths]


# Labels as in Market-1501, in folders, and by none; each is read as in a folder of the same files.
TREES = [
    ["0007_c2s1_000001_00.jpg", "0009_c1s1_000002_00.jpg"],
    ["anna/door/1.jpg", "anna/yard/1.jpg", "ben/door/2.jpg"],
    ["anna/1_c1.jpg", "ben/1_c2.jpg"],
    ["1.jpg", "2.jpg"],
    ["cam1/1.jpg", "cam2/1.jpg"],
]


@pytest.mark.parametrize("tree", TREES)
def test_names_and_folders_give_the_labels_that_they_give_in_a_folder(tree):
    for name in tree:
        write_image(Path("loose") / name, 1)
    pack("packed.tar", dict.fromkeys(tree, b"x"))
    loose, packed = find("loose"), find("packed.tar")
    assert rows(packed) == [(path.replace("loose", "packed.tar", 1), *labels) for path, *labels in rows(loose)]
    np.testing.assert_array_equal(packed.records.pids, loose.records.pids)
    np.testing.assert_array_equal(packed.records.camids, loose.records.camids)
    assert packed.notes == [note.replace("loose", "packed") for note in loose.notes]
    pack("several/0.tar", dict.fromkeys(tree[:1], b"x"))
    pack("several/1.tar", dict.fromkeys(tree[1:], b"x"))
    assert [labels for _, *labels in rows(find("several"))] == [labels for _, *labels in rows(loose)]


def test_a_pattern_is_matched_with_names_and_with_paths_that_begin_with_the_tar_file():
    pack("day.tar", {"7_a.jpg": b"", "8_b.jpg": b""})
    assert rows(find("day.tar", pattern=r"(?P<pid>\d)_(?P<camid>\w)")) == [
        ("day.tar/7_a.jpg", "7", "a"),
        ("day.tar/8_b.jpg", "8", "b"),
    ]
    pack("city/day.tar", {"7.jpg": b""})
    pack("city/night.tar", {"7.jpg": b""})
    assert rows(find("city", pattern=r"(?P<camid>\w+)\.tar/(?P<pid>\d)")) == [
        ("city/day.tar/7.jpg", "7", "day"),
        ("city/night.tar/7.jpg", "7", "night"),
    ]


def sample(key: str, **members: object) -> dict[str, bytes]:
    """Members of one sample: bytes as they are, anything else as JSON."""
    return {
        f"{key}.{suffix}": content if isinstance(content, bytes) else json.dumps(content).encode()
        for suffix, content in members.items()
    }


def test_samples_state_identities_and_cameras_by_json_and_cls():
    pack(
        "city.tar",
        {
            **sample("000", jpg=b"", json={"pid": 7, "camid": "door", "more": [1]}, cls=b"8"),
            **sample("001", json={"pid": 7.0, "camid": None}, jpg=b""),
            **sample("a/002", jpg=b"", json={"camid": " yard "}, cls=b"12\n"),
            **sample("003", jpg=b"", json=[1]),
            **sample("004", jpg=b""),
            **sample("005", **{"left.jpg": b"", "right.png": b""}, json={"pid": "007", "camid": -1}),
        },
    )
    images = find("city.tar")
    assert rows(images) == [
        ("city.tar/000.jpg", "7", "door"),
        ("city.tar/001.jpg", "7", ""),
        ("city.tar/003.jpg", "", ""),
        ("city.tar/004.jpg", "", ""),
        ("city.tar/005.left.jpg", "7", ""),
        ("city.tar/005.right.png", "7", ""),
        ("city.tar/a/002.jpg", "12", "yard"),
    ]
    assert images.records.pids.tolist() == [7, 7, -1, -1, 7, 7, 12]
    assert images.notes == [
        "city: 7 images, read as the identities and cameras of samples in tar files (--layout files for none): 2 "
        "identities, 2 cameras"
    ]


def test_an_option_takes_precedence_over_samples_which_are_then_not_read():
    pack("city.tar", {**sample("7_c1", jpg=b"", json=b"not json"), **sample("8_c2", jpg=b"", json={"pid": 1})})
    assert rows(find("city.tar", pattern=r"(?P<pid>\d)"))[1] == ("city.tar/8_c2.jpg", "8", "")
    assert [one[1:] for one in rows(find("city.tar", layout="files"))] == [("", "1"), ("", "2")]
    assert [one[1:] for one in rows(find("city.tar", labelled=False))] == [("", "")] * 2


def test_samples_next_to_images_without_one_label_theirs_only():
    pack("city.tar", sample("0", jpg=b"", json={"pid": 3}))
    write_image(Path("anna/1_c1.jpg"), 1)
    assert rows(find("anna", "city.tar")) == [("anna/1_c1.jpg", "", ""), ("city.tar/0.jpg", "3", "")]


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"json": b"{"}, "city.tar/0.json: is no JSON (Expecting"),
        ({"json": b"\xff"}, "city.tar/0.json: is no JSON ("),
        ({"json": b"[" * 100_000}, "city.tar/0.json: is no JSON ("),
        ({"json": {"pid": True}}, "city.tar/0.json: pid = true: expected a number without a fraction, or a name"),
        ({"json": {"pid": 1.5}}, "city.tar/0.json: pid = 1.5: expected"),
        ({"json": {"pid": [1]}}, "city.tar/0.json: pid = [1]: expected"),
        ({"json": b'{"pid": Infinity}'}, "city.tar/0.json: pid = Infinity: expected"),
        ({"json": {"pid": -3}}, "city.tar/0: pid = -3: expected a number from -2 to 2^63 - 1"),
        ({"json": {"camid": -2}}, "city.tar/0: camid = -2: expected a number from 0"),
        ({"cls": b"-3"}, "city.tar/0: pid = -3: expected"),
    ],
)
def test_a_label_that_is_none_is_refused_with_its_member(members, message):
    pack("city.tar", sample("0", jpg=b"", **members))
    with pytest.raises(DataError) as raised:
        find("city.tar")
    assert message in str(raised.value)


def test_labels_that_say_nothing_are_unknown():
    pack("city.tar", {**sample("0", jpg=b"", json=b'{"pid": NaN}'), **sample("1", jpg=b"", json={"pid": ""})})
    assert [one[1:] for one in rows(find("city.tar"))] == [("", ""), ("", "")]


@pytest.fixture
def city() -> list[str]:
    """Two tar files in folders, with images in another order than that of their names; what they hold, sorted."""
    pack("city/a/0.tar", {"2.jpg": b"", "1.jpg": b"", "1.txt": b""})
    pack("city/b/10.tar", {"1.PNG": b"", ".hidden.jpg": b"", "__MACOSX/1.jpg": b"", "readme.txt": b""})
    return ["city/a/0.tar/1.jpg", "city/a/0.tar/2.jpg", "city/b/10.tar/1.PNG"]


def test_tar_files_are_found_in_folders_lists_and_patterns(city):
    Path("list.txt").write_text("city/b/10.tar\ncity/a/0.tar/2.jpg\n")
    Path("city/list.txt").write_text("a/{0..0}.tar\nb/10.tar\n")
    Path("city/list.csv").write_text("path,pid\na/0.tar/2.jpg,5\n")
    assert paths(find("city", layout="files")) == city
    assert paths(find("city/b/10.tar", "city/a/0.tar", layout="files")) == [city[2], *city[:2]]
    assert paths(find("city/{a/0,b/10}.tar", layout="files")) == city
    assert paths(find("list.txt", layout="files")) == [city[2], city[1]]
    assert paths(find("city/list.txt", layout="files")) == city
    assert rows(find("city/list.csv")) == [(city[1], "5", "")]
    assert paths(find("-", listed=[Path("city/a/0.tar"), Path(city[2])], layout="files")) == city
    assert paths(find(city[1], city[0], labelled=False)) == [city[1], city[0]]
    for number in (8, 9, 10):
        pack(f"n/c-{number:03d}.tar", {"1.jpg": b""})
    assert paths(find("n/c-{008..010}.tar")) == [f"n/c-{number:03d}.tar/1.jpg" for number in (8, 9, 10)]
    assert paths(find("n/c-{010..008}.tar")) == [f"n/c-{number:03d}.tar/1.jpg" for number in (10, 9, 8)]
    pack("n/{1..2}.tar", {"0.jpg": b""})
    assert paths(find("n/{1..2}.tar")) == ["n/{1..2}.tar/0.jpg"]


def test_the_name_of_a_tar_file_says_nothing_of_the_images_in_it(city):
    """A list of its images, and of itself, is read as the folders around it say."""
    Path("list.txt").write_text("\n".join(["anna.tar/x_c1.jpg", "ben.tar/y_c2.jpg"]))
    for name in ("anna", "ben"):
        pack(f"{name}.tar", {"x_c1.jpg": b"", "y_c2.jpg": b""})
    assert [one[1:] for one in rows(find("list.txt"))] == [("", "1"), ("", "2")]
    Path("list.txt").write_text("city/a/0.tar\ncity/b/10.tar")
    assert [one[1] for one in rows(find("list.txt", layout="*/identity"))] == ["a", "a", "b"]
    assert [one[1] for one in rows(find("city", "city", layout="*/identity"))] == ["a", "a", "b"] * 2


def test_what_a_tar_file_holds_besides_samples_is_counted(city):
    assert find("city", layout="files").notes[1:] == [
        "left out: 1 file, b/10.tar/readme.txt: has the suffix .txt, which is none of an image that can be read",
        "left out: 2 files, such as b/10.tar/.hidden.jpg: is hidden, or was left by a file manager",
    ]


def test_tar_files_next_to_loose_images_are_not_read_and_a_note_says_so():
    pack("mixed/old.tar", {"1.jpg": b""})
    pack("mixed/._new.tar", {"1.jpg": b""})
    write_image(Path("mixed/1.jpg"), 1)
    images = find("mixed")
    assert paths(images) == ["mixed/1.jpg"]
    assert (
        "left out: 1 file, old.tar: is a tar file next to loose images, and read only if it is given itself"
        in images.notes
    )
    Path("mixed/1.jpg").unlink()
    assert paths(find("mixed")) == ["mixed/old.tar/1.jpg"]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("none.tar", "none.tar: cannot be read (No such file or directory): expected a tar file of images"),
        ("city/a/{0..1}.tar", "city/a/1.tar: cannot be read (No such file"),
        ("c-{0..999999999999}.tar", "c-{0..999999999999}.tar: stands for more than 100,000 tar files"),
        ("{0..999}{0..999}.tar", "{0..999}{0..999}.tar: stands for more than 100,000 tar files"),
        ("x.tar.gz", "x.tar.gz: is a compressed tar file: expected one without compression"),
        ("x.tgz", "x.tgz: is a compressed tar file"),
        ("zipped", "zipped/x.tar.xz: is a compressed tar file"),
        ("empty.tar", "empty.tar: holds no image"),
        ("x.zip", "x.zip: an empty file: expected a folder, a tar file, an image ("),
    ],
)
def test_what_cannot_be_read_is_one_message(city, source, message):
    Path("zipped").mkdir()
    Path("zipped/x.tar.xz").touch()
    Path("x.zip").touch()
    pack("empty.tar", {})
    with pytest.raises(DataError) as raised:
        find(source)
    assert message in str(raised.value)


IMAGES = 7


@pytest.fixture
def crops() -> list[str]:
    """Seven crops, as loose files in `loose` and in `city-000.tar` and `city-001.tar`; their names."""
    names = [f"{number:06d}.jpg" for number in range(IMAGES)]
    for number, name in enumerate(names):
        write_image(Path("loose") / name, 700 + number)
    for tar, part in (("city-000.tar", names[:4]), ("city-001.tar", names[4:])):
        pack(tar, {name: (Path("loose") / name).read_bytes() for name in part})
    return names


@pytest.fixture
def embed(ptlreid, run, crops):
    """Runs `ptlreid embed ... --run tiny`; returns exit code, document and standard error."""

    def embed_with(*arguments: object):
        code, out, err = ptlreid("embed", *arguments, "--run", "tiny", "--device", "cpu", "--workers", 0, "--json")
        return code, json.loads(out) if code == 0 else None, err

    return embed_with


def stored(file: str) -> tuple[np.ndarray, dict[str, str]]:
    with h5py.File(file) as content:
        return content["features"][:], dict(content.attrs)


def forbid_work(monkeypatch) -> None:
    monkeypatch.setattr(Extractor, "stream", lambda *_, **__: pytest.fail("an image is decoded"))


def test_features_and_digests_are_those_of_the_unpacked_files_bit_for_bit(embed, crops):
    assert embed("loose", "--out", "loose.h5")[0] == 0
    code, document, err = embed("city-{000..001}.tar", "--out", "packed.h5")
    assert code == 0, err
    assert document["files"][0]["images"] == IMAGES
    (ours, about), (theirs, expected) = stored("packed.h5"), stored("loose.h5")
    np.testing.assert_array_equal(ours, theirs)
    assert about == expected
    assert package.read_features("packed.h5").paths.tolist() == [
        f"city-00{int(number > 3)}.tar/{name}" for number, name in enumerate(crops)
    ]


def test_loader_processes_read_the_same(embed):
    assert embed("city-000.tar", "city-001.tar", "--out", "a.h5", "--batch-size", 2)[0] == 0
    assert embed("city-000.tar", "city-001.tar", "--out", "b.npy", "--workers", 2, "--flip", "--batch-size", 2)[0] == 0
    extractor = package.load_extractor("tiny", device="cpu", flip=True)
    expected = extractor.extract([Path("loose") / f"{number:06d}.jpg" for number in range(IMAGES)]).matrix
    np.testing.assert_allclose(np.load("b.npy"), expected, rtol=1e-4, atol=1e-5)


def test_the_second_time_nothing_is_decoded_and_a_changed_tar_file_is_noticed(embed, crops, monkeypatch):
    assert embed("city-000.tar", "--out", "a.h5")[0] == 0
    with monkeypatch.context() as context:
        forbid_work(context)
        assert "4 cached features, no image decoded" in embed("city-000.tar", "--out", "b.h5")[2]
    assert not list(Path().glob("*.npz"))
    pack(
        "city-000.tar", {name: image(1) if name == crops[2] else Path("loose", name).read_bytes() for name in crops[:4]}
    )
    assert "not used, the images changed" in embed("city-000.tar", "--out", "b.h5")[2]
    assert (stored("a.h5")[0] != stored("b.h5")[0]).any(axis=1).tolist() == [False, False, True, False]


def test_an_interrupted_extraction_resumes(embed, monkeypatch):
    monkeypatch.setattr(partial, "BLOCK_ROWS", 2)
    forward, calls = Extractor._forward, []

    def stop(self, images, cameras=None):
        calls.append(len(images))
        if len(calls) == 4:
            raise KeyboardInterrupt
        return forward(self, images, cameras)

    with monkeypatch.context() as context:
        context.setattr(Extractor, "_forward", stop)
        assert embed("city-{000..001}.tar", "--out", "a.h5", "--batch-size", 1)[0] == 130
    code, _, err = embed("city-{000..001}.tar", "--out", "a.h5", "--batch-size", 1)
    assert (code, "resuming at 2/7" in err) == (0, True)
    assert embed("loose", "--out", "b.h5", "--batch-size", 1)[0] == 0
    np.testing.assert_array_equal(stored("a.h5")[0], stored("b.h5")[0])


@pytest.mark.parametrize("shards", [(), ("--shards", 3)])
def test_bad_images_are_named_and_skipped_on_request_only(embed, crops, shards):
    good = {name: Path("loose", name).read_bytes() for name in crops}
    pack("city-000.tar", good | {crops[1]: b"not an image", crops[2]: good[crops[2]][:-60]})
    code, _, err = embed("city-000.tar", "--out", "f", *shards)
    assert code == 1
    assert ("2 of" in err, f"city-000.tar/{crops[1]}: expected a JPEG" in err, crops[3] in err) == (True, True, False)
    code, document, err = embed("city-000.tar", "--out", "g", "--skip-bad", *shards)
    assert code == 0, err
    (found,) = document["files"]
    assert [one["path"] for one in found["skipped"]] == [f"city-000.tar/{name}" for name in crops[1:3]]
    assert found["images"] == IMAGES - 2


def test_shards_are_those_of_the_unpacked_files_and_verified(embed, crops, monkeypatch):
    assert embed("loose", "--out", "a", "--shards", 3)[0] == 0
    code, document, err = embed("city-{000..001}.tar", "--out", "b", "--shards", 3)
    assert (code, document["files"][0]["shards"]) == (0, 3), err
    for number in range(3):
        assert Path(f"a/0000{number}.npy").read_bytes() == Path(f"b/0000{number}.npy").read_bytes()
    with monkeypatch.context() as context:
        forbid_work(context)
        assert embed("city-{000..001}.tar", "--out", "b", "--shards", 3, "--verify")[0] == 0
    pack("city-001.tar", {name: image(3) for name in crops[4:]})
    code, _, err = embed("city-{000..001}.tar", "--out", "b", "--shards", 3, "--verify")
    assert (code, "00001.npy: its images changed since they were extracted" in err) == (1, True)


def test_a_digest_in_the_index_that_is_wrong_is_found_by_verifying(embed, run, monkeypatch):
    """Bytes that changed in place, with size and times as before."""
    monkeypatch.setattr(contents, "MARGIN_NS", -(10**12))  # files that are newer than two seconds are not indexed
    assert embed("city-000.tar", "--out", "a.h5")[0] == 0
    (index,) = run.features.glob("*.contents.npz")
    with np.load(index) as content:
        arrays = dict(content)
    assert arrays["names"].tobytes().split(b"\0") == [f"{number:06d}.jpg".encode() for number in range(4)]
    arrays["digests"][1] ^= 1
    np.savez(index, **arrays)
    contents._indexes.clear()
    code, _, err = embed("city-000.tar", "--out", "b.h5", "--verify")
    assert code == 0
    assert "city-000.tar/000001.jpg: its bytes changed although its size and times did not" in err


def test_a_search_reads_and_shows_members(ptlreid, embed, crops):
    for gallery in ("city-000.tar", "."):
        given = ("--gallery", gallery, "--run", "tiny", "--device", "cpu", "--out", "page.html", "--top", 3)
        if gallery == ".":
            for name in crops:
                Path("loose", name).unlink()
        code, out, err = ptlreid("search", f"city-000.tar/{crops[1]}", *given, "--exclude-query", "--json")
        assert code == 0, err
        (query,) = json.loads(out)["queries"]
        assert query["paths"] == [f"city-000.tar/{crops[1]}"]
        assert len(query["hits"]) == 3
        assert query["paths"][0] not in [hit["path"] for hit in query["hits"]]
        assert all(Path(hit["path"]).parts[-2].endswith(".tar") for hit in query["hits"])
        assert Path("page.html").read_text().count("data:image/jpeg;base64") == 4


def test_pixels_and_checks_of_members_are_those_of_files(crops):
    members = [Path("city-000.tar") / name for name in crops[:4]]
    for member, name in zip(members, crops, strict=False):
        np.testing.assert_array_equal(np.asarray(read_image(member)), np.asarray(read_image(Path("loose", name))))
    checked = check_images([*members, Path("city-000.tar/none.jpg")], Silent(), processes=2)
    assert [one.state for one in checked] == ["fine"] * 4 + ["missing"]
    assert [one.digest for one in checked[:4]] == [
        one.digest for one in check_images([Path("loose") / name for name in crops[:4]], Silent())
    ]
    with pytest.raises(
        DataError, match=r"none\.jpg: not an image that can be decoded \(the tar file has no such member"
    ):
        read_image(Path("city-000.tar/none.jpg"))
