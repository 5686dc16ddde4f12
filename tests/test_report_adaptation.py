"""What the page of an adapted run says: scores before and after, cameras, clusters over epochs, and doubts."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ptlreid.reports import page
from ptlreid.reports.adaptation import describe_adaptation, note_doubts, plot_clusters
from ptlreid.reports.run_page import describe_runs, make_run_page
from ptlreid.reports.run_summary import Camera, RunSummary
from ptlreid.retrieval.cluster_statistics import ClusterStatistics

SETTINGS = {
    "run": "home",
    "method_": "cluster",
    "data": "lobby",
    "backbone": "tiny",
    "init": "home",
    "epochs": 3,
}
# 400 images of 2 cameras. Nothing to warn of.
SOUND = ClusterStatistics(
    images=400,
    outliers=40,
    cameras=2,
    clusters=60,
    smallest=2,
    median_size=5.5,
    largest=20,
    several_cameras=0.75,
    camera_purity=0.625,
    chance_purity=0.6,
)


def line(epoch, statistics):
    return {"kind": "clusters", "epoch": epoch, **statistics.describe()}


HISTORY = [
    line(0, SOUND),
    {"kind": "epoch", "epoch": 1},
    line(1, replace(SOUND, clusters=64, outliers=20, agreement=0.5)),
    {"kind": "epoch", "epoch": 2},
    line(2, replace(SOUND, clusters=62, outliers=10, agreement=0.875)),
]
BEFORE = {"mAP": 0.125, "mINP": 0.01, "cmc": {"1": 0.25, "5": 0.5, "10": 0.625}}
AFTER = {"mAP": 0.375, "mINP": 0.05, "cmc": {"1": 0.5, "5": 0.5, "10": 0.5}}
METRICS = {"run": "moved", "data": "lobby", "epochs": 3, **AFTER, "before": BEFORE}


def summary(metrics=METRICS, history=HISTORY, cameras=(), **settings):
    return RunSummary("moved", "adapt", SETTINGS | settings, {}, history, metrics, "lobby", cameras=cameras)


def parts(run):
    return {section.name: section for section in describe_adaptation(run)}


def shown(run, **options):
    """The page of the run, without an evaluation."""
    return make_run_page([run], None, describe_runs([run], None, false_accept_rates=[0.01], **options))


def test_the_scores_before_and_after_stand_next_to_each_other_with_their_difference():
    section = parts(summary())["gain"]
    (table,) = section.tables
    assert table.columns == ("weights", "mAP (%)", "CMC-1 (%)", "CMC-5 (%)", "CMC-10 (%)", "mINP (%)")
    assert table.rows == [
        ["before: home", "12.5", "25.0", "50.0", "62.5", "1.0"],
        ["after: moved", "37.5", "50.0", "50.0", "50.0", "5.0"],
        ["difference", "+25.0", "+25.0", "0.0", "-12.5", "+4.0"],
    ]
    assert "mAP on the labelled test part of lobby: 12.5% before, 37.5% after adaptation" in section.texts[0]
    assert section.texts[0].endswith(" For the interval of the difference: ptlreid compare home moved --data lobby")
    assert note_doubts(summary()) == []


@pytest.mark.parametrize("after", [0.125, 0.1])
def test_no_gain_is_stated_as_none(after):
    run = summary({**METRICS, "mAP": after})
    (note,) = note_doubts(run)
    assert note.startswith("No improvement. mAP on the labelled test part of lobby: 12.5% before, ")
    assert note.endswith("Use the run home as it is.")
    assert note in shown(run).notes


def test_without_a_labelled_test_part_the_page_says_that_nothing_measures_accuracy():
    found = parts(summary({"run": "moved", "data": "lobby", "epochs": 3}))
    assert "no labelled test part: nothing on this page measures accuracy" in found["adaptation"].texts[0]
    assert list(found) == ["adaptation", "clusters"]


def test_a_run_that_is_not_finished_says_nothing_of_a_test_part():
    assert parts(summary(None, HISTORY[:1]))["adaptation"].texts == []


@pytest.mark.parametrize(
    ("method", "text"), [("cameras", "no weights are trained"), ("cluster", "clusters in place of identities")]
)
def test_the_method_the_source_and_what_was_trained_along_are_named(method, text):
    rows = dict(parts(summary(method_=method, with_="market"))["adaptation"].tables[0].rows)
    assert text in rows["Method"]
    assert (rows["Source run"], rows["Trained along"]) == ("home", "market")
    assert "Trained along" not in dict(parts(summary())["adaptation"].tables[0].rows)


def test_the_page_of_clusters_is_linked():
    html = page.render_html(shown(summary(), clusters_url="report-clusters.html"))
    assert '<a href="report-clusters.html">Page of clusters</a>' in html
    assert "Page of clusters" not in page.render_html(shown(summary()))


def test_cameras_are_listed_with_their_own_share():
    cameras = [Camera("1", 1600, 0.99), Camera("2", 16, 0.5)]
    (table,) = parts(summary(cameras=cameras))["cameras"].tables
    assert table.rows == [["1", "1,600", "99.0"], ["2", "16", "50.0"]]


def test_the_figures_of_clusters_are_plotted_by_epoch():
    clusters, agreement, cameras = parts(summary())["clusters"].plots
    assert clusters.table.columns == ("epoch", "clusters", "outliers")
    assert clusters.table.rows == [["1", "60", "40"], ["2", "64", "20"], ["3", "62", "10"]]
    assert agreement.table.rows == [["1", "–"], ["2", "0.50"], ["3", "0.88"]]
    assert cameras.table.columns[1:] == ("camera purity", "purity by chance", "clusters of several cameras")
    assert cameras.table.rows[2] == ["3", "0.625", "0.600", "0.750"]
    assert clusters.alt == "Clusters and outliers over epochs. Epoch 3: clusters 62, outliers 10."


def test_one_camera_and_one_epoch_leave_the_plots_without_figures_out():
    one = replace(SOUND, cameras=1, several_cameras=0.0, camera_purity=1.0, chance_purity=1.0)
    assert [plot.name for plot in plot_clusters([(1, one)])] == ["clusters"]


def test_clusters_that_only_disagree_are_within_the_axes():
    from matplotlib.figure import Figure

    lines = [(epoch, replace(SOUND, agreement=-0.25)) for epoch in (1, 2)]
    axes = Figure().add_subplot()
    plot_clusters(lines)[1].draw(axes)
    assert axes.get_ylim()[0] < -0.25


def test_what_is_doubtful_about_the_last_clusters_is_at_the_top_of_the_page():
    history = [line(0, replace(SOUND, cameras=1)), line(1, replace(SOUND, largest=399))]
    (note,) = note_doubts(summary(history=history))
    assert note.startswith("Clusters of epoch 2: One cluster has 399 of 400 images")
    assert note in shown(summary(history=history)).notes


def test_a_run_that_ended_for_want_of_clusters_says_so():
    (note,) = note_doubts(summary({**METRICS, "epochs": 1}, HISTORY[:2]))
    assert note.startswith("Training ended after epoch 1 of 3, as there were no two clusters")


def test_cameras_alone_are_not_called_initial_weights():
    run = summary({**METRICS, "epochs": 0}, [], epochs=0, method_="cameras")
    html = page.render_html(shown(run))
    assert "none: these are the weights of home, with statistics of the cameras of the site" in html
    assert note_doubts(run) == []


def test_a_run_with_labels_has_no_section_on_adaptation():
    run = replace(summary(), settings={key: value for key, value in SETTINGS.items() if key != "run"})
    assert "adaptation" not in [section.name for section in shown(run).sections]
    assert shown(run).notes == []


def test_hostile_names_are_shown_as_they_are():
    from test_report_page import HOSTILE, Outline

    run = summary(run=HOSTILE, data=HOSTILE, with_=HOSTILE, cameras=[Camera(HOSTILE, 3, 0.25)])
    outline = Outline(page.render_html(shown(run)))
    assert not {tag for tag, _ in outline.tags} & {"script", "img"}
    assert outline.text.count(HOSTILE) >= 6
