"""`ptlreid report`: from run folders to pages, figures and tables."""

from __future__ import annotations

import json
import re
import shutil
from html import unescape
from pathlib import Path

import pytest
from test_report_thresholds import CALIBRATION

from ptlreid import datasets
from ptlreid.calibrations import save_calibration
from ptlreid.errors import DataError, OptionError
from ptlreid.files import file_digest
from ptlreid.json_files import write_json
from ptlreid.progress import Silent
from ptlreid.runs import RunFolder
from ptlreid.settings import FinetuneSettings
from ptlreid.settings.report import ReportSettings
from ptlreid.workflows.finetune import finetune
from ptlreid.workflows.report import report, write_chain_report, write_report


@pytest.fixture(scope="module")
def runs(market_folder, tmp_path_factory):
    """`runs/ptl` and `runs/plain`: two epochs of the tiny network each."""
    folder = tmp_path_factory.mktemp("report") / "runs"
    splits = datasets.load("market", market_folder.parent)
    settings = {"backbone": "tiny", "init": "none", "height": 64, "width": 32, "batch_size": 8, "epochs": 2}
    for name, ptl in (("ptl", True), ("plain", False)):
        config = FinetuneSettings.resolve(None, device="cpu", evaluate_every=1, ptl=ptl, **settings)
        finetune(config, splits, RunFolder(folder / name), Silent())
    run = RunFolder(folder / "ptl")
    save_calibration(run, CALIBRATION | {"weights_digest": file_digest(run.weights())}, Silent())
    return folder


@pytest.fixture
def settings(market_folder):
    return ReportSettings.resolve(None, root=str(market_folder.parent), device="cpu")


class Notes(Silent):
    """Progress that keeps the notes."""

    def __init__(self) -> None:
        self.notes = []

    def note(self, text: str) -> None:
        self.notes.append(text)


def headings(html: str) -> list[str]:
    return re.findall(r"<h2>(.*?)</h2>", html)


def test_the_page_of_a_run_has_every_part(runs, settings):
    path = write_report([RunFolder(runs / "ptl")], settings, Silent())
    assert path == runs / "ptl" / "report.html"
    html = path.read_text(encoding="utf-8")
    assert headings(html) == [
        *("Summary", "Retrieval", "Training", "Latent state and gates", "Thresholds", "Rank lists")
    ]
    captions = re.findall(r"<figcaption>(.*?)</figcaption>", html)
    assert captions[:4] == ["CMC", "Distances of pairs", "mAP by camera (%)", "CMC-1 by camera (%)"]
    assert captions[4:7] == ["Loss", "Learning rate", "Scores over epochs"]
    assert captions[7:11] == ["Latent state", "Input gate", "Forget gate", "Output gate"]
    assert captions[11:] == ["Pairs: TAR by FAR", "Searches: DIR by FAR"]
    assert "market: 16 images, 4 identities" in html
    assert "6 (6 with a true match)" in html
    assert html.count("<article>") == 6  # all of the queries, as there are so few


def test_the_headline_scores_are_those_of_the_run(runs, settings):
    html = write_report([RunFolder(runs / "ptl")], settings, Silent()).read_text(encoding="utf-8")
    metrics = RunFolder(runs / "ptl").read_metrics()
    tiles = dict(re.findall(r"<div><dt>(.*?)</dt><dd>([\d.]+)<", html))
    assert tiles["mAP"] == f"{100 * metrics['mAP']:.1f}"
    assert tiles["CMC-1"] == f"{100 * metrics['cmc']['1']:.1f}"


def test_a_second_page_is_the_same_and_decodes_no_image_for_its_features(runs, settings):
    run = RunFolder(runs / "ptl")
    first = write_report([run], settings, Silent()).read_bytes()
    progress = Notes()
    assert write_report([run], settings, progress).read_bytes() == first
    assert [note.partition(": ")[2] for note in progress.notes] == [
        "6 cached features, no image decoded",
        "8 cached features, no image decoded",
    ]


def test_two_runs_are_compared(runs, settings, tmp_path):
    path = write_report(
        [RunFolder(runs / name) for name in ("ptl", "plain")], settings, Silent(), out=tmp_path / "a.html"
    )
    html = path.read_text(encoding="utf-8")
    assert headings(html)[:2] == ["Comparison", "ptl"]
    assert "Comparison of 2 runs; all other sections are about ptl" in html
    assert 'class="tiles"' not in html  # of which run?
    assert html.index('<th scope="row">plain</th>') > html.index('<th scope="row">ptl</th>')
    assert {"ptl", "plain"} <= set(re.findall(r"<text[^>]*>([^<]*)</text>", html))


def test_a_page_says_what_the_run_was_trained_with(runs, settings, tmp_path):
    html = write_report([RunFolder(runs / "ptl")], settings, Silent(), out=tmp_path / "a.html").read_text("utf-8")
    facts = RunFolder(runs / "ptl").read_metrics()["environment"]
    row = re.search(r"Trained with</th>\s*<td[^>]*>(.*?)</td>", html)
    assert row and unescape(row[1]).startswith(f"{facts['device_name']}, float32, torch {facts['torch']}, ptlreid ")


@pytest.mark.parametrize("torch", [None, "2.7.0"])
def test_a_comparison_says_what_each_run_was_trained_with_if_that_differs(runs, settings, tmp_path, torch):
    other = RunFolder(shutil.copytree(runs / "plain", tmp_path / "other"))
    metrics = other.read_metrics()
    if torch:
        write_json(other.metrics, {**metrics, "environment": {**metrics["environment"], "torch": torch}})
    html = write_report([RunFolder(runs / "ptl"), other], settings, Silent(), out=tmp_path / "a.html").read_text(
        "utf-8"
    )
    assert ("other was trained with" in html) == ("ptl was trained with" in html) == (torch is not None)


def test_a_page_says_which_weights_were_compared_and_how(runs, settings, tmp_path):
    changed = settings.model_copy(update={"weights": "best", "metric": "cosine"})
    html = write_report([RunFolder(runs / "ptl")], changed, Silent(), out=tmp_path / "a.html").read_text("utf-8")
    assert "protocol market, metric cosine, best weights" in html


@pytest.mark.parametrize(
    "content",
    [
        "null",
        "5",
        '{"chain": [], "stages": [{}], "data": [], "rows": [], "scores": []}',
        '{"chain": [], "stages": [], "data": [], "rows": ["start"], "scores": []}',
        '{"chain": [], "stages": [5], "data": [], "rows": ["start"], "scores": [[]]}',
        '{"chain": [], "stages": [], "data": ["a"], "rows": ["start"], "scores": [[]]}',
        '{"chain": [], "stages": [], "data": ["a"], "rows": ["start"], "scores": [[{"mAP": 0.5}]]}',
        '{"chain": [], "stages": 5, "data": [], "rows": 5, "scores": 5}',
    ],
)
def test_a_damaged_chain_file_is_an_error(tmp_path, content):
    (tmp_path / "chain.json").write_text(content)
    with pytest.raises(DataError, match=r"Run the same `ptlreid transfer-chain` again"):
        write_chain_report(tmp_path)


def test_a_run_that_cannot_be_evaluated_has_its_curves_and_says_why(runs, tmp_path):
    progress = Notes()
    settings = ReportSettings.resolve(None, root=str(tmp_path / "nowhere"), device="cpu")
    path = write_report([RunFolder(runs / "ptl")], settings, progress, out=tmp_path / "a.html")
    html = path.read_text(encoding="utf-8")
    assert headings(html) == ["Summary", "Training", "Latent state and gates", "Thresholds"]
    assert "scores of the last weights at the end of training" in html
    assert "Shown instead: scores of the last weights at the end of training." in html
    assert re.search(r'class="note">ptl could not be evaluated\. Market-1501 was not found', html)
    assert "could not be evaluated: Market-1501 was not found" in progress.notes[0]


def test_a_run_that_has_not_started_shows_its_settings(runs, settings, tmp_path):
    begun = tmp_path / "begun"
    begun.mkdir()
    shutil.copy(runs / "ptl" / "config.toml", begun)
    html = write_report([RunFolder(begun)], settings, Silent()).read_text(encoding="utf-8")
    assert headings(html) == ["Summary"]
    assert "not started" in html


def test_a_run_in_its_first_epoch_does_not_claim_to_have_finished_it(runs, settings, tmp_path):
    begun = tmp_path / "begun"
    begun.mkdir()
    shutil.copy(runs / "ptl" / "config.toml", begun)
    first = (runs / "ptl" / "history.jsonl").read_text().splitlines()[0]
    (begun / "history.jsonl").write_text(first + "\n")
    html = write_report([RunFolder(begun)], settings, Silent()).read_text(encoding="utf-8")
    assert "in epoch 1 of 2, 1 step" in html
    assert "not evaluated" in html
    assert "scores of the last weights" not in html


def test_metrics_of_an_older_version_show_what_is_there(runs, tmp_path):
    shutil.copytree(runs / "ptl", tmp_path / "old")
    metrics = RunFolder(tmp_path / "old").read_metrics()
    write_json(tmp_path / "old" / "metrics.json", {key: metrics[key] for key in ("epochs", "mAP")})
    settings = ReportSettings.resolve(None, root=str(tmp_path / "nowhere"), device="cpu")
    html = write_report([RunFolder(tmp_path / "old")], settings, Silent()).read_text(encoding="utf-8")
    assert re.findall(r"<div><dt>(.*?)</dt>", html) == ["mAP"]


@pytest.mark.parametrize("name", ["metrics.json", "data.json"])
def test_json_that_is_not_an_object_is_an_error(runs, settings, tmp_path, name):
    shutil.copytree(runs / "ptl", tmp_path / "bad")
    (tmp_path / "bad" / name).write_text("5")
    with pytest.raises(DataError, match="found 5, expected a JSON object"):
        report([str(tmp_path / "bad")], runs, settings, Silent())


def test_a_test_set_of_one_identity_has_no_thresholds(runs, settings, market_folder, tmp_path):
    one = tmp_path / "data" / "market"
    shutil.copytree(market_folder, one)
    for path in (*one.glob("query/*"), *one.glob("bounding_box_test/*")):
        if not path.name.startswith("0005"):
            path.unlink()
    there = settings.model_copy(update={"root": str(one.parent)})
    html = write_report([RunFolder(runs / "ptl")], there, Silent(), out=tmp_path / "a.html").read_text(encoding="utf-8")
    assert "No verification thresholds. " in html
    assert "Rank lists" in headings(html)


def test_crops_come_from_where_the_images_are_now(runs, settings, market_folder, tmp_path):
    moved = tmp_path / "elsewhere"
    shutil.copytree(market_folder, moved / "market")
    there = settings.model_copy(update={"root": str(moved)})
    html = write_report([RunFolder(runs / "ptl")], there, Silent(), out=tmp_path / "a.html").read_text(encoding="utf-8")
    assert f"<title>{moved}" in html
    assert str(market_folder) not in html.partition("<main>")[2]


def test_the_command_writes_the_page_and_prints_its_path(ptlreid, runs, market_folder):
    places = ("--root", market_folder.parent, "--runs", runs)
    code, out, err = ptlreid("report", "ptl", *places, "--out", "page.html", "--queries", 1, "--json")
    assert code == 0, err
    printed = json.loads(out)
    assert printed["written"] == [{"file": "page.html", "bytes": Path("page.html").stat().st_size}]
    assert printed["settings"]["queries"] == 1
    assert Path("page.html").read_text(encoding="utf-8").count("<article>") == 2  # the worst one and a random one
    code, out, _ = ptlreid("report", "ptl", *places, "--out", "page.html")
    assert re.fullmatch(r"Written: page\.html \(0\.\d\d MB\)\n", out)


@pytest.mark.parametrize("figure", ["cmc", "ranklist", "cameras", "curves", "distances", "roc", "cells"])
def test_each_figure_can_be_written_alone(ptlreid, runs, market_folder, figure):
    places = ("--root", market_folder.parent, "--runs", runs)
    code, _, err = ptlreid("report", "ptl", *places, "--figure", figure, "--out", "figure.pdf")
    assert code == 0, err
    assert Path("figure.pdf").read_bytes().startswith(b"%PDF")


def test_a_rank_list_figure_needs_queries(ptlreid, runs, market_folder):
    places = ("--root", market_folder.parent, "--runs", runs)
    code, _, err = ptlreid("report", "ptl", *places, "--figure", "ranklist", "--out", "figure.pdf", "--queries", 0)
    assert (code, "--figure ranklist with --queries 0: expected 1 query or more" in err) == (1, True)
    assert not Path("figure.pdf").exists()


def test_a_table_has_a_row_for_each_run(ptlreid, runs, market_folder):
    places = ("--root", market_folder.parent, "--runs", runs)
    code, out, err = ptlreid("report", "ptl", "plain", *places, "--table", "runs.md")
    assert code == 0, err
    lines = Path("runs.md").read_text().splitlines()
    metrics = RunFolder(runs / "plain").read_metrics()
    assert lines[3].startswith("| plain | market | tiny | baseline | 2 | ")
    assert f" {100 * metrics['mAP']:.1f} " in lines[3]
    assert "Written: runs.md" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("none",), "Unknown run 'none'"),
        (("ptl", "--figure", "cmc"), "Add --out FILE.png, .svg or .pdf"),
        (
            ("ptl", "--figure", "ranklist", "--queries", 0, "--out", "o.png"),
            "--figure ranklist with --queries 0: expected 1 query or more",
        ),
        (("ptl", "--table", "t.md", "--out", "page.html"), "expected one of them"),
        (("ptl", "--out", "page.png"), "expected a page that ends in .html"),
        (("ptl", "--figure", "curves", "--out", "a.png", "--weights", "best"), "Remove weights"),
        (("ptl", "--figure", "cells", "--out", "a.png", "--data", "market"), "Remove data"),
        (("ptl", "--figure", "cmx", "--out", "a.png"), "Did you mean 'cmc'"),
        (("ptl", "--figure", "cmc", "--out", "a.gif"), "expected a file name that ends in .png, .svg or .pdf"),
        (("ptl", "--table", "a.xls"), "expected a file name that ends in .md, .tex or .csv"),
        (("ptl", "plain", "--figure", "distances", "--out", "a.png"), "with 2 runs: expected one"),
        (("plain", "--figure", "cells", "--out", "a.png"), "has no BConv-Cells"),
        (("ptl", "--data", "markt"), "Did you mean 'market'"),
        (("ptl", "--data", "duke"), "DukeMTMC-reID was not found"),
        (("ptl", "--ranklist-size", 0), "--ranklist-size 0: expected an integer in [1, 50]"),
    ],
)
def test_a_wrong_call_is_one_clear_message(ptlreid, runs, market_folder, arguments, message):
    code, out, err = ptlreid("report", *arguments, "--root", market_folder.parent, "--runs", runs)
    assert (code, out) == (1, "")
    assert err.startswith("error: ")
    assert message in err
    assert err.count("\n") == 1


def test_two_runs_with_the_same_name_are_an_error(runs, settings, tmp_path):
    shutil.copytree(runs / "ptl", tmp_path / "ptl")
    with pytest.raises(OptionError, match="have the same name"):
        report(["ptl", str(tmp_path / "ptl")], runs, settings, Silent())
    written = report(["ptl", str(runs / "ptl")], runs, settings, Silent(), out=tmp_path / "a.html")
    assert "Comparison" not in headings(written[0].read_text(encoding="utf-8"))


CHAIN = {
    "chain": ["synthetic", "market"],
    "stages": [
        {"run": "plain", "data": "synthetic", "method": "baseline"},
        {"run": "ptl", "data": "market", "method": "ptl"},
    ],
    "data": ["synthetic", "market"],
    "rows": ["start", "synthetic", "market"],
    "scores": [
        [{"mAP": 0.1, "cmc": {"1": 0.2}}, {"mAP": 0.11, "cmc": {"1": 0.21}}],
        [{"mAP": 0.5, "cmc": {"1": 0.6}}, {"mAP": 0.25, "cmc": {"1": 0.35}}],
        [{"mAP": 0.4, "cmc": {"1": 0.5}}, None],
    ],
    "forward_transfer": {"synthetic": None, "market": 0.14},
    "forgetting": {"synthetic": 0.1, "market": None},
}


def test_the_page_of_a_chain_has_its_matrix_and_its_stages(ptlreid, runs, settings):
    write_report([RunFolder(runs / "ptl")], settings, Silent())
    (runs / "plain" / "report.html").unlink(missing_ok=True)
    write_json(runs / "chain" / "chain.json", CHAIN)
    code, out, err = ptlreid("report", "chain", "--runs", runs)
    assert code == 0, err
    assert f"Written: {runs / 'chain' / 'report.html'}" in out.replace("\n", "")
    html = (runs / "chain" / "report.html").read_text(encoding="utf-8")
    assert headings(html) == ["Scores after each stage", "Forward transfer and forgetting", "Stages"]
    cells = r'<th scope="row">synthetic</th>\s*<td class="n">50\.0</td><td class="n">25\.0</td>'
    assert re.search(cells, html)
    assert re.search(r'<th scope="row">market</th>\s*<td class="n">40\.0</td><td class="n">–</td>', html)
    assert re.search(r'<th scope="row">market</th>\s*<td class="n">\+14\.0</td><td class="n">–</td>', html)
    assert '<a href="../ptl/report.html">ptl</a>' in html
    assert "../plain/report.html" not in html
    assert "Scores over epochs" in html


def test_a_chain_is_reported_alone(ptlreid, runs):
    write_json(runs / "chain" / "chain.json", CHAIN)
    code, _, err = ptlreid("report", "chain", "ptl", "--runs", runs)
    assert (code, "is a transfer chain: expected no other name" in err) == (1, True)


def test_an_incomplete_chain_file_is_an_error(ptlreid, runs, tmp_path):
    write_json(tmp_path / "half" / "chain.json", {"chain": [], "data": [], "rows": [], "scores": []})
    code, _, err = ptlreid("report", str(tmp_path / "half"))
    assert code == 1
    assert "chain.json: stages is missing" in err


def test_a_chain_whose_runs_are_gone_still_has_its_matrix(tmp_path):
    write_json(tmp_path / "chain" / "chain.json", CHAIN)
    html = write_chain_report(tmp_path / "chain").read_text(encoding="utf-8")
    assert headings(html) == ["Scores after each stage", "Forward transfer and forgetting", "Stages"]


def test_a_stage_with_a_damaged_history_has_no_curves_and_the_page_says_why(runs, tmp_path):
    write_json(tmp_path / "chain" / "chain.json", CHAIN)
    for name in ("ptl", "plain"):
        shutil.copytree(runs / name, tmp_path / name)
    (tmp_path / "ptl" / "history.jsonl").write_bytes(b"\xff\n")
    html = write_chain_report(tmp_path / "chain").read_text(encoding="utf-8")
    assert re.search(r'class="note">No training curves for ptl\. .*history\.jsonl, line 1: not readable as JSON', html)
    assert "Scores over epochs" in html  # of the other stage


@pytest.mark.parametrize("option", ["data", "weights", "metric", "ranklist-size"])
def test_a_chain_refuses_options_that_it_would_ignore(ptlreid, tmp_path, option):
    write_json(tmp_path / "chain" / "chain.json", CHAIN)
    value = {"data": "market", "weights": "last", "metric": "cosine", "ranklist-size": 3}[option]
    code, _, err = ptlreid("report", str(tmp_path / "chain"), f"--{option}", value)
    assert code == 1
    assert f"its report needs no evaluation. Remove {option.replace('-', '_')}." in " ".join(err.split())


def test_a_chain_is_reported_from_its_own_folder(runs, tmp_path, monkeypatch):
    write_json(tmp_path / "chain" / "chain.json", CHAIN)
    shutil.copytree(runs / "ptl", tmp_path / "ptl")
    expected = write_chain_report(tmp_path / "chain").read_text(encoding="utf-8")
    monkeypatch.chdir(tmp_path / "chain")
    assert write_chain_report(Path()).read_text(encoding="utf-8") == expected
    assert "Scores over epochs" in expected
