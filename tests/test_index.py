"""An index over shards: what it finds, what it says of that, and what it refuses."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from shard_folders import make_shards

from ptlreid.progress import Silent
from ptlreid.retrieval import feature_files, index_recall
from ptlreid.retrieval.index_file import Index
from ptlreid.retrieval.index_recall import recall_interval, share_found
from ptlreid.retrieval.index_search import IndexSearch
from ptlreid.retrieval.index_structure import default_code, plan_structure
from ptlreid.retrieval.search import Hits, Person, rank_gallery
from ptlreid.retrieval.types import Features

ROWS, WIDTH = 12_000, 8


def clustered_features(seed: int, size: int, prefix: str) -> Features:
    """About ten images of each identity; every hundredth is a copy of the first."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(size // 10 + 1, WIDTH))
    matrix = centres[rng.integers(0, len(centres), size)] + 0.3 * rng.normal(size=(size, WIDTH))
    matrix[::100] = matrix[0]
    paths = np.array([f"{prefix}/{'door' if row % 4 else 'yard'}/{row}.jpg" for row in range(size)], dtype=object)
    return Features((matrix + 5).astype(np.float32), rng.integers(0, 99, size), rng.integers(0, 3, size), paths)


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """A folder with `city`, shards of clustered features, `city.h5`, the same, and an index of each kind."""
    folder = tmp_path_factory.mktemp("index")
    features = clustered_features(0, ROWS, "city")
    make_shards(folder / "city", features, rows=5000)
    make_shards(folder / "may", clustered_features(1, 300, "may"), rows=200)
    feature_files.write(folder / "city.h5", features, {}, dtype="float32")
    queries = clustered_features(0, ROWS, "query").select(np.arange(30) * 397 + 5)
    queries = replace(queries, matrix=queries.matrix + np.float32(0.1))
    queries.paths[3] = features.paths[3 * 397 + 5]
    feature_files.write(folder / "q.h5", queries, {}, dtype="float32")
    return folder


@pytest.fixture(scope="module")
def indexes(built) -> Path:
    """`ivfpq`, `hnsw` and `flat` there, the last one of cosine distances."""
    from ptlreid.settings import IndexSettings
    from ptlreid.workflows.index import build_index

    for kind, more in (("ivfpq", {"recall": 0.9}), ("hnsw", {}), ("flat", {"metric": "cosine"})):
        build_index([built / "city"], built / kind, IndexSettings.resolve(None, kind=kind, **more), Silent())
    return built


@pytest.fixture
def files(indexes, tmp_path, monkeypatch) -> Path:
    """A copy of all of it, the current folder."""
    shutil.copytree(indexes, tmp_path / "all")
    monkeypatch.setattr(index_recall, "_QUERIES", 100)  # what is measured again in the test
    monkeypatch.setattr(index_recall, "_TUNING", 50)
    monkeypatch.chdir(tmp_path / "all")
    return tmp_path / "all"


def search(ptlreid, *arguments: object) -> dict:
    code, out, err = ptlreid("search", "--features", "q.h5", "--json", *arguments)
    assert code == 0, err
    return json.loads(out)


def pairs(answer: dict) -> list[list[tuple[str, float]]]:
    return [[(hit["path"], hit["distance"]) for hit in one["hits"]] for one in answer["queries"]]


FILTERS = [
    [],
    ["--top", 300],
    ["--together"],
    ["--together", "--combine", "max", "--metric", "cosine"],
    ["--exclude-query", "--metric", "cosine"],
    ["--exclude-same-camera", "--metric", "cosine"],
    ["--camera", "0,2", "--metric", "cosine"],
    ["--glob", "*/yard/1*", "--metric", "cosine"],
]


@pytest.mark.parametrize("options", FILTERS, ids=str)
def test_a_flat_index_finds_what_the_shards_hold(ptlreid, files, options):
    """All of faiss's candidates are compared again, so that copies keep gallery order and distances are exact."""
    metric = [] if "--together" in options else ["--metric", "cosine"]
    exact = search(ptlreid, "--gallery", "city", *options, *metric)
    assert pairs(search(ptlreid, "--index", "flat", *options, *metric)) == pairs(exact)
    assert pairs(search(ptlreid, "--index", "flat", "--exact", *options, *metric)) == pairs(exact)


@pytest.mark.parametrize("kind", ["ivfpq", "hnsw"])
def test_other_kinds_find_what_they_say_with_exact_distances(ptlreid, files, kind):
    answer = search(ptlreid, "--index", kind)
    exact = pairs(search(ptlreid, "--gallery", "city", "--top", 500))
    found = shares = 0
    for hits, every in zip(pairs(answer), exact, strict=True):
        near = [hit for hit in hits if hit[1] < every[-1][1]]
        assert near == sorted(near, key=every.index)
        found += sum(distance <= every[19][1] for _, distance in hits)
        shares += 20
    recall = answer["index"]["recall"]
    assert (recall["at"], recall["queries"], answer["index"]["structure"]) == (20, 1000, kind)
    assert recall["low"] - 0.1 < found / shares <= 1


def test_the_table_and_the_page_state_the_recall(ptlreid, files):
    recall = json.loads(ptlreid("index", "info", "ivfpq", "--json")[1])["recall"]
    text = f"which finds {100 * recall['mean']:.1f}% of the nearest 20 images"
    for more, stated in ([], True), (["--exact"], False):
        code, out, err = ptlreid("search", "--features", "q.h5", "--index", "ivfpq", "--out", "found.html", *more)
        assert code == 0, err
        assert (text in out.replace("\n", " "), text in Path("found.html").read_text()) == (stated, stated)


def test_the_recall_is_within_its_interval_of_that_of_every_image(files):
    """The truth: each of 3,000 other images is searched for, by the index and by `rank_gallery`."""
    index = Index.open(Path("ivfpq"))
    rows = np.random.default_rng(7).choice(ROWS, 3000, replace=False)
    features, _ = index.shards.read()
    people = [Person(np.array([place]), np.array([row])) for place, row in enumerate(rows.tolist())]
    given = {"size": 20, "metric": "euclidean"}
    found = IndexSearch(index, index.read_graph(change=False), index.manifest["effort"]).rank(
        features.select(rows), people, **given
    )
    exact = rank_gallery(features.select(rows), people, features, **given, memory_budget=None)
    truth = np.mean(
        [
            np.mean([distance <= other.distances[-1] for distance in one.distances])
            for one, other in zip(found, exact, strict=True)
        ]
    )
    recall = index.manifest["recall"]
    assert recall["low"] - 0.01 < truth < recall["high"] + 0.01
    assert 0.9 <= recall["mean"] < 0.999


def test_a_lower_recall_visits_less(ptlreid, files):
    code, out, _ = ptlreid("index", "measure", "ivfpq", "--recall", "0.3", "--json")
    low = json.loads(out)
    code, out, _ = ptlreid("index", "measure", "ivfpq", "--recall", "0.99", "--json")
    high = json.loads(out)
    assert code == 0
    assert low["effort"] < high["effort"]
    assert 0.25 < low["recall"]["mean"] < high["recall"]["mean"] <= 1
    code, out, err = ptlreid("index", "measure", "ivfpq", "--json")  # the same target
    assert json.loads(out) == high, err


def test_further_shards_are_found_and_removed_images_are_not(ptlreid, files):
    code, out, err = ptlreid("index", "add", "flat", "may", "--json")
    assert code == 0, err
    assert (json.loads(out)["rows"], len(json.loads(out)["sources"])) == (ROWS + 300, 2)
    answer = search(ptlreid, "--features", "may", "may/door/7.jpg", "--index", "flat", "--metric", "cosine")
    assert pairs(answer)[0][0][0] == "may/door/7.jpg"
    code, out, err = ptlreid(
        "index", "remove", "flat", "may/door/7.jpg", "city/yard/0.jpg", "--glob", "city/door/1*", "--json"
    )
    assert code == 0, err
    gone = sum(row % 4 > 0 and str(row).startswith("1") for row in range(ROWS)) + 2
    assert (json.loads(out)["newly_removed"], json.loads(out)["removed"]) == (gone, gone)
    code, out, err = ptlreid("index", "measure", "flat", "--json")  # with those of 100 images that are left
    assert (code, json.loads(out)["recall"]["mean"]) == (0, 1), err
    assert 40 < json.loads(out)["recall"]["queries"] < 90
    for exact in ([], ["--exact"]):
        given = ("--features", "may", "may/door/7.jpg", "--index", "flat", "--metric", "cosine", "--top", 2000)
        paths = [path for path, _ in pairs(search(ptlreid, *given, *exact))[0]]
        assert len(paths) == 2000
        assert not {"may/door/7.jpg", "city/yard/0.jpg"} & set(paths)
        assert not any(path.startswith("city/door/1") for path in paths)


def test_a_filter_that_the_lists_miss_is_searched_exactly(ptlreid, files):
    """One list is visited, which holds few of the images left."""
    ptlreid("index", "measure", "ivfpq", "--recall", "0.01", "--json")
    code, out, err = ptlreid("search", "--features", "q.h5", "--index", "ivfpq", "--glob", "*/yard/1*", "--json")
    assert code == 0
    assert "so all shards are searched" in err
    assert json.loads(out)["index"]["exact"]
    assert pairs(json.loads(out)) == pairs(search(ptlreid, "--gallery", "city", "--glob", "*/yard/1*"))


def test_candidates_in_batches_are_those_of_one(files, monkeypatch):
    index = Index.open(Path("ivfpq"))
    search = IndexSearch(index, index.read_graph(change=False), effort=8)
    features = clustered_features(2, 30, "query")
    groups = [np.array([0, 1, 2]), *(np.array([row]) for row in range(3, 30))]
    people = [Person(rows, np.arange(0)) for rows in groups]
    whole = search.rank(features, people, size=5, metric="euclidean")
    monkeypatch.setattr("ptlreid.retrieval.index_search._BATCH_BYTES", 1)
    for one, other in zip(whole, search.rank(features, people, size=5, metric="euclidean"), strict=True):
        np.testing.assert_array_equal(one.columns, other.columns)


def test_features_far_from_zero_are_centred(tmp_path, monkeypatch):
    """At an offset of 3,000, the codes of an index that is not centred find next to nothing."""
    from ptlreid.settings import IndexSettings
    from ptlreid.workflows.index import build_index

    monkeypatch.setattr(index_recall, "_QUERIES", 100)
    rng, size = np.random.default_rng(3), 10_000
    matrix = rng.normal(size=(500, 16))[rng.integers(0, 500, size)] + 0.3 * rng.normal(size=(size, 16)) + 3000
    numbers, paths = np.zeros(size, dtype=np.int64), np.array([str(row) for row in range(size)], dtype=object)
    make_shards(tmp_path / "far", Features(matrix.astype(np.float32), numbers, numbers, paths), rows=size)
    settings = IndexSettings.resolve(None, recall=0.9, code_bytes=4, num_lists=64)
    made = build_index([tmp_path / "far"], tmp_path / "ix", settings, Silent())
    assert made["recall"]["mean"] > 0.85


def test_the_interval_of_a_mean():
    """Of yes and no it is Wilson's: of 9 in 10, 0.596 to 0.982. Steadier shares have a narrower one."""
    yes = np.array([1.0] * 9 + [0.0])
    low, high = recall_interval(yes)
    assert (round(low, 3), round(high, 3)) == (0.596, 0.982)
    steady = recall_interval(np.linspace(0.85, 0.95, 10))
    assert low < steady[0] < 0.9 < steady[1] < high
    assert recall_interval(np.ones(1000)) == (pytest.approx(1000 / (1000 + 1.96**2), abs=1e-5), 1.0)
    rng = np.random.default_rng(0)
    inside = [
        one[0] <= 0.9 <= one[1]
        for one in (recall_interval(rng.binomial(20, rng.beta(9, 1, size=200)) / 20) for _ in range(400))
    ]
    assert 0.92 <= np.mean(inside) <= 0.98


def test_equal_distances_count_for_either():
    exact = [Hits(np.array([4, 7]), np.array([1.0, 2.0])), Hits(np.arange(0), np.empty(0))]
    found = [Hits(np.array([4, 9, 11]), np.array([1.0, 2.0, 2.0])), Hits(np.arange(0), np.empty(0))]
    assert share_found(found, exact).tolist() == [1.0, 1.0]
    assert share_found([Hits(np.array([9]), np.array([2.5]))], exact[:1]).tolist() == [0.0]


def test_plans():
    """Training with 39 images of each list, lists near 4 times the root of the images."""
    given = {"code_bytes": None, "num_lists": None}
    plan = plan_structure("ivfpq", 10_000_000, 128, **given)
    assert (plan.factory, plan.training_rows) == ("IVF8192,PQ32np", 39 * 8192)
    assert plan.build_bytes < 4 << 30
    assert plan_structure("ivfpq", 100_000_000, 512, **given).build_bytes < 16e9
    assert plan_structure("ivfpq", 10_000, 128, **given).factory == "IVF256,PQ32np"
    assert plan_structure("flat", 1000, 128, **given).build_bytes == 8 * 128 * 1000
    assert [default_code(width) for width in (2048, 512, 128, 8, 7, 3)] == [64, 64, 32, 2, 1, 1]


CASES = [
    (["build", "city", "--out", "q.h5"], "--out q.h5: holds something else"),
    (["build", "city", "--out", "may"], "--out may: holds something else"),
    (["build", "q.h5", "--out", "new"], "q.h5: is no folder of shards"),
    (["build", "city", "city", "--out", "new"], "city: is named twice"),
    (["build", "city"], "expected --out with build"),
    (["build", "may", "--out", "new"], "hold 300 images, expected at least 9,984"),
    (["build", "city", "--out", "new", "--code-bytes", "3"], "expected a divisor of the width 8, such as 2"),
    (["build", "city", "--out", "new", "--num-lists", "400"], "num_lists = 400: expected at most 307"),
    (["build", "city", "--out", "new", "--memory-budget", "100KB"], "the memory budget is 0.0001 GB"),
    (["add", "ivfpq", "city"], "city: is in the index ivfpq already"),
    (["add", "hnsw", "may", "--memory-budget", "1KB"], "kind = 'hnsw': the index needs"),
    (["add", "ivfpq"], "index add: expected INDEX SHARDS..."),
    (["add", "ivfpq", "may", "--kind", "flat"], "index add with --kind flat: has no effect"),
    (["remove", "ivfpq", "nobody.jpg"], "no image is called nobody.jpg, expected a path such as city/yard/0.jpg"),
    (["remove", "ivfpq", "--glob", "x*"], "--glob x*: no image of the index matches it"),
    (["remove", "ivfpq", "--glob", "*"], "would hold no image any more"),
    (["info", "city"], "index.json"),
    (["info", "ivfpq", "--recall", "0.5"], "index info with --recall 0.5: has no effect"),
    (["info", "ivfpq", "--glob", "*"], "index info with --glob: expected remove"),
    (["guess", "ivfpq"], "index guess: expected build, add, remove, measure or info"),
]


@pytest.mark.parametrize(("arguments", "message"), CASES, ids=[" ".join(case[0]) for case in CASES])
def test_what_cannot_be_done_is_one_message_and_changes_nothing(ptlreid, files, arguments, message):
    before = {path: path.read_bytes() for path in sorted(files.rglob("*")) if path.is_file()}
    code, out, err = ptlreid("index", *arguments)
    assert (code, out) == (1, "")
    assert message in err.replace("\n", " ")
    new = {path for path in files.rglob("*") if path.is_file()} - before.keys()
    assert not [path for path in new if path.name != ".contents.npz"]
    assert all(path.read_bytes() == content for path, content in before.items() if path.name != ".contents.npz")


def test_searches_that_an_index_cannot_answer(ptlreid, files):
    given = ("search", "--features", "q.h5")
    for arguments, message in [
        (["--index", "flat"], "index flat is one of cosine distances"),
        (["--index", "flat", "--rerank"], "--rerank with --index"),
        (["--index", "city"], "--index city: is no index"),
        (["--index", "flat", "--gallery", "city"], "--index and --gallery: expected one of them"),
        (["--gallery", "city", "--exact"], "--exact without --index"),
    ]:
        code, _, err = ptlreid(*given, *arguments)
        assert (code, message in err.replace("\n", " ")) == (1, True), err


def test_python_builds_and_searches_it(ptlreid, files):
    import ptlreid as package

    made = package.build_index(["city", Path("may")], "both", kind="flat", metric="cosine")
    assert (made["rows"], made["recall"]["queries"]) == (ROWS + 300, 100)
    found = package.search_features("q.h5", "both", metric="cosine")
    assert pairs(found) == pairs(search(ptlreid, "--index", "both", "--metric", "cosine"))


def test_normalised_features_have_one_order(ptlreid, files):
    """Shards whose readout normalises are searched by either metric."""
    features = clustered_features(4, 400, "unit")
    unit = features.matrix / np.linalg.norm(features.matrix, axis=1)[:, None]
    unit = Features(unit.astype(np.float32), features.pids, features.camids, features.paths)
    make_shards(Path("unit"), unit, rows=400, readout={"flip": False, "normalize": True, "amp": "off"})
    assert ptlreid("index", "build", "unit", "--out", "unit-index", "--kind", "flat")[0] == 0
    exact = search(ptlreid, "--gallery", "unit", "--metric", "cosine", "--top", 5)
    assert pairs(search(ptlreid, "--index", "unit-index", "--metric", "cosine", "--top", 5)) == pairs(exact)


def damage(name: str) -> None:
    (file,) = Path("ivfpq").glob(name)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize("name", ["graph-*", "arrays-*", "index.json"])
def test_a_changed_or_missing_file_is_named(ptlreid, files, name):
    damage(name)
    code, _, err = ptlreid("index", "info", "ivfpq")
    assert (code, "Build the index again" in err.replace("\n", " ")) == (1, True), err
    (file,) = Path("ivfpq").glob(name)
    file.unlink()
    code, _, err = ptlreid("index", "info", "ivfpq")
    assert (code, file.name in err) == (1, True), err


def test_other_or_moved_shards_are_refused(ptlreid, files):
    Path("city").rename("town")
    code, _, err = ptlreid("search", "--features", "q.h5", "--index", "ivfpq")
    assert (code, "and there are none: expected them there" in err.replace("\n", " ")) == (1, True), err
    make_shards(Path("city"), clustered_features(9, ROWS, "city"), rows=5000, weights="other")
    code, _, err = ptlreid("search", "--features", "q.h5", "--index", "ivfpq")
    assert (code, "were written again after the index" in err.replace("\n", " ")) == (1, True), err
    code, _, err = ptlreid("index", "build", "city", "town", "--out", "new")
    assert (code, "town: its features are of other weights than those of city" in err.replace("\n", " ")) == (1, True)


def test_both_folders_move_together(ptlreid, files):
    Path("new").mkdir()
    for name in ("city", "ivfpq"):
        Path(name).rename(Path("new") / name)
    assert len(search(ptlreid, "--index", "new/ivfpq")["queries"]) == 30


def test_a_build_that_is_stopped_leaves_the_old_index(ptlreid, files, monkeypatch):
    before = json.loads(ptlreid("index", "info", "ivfpq", "--json")[1])

    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("ptlreid.retrieval.index_file.write_json", stop)
    assert ptlreid("index", "build", "may", "--kind", "flat", "--out", "ivfpq")[0] == 130
    assert json.loads(ptlreid("index", "info", "ivfpq", "--json")[1]) == before


def test_what_a_killed_build_leaves_is_no_obstacle(ptlreid, files):
    """Its lock, a file that was not complete, and one that was, without the file that would name it."""
    Path("new").mkdir()
    for name in (".index.json.lock", ".graph-1.faiss.abcd1234.part", "arrays-1.npz"):
        (Path("new") / name).write_bytes(b"")
    assert ptlreid("index", "build", "may", "--kind", "flat", "--out", "new")[0] == 0
    names = {path.name for path in Path("new").iterdir()}
    assert names - {".contents.npz"} == {"index.json", "graph-2.faiss", "arrays-2.npz"}
    assert json.loads(ptlreid("index", "info", "new", "--json")[1])["rows"] == 300


def test_without_faiss_there_is_a_message(ptlreid, files, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "faiss", None)
    code, _, err = ptlreid("index", "build", "city", "--out", "new")
    assert (code, "pip install 'ptlreid[index]'" in err.replace("\n", " ")) == (1, True), err
    code, _, err = ptlreid("index", "info", "ivfpq")  # reads no graph
    assert code == 0, err


def test_a_full_disk_is_one_message(ptlreid, files, monkeypatch):
    import faiss

    def fail(*_):
        raise RuntimeError("Error in write: disk")

    monkeypatch.setattr(faiss, "write_index", fail)
    code, _, err = ptlreid("index", "add", "flat", "may")
    assert (code, "Traceback" in err, "flat" in err) == (1, False, True), err
    assert json.loads(ptlreid("index", "info", "flat", "--json")[1])["rows"] == ROWS
    assert not [path for path in Path("flat").iterdir() if path.suffix == ".part"]


def test_a_run_searches_an_index_of_its_own_features_only(ptlreid, run, market_folder, tmp_path):
    given = ("--run", "tiny", "--root", market_folder.parent, "--device", "cpu", "--json")
    code, _, err = ptlreid("embed", "market", "--part", "gallery", "--out", "gallery", "--shards", 3, *given)
    assert code == 0, err
    assert ptlreid("index", "build", "gallery", "--kind", "flat", "--out", "ix")[0] == 0
    image = sorted((market_folder / "query").iterdir())[0]
    answers = []
    for gallery in ("--gallery", "gallery"), ("--index", "ix"):
        code, out, err = ptlreid("search", image, *gallery, *given)
        assert code == 0, err
        answers.append(pairs(json.loads(out)))
    assert answers[0] == answers[1]
    manifest = json.loads(Path("gallery/manifest.json").read_text())
    manifest.pop("content")
    from ptlreid.json_files import write_json

    write_json(Path("gallery/manifest.json"), manifest | {"weights": "0" * 32})
    shutil.rmtree("ix")
    assert ptlreid("index", "build", "gallery", "--kind", "flat", "--out", "ix")[0] == 0
    code, _, err = ptlreid("search", image, "--index", "ix", *given)
    assert (code, "extracted with other weights" in err.replace("\n", " ")) == (1, True), err


def test_a_person_with_many_images_of_their_own_in_the_gallery_is_found(ptlreid, files):
    own = feature_files.read(Path("city.h5")).select(np.arange(0, 6000, 100))  # 60 of 120 equal images
    feature_files.write(Path("own.h5"), own, {}, dtype="float32")
    given = ("--features", "own.h5", "--together", "--exclude-query", "--top", 5)
    expected = pairs(search(ptlreid, *given, "--gallery", "city"))
    assert len(expected[0]) == 5
    assert pairs(search(ptlreid, *given, "--index", "flat")) == expected


def test_removed_images_are_not_what_a_filter_leaves(ptlreid, files):
    cosine = ("--features", "q.h5", "--metric", "cosine")
    ptlreid("index", "remove", "flat", "--glob", "city/door/1*", "--json")
    for exact in ([], ["--exact"]):
        code, _, err = ptlreid("search", *cosine, "--index", "flat", "--glob", "city/door/1*", *exact)
        assert (code, "No gallery image is left" in err) == (1, True), err
    ptlreid("index", "remove", "flat", "--glob", "city/door/[2-8]*", "--json")
    code, out, err = ptlreid("search", *cosine, "--index", "flat", "--camera", "1", "--glob", "city/door/*", "--json")
    assert code == 0, err
    assert "so all shards are searched" not in err
    assert all(hit["path"].startswith("city/door/9") for one in json.loads(out)["queries"] for hit in one["hits"])


def test_building_again_says_that_removed_images_are_back(ptlreid, files):
    ptlreid("index", "remove", "flat", "city/yard/0.jpg", "--json")
    code, out, err = ptlreid("index", "build", "city", "--out", "flat", "--kind", "flat", "--json")
    assert (code, json.loads(out)["removed"]) == (0, 0), err
    assert "flat: images that were removed from the index before and are in it again: 1" in err
