"""The paper's tables: their rows, the runs behind them, and the same plans on synthetic datasets."""

from __future__ import annotations

import json
import statistics
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
from ptlreid.settings.reproduce import SCALES, TINY, ReproduceSettings, choose_rows, parse_changes, tables
from ptlreid.transfer.stages import plan_stages
from ptlreid.workflows.reproduce import check, dry_run, reproduce

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
    assert (plans["MGN+PTL"].loss, plans["MGN+PTL"].height, plans["MGN+PTL"].ptl) == ("ce+triplet", 384, True)
    # Section 5.8: teacher and student both went from ImageNet to Market-1501 first.
    for row in tables("6")[0].rows[1:]:
        stage = plan_stages(PAPER.chain(row, make_settings(tmp_path)))[-1]
        assert stage.init is not None and stage.teacher is not None and stage.teacher.init is not None
        assert (stage.init.settings.data, stage.init.settings.ptl) == ("market", False)
        assert (stage.teacher.settings.data, stage.teacher.init.settings.data) == ("msmt17", "market")
        assert f"λ = {stage.settings.lambda_:g}" in row.name


def test_a_dry_run_lists_missing_datasets_and_the_total_cost(tmp_path):
    light = replace(PAPER, settings={"backbone": "tiny"})
    found = dry_run(tables("1"), [make_settings(tmp_path)], tmp_path, light)["tables"][0]
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
    found = dry_run(tables("4"), [make_settings(tmp_path)], tmp_path, light)["tables"][0]
    # MGN and MGN+PTL: 450 epochs with four images of each of the 702 identities.
    assert found["cost"]["images"] == 2 * 450 * 4 * 702


def test_rows_with_missing_datasets_show_the_published_figures(tmp_path):
    found = reproduce(tables("4")[0], [make_settings(tmp_path)], tmp_path / "runs", PAPER, Silent())
    assert found["setting"] == "paper"
    row = by_name(found["rows"])["MGN+PTL"]
    assert row["published"] == {"mAP": 79.16, "cmc1": 89.36}
    assert (row["missing"], row["measured"], row["difference"], row["run"]) == (["duke"], None, None, None)
    assert not (tmp_path / "runs").exists()


@pytest.fixture(scope="module")
def table6(tmp_path_factory):
    """Table 6, all six rows, on tiny datasets and a tiny network."""
    place = tmp_path_factory.mktemp("table6")
    return place, reproduce(tables("6")[0], [make_settings(place / "data")], place / "runs", SMALLER, Silent())


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
        for row in reproduce(table, [make_settings(tmp_path)], tmp_path / "runs", PAPER, Silent())["rows"]
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
    assert reproduce(tables("6")[0], [make_settings(place / "data")], place / "runs", SMALLER, progress) == found
    plans = dry_run(tables("6"), [make_settings(place / "data")], place / "runs", SMALLER)["tables"][0]
    assert all(row["finished"] for row in plans["rows"])
    assert plans["cost"]["images"] > 0


def test_another_scale_is_labelled_everywhere_and_compared_with_nothing(table6):
    place, found = table6
    label = "tiny: not the paper's setting"
    plans = dry_run(tables("6"), [make_settings(place / "data")], place / "runs", SMALLER)["tables"][0]
    for content in (found, plans):
        assert content["setting"] == label
        assert all(row["setting"] == label for row in content["rows"])
        assert not {"published", "difference"} & {key for row in content["rows"] for key in row}
    assert not any(row.get("cited") for row in reproduce_rows_of_table_1(place))
    assert not list((place / "runs").glob("*/metrics.json"))  # separate from the user's own runs


def reproduce_rows_of_table_1(place: Path) -> list[dict]:
    return dry_run(tables("1"), [make_settings(place / "data")], place / "runs", SMALLER)["tables"][0]["rows"]


def test_rows_that_differ_in_batch_size_do_so_at_the_tiny_scale_too(tmp_path):
    plans = {
        row.name: plan_stages(TINY.chain(row, make_settings(tmp_path)))[-1].settings
        for row in tables("2")[0].rows
        if row.plan
    }
    assert (plans["DenseNet-161*"].batch_size, plans["DenseNet-161"].batch_size) == (45, 16)
    assert (plans["MGN+PTL"].loss, plans["MGN+PTL"].images_per_identity) == ("ce+triplet", 4)


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


@pytest.mark.parametrize(
    ("table", "names", "found"),
    [
        ("2", ["mgn+ptl"], ["MGN+PTL"]),
        ("3", ["mgn+ptl"], ["MGN+PTL, detected", "MGN+PTL, labeled"]),
        ("3", ["MGN+PTL, LABELED"], ["MGN+PTL, labeled"]),
        ("1", ["densenet-161"], ["DenseNet-161"]),  # the exact name, although others contain it
        ("1", ["resnet-50,  resnet-50+ptl"], ["ResNet-50", "ResNet-50+PTL"]),
        ("1", ["+std", "glad"], ["GLAD", "DenseNet-161+PTL+STD"]),
        ("6", ["λ = 0.8"], ["DenseNet-161+PTL+STD, λ = 0.8"]),
        ("all", ["mgn+ptl"], ["MGN+PTL", "MGN+PTL, detected", "MGN+PTL, labeled", "MGN+PTL"]),
    ],
)
def test_rows_are_chosen_by_name_or_a_part_of_it_in_any_case(table, names, found):
    assert [row.name for one in choose_rows(tables(table), names) for row in one.rows] == found


@pytest.mark.parametrize("name", ["mgn*", "", ",", "GLAD,", "glad, pdk"])
def test_an_unknown_row_is_an_error_with_the_rows(name):
    with pytest.raises(OptionError, match=r"--row .*: expected the name of a row .* The rows are 'GoogLeNet', 'PDC', "):
        choose_rows(tables("1"), [name])


def test_changes_are_toml_or_text():
    texts = ["amp=off", "lr = 1e-3", "decay-at=[20, 40]", "ptl=false", 'init="none"', "loss=triplet"]
    changes, origins = parse_changes(texts)
    assert changes == {
        **{"amp": "off", "lr": 1e-3, "decay_at": [20, 40], "ptl": False, "init": "none", "loss": "triplet"},
    }
    assert origins["decay_at"] == "--set decay-at=[20, 40]"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("amp", "--set amp: expected a setting and its value, such as --set amp=off."),
        ("anp=off", "--set anp=off: Unknown setting 'anp'. Did you mean 'amp'?"),
        ("amp=of", "--set amp=of: expected 'auto', 'off'"),
        ("epochs=1.5", "--set epochs=1.5: expected an integer in [0, 1000000]."),
        ("seed=3", "--set seed=3: seed is set by the table or an option of its own. Leave it out."),
        ("data=market", "--set data=market: data is set by the table"),
        ("lr=1\nptl=false", "--set lr=1\\nptl=false: expected a number"),
        ("height=128", "--height 128 does not suit mgn: expected a multiple of 96. Use 96, for example."),
    ],
)
def test_a_wrong_change_is_found_before_anything_runs(ptlreid, text, message):
    code, out, err = ptlreid("reproduce", "all", "--set", text)
    assert (code, out) == (1, "")
    assert message in err


def test_the_same_setting_twice_is_an_error():
    with pytest.raises(OptionError, match=r"--set amp=off: amp is given twice, expected once\. Leave one out"):
        parse_changes(["amp=bf16", "amp=off"])


def test_a_change_reaches_every_run_and_labels_the_rows(tmp_path):
    scale = replace(PAPER, changes=["amp=off", "epochs=2"])
    for table in tables("all"):
        for row in table.rows:
            if row.plan:
                for stage in plan_stages(scale.chain(row, make_settings(tmp_path)))[-1].dependencies().values():
                    assert (stage.settings.amp, stage.settings.epochs) == ("off", 2)
    check(tables("all"), [make_settings(tmp_path)], scale)
    rows = by_name(reproduce(tables("4")[0], [make_settings(tmp_path)], tmp_path, scale, Silent())["rows"])
    assert rows["MGN+PTL"]["setting"] == "set: amp=off, epochs=2"
    assert rows["MGN+PTL"]["published"] == {"mAP": 79.16, "cmc1": 89.36}
    assert rows["MGN"]["setting"] == "paper"  # as published elsewhere


def test_the_label_of_a_change_is_printed(ptlreid):
    code, out, _ = ptlreid("reproduce", "4", "--row", "mgn+ptl", "--set", "amp=off", "--dry-run")
    assert code == 0
    assert all(line.endswith("(set: amp=off)") for line in out.splitlines())
    out = ptlreid("reproduce", "4", "--row", "mgn+ptl", "--set", "amp=off", "--scale", "tiny", "--dry-run")[1]
    assert all(line.endswith("(tiny: not the paper's setting; set: amp=off)") for line in out.splitlines())


def test_seeds_give_the_mean_and_deviation_of_their_runs(table6):
    """The first row of Table 6 with the seed that is trained already, 0, and another."""
    place, found = table6
    (only,) = choose_rows(tables("6"), ["densenet-161+ptl"])
    every = [make_settings(place / "data", seed=seed) for seed in (0, 5)]
    (row,) = reproduce(only, every, place / "runs", SMALLER, Silent())["rows"]
    first, second = row["runs"]
    assert (first["seed"], second["seed"], row["run"]) == (0, 5, None)
    assert first == by_name(found["rows"])["DenseNet-161+PTL"]["runs"][0]
    assert first["environment"]["device"] == "cpu"
    for name in ("mAP", "mAP_step", "cmc1"):
        values = [one["measured"][name] for one in row["runs"]]
        assert row["measured"][name] == pytest.approx(statistics.mean(values))
        assert row["sd"][name] == pytest.approx(statistics.stdev(values))


def test_the_cost_of_seeds_is_that_of_all_their_runs(tmp_path):
    every = [make_settings(tmp_path, seed=seed) for seed in range(3)]
    light = replace(PAPER, settings={"backbone": "tiny"})
    one, three = (dry_run(tables("1"), some, tmp_path, light) for some in (every[:1], every))
    assert three["trainings"] == 3 * one["trainings"] == 9
    assert three["cost"]["macs"] == pytest.approx(3 * one["cost"]["macs"])


def test_a_run_of_several_tables_is_counted_once_in_the_total(tmp_path):
    """With one network for all, Table 1 has three trainings on MSMT17, and Table 6 seven: the first two of Table 5."""
    light = replace(PAPER, settings={"backbone": "tiny"})
    settings = [make_settings(tmp_path)]
    apart = [dry_run([table], settings, tmp_path, light) for table in tables("all")]
    together = dry_run(tables("all"), settings, tmp_path, light)
    assert [plan["cost"] for plan in together["tables"]] == [plan["cost"] for plan in apart]
    assert together["trainings"] < sum(plan["trainings"] for plan in apart)
    assert together["cost"]["images"] < sum(plan["cost"]["images"] for plan in apart)


@pytest.mark.parametrize("scale", SCALES)
def test_every_row_has_a_dry_run_in_json_too(ptlreid, scale):
    code, out, err = ptlreid("reproduce", "all", "--scale", scale, "--dry-run", "--json", "--seeds", "0-1")
    assert code == 0, err
    found = json.loads(out)
    own = [row for table in found["tables"] for row in table["rows"] if "cited" not in row]
    assert len(own) == 33
    assert found["trainings"] > 0
    if scale == "paper":  # by published counts; those of synthetic datasets are known once they are rendered
        assert found["cost"]["macs"] > 1e18


def test_a_row_that_is_cited_only_costs_nothing(ptlreid):
    for arguments in (("--row", "GoogLeNet"), ("--set", "epochs=0")):
        code, _, err = ptlreid("reproduce", "1", *arguments, "--dry-run")
        assert (code, "Traceback" in err) == (0, False), err
