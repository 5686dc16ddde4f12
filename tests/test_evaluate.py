"""`ptlreid evaluate`, from a run's cache and from files of features, as a user meets it."""

from __future__ import annotations

import csv
import json
import subprocess
import sys

import numpy as np
import pytest
from conftest import tiny_network
from ranking import blocks, camera_scores, evaluate, evaluate_blocks, expand, rerank

from ptlreid import datasets
from ptlreid.errors import OptionError
from ptlreid.evaluation import evaluate_run, load_retrieval
from ptlreid.models import weights
from ptlreid.network_types import NetworkSpec, Readout
from ptlreid.progress import Silent
from ptlreid.retrieval.distance import matrix_blocks
from ptlreid.retrieval.protocols import PROTOCOLS
from ptlreid.retrieval.types import Features
from ptlreid.settings import EvaluateSettings

KEYS = {"protocol", "mAP", "mINP", "cmc", "queries", "gallery", "settings"}


@pytest.fixture
def splits(market_folder):
    return datasets.load("market", market_folder.parent)


@pytest.fixture
def scored(ptlreid, run, market_folder):
    """Runs `ptlreid evaluate --run tiny --json ...`; returns its document and standard error."""

    def evaluate_with(*arguments: object):
        code, out, err = ptlreid("evaluate", "--run", "tiny", "--json", "--root", market_folder.parent, *arguments)
        assert code == 0, err
        return json.loads(out), err

    return evaluate_with


def made(seed: int, size: int, *, people: int = 6, width: int = 4) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        "features": rng.standard_normal((size, width)).astype(np.float32),
        "pids": rng.integers(1, people + 1, size),
        "camids": rng.integers(1, 4, size),
    }


def as_features(values: dict[str, np.ndarray], file: str) -> Features:
    paths = np.array([f"{file}#{row}" for row in range(len(values["pids"]))], dtype=object)
    return Features(values["features"], values["pids"], values["camids"], paths)


@pytest.fixture
def files(tmp_path):
    """Features of another program: q.npz and g.npz in the folder where commands run."""
    query, gallery = made(0, 30), made(1, 90)
    np.savez(tmp_path / "q.npz", **query)
    np.savez(tmp_path / "g.npz", **gallery)
    return as_features(query, "q.npz"), as_features(gallery, "g.npz")


FILES = ("evaluate", "--query", "q.npz", "--gallery", "g.npz")


def test_the_document_has_the_keys_and_the_settings_as_they_were_used(scored):
    found, _ = scored("--metric", "cosine", "--flip", "--ap", "trapezoid")
    assert set(found) == KEYS | {"run", "data", "weights_digest", "readout"}
    assert set(found["cmc"]) == {"1", "5", "10", "20"}
    settings = found["settings"]
    used = {"data": "market", "protocol": "market", "flip": True, "normalize": False}
    chosen = {"metric": "cosine", "ap": "trapezoid", "dtype": "float32", "rerank": False}
    assert used | chosen == {name: settings[name] for name in used | chosen}


def test_options_reach_the_score(ptlreid, files):
    query, gallery = files
    for options, expected in (
        ((), evaluate(query, gallery, PROTOCOLS["market"])),
        (("--metric", "cosine"), evaluate(query, gallery, PROTOCOLS["market"], metric="cosine")),
        (("--ap", "trapezoid"), evaluate(query, gallery, PROTOCOLS["market"], ap="trapezoid")),
        (("--protocol", "any-camera"), evaluate(query, gallery, PROTOCOLS["any-camera"])),
        (("--protocol", "cuhk03-classic"), evaluate(query, gallery, PROTOCOLS["cuhk03-classic"])),
        (("--rerank",), evaluate_blocks(rerank(query, gallery), query, gallery, PROTOCOLS["market"])),
    ):
        code, out, err = ptlreid(*FILES, "--json", *options)
        assert code == 0, err
        summary = expected.summary()
        assert json.loads(out) | summary == json.loads(out), options


def test_settings_of_a_config_file_reach_the_score(ptlreid, files, tmp_path):
    query, gallery = files
    (tmp_path / "mine.toml").write_text("rerank = true\nrerank_k1 = 7\nrerank_k2 = 3\nrerank_lambda = 0.6\n")
    found = json.loads(ptlreid(*FILES, "--json", "--config", "mine.toml")[1])
    source = rerank(query, gallery, k1=7, k2=3, weight=0.6)
    assert found["mAP"] == evaluate_blocks(source, query, gallery, PROTOCOLS["market"]).mean_ap
    assert set(found) == KEYS | {"files"}

    (tmp_path / "mine.toml").write_text('expand = 4\nexpand_alpha = 3.0\nmetric = "cosine"\n')
    found = json.loads(ptlreid(*FILES, "--json", "--config", "mine.toml")[1])
    expanded = expand(query, gallery, size=4, alpha=3.0)
    assert found["mAP"] == evaluate(expanded, gallery, PROTOCOLS["market"], metric="cosine").mean_ap

    (tmp_path / "mine.toml").write_text('protocol = "cuhk03-classic"\nsingle_shot_samples = 3\nseed = 5\n')
    found = json.loads(ptlreid(*FILES, "--json", "--config", "mine.toml")[1])
    drawn = evaluate(query, gallery, PROTOCOLS["cuhk03-classic"], single_shot_samples=3, seed=5)
    assert found["cmc"] == drawn.summary()["cmc"]


@pytest.mark.parametrize("how", [(), ("--rerank",)])
def test_intervals_and_cameras_are_reported_with_the_scores(ptlreid, files, how):
    code, out, err = ptlreid(*FILES, "--json", "--bootstrap", 200, "--per-camera", *how)
    assert code == 0, err
    found = json.loads(out)
    assert set(found) == KEYS | {"files", "intervals", "cameras"}
    low, high = found["intervals"]["mAP"]
    assert 0 <= low < found["mAP"] < high <= 1
    assert set(found["intervals"]) == {"mAP", "mINP", "cmc"}
    pairs = [(cell["query"], cell["gallery"]) for cell in found["cameras"]]
    assert pairs == [(left, right) for left in (1, 2, 3) for right in (1, 2, 3)]
    for cell in found["cameras"]:
        assert (cell["mAP"] is None) == (cell["query"] == cell["gallery"])
    again = ptlreid(*FILES, "--json", "--bootstrap", 200, "--per-camera", *how)
    assert json.loads(again[1]) == found


def test_cameras_are_scored_as_the_rest_is(ptlreid, files):
    query, gallery = files
    protocol = PROTOCOLS["any-camera"]
    options = ("--per-camera", "--protocol", "any-camera", "--metric", "cosine", "--ap", "trapezoid")
    found = json.loads(ptlreid(*FILES, "--json", *options)[1])["cameras"]
    source = blocks(query, gallery, metric="cosine")
    assert found == camera_scores(source, query, gallery, protocol, ap="trapezoid").cells()


def test_the_table_of_queries_holds_each_of_them(ptlreid, files, tmp_path):
    query, _ = files
    code, out, err = ptlreid(*FILES, "--csv", "queries.csv", "--json")
    assert code == 0, err
    with (tmp_path / "queries.csv").open(newline="") as stream:
        lines = list(csv.DictReader(stream))
    assert [int(line["pid"]) for line in lines] == query.pids.tolist()
    assert [line["path"] for line in lines] == [f"q.npz#{row}" for row in range(30)]
    with_match = [line for line in lines if line["AP"]]
    found = json.loads(out)
    assert len(with_match) == found["queries"]["valid"]
    assert np.mean([float(line["AP"]) for line in with_match]) == pytest.approx(found["mAP"])
    assert np.mean([float(line["INP"]) for line in with_match]) == pytest.approx(found["mINP"])
    assert np.mean([line["first_match_rank"] == "1" for line in with_match]) == pytest.approx(found["cmc"]["1"])


def test_a_query_without_a_true_match_has_an_empty_score(ptlreid, files, tmp_path):
    values = made(0, 30)
    values["pids"][4] = 99
    np.savez(tmp_path / "q.npz", **values)
    ptlreid(*FILES, "--csv", "queries.csv")
    assert (tmp_path / "queries.csv").read_text().splitlines()[5].endswith(f"99,{values['camids'][4]},,,")


@pytest.mark.parametrize("how", [(), ("--rerank",)])
def test_rank_lists_are_the_nearest_images_with_distance_and_verdict(ptlreid, files, tmp_path, how):
    query, gallery = files
    code, _, err = ptlreid(*FILES, "--ranklist", "ranks.csv", "--ranklist-size", 4, *how)
    assert code == 0, err
    with (tmp_path / "ranks.csv").open(newline="") as stream:
        lines = list(csv.DictReader(stream))
    assert [(int(line["query_row"]), int(line["rank"])) for line in lines] == [
        (row, rank) for row in range(30) for rank in (1, 2, 3, 4)
    ]
    gaps = query.matrix[:, None].astype(float) - gallery.matrix[None]
    distances = np.sqrt(np.square(gaps).sum(axis=-1))
    if how:
        parts = list(rerank(query, gallery))
        distances = np.stack([block.keys_of(row) for block in parts for row in block.rows])
    for line in lines:
        row, column = int(line["query_row"]), int(line["gallery_row"])
        assert float(line["distance"]) == pytest.approx(distances[row, column], abs=1e-6)
        assert (line["verdict"] == "match") == (query.pids[row] == gallery.pids[column])
        assert (line["gallery_path"], int(line["gallery_camid"])) == (f"g.npz#{column}", gallery.camids[column])
        assert line["verdict"] != "match" or line["query_camid"] != line["gallery_camid"]
    assert evaluate_blocks(matrix_blocks(distances), query, gallery, PROTOCOLS["market"]).num_valid


def test_a_runs_own_cache_is_a_feature_file(ptlreid, scored, run):
    found, _ = scored()
    folder = run.features
    again = ptlreid(
        "evaluate",
        *("--query", folder / "market.query.last.h5"),
        *("--gallery", folder / "market.gallery.last.h5"),
        "--json",
    )
    scores = json.loads(again[1])
    assert all(scores[key] == found[key] for key in KEYS - {"settings"})


def test_a_budget_below_the_minimum_is_reported_and_changes_no_number(ptlreid, files):
    whole = json.loads(ptlreid(*FILES, "--json")[1])
    code, out, err = ptlreid(*FILES, "--json", "--memory-budget", "1KB")
    assert code == 0
    assert "--memory-budget 1KB is less than ranking these features needs: using" in err
    found = json.loads(out)
    assert all(found[key] == whole[key] for key in KEYS - {"settings"})
    assert "memory-budget" not in ptlreid(*FILES, "--memory-budget", "1GB")[2]


@pytest.mark.parametrize(
    ("text", "number"), [("2GB", 2 * 10**9), ("1.5 gb", 1.5e9), ("300MB", 3e8), ("4000KB", 4e6), ("17B", 17)]
)
def test_an_amount_of_memory_is_read_with_its_unit(text, number):
    assert EvaluateSettings.resolve(None, memory_budget=text).budget_bytes == number


@pytest.mark.parametrize("text", ["2", "GB", "-1GB", "2 gigs", ""])
def test_an_invalid_amount_of_memory_is_an_error(text):
    with pytest.raises(OptionError, match="expected a number and a unit"):
        EvaluateSettings.resolve(None, memory_budget=text)


def test_a_dry_run_of_a_run_reports_what_is_cached_and_extracts_nothing(scored, run):
    plan, _ = scored("--dry-run")
    assert plan["features"] == {
        "query": "to extract: no cached features",
        "gallery": "to extract: no cached features",
        "width": 32,
    }
    assert plan["query"] == {"images": 6, "identities": 3, "cameras": 2}
    assert plan["settings"]["flip"] is False
    assert not run.features.exists()
    scored()
    plan, _ = scored("--dry-run")
    assert (plan["features"]["query"], plan["features"]["gallery"]) == ("cached", "cached")
    plan, _ = scored("--dry-run", "--flip")
    assert plan["features"]["gallery"] == "to extract: the readout changed"


def test_a_dry_run_of_files_reports_sizes_and_memory(ptlreid, files):
    plan = json.loads(ptlreid(*FILES, "--dry-run", "--json", "--rerank")[1])
    assert (plan["query"], plan["gallery"]) == ({"images": 30}, {"images": 90})
    assert set(plan["memory_bytes"]) == {"features", "ranking", "reranking", "total"}
    assert plan["memory_bytes"]["features"] == 4 * (30 + 90) * plan["features"]["width"]


def test_float16_features_are_stated(scored, tmp_path):
    (tmp_path / "mine.toml").write_text('dtype = "float16"\n')
    found, _ = scored("--config", "mine.toml")
    assert found["settings"]["dtype"] == "float16"


def test_a_second_evaluation_imports_neither_torch_nor_scipy(scored, market_folder, tmp_path):
    first, _ = scored("--per-camera", "--bootstrap", 20)
    script = (
        "import sys\nfrom ptlreid.cli import main\n"
        f"sys.argv = ['ptlreid', 'evaluate', '--run', 'tiny', '--json', '--root', {str(market_folder.parent)!r}, "
        "'--per-camera', '--bootstrap', '20', '--csv', 'q.csv', '--ranklist', 'r.csv']\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\nprint(*sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert json.loads(done.stdout) == first
    loaded = set(done.stderr.split())
    assert not {"torch", "torchvision", "scipy", "sklearn", "matplotlib", "safetensors.torch"} & loaded
    assert "ptlreid.cache" in loaded


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "Nothing to evaluate: expected --run RUN"),
        (("--query", "q.npz"), "Nothing to evaluate"),
        (("--run", "tiny", "--query", "q.npz", "--gallery", "g.npz"), "Nothing to evaluate"),
        (("--query", "q.npz", "--gallery", "none.npz"), "none.npz: no such file"),
        (("--query", "wide.npz", "--gallery", "g.npz"), "wide.npz has features of width 5, g.npz of width 4"),
        (("--query", "q.npz", "--gallery", "empty.npz"), "empty.npz: holds no features"),
        (("--query", "q.npz", "--gallery", "g.npz", "--flip"), "--flip: for a --run only"),
        (("--query", "q.npz", "--gallery", "g.npz", "--protocol", "markt"), "Did you mean 'market'"),
        (
            ("--query", "q.npz", "--gallery", "g.npz", "--memory-budget", "lots"),
            "expected a number and a unit, such as 500MB or 2GB",
        ),
        (("--query", "q.npz", "--gallery", "one.npz"), "None of the 30 queries has a true match"),
    ],
)
def test_a_mistake_is_named(ptlreid, files, tmp_path, arguments, message):
    one = made(1, 5)
    one["pids"][:] = 50
    for name, values in (("one", one), ("empty", made(1, 0)), ("wide", made(0, 5, width=5))):
        np.savez(tmp_path / f"{name}.npz", **values)
    code, out, err = ptlreid("evaluate", *arguments)
    assert (code, out) == (1, "")
    assert message in err
    assert err.splitlines()[-1].startswith("error: ")


def test_expansion_needs_the_cosine():
    with pytest.raises(OptionError, match="--metric cosine"):
        EvaluateSettings.resolve(None, expand=3)
    assert EvaluateSettings.resolve(None, expand=3, metric="cosine").expand == 3


def test_help_shows_common_options(ptlreid):
    code, out, _ = ptlreid("evaluate", "--help")
    assert code == 0
    assert all(
        name in out for name in ("--[no-]rerank", "--[no-]per-camera", "--bootstrap", "--query", "--memory-budget")
    )
    assert not any(name in out for name in ("--batch-size", "--[no-]normalize", "--workers"))


def test_tables_are_printed_without_json(ptlreid, files):
    code, out, err = ptlreid(*FILES, "--per-camera", "--bootstrap", 50)
    assert code == 0, err
    assert "30 of 30 queries have a true match; 90 gallery images, 0 of them junk." in out
    assert "95% CI (bootstrap over identities): mAP " in out
    assert "mAP in percent by query camera (rows) and gallery camera (columns)" in out
    rows = [line.replace("│", " ").split() for line in out.splitlines() if "│" in line][-3:]
    assert [row[0] for row in rows] == ["1", "2", "3"]
    assert rows[0][1] == "-"


def test_the_title_names_settings_other_than_the_defaults(ptlreid, files):
    title = " ".join(ptlreid(*FILES)[1].split("┏")[0].split())
    assert title.endswith("(protocol market)")
    changed = ptlreid(*FILES, "--metric", "cosine", "--ap", "trapezoid")[1]
    assert " ".join(changed.split("┏")[0].split()).endswith("(protocol market, metric cosine, ap trapezoid)")


@pytest.mark.parametrize(
    ("own", "options", "expected"),
    [
        ({}, (), "(protocol market)"),
        ({}, ("--no-flip", "--no-normalize"), "(protocol market)"),
        ({}, ("--flip",), "(protocol market, flip on)"),
        ({"flip": True, "normalize": True}, (), "(protocol market)"),
        ({"flip": True, "normalize": True}, ("--flip", "--no-normalize"), "(protocol market, normalize off)"),
    ],
)
def test_the_title_names_a_readout_only_where_it_is_not_the_networks_own(
    ptlreid, run, market_folder, own, options, expected
):
    network = tiny_network(classes=4)
    network.readout = Readout(**own)
    weights.save(network, NetworkSpec("tiny", True, "slot", 4, 64, 32), run.weights())
    code, out, err = ptlreid("evaluate", "--run", "tiny", "--root", market_folder.parent, *options)
    assert code == 0, err
    assert " ".join(out.split("┏")[0].split()).endswith(expected)


def test_a_run_is_scored_by_the_features_in_its_cache(run, splits):
    settings = EvaluateSettings.resolve(None, device="cpu")
    retrieval = load_retrieval(run, splits, settings, Silent())
    scores = evaluate_run(run, splits, settings, Silent())
    assert scores.mean_ap == evaluate(retrieval.query, retrieval.gallery, PROTOCOLS["market"]).mean_ap
    np.testing.assert_array_equal(retrieval.gallery.pids, splits.gallery.pids)
