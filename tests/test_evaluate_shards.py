"""The scores of a gallery in shards, read block by block by any number of processes, are those of it in memory."""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import sys
import tracemalloc
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from ranking import evaluate
from shard_folders import make_shards, random_features
from test_processes import free_port

from ptlreid.cli import main
from ptlreid.errors import DataError
from ptlreid.progress import Silent
from ptlreid.retrieval import feature_files, shard_scores
from ptlreid.retrieval.protocols import PROTOCOLS, Protocol
from ptlreid.retrieval.shard_scores import ShardRetrieval, score_shards
from ptlreid.retrieval.shards import Shards
from ptlreid.retrieval.types import Features, Scores

MARKET = PROTOCOLS["market"]
PROTOCOL_CHOICES = (
    *(PROTOCOLS[name] for name in ("market", "cloth-changing", "any-image", "any-camera")),
    replace(MARKET, keep_distractors=False),
)


def with_clothes(features: Features, seed: int) -> Features:
    return replace(features, clothes=np.random.default_rng(seed).integers(0, 2, len(features)))


def check(shards: Path, query: Features, gallery: Features, protocol: Protocol, metric: str) -> Scores | None:
    """Compares with the ranking in memory; both may find that no query has a match."""
    retrieval = ShardRetrieval(query, Shards.open(shards), protocol)
    options = {"metric": metric, "ap": "step", "memory_budget": None, "progress": Silent()}
    try:
        expected = evaluate(query, gallery, protocol, metric=metric)
    except DataError as error:
        with pytest.raises(DataError) as found:
            score_shards(retrieval, **options)
        assert str(found.value) == str(error)
        return None
    scores = score_shards(retrieval, **options)
    for field in fields(Scores):
        np.testing.assert_array_equal(getattr(scores, field.name), getattr(expected, field.name), field.name)
    return scores


def test_equal_to_a_ranking_in_memory_with_ties_copies_junk_and_every_protocol(tmp_path, monkeypatch):
    for seed in range(20):
        whole, dtype = seed % 4 > 0, ("float32", "float16")[seed % 2]
        query, gallery = (random_features(seed + offset, size, whole=whole) for offset, size in ((0, 9), (50, 70)))
        query, gallery = with_clothes(query, seed), with_clothes(gallery, seed + 1)
        gallery = replace(gallery, matrix=gallery.matrix.astype(dtype).astype(np.float32))
        gallery.paths[11], gallery.paths[40], gallery.paths[5] = query.paths[2], query.paths[2], query.paths[3]
        folder = make_shards(tmp_path / str(seed), gallery, rows=16, dtype=dtype)
        monkeypatch.setattr(shard_scores, "plan_rows", lambda *_, rows=(1, 3, 7, 100)[seed % 4]: rows)
        for metric in ("euclidean", "cosine"):
            check(folder, query, gallery, PROTOCOL_CHOICES[seed % 5], metric)


def near_ties(seed: int, scale: float) -> tuple[Features, Features]:
    """Distances that differ by a hundredth of what a product in float32 tells apart, among them to copies."""
    rng = np.random.default_rng(seed)
    directions = rng.normal(size=(300, 64))
    directions *= ((1 + 1e-8 * rng.permutation(300)) / np.linalg.norm(directions, axis=1))[:, None]
    sides = []
    for matrix in (np.tile(rng.normal(size=64) * scale, (5, 1)), directions):
        pids = np.arange(len(matrix)) % 5
        paths = np.array([str(row) for row in range(len(matrix))], dtype=object)
        sides.append(Features(matrix.astype(np.float32), pids, pids, paths))
    sides[1].matrix[250:] = sides[1].matrix[:50]
    return sides[0], sides[1]


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_ranks_are_by_distances_that_a_product_cannot_tell_apart(tmp_path, monkeypatch, metric):
    """The order is that of a loop in float64; with cosine, of features of nearly one direction."""
    monkeypatch.setattr(shard_scores, "plan_rows", lambda *_: 70)
    query, gallery = near_ties(0, 1e-7)
    if metric == "cosine":
        gallery = replace(gallery, matrix=(query.matrix[0] * 1e7 + gallery.matrix * 1e-7).astype(np.float32))
        query = replace(query, matrix=query.matrix[::-1] * np.float32(-1))
    scores = check(make_shards(tmp_path / "g", gallery, rows=100), query, gallery, PROTOCOLS["any-image"], metric)
    images = gallery.matrix.astype(float)
    vectors = query.matrix.astype(float)
    if metric == "cosine":
        images, vectors = (one / np.sqrt(np.square(one).sum(axis=1))[:, None] for one in (images, vectors))
    for row, vector in enumerate(vectors):
        squares = np.square(images - vector).sum(axis=1)
        distances = np.sqrt(squares) if metric == "euclidean" else squares / 2
        order = np.argsort(distances, kind="stable")
        ranks = 1 + np.flatnonzero(gallery.pids[order] == query.pids[row])
        np.testing.assert_array_equal(scores.match_ranks[slice(*scores.match_starts[row : row + 2])], ranks)


@pytest.fixture
def files(tmp_path, monkeypatch) -> Path:
    """`q.h5`, `g.h5` and the same gallery in shards, `g`; where commands run."""
    monkeypatch.chdir(tmp_path)
    query, gallery = with_clothes(random_features(2, 8), 0), with_clothes(random_features(1, 50), 1)
    gallery.paths[11] = query.paths[2]
    feature_files.write(Path("q.h5"), query, {}, dtype="float32")
    feature_files.write(Path("g.h5"), gallery, {}, dtype="float32")
    make_shards(Path("g"), gallery, rows=8)
    return tmp_path


@pytest.mark.parametrize(
    "options",
    [
        ["--bootstrap", 50, "--csv", "scores.csv"],
        ["--metric", "cosine", "--ap", "trapezoid", "--memory-budget", "1KB"],
        ["--protocol", "any-camera"],
        ["--protocol", "cloth-changing"],
        ["--protocol", "single-shot"],
        ["--rerank"],
        ["--per-camera", "--ranklist", "ranks.csv"],
    ],
    ids=str,
)
def test_the_command_gives_what_it_gives_for_a_file(ptlreid, files, options):
    answers = []
    for gallery in ("g", "g.h5"):
        code, out, err = ptlreid("evaluate", "--query", "q.h5", "--gallery", gallery, "--json", *options)
        assert code == 0, err
        answer = json.loads(out)
        assert answer.pop("files") == {"query": "q.h5", "gallery": gallery}
        answers.append((answer, *(file.read_text() for file in sorted(files.glob("*.csv")))))
        for file in files.glob("*.csv"):
            file.unlink()
    assert answers[0] == answers[1]


def fail(*_: object) -> None:
    raise DataError("the disk of process 2")


def command_of_one(rank: int, size: int, port: str, arguments: tuple[str, ...], broken: int | None) -> None:
    """A command in one of several processes, of which `broken` cannot read; its output is in `out.RANK`, `err.RANK`."""
    if rank == broken:
        Shards.read_blocks = fail
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "GLOO_SOCKET_IFNAME": "lo"}
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(size)}
    sys.argv = ["ptlreid", *arguments]
    with (
        Path(f"out.{rank}").open("w") as out,
        Path(f"err.{rank}").open("w") as err,
        redirect_stdout(out),
        redirect_stderr(err),
    ):
        main()


def run_together(
    size: int, *arguments: str, broken: int | None = None
) -> tuple[list[int | None], list[str], list[str]]:
    """Exit codes, outputs and error outputs of a command in several processes, by rank."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch.distributed.nn.functional", "ptlreid.workflows.evaluate_shards"])
    port = free_port()
    processes = [
        context.Process(target=command_of_one, args=(rank, size, port, arguments, broken)) for rank in range(size)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
        assert process.exitcode is not None, "the process hangs"
    texts = ([Path(f"{kind}.{rank}").read_text() for rank in range(size)] for kind in ("out", "err"))
    return [process.exitcode for process in processes], *texts


@pytest.mark.parametrize("size", [2, 3])
def test_several_processes_give_what_one_gives(ptlreid, files, size):
    options = ("evaluate", "--query", "q.h5", "--gallery", "g", "--device", "cpu", "--json", "--csv")
    code, expected, err = ptlreid(*options, "one.csv")
    assert code == 0, err
    codes, out, err = run_together(size, *options, "many.csv")
    assert codes == [0] * size, err
    assert json.loads(out[0]) == json.loads(expected)
    assert set(out[1:]) == {""}
    assert Path("many.csv").read_text() == Path("one.csv").read_text()


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-20])


def swap(file: Path) -> None:
    other = file.with_stem("00002")
    content, of_other = file.read_bytes(), other.read_bytes()
    file.write_bytes(of_other)
    other.write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "file", "message"),
    [
        (Path.unlink, "00003.npy", "00003.npy: cannot be read"),
        (Path.unlink, "00003.npz", "00003.npz: no such file, expected the columns of a shard"),
        (cut, "00003.npy", "00003.npy: "),
        (cut, "00003.npz", "00003.npz: changed since it was written"),
        (swap, "00003.npy", "0000[23].npy: changed since it was written"),
        (swap, "00003.npz", "0000[23].npz: changed since it was written"),
    ],
)
def test_a_missing_cut_or_swapped_shard_is_named(ptlreid, files, damage, file, message):
    damage(files / "g" / file)
    code, _, err = ptlreid("evaluate", "--query", "q.h5", "--gallery", "g")
    assert code == 1
    assert re.search(message, err), err


def test_a_gallery_is_not_held_in_memory(tmp_path):
    """15 MB of features within 2 MB, with the blocks that the smallest budget allows, labels and products."""
    gallery, query = (random_features(seed, size, width=64, whole=False) for seed, size in ((1, 60_000), (2, 4)))
    gallery = replace(gallery, pids=np.arange(60_000))
    retrieval = ShardRetrieval(
        replace(query, pids=np.arange(4)),
        Shards.open(make_shards(tmp_path / "g", gallery, rows=6000)),
        PROTOCOLS["any-image"],
    )
    tracemalloc.start()
    try:
        score_shards(retrieval, metric="euclidean", ap="step", memory_budget=1, progress=Silent())
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2 << 20


def test_a_dry_run_states_memory_and_opens_no_shard(ptlreid, files, monkeypatch):
    monkeypatch.setattr(Shards, "open", fail)
    code, out, err = ptlreid("evaluate", "--query", "q.h5", "--gallery", "g", "--dry-run", "--json")
    assert code == 0, err
    plan = json.loads(out)
    assert plan["gallery"] == {"images": 50, "shards": 7}
    assert (plan["query"], plan["features"]) == ({"images": 8}, {"width": 5})
    # Eight queries of five float32; three blocks of 16,384 rows in two copies, and eight products with one of them.
    assert plan["memory_bytes"]["features"] == 8 * 5 * 4
    assert plan["memory_bytes"]["ranking"] == 16_384 * (3 * 2 * 5 * 4 + 8 * 4)
    code, out, err = ptlreid("evaluate", "--query", "q.h5", "--gallery", "g", "--dry-run")
    assert code == 0, err


def test_other_widths_are_one_message(ptlreid, files):
    feature_files.write(Path("wide.h5"), random_features(3, 4, width=6), {}, dtype="float32")
    for options in ([], ["--dry-run"]):
        code, _, err = ptlreid("evaluate", "--query", "wide.h5", "--gallery", "g", *options)
        assert (code, "wide.h5 has features of width 6, g of width 5: expected the same" in err) == (1, True), err


def test_all_processes_end_with_one_message(files):
    """The last of three processes cannot read its part, while the others have read theirs."""
    options = ("evaluate", "--query", "q.h5", "--gallery", "g", "--device", "cpu")
    codes, out, err = run_together(3, *options, broken=2)
    assert codes == [1, 1, 1]
    assert (err[0].count("the disk of process 2"), err[1], err[2]) == (1, "", "")
    assert set(out) == {""}


def test_without_an_image_of_a_queried_identity_it_is_the_message_of_a_file(ptlreid, files):
    query = feature_files.read(Path("q.h5"))
    feature_files.write(Path("other.h5"), replace(query, pids=query.pids + 1000), {}, dtype="float32")
    answers = [ptlreid("evaluate", "--query", "other.h5", "--gallery", gallery) for gallery in ("g", "g.h5")]
    assert [code for code, _, _ in answers] == [1, 1]
    assert all("has a true match in the gallery" in err for _, _, err in answers), answers
