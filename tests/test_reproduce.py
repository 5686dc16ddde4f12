"""The paper's tables: their rows, the runs behind them, and the same plans on synthetic datasets."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from test_resume import At, fault

from ptlreid.datasets import find
from ptlreid.errors import OptionError
from ptlreid.models.summary import summarize
from ptlreid.progress import Silent
from ptlreid.records import JUNK
from ptlreid.retrieval import feature_files
from ptlreid.retrieval.types import Features
from ptlreid.runs import RunFolder
from ptlreid.settings import SyntheticSettings
from ptlreid.settings.reproduce import SCALES, TINY, ReproduceSettings, tables
from ptlreid.transfer.stages import plan_stages
from ptlreid.workflows.reproduce import dry_run, reproduce

PAPER = SCALES["paper"]
# The synthetic datasets and networks of `--scale tiny`, even smaller.
SMALLER = replace(
    TINY,
    settings={**TINY.settings, "backbone": "tiny", "height": 64, "width": 32, "epochs": 1, "batch_size": 8},
    recipe_settings={"large-batch": {"batch_size": 12}},
    sites=SyntheticSettings(identities=8, cameras=2, images_per_camera=2, height=64, width=32),
)
ROWS = [(table, row) for table in tables("all") for row in table.rows]


def make_settings(root, **changed) -> ReproduceSettings:
    return ReproduceSettings.resolve(None, root=str(root), device="cpu", **changed)


def by_name(rows: list[dict]) -> dict[str, dict]:
    return {row["row"]: row for row in rows}


def test_the_six_tables_have_the_papers_rows():
    # Counted in the paper: rows, and those that cite others; of Table 3 each of the two columns.
    assert [(len(table.rows), sum(bool(row.cited) for row in table.rows)) for table in tables("all")] == [
        (8, 3),
        (10, 4),
        (10, 6),
        (5, 3),
        (10, 0),
        (6, 0),
    ]


@pytest.mark.parametrize(
    ("number", "name", "published"),
    [
        ("1", "DenseNet-161+PTL+STD", (41.38, 73.12)),
        ("2", "DenseNet-161*", (69.90, 88.30)),
        ("3", "MGN+PTL, labeled", (77.31, 79.79)),
        ("4", "MGN (reproduced)", (77.07, 87.70)),
        ("5", "DenseNet-161+PTL+STD: Duke to Market to MSMT17", (42.73, 74.31)),
        ("6", "DenseNet-161+PTL+STD, λ = 0.8", (42.51, 73.37)),
    ],
)
def test_published_figures_are_those_printed_in_the_paper(number, name, published):
    (table,) = tables(number)
    (row,) = (row for row in table.rows if row.name == name)
    assert (row.mean_ap, row.cmc1) == published


@pytest.mark.parametrize(("table", "row"), ROWS, ids=[f"{table.number}: {row.name}" for table, row in ROWS])
@pytest.mark.parametrize("scale", SCALES.values(), ids=SCALES)
def test_every_row_is_cited_or_has_a_plan_that_resolves(table, row, scale, tmp_path):
    if row.cited:
        assert not row.plan
        return
    stage = plan_stages(scale.chain(row, make_settings(tmp_path)))[-1]
    asked = row.name.split(",")[0].split(":")[0]
    parts = {"PTL": "ptl", "STD": "std"}
    assert [part for part in parts if part in asked.split("+")] == [
        part for part in parts if parts[part] in {one.settings.method[:3] for one in stage.dependencies().values()}
    ]


def test_plans_have_the_settings_of_the_papers_text(tmp_path):
    # Section 5.2 and under Table 2: batch 32, but 90 for DenseNet-161*; λ = 0.8; MGN as its authors.
    plans = {
        row.name: plan_stages(PAPER.chain(row, make_settings(tmp_path)))[-1].settings
        for row in tables("2")[0].rows
        if row.plan
    }
    assert {name: stage.batch_size for name, stage in plans.items()} == {
        "DenseNet-161*": 90,
        "DenseNet-161": 32,
        "DenseNet-161+PTL": 32,
        "DenseNet-161+PTL+STD": 32,
        "MGN (reproduced)": 16,
        "MGN+PTL": 16,
    }
    assert plans["DenseNet-161+PTL+STD"].lambda_ == 0.8
    assert (plans["MGN+PTL"].loss, plans["MGN+PTL"].height, plans["MGN+PTL"].ptl) == ("ce-triplet", 384, True)
    # Section 5.8: teacher and student both went from ImageNet to Market-1501 first.
    for row in tables("6")[0].rows[1:]:
        stage = plan_stages(PAPER.chain(row, make_settings(tmp_path)))[-1]
        assert stage.init is not None and stage.teacher is not None and stage.teacher.init is not None
        assert (stage.init.settings.data, stage.init.settings.ptl) == ("market", False)
        assert (stage.teacher.settings.data, stage.teacher.init.settings.data) == ("msmt17", "market")
        assert f"λ = {stage.settings.lambda_:g}" in row.name


def test_a_dry_run_lists_missing_datasets_and_the_total_cost(tmp_path):
    light = replace(PAPER, settings={"backbone": "tiny"})
    found = dry_run(tables("1")[0], make_settings(tmp_path), tmp_path, light)
    rows = by_name(found["rows"])
    assert rows["GLAD"] == {"row": "GLAD", "cited": "Wei et al. 2018"}
    assert rows["DenseNet-161+PTL+STD"]["trainings"] == ["tiny ptl: msmt17", "tiny std0.8: msmt17"]
    assert all(row["missing"] == ["msmt17"] for row in found["rows"] if "cited" not in row)
    # Both backbones are one here, so there are three trainings: 50 epochs of MSMT17's published training images, each
    # with a pass forward and two back, and one of the teacher.
    images = find("msmt17").counts["train_images"]
    plain, ptl = (summarize("tiny", cells, 1000).macs for cells in (False, True))
    assert found["trainings"] == 3
    assert found["cost"] == {"images": 3 * 50 * images, "macs": 50 * images * (3 * (plain + ptl + plain) + ptl)}


def test_the_cost_of_pxk_batches_counts_the_sampled_images(tmp_path):
    light = replace(PAPER, settings={"backbone": "tiny"})
    found = dry_run(tables("4")[0], make_settings(tmp_path), tmp_path, light)
    # MGN and MGN+PTL: 450 epochs with four images of each of the 702 identities.
    assert found["cost"]["images"] == 2 * 450 * 4 * 702


def test_rows_with_missing_datasets_show_the_published_figures(tmp_path):
    found = reproduce(tables("4")[0], make_settings(tmp_path), tmp_path / "runs", PAPER, Silent())
    assert found["setting"] == "paper"
    row = by_name(found["rows"])["MGN+PTL"]
    assert row["published"] == {"mAP": 79.16, "cmc1": 89.36}
    assert (row["missing"], row["measured"], row["difference"], row["run"]) == (["duke"], None, None, None)
    assert not (tmp_path / "runs").exists()


@pytest.fixture(scope="module")
def table6(tmp_path_factory):
    """Table 6, all six rows, on tiny datasets and a tiny network."""
    place = tmp_path_factory.mktemp("table6")
    return place, reproduce(tables("6")[0], make_settings(place / "data"), place / "runs", SMALLER, Silent())


def test_a_whole_table_runs_on_synthetic_datasets(table6):
    place, found = table6
    assert len(found["rows"]) == 6
    for row in found["rows"]:
        metrics = RunFolder(place / "runs" / "tiny" / row["run"]).read_metrics()
        assert row["measured"]["cmc1"] == pytest.approx(100 * metrics["cmc"]["1"])
    assert len({row["run"] for row in found["rows"]}) == 6  # six different chains end in six different runs


def test_msmt17_is_scored_by_trapezoids_with_the_step_ap_next_to_it(table6):
    """Both from the cached features and the rule itself, query by query."""
    place, found = table6
    for row in found["rows"]:
        run = RunFolder(place / "runs" / "tiny" / row["run"])
        query, gallery = (features_read(run, part) for part in ("query", "gallery"))
        expected = [100 * slow_mean_ap(query, gallery, trapezoid) for trapezoid in (True, False)]
        assert [row["measured"][name] for name in ("mAP", "mAP_step")] == pytest.approx(expected)
        assert row["ap"] == "trapezoid"
        assert expected[0] < expected[1]


def features_read(run: RunFolder, part: str) -> Features:
    return feature_files.read(run.features / f"synthetic-c.{part}.last.h5")


def slow_mean_ap(query: Features, gallery: Features, trapezoid: bool) -> float:
    """mAP under Market-1501's rules, with the precision at each match or its mean with that one rank earlier."""
    found = []
    for vector, pid, camid in zip(query.matrix.astype(float), query.pids, query.camids, strict=True):
        kept = ((gallery.pids != pid) | (gallery.camids != camid)) & (gallery.pids != JUNK)
        order = np.argsort(((gallery.matrix[kept] - vector) ** 2).sum(axis=1), kind="stable")
        matches = np.concatenate([[0], np.cumsum(gallery.pids[kept][order] == pid)])
        ranks = np.flatnonzero(np.diff(matches)) + 1
        before = [matches[rank - 1] / (rank - 1) if rank > 1 else 1.0 for rank in ranks]
        at = [matches[rank] / rank for rank in ranks]
        found.append(np.mean([(one + other) / 2 for one, other in zip(before, at, strict=True)] if trapezoid else at))
    return float(np.mean(found))


def test_only_rows_scored_on_msmt17_are_by_trapezoids(tmp_path):
    """Of the paper's own rows these are 5 of Table 1, 6 of Table 5 and all 6 of Table 6: 17 of 33."""
    rows = [
        (row["row"], row["ap"])
        for table in tables("all")
        for row in reproduce(table, make_settings(tmp_path), tmp_path / "runs", PAPER, Silent())["rows"]
        if "cited" not in row
    ]
    assert (len(rows), sum(ap == "trapezoid" for _, ap in rows)) == (33, 17)
    assert ("MGN+PTL, labeled", "step") in rows


def test_stages_shared_by_rows_are_trained_once(table6):
    place, _ = table6
    # PTL on both datasets, which is the teacher of all; the plain network on the first, where all students start; five
    # students.
    assert len(list((place / "runs" / "tiny").iterdir())) == 2 + 1 + 5


def test_the_second_time_everything_is_reused(table6):
    place, found = table6
    progress = At(1, fault)  # raises if an update is made
    assert reproduce(tables("6")[0], make_settings(place / "data"), place / "runs", SMALLER, progress) == found
    plans = dry_run(tables("6")[0], make_settings(place / "data"), place / "runs", SMALLER)
    assert all(row["finished"] for row in plans["rows"])
    assert plans["cost"]["images"] > 0


def test_another_scale_is_labelled_everywhere_and_compared_with_nothing(table6):
    place, found = table6
    label = "tiny: not the paper's setting"
    plans = dry_run(tables("6")[0], make_settings(place / "data"), place / "runs", SMALLER)
    for content in (found, plans):
        assert content["setting"] == label
        assert all(row["setting"] == label for row in content["rows"])
        assert not {"published", "difference"} & {key for row in content["rows"] for key in row}
    assert not any(row.get("cited") for row in reproduce_rows_of_table_1(place))
    assert not list((place / "runs").glob("*/metrics.json"))  # separate from the user's own runs


def reproduce_rows_of_table_1(place: Path) -> list[dict]:
    return dry_run(tables("1")[0], make_settings(place / "data"), place / "runs", SMALLER)["rows"]


def test_rows_that_differ_in_batch_size_do_so_at_the_tiny_scale_too(tmp_path):
    plans = {
        row.name: plan_stages(TINY.chain(row, make_settings(tmp_path)))[-1].settings
        for row in tables("2")[0].rows
        if row.plan
    }
    assert (plans["DenseNet-161*"].batch_size, plans["DenseNet-161"].batch_size) == (45, 16)
    assert (plans["MGN+PTL"].loss, plans["MGN+PTL"].images_per_identity) == ("ce-triplet", 4)


def test_every_line_of_a_tiny_plan_is_labelled(ptlreid):
    code, out, _ = ptlreid("reproduce", "all", "--scale", "tiny", "--dry-run")
    assert code == 0
    assert all(line.endswith("(tiny: not the paper's setting)") for line in out.splitlines())
    assert "synthetic-b → synthetic-a → synthetic-c" in out


def test_the_command_shows_measured_and_published_figures(ptlreid):
    code, out, _ = ptlreid("reproduce", "4", "--device", "cpu")
    assert code == 0
    lines = [line for line in out.splitlines() if "MGN+PTL" in line]
    assert [cell.strip() for cell in lines[0].split("│")[1:-1]] == [
        *("MGN+PTL", "", "", "", "step", "79.16 / 89.36", "missing: duke"),
    ]
    assert "cited: Sun et al. 2018" in out
    code, out, _ = ptlreid("reproduce", "all", "--json")
    assert [table["table"] for table in json.loads(out)["tables"]] == [1, 2, 3, 4, 5, 6]


def test_an_unknown_table_is_named(ptlreid):
    with pytest.raises(OptionError, match=r"The paper has no table 7\. Give a number from 1 to 6, or all"):
        tables("7")
    code, _, err = ptlreid("reproduce", "seven")
    assert (code, err.startswith("error:")) == (1, True)
