"""`--seeds` of the commands that train: a run per seed, one table, and the same command again."""

from __future__ import annotations

import json
import statistics

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ptlreid.cli import console
from ptlreid.cli.seeds import name_of_seed
from ptlreid.errors import OptionError
from ptlreid.runs import RunFolder
from ptlreid.settings.seeds import parse_seeds

SMALL = (
    *("--backbone", "tiny", "--init", "none", "--height", 64, "--width", 32, "--batch-size", 8, "--epochs", 1),
    *("--device", "cpu", "--no-report", "--evaluate-every", 0),
)


@pytest.mark.parametrize(
    ("text", "seeds"),
    [("0-4", [0, 1, 2, 3, 4]), ("0,2,5", [0, 2, 5]), ("0-2,7", [0, 1, 2, 7]), ("3", [3]), ("7, 1-1", [7, 1])],
)
def test_numbers_and_ranges_with_commas(text, seeds):
    assert parse_seeds(text) == seeds


@pytest.mark.parametrize(
    "text", ["", "a", "4-0", "0..4", "-1", "0,,1", "1.0", "0-4294967296", "٣", "0-", "99999999999"]
)
def test_anything_else_is_refused_with_an_example(text):
    with pytest.raises(
        OptionError, match=r"expected seeds from 0 to 4294967295, such as 0-4, 0,2,5 or 0-2,7\. Correct"
    ):
        parse_seeds(text)


def test_a_seed_twice_and_too_many_are_refused():
    with pytest.raises(OptionError, match=r"--seeds 0-2,1: seed 1 is given twice, expected once\. Leave one out"):
        parse_seeds("0-2,1")
    with pytest.raises(OptionError, match=r"expected at most 1000 seeds\. Give fewer"):
        parse_seeds("0-4294967295")
    assert len(parse_seeds("0-499,500-999")) == 1000


@settings(derandomize=True)
@given(st.sets(st.integers(0, 2**32 - 1), min_size=1, max_size=20))
def test_seeds_written_one_by_one_are_read_back(seeds):
    assert parse_seeds(",".join(map(str, sorted(seeds)))) == sorted(seeds)


def test_a_name_is_followed_by_the_seed_with_seeds_only():
    assert name_of_seed("plain", "0-4", 3) == "plain-s3"
    assert name_of_seed("plain", None, 3) == "plain"
    assert name_of_seed(None, "0-4", 3) is None  # default names end in the seed


@pytest.fixture
def trained(ptlreid, market_folder):
    """The JSON of three seeds and the options that repeat the command."""
    options = ("--no-ptl", "--seeds", "0,2-3", "--name", "plain", *SMALL, "--root", market_folder.parent)
    code, out, err = ptlreid("finetune", *options, "--json")
    assert code == 0, err
    return json.loads(out), options


def test_each_seed_has_its_run_and_the_table_their_mean(trained, ptlreid, tmp_path):
    found, options = trained
    assert [(run["seed"], run["run"]) for run in found["runs"]] == [(seed, f"plain-s{seed}") for seed in (0, 2, 3)]
    for run in found["runs"]:
        folder = RunFolder(tmp_path / "runs" / run["run"])
        assert folder.settings().seed == run["seed"]
        assert folder.read_metrics()["mAP"] == run["mAP"]
    mean_aps = [run["mAP"] for run in found["runs"]]
    assert found["mean"]["mAP"] == pytest.approx(statistics.mean(mean_aps))
    assert found["sd"]["mAP"] == pytest.approx(statistics.stdev(mean_aps))
    code, out, err = ptlreid("finetune", *options)
    assert (code, err.count("is finished: reused")) == (0, 3)
    cells = [[cell.strip() for cell in line.split("│")[1:-1]] for line in out.splitlines() if "│" in line]
    assert [row[0] for row in cells] == ["seed 0", "seed 2", "seed 3", "mean ± s.d."]
    assert cells[-1][1] == f"{100 * statistics.mean(mean_aps):.1f} ± {100 * statistics.stdev(mean_aps):.1f}"
    assert out.count("Run folder: ") == 3


def test_the_same_command_resumes_with_the_seed_that_was_interrupted(ptlreid, market_folder, monkeypatch, tmp_path):
    options = ("--seeds", "0-2", *SMALL, "--checkpoint-minutes", 0, "--root", market_folder.parent, "--json")
    whole = ptlreid("finetune", *options, "--runs", "whole")
    from ptlreid.workflows import finetune as workflow

    train, calls = workflow.finetune, []

    def interrupted(settings, *arguments, **named):
        calls.append(settings.seed)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return train(settings, *arguments, **named)

    monkeypatch.setattr(workflow, "finetune", interrupted)
    code, _, err = ptlreid("finetune", *options)
    assert (code, "To resume: ptlreid finetune --seeds 0-2" in err) == (130, True)
    assert [path.parent.name for path in (tmp_path / "runs").glob("*/metrics.json")] == ["market-tiny-ptl-s0"]
    code, out, err = ptlreid("finetune", *options)
    assert (code, err.count("is finished: reused")) == (0, 1)
    found, expected = json.loads(out), json.loads(whole[1])
    assert (found["mean"], found["sd"]) == (expected["mean"], expected["sd"])


def test_a_dry_run_lists_every_run(ptlreid, market_folder, tmp_path):
    options = ("--seeds", "4-5", *SMALL, "--root", market_folder.parent, "--dry-run")
    code, out, err = ptlreid("finetune", *options, "--json")
    assert code == 0, err
    plans = json.loads(out)["runs"]
    assert [(plan["run"], plan["settings"]["seed"]) for plan in plans] == [
        ("runs/market-tiny-ptl-s4", 4),
        ("runs/market-tiny-ptl-s5", 5),
    ]
    code, out, _ = ptlreid("finetune", *options)
    assert "run = runs/market-tiny-ptl-s4\n" in out
    assert out.endswith("The same for seed 5: run = runs/market-tiny-ptl-s5\n")
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("command", [("finetune",), ("distill",), ("transfer-chain", "market", "duke")])
def test_seed_and_seeds_together_are_an_error(ptlreid, command):
    code, out, err = ptlreid(*command, "--seed", 1, "--seeds", "0-4")
    assert (code, out) == (1, "")
    assert "--seed 1 and --seeds 0-4 both set the seed. Give one of them." in err


def test_the_seed_of_a_file_is_overridden(ptlreid, market_folder, tmp_path):
    (tmp_path / "mine.toml").write_text("seed = 7\n")
    options = ("--config", "mine.toml", "--seeds", "1", *SMALL, "--root", market_folder.parent, "--dry-run", "--json")
    assert [plan["settings"]["seed"] for plan in json.loads(ptlreid("finetune", *options)[1])["runs"]] == [1]


def test_another_run_in_the_folder_of_a_seed_is_found_before_the_first_is_trained(trained, ptlreid, tmp_path):
    _, options = trained
    (tmp_path / "runs" / "plain-s2").rename(tmp_path / "runs" / "other-s3")
    code, _, err = ptlreid("finetune", *options, "--name", "other")
    assert code == 1
    assert "runs/other-s3 holds another run (seed: 2 -> 3)" in err
    assert not (tmp_path / "runs" / "other-s0").exists()


def test_resume_wants_a_checkpoint_of_every_seed(trained, ptlreid):
    _, options = trained
    assert ptlreid("finetune", *options, "--resume")[0] == 0
    code, _, err = ptlreid("finetune", *options, "--seeds", "0-2", "--resume")
    assert (code, "runs/plain-s1 has no checkpoint to --resume" in err) == (1, True)


def test_students_of_each_seed_learn_from_the_teacher_of_that_seed(trained, ptlreid, market_folder, tmp_path):
    where = ("--init", "none", "--batch-size", 8, "--epochs", 1, "--device", "cpu", "--no-report")
    options = (*where, "--teacher", "plain-s*", "--seeds", "0,2", "--root", market_folder.parent, "--json")
    code, out, err = ptlreid("distill", *options)
    assert code == 0, err
    found = json.loads(out)
    assert (found["teacher"], found["lambda"]) == ("plain-s*", 0.8)
    assert [run["run"] for run in found["runs"]] == ["market-tiny-std0.8-s0", "market-tiny-std0.8-s2"]
    for run in found["runs"]:
        chosen = RunFolder(tmp_path / "runs" / run["run"]).settings()
        assert (chosen.seed, chosen.teacher) == (run["seed"], f"plain-s{run['seed']}")
    code, out, err = ptlreid("distill", *options, "--sweep", "0,0.8", "--name", "std")
    assert code == 0, err
    found = json.loads(out)["sweep"]
    assert [(one["lambda"], [run["run"] for run in one["runs"]]) for one in found] == [
        (0, ["std-0-s0", "std-0-s2"]),
        (0.8, ["std-0.8-s0", "std-0.8-s2"]),
    ]
    code, out, _ = ptlreid("distill", *options[:-1], "--sweep", "0,0.8", "--name", "std")
    labels = [line.split("│")[1].strip() for line in out.splitlines() if "│" in line]
    assert labels == [
        *("λ = 0, seed 0", "λ = 0, seed 2", "λ = 0.8, seed 0", "λ = 0.8, seed 2"),
        *("λ = 0, mean ± s.d.", "λ = 0.8, mean ± s.d."),
    ]


def test_a_chain_of_each_seed_has_its_folder_and_the_table_their_means(ptlreid, market_folder, tmp_path):
    options = ("transfer-chain", "market", "--seeds", "0-1", *SMALL, "--root", market_folder.parent)
    plans = json.loads(ptlreid(*options, "--dry-run", "--json")[1])["runs"]
    assert [plan["chain"] for plan in plans] == [f"runs/chain-market-tiny-ptl-s{seed}" for seed in (0, 1)]
    code, out, err = ptlreid(*options, "--json")
    assert code == 0, err
    found = json.loads(out)
    chains = [json.loads((tmp_path / plan["chain"] / "chain.json").read_text())["scores"] for plan in plans]
    for row in (0, 1):
        values = [chain[row][0]["mAP"] for chain in chains]
        assert found["mean"]["scores"][row][0]["mAP"] == pytest.approx(statistics.mean(values))
        assert found["sd"]["scores"][row][0]["mAP"] == pytest.approx(statistics.stdev(values))
    assert [run["scores"] for run in found["runs"]] == chains
    code, out, err = ptlreid(*options)
    assert code == 0, err  # the same chains again
    assert ptlreid(*options, "--dry-run")[0] == 0
    cells = next(line for line in out.splitlines() if line.startswith("│ start")).split("│")[2].split()
    start = [chain[0][0] for chain in chains]
    assert cells[:3] == [
        f"{100 * statistics.mean(one['mAP'] for one in start):.1f}",
        "±",
        f"{100 * statistics.stdev(one['mAP'] for one in start):.1f}",
    ]
    assert out.splitlines()[0].startswith("chain-market-tiny-ptl, mean ± s.d. of 2 seeds: mAP / CMC-1")


def test_one_seed_of_seeds_has_no_deviation(ptlreid, market_folder):
    options = ("finetune", "--seeds", "3", *SMALL, "--root", market_folder.parent)
    assert json.loads(ptlreid(*options, "--json")[1])["sd"]["mAP"] is None
    assert console.mean_text(0.25, None) == "25.0"
    assert "±" not in ptlreid(*options)[1].split("mean ± s.d.")[1]
