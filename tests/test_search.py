"""`ptlreid search`, as a user meets it: hits, verdicts, filters, files and the page."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import tiny_network, write_image

import ptlreid as package
from ptlreid.features import Extractor
from ptlreid.models import weights
from ptlreid.network_types import NetworkSpec
from ptlreid.runs import RunFolder


@pytest.fixture
def search(ptlreid, run, market_folder):
    """Runs `ptlreid search ... --run tiny --json`; returns its document and standard error."""

    def search_with(*arguments: object, run: tuple[str, ...] = ("--run", "tiny")):
        root = () if not run else ("--root", market_folder.parent, "--device", "cpu")
        code, out, err = ptlreid("search", *arguments, *run, *root, "--json")
        assert code == 0, err
        return json.loads(out), err

    return search_with


@pytest.fixture
def crops(tmp_path) -> list[Path]:
    """`crops`: three identities by the cameras door and yard; `someone.jpg` is a copy of `crops/ben/yard/1.jpg`."""
    people = ("anna", "ben", "carla")
    paths = [Path("crops") / name / place / "1.jpg" for name in people for place in ("door", "yard")]
    for number, path in enumerate(paths):
        write_image(tmp_path / path, 400 + number)
    shutil.copy(tmp_path / paths[3], tmp_path / "someone.jpg")
    write_image(tmp_path / "other.jpg", 777)
    return paths


def features_of(run: RunFolder, *paths: Path | str, **settings: object) -> np.ndarray:
    return package.load_extractor(run, device="cpu", **settings).extract(list(paths)).matrix.astype(np.float64)


def hits(document, query: int = 0) -> list[str]:
    return [hit["path"] for hit in document["queries"][query]["hits"]]


def test_the_document_has_the_stated_form(search, run, crops):
    found, err = search("someone.jpg", "--gallery", "crops", "--threshold", "1e-3", "--top", 3)
    assert "crops: 6 images, read as identity/camera" in err
    assert set(found) == {"queries", "threshold", "settings"}
    assert found["threshold"] == 0.001
    (one,) = found["queries"]
    assert set(one) == {"paths", "verdict", "hits"}
    assert (one["paths"], one["verdict"]) == (["someone.jpg"], "match")
    assert [set(hit) for hit in one["hits"]] == [{"rank", "path", "distance", "accepted"}] * 3
    assert [hit["rank"] for hit in one["hits"]] == [1, 2, 3]
    assert hits(found)[0] == str(crops[3])
    assert [hit["accepted"] for hit in one["hits"]] == [True, False, False]
    settings = {"top": 3, "metric": "euclidean", "together": False, "gallery": "crops", "flip": False}
    assert settings.items() <= found["settings"].items()


def test_hits_are_the_nearest_by_the_features_of_each_image(search, run, crops):
    found, _ = search("other.jpg", "--gallery", "crops")
    gaps = np.linalg.norm(features_of(run, *crops) - features_of(run, "other.jpg"), axis=1)
    assert hits(found) == [str(crops[row]) for row in np.argsort(gaps)]
    distances = [hit["distance"] for hit in found["queries"][0]["hits"]]
    np.testing.assert_allclose(distances, np.sort(gaps), rtol=1e-4)
    assert found["threshold"] is None
    assert all(hit["accepted"] for hit in found["queries"][0]["hits"])


def test_nobody_is_an_answer(search, run, crops):
    found, _ = search("other.jpg", "someone.jpg", "--gallery", "crops", "--threshold", "0.001")
    assert [one["verdict"] for one in found["queries"]] == ["nobody", "match"]


@pytest.mark.parametrize(("threshold", "accepted"), [("0", False), ("1e-9", True)])
def test_a_match_is_below_the_threshold(search, run, crops, threshold, accepted):
    found, _ = search("crops/anna/door/1.jpg", "--gallery", "crops", "--threshold", threshold, "--top", 1)
    assert found["queries"][0]["hits"] == [
        {"rank": 1, "path": "crops/anna/door/1.jpg", "distance": 0.0, "accepted": accepted}
    ]


def test_a_threshold_is_that_of_the_calibration_for_such_features(ptlreid, search, run, market_folder):
    place = ("--root", market_folder.parent, "--device", "cpu")
    query = market_folder / "query" / "0005_c1s1_000001_00.jpg"
    found = {}
    for metric in ("euclidean", "cosine"):
        how = ("--metric", metric)
        code, out, err = ptlreid("calibrate", "--run", "tiny", "--json", "--bootstrap", 10, *how, *place)
        assert code == 0, err
        found[metric] = next(one["threshold"] for one in json.loads(out)["operating_points"] if one["name"] == "eer")
        assert search(query, "--gallery", "market", "--threshold", "eer", *how)[0]["threshold"] == found[metric]
    mean, _ = search(query, query, "--together", "--gallery", "market", "--threshold", "EER")
    assert mean["threshold"] == found["cosine"] != found["euclidean"]
    arguments = ("search", query, "--run", "tiny", "--gallery", "market", "--threshold", "eer", "--normalize", *place)
    code, _, err = ptlreid(*arguments)
    assert (code, "its thresholds are of other features" in err) == (1, True)


def cosine(left: np.ndarray, right: np.ndarray) -> float:
    return 1 - left @ right / np.linalg.norm(left) / np.linalg.norm(right)


def test_several_images_of_one_person_are_one_query(search, run, crops):
    gallery, queries = features_of(run, *crops), features_of(run, "other.jpg", "someone.jpg")
    mean = (queries / np.linalg.norm(queries, axis=1)[:, None]).mean(axis=0)
    found, _ = search("other.jpg", "someone.jpg", "--together", "--gallery", "crops")
    (one,) = found["queries"]
    assert one["paths"] == ["other.jpg", "someone.jpg"]
    expected = sorted((cosine(mean, row), str(path)) for row, path in zip(gallery, crops, strict=True))
    assert hits(found) == [path for _, path in expected]
    np.testing.assert_allclose([hit["distance"] for hit in one["hits"]], [gap for gap, _ in expected], atol=1e-5)
    assert found["settings"]["metric"] == "cosine"

    found, _ = search("other.jpg", "someone.jpg", "--together", "--combine", "max", "--gallery", "crops")
    gaps = [np.linalg.norm(queries - row, axis=1).min() for row in gallery]
    assert hits(found) == [str(crops[row]) for row in np.argsort(gaps)]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--camera", "yard"], {"anna/yard", "ben/yard", "carla/yard"}),
        (
            ["--camera", "yard,door"],
            {f"{name}/{place}" for name in ("anna", "ben", "carla") for place in ("door", "yard")},
        ),
        (["--glob", "*/ben/*"], {"ben/door", "ben/yard"}),
        (["--exclude-same-camera"], {"anna/yard", "ben/yard", "carla/yard"}),
        (["--exclude-same-camera", "--query-camera", "yard"], {"anna/door", "ben/door", "carla/door"}),
        (["--exclude-query"], {"anna/yard", "ben/door", "ben/yard", "carla/door", "carla/yard"}),
    ],
)
def test_filters_leave_these_images(search, run, crops, options, expected):
    found, _ = search("crops/anna/door/1.jpg", "--gallery", "crops", *options)
    assert {path.removeprefix("crops/").removesuffix("/1.jpg") for path in hits(found)} == expected


def test_the_camera_of_a_query_is_read_from_its_name(search, run, tmp_path):
    for number, name in enumerate(("0001_c1s1_000001_00", "0001_c2s1_000002_00", "0002_c1s1_000003_00")):
        write_image(tmp_path / "gallery" / f"{name}.jpg", number)
    write_image(tmp_path / "0009_c1s1_000009_00.jpg", 9)
    found, _ = search("0009_c1s1_000009_00.jpg", "--gallery", "gallery", "--exclude-same-camera")
    assert hits(found) == ["gallery/0001_c2s1_000002_00.jpg"]


def test_a_gallery_of_features_gives_the_same_hits_and_its_readout(ptlreid, search, run, crops):
    expected, _ = search("other.jpg", "--gallery", "crops", "--normalize", "--flip")
    code, _, err = ptlreid(
        "embed", "crops", "--run", "tiny", "--out", "g.h5", "--normalize", "--flip", "--device", "cpu"
    )
    assert code == 0, err
    found, _ = search("other.jpg", "--gallery", "g.h5")
    assert found["queries"] == expected["queries"]
    assert (found["settings"]["flip"], found["settings"]["normalize"]) == (True, True)
    filtered, _ = search("other.jpg", "--gallery", "g.h5", "--camera", "yard")
    assert set(hits(filtered)) == {path for path in hits(found) if "yard" in path}


def test_a_prepared_dataset_is_a_gallery(search, run, market_folder):
    query = market_folder / "query" / "0005_c1s1_000001_00.jpg"
    found, _ = search(query, "--gallery", "market", "--exclude-same-camera", "--top", 50)
    # junk and distractors are images like any other: 3 identities, a distractor, by camera 2
    assert len(hits(found)) == 4
    assert all("_c2s" in path for path in hits(found))


def test_features_of_other_programs_are_searched_without_a_run(search, tmp_path):
    rng = np.random.default_rng(0)
    query, gallery = rng.normal(size=(3, 4)).astype(np.float32), rng.normal(size=(9, 4)).astype(np.float32)
    names = np.array([f"{row}.jpg" for row in range(3)])
    np.savez(tmp_path / "q.npz", features=query, pids=np.zeros(3, int), camids=np.zeros(3, int), paths=names)
    np.savez(tmp_path / "g.npz", features=gallery, pids=np.full(9, -1), camids=np.zeros(9, int))
    gaps = np.linalg.norm(query[:, None].astype(float) - gallery[None], axis=2)

    found, _ = search("--features", "q.npz", "--gallery", "g.npz", "--top", 4, run=())
    assert len(found["queries"]) == 3
    for row in range(3):
        assert hits(found, row) == [f"g.npz#{column}" for column in np.argsort(gaps[row])[:4]]
    found, _ = search("1.jpg", "--features", "q.npz", "--gallery", "g.npz", "--top", 1, run=())
    assert hits(found) == [f"g.npz#{np.argmin(gaps[1])}"]

    found, _ = search("1.jpg", "--features", "q.npz", "--exclude-query", run=())
    assert sorted(hits(found)) == ["0.jpg", "2.jpg"]


def test_reranked_hits_are_those_of_evaluate(search, ptlreid, tmp_path):
    rng = np.random.default_rng(1)
    for name, size in (("q", 4), ("g", 30)):
        columns = {"pids": rng.integers(1, 4, size), "camids": rng.integers(1, 9, size) + 10 * (name == "g")}
        np.savez(tmp_path / f"{name}.npz", features=rng.normal(size=(size, 6)).astype(np.float32), **columns)
    code, _, err = ptlreid("evaluate", "--query", "q.npz", "--gallery", "g.npz", "--rerank", "--ranklist", "ranks.csv")
    assert code == 0, err
    with Path("ranks.csv").open(newline="") as stream:
        expected = [row["gallery_path"] for row in csv.DictReader(stream) if row["query_row"] == "2"]
    found, _ = search("--features", "q.npz", "--gallery", "g.npz", "--rerank", "--top", 10, run=())
    assert hits(found, 2) == expected


def test_the_second_search_decodes_no_image(search, run, crops, monkeypatch):
    first, _ = search("other.jpg", "--gallery", "crops")

    def refuse(*_: object, **__: object):
        raise AssertionError("an image is decoded")

    monkeypatch.setattr(Extractor, "stream", refuse)
    again, _ = search("other.jpg", "--gallery", "crops")
    assert again == first
    in_gallery, _ = search("crops/anna/door/1.jpg", "--gallery", "crops")
    assert in_gallery["queries"][0]["hits"][0]["distance"] == 0


def test_the_second_search_does_not_import_torch(search, run, crops, tmp_path):
    found, _ = search("other.jpg", "--gallery", "crops")
    script = (
        "import sys; from ptlreid.cli import main; sys.argv = ['ptlreid', 'search', 'other.jpg', '--run', 'tiny', "
        "'--gallery', 'crops', '--json']\ntry:\n    main()\nexcept SystemExit as stop:\n    assert not stop.code\n"
        "print([name for name in ('torch', 'scipy', 'matplotlib') if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert json.loads(done.stdout)["queries"] == found["queries"]
    assert done.stderr.splitlines()[-1] == "[]"


def test_the_page_shows_query_and_hits_framed_by_verdict_and_escaped(search, run, tmp_path):
    name = "<img src=x onerror=alert(1)>&'.jpg"
    write_image(tmp_path / "gallery" / name, 1)
    write_image(tmp_path / "gallery" / "far.jpg", 2)
    shutil.copy(tmp_path / "gallery" / name, tmp_path / f"{name}")
    search(name, "--gallery", "gallery", "--threshold", "0.001", "--out", "page.html")
    text = Path("page.html").read_text()
    assert "<img" not in text
    assert "&lt;img src=x onerror=alert(1)&gt;&amp;&#39;.jpg" in text
    frames = re.findall(r'<li class="(\w+)">', text)
    assert frames == ["query", "match", "mismatch"]
    assert text.count("data:image/jpeg;base64,") == 3
    assert not re.search(r'(?:src|href)="(?!#|data:)', text)
    assert "match: 1 of 2 images below 0.001" in text


def test_a_bad_query_is_skipped_where_the_others_are_in_the_gallery(search, run, crops):
    Path("bad.jpg").write_text("not an image")
    found, err = search(str(crops[0]), "bad.jpg", "--gallery", "crops", "--skip-bad")
    assert [one["paths"] for one in found["queries"]] == [[str(crops[0])]]
    assert "skipped: bad.jpg" in err


def test_names_that_are_not_utf_8_are_shown(search, run, crops):
    strange = os.fsdecode(b"crops/\xff1.jpg")
    write_image(Path(strange), 12)
    search("other.jpg", "--gallery", "crops", "--out", "page.html")
    assert "\\udcff1.jpg" in Path("page.html").read_text(encoding="utf-8")


def test_a_picture_that_is_gone_is_a_box_on_the_page(search, tmp_path):
    columns = {"pids": np.zeros(2, int), "camids": np.zeros(2, int), "paths": np.array(["gone.jpg", "lost.jpg"])}
    np.savez(tmp_path / "q.npz", features=np.eye(2, dtype=np.float32), **columns)
    search("--features", "q.npz", "--out", "page.html", run=())
    assert Path("page.html").read_text().count('class="query"') == 2


def test_the_csv_has_a_line_for_each_hit(search, run, crops):
    found, _ = search("someone.jpg", "other.jpg", "--gallery", "crops", "--threshold", "0.001", "--csv", "h.csv")
    with Path("h.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 12
    first = found["queries"][0]["hits"][0]
    assert rows[0] == {
        "query": "1",
        "paths": "someone.jpg",
        "verdict": "match",
        "rank": "1",
        "path": first["path"],
        "distance": repr(first["distance"]),
        "accepted": "true",
    }


def test_the_table_names_hits_and_verdict(ptlreid, run, crops):
    arguments = ("search", "someone.jpg", "--run", "tiny", "--gallery", "crops", "--device", "cpu", "--top", 2)
    code, out, err = ptlreid(*arguments, "--threshold", "0.001")
    assert code == 0, err
    assert out.splitlines()[0] == "someone.jpg: match: 1 of 2 images below 0.001"
    assert re.search(r"1 .* crops/ben/yard/1\.jpg .* match", out)
    assert re.search(r"2 .* too far", out)


def other_weights(folder: RunFolder) -> None:
    network = tiny_network(classes=4)
    next(iter(network.state_dict().values())).add_(1)
    weights.save(network, NetworkSpec("tiny", True, "slot", 4, 64, 32), folder.weights())


def test_a_gallery_of_other_weights_is_refused(ptlreid, run, crops):
    assert ptlreid("embed", "crops", "--run", "tiny", "--out", "g.h5", "--device", "cpu")[0] == 0
    other_weights(run)
    code, _, err = ptlreid("search", "other.jpg", "--run", "tiny", "--gallery", "g.h5", "--device", "cpu")
    assert code == 1
    assert "g.h5: extracted with other weights than those of this run" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["other.jpg", "--run", "tiny", "--gallery", "empty"], "empty: holds no image"),
        (["other.jpg", "--run", "tiny", "--gallery", "notes.md"], "notes.md: text ('hello'): expected a folder"),
        (["notes.md", "--run", "tiny", "--gallery", "crops"], "notes.md: text ('hello'): expected a folder"),
        (["broken.jpg", "--run", "tiny", "--gallery", "crops"], "1 of 1 images cannot be read"),
        (["gone.jpg", "--run", "tiny", "--gallery", "crops"], "gone.jpg: No such file"),
        (["other.jpg", "--run", "tiny", "--gallery", "narrow.npz"], "narrow.npz has features of width 3"),
        (["other.jpg", "--run", "tiny", "--gallery", "gone.h5"], "gone.h5: no such file"),
        (["other.jpg", "--run", "tiny"], "Nothing to search"),
        (["--run", "tiny", "--gallery", "crops"], "Nothing to search"),
        (["x.jpg", "--features", "narrow.npz"], "narrow.npz: no image is called x.jpg"),
        (["--features", "narrow.npz", "--flip"], "--flip: for a --run only"),
        (["--features", "narrow.npz", "--gallery", "wide.npz"], "wide.npz has features of width 4"),
        (["--features", "narrow.npz", "--camera", "9"], "--camera 9: no gallery image is known to be by it"),
        (["--features", "narrow.npz", "--glob", "x*"], "No gallery image is left"),
        (["--features", "narrow.npz", "--after", "2024-05-01"], "states a time, expected some such as"),
        (["--features", "narrow.npz", "--before", "yesterday"], "expected a date or a time"),
        (["--features", "narrow.npz", "--out", "x.png"], "--out x.png: expected a file name that ends in .html"),
        (["--features", "narrow.npz", "--threshold", "-1"], "threshold = '-1': expected a distance"),
        (["--features", "narrow.npz", "--threshold", "far=1e-3"], "the thresholds of a run"),
        (["--features", "narrow.npz", "--threshold", "far=1e-3", "--rerank"], "with rerank: expected a number"),
        (["other.jpg", "--run", "tiny", "--gallery", "crops", "--threshold", "eer"], "thresholds.json: no such file"),
        (["--features", "narrow.npz", "--together", "--metric", "euclidean"], "metric = 'euclidean' with together"),
        (["--features", "narrow.npz", "--combine", "max"], "combine = 'max' without together"),
        (["other.jpg", "--run", "tiny", "--gallery", "crops", "--exclude-same-camera"], "its camera is not known"),
        (
            ["other.jpg", "--run", "tiny", "--gallery", "other.jpg", "--exclude-same-camera", "--query-camera", "door"],
            "of none of 1 gallery images is the camera known",
        ),
    ],
)
def test_what_cannot_be_done_is_one_message(ptlreid, run, crops, tmp_path, arguments, message):
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.md").write_text("hello")
    (tmp_path / "broken.jpg").write_bytes((tmp_path / "other.jpg").read_bytes()[:-60])
    for name, width in (("narrow", 3), ("wide", 4)):
        columns = {"pids": np.zeros(2, int), "camids": np.zeros(2, int)}
        np.savez(tmp_path / f"{name}.npz", features=np.ones((2, width), dtype=np.float32), **columns)
    device = ("--device", "cpu") if "--run" in arguments else ()
    code, out, err = ptlreid("search", *arguments, *device)
    assert (code, out) == (1, "")
    assert message in err
    assert err.count("error:") == 1
