"""What a report shows of the thresholds in `thresholds.json`."""

from __future__ import annotations

from matplotlib.figure import Figure

from ptlreid.json_files import check_schema
from ptlreid.reports.operating_points import tabulate_realised
from ptlreid.reports.threshold_plots import describe_calibrations, plot_rates
from ptlreid.thresholds_schema import Thresholds

NOTHING = dict.fromkeys(("threshold", "far", "far_interval"))
CALIBRATION = {
    "weights_digest": "0f",
    "readout": {"flip": False, "normalize": False, "amp": "off", "channels_last": False},
    "camera_statistics": "",
    "metric": "euclidean",
    "data": "market",
    "test_images": "1e",
    "protocol": "market",
    "cameras": {"query": [1, 2], "gallery": [1, 2, 3]},
    "pairs": {"same": 1234, "different": 567890},
    "operating_points": [
        {
            "name": "far=0.01",
            "threshold": 12.345678,
            "far": 0.00999,
            "far_interval": [0.0087654, 0.0112345],
            "tar": 0.75,
            "tar_interval": [0.7, 0.801],
        },
        {"name": "far=0.001", **NOTHING, "tar": None, "tar_interval": None, "note": "not measurable with 9 pairs"},
    ],
    "open_set": [
        {"name": "open-set=0.1", "threshold": 9.0, "far": 0.1, "far_interval": None, "dir": 0.5, "dir_interval": None}
    ],
    "open_set_split": {"enrolled": {"queries": 9, "identities": 3}, "absent": {"queries": 8, "identities": 3}},
    "curves": {"roc": [[0.0, 0.1], [0.001, 0.5], [0.01, 0.75]], "open_set": [[0.1, 0.5]]},
    "bootstrap": 2000,
    "seed": 0,
}
OTHER = CALIBRATION | {"metric": "cosine", "readout": CALIBRATION["readout"] | {"flip": True}, "open_set": []}


def test_the_example_is_as_the_schema_says():
    content = {"calibrations": [CALIBRATION, OTHER]}
    assert check_schema(content, Thresholds, "here", "") == content


def test_a_section_has_points_with_intervals_and_where_they_hold():
    (section,) = describe_calibrations([CALIBRATION])
    assert (section.name, section.title) == ("thresholds", "Thresholds")
    pairs, searches = section.tables
    assert pairs.rows == [
        ["far=0.01", "12.346", "0.999", "0.877 to 1.12", "75.0", "70.0 to 80.1"],
        ["far=0.001", *"–––––"],
    ]
    assert searches.columns[4] == "DIR (%)"
    assert searches.rows == [["open-set=0.1", "9", "10", "–", "50.0", "–"]]
    text = " ".join(section.texts)
    assert "far=0.001: not measurable with 9 pairs." in text
    assert "1,234 same-identity and 567,890 different-identity pairs" in text
    assert "hold for cameras 1, 2 (queries) and 1, 2, 3 (gallery) of market" in text


def test_several_calibrations_have_sections_and_plots_of_distinct_names():
    first, second = describe_calibrations([CALIBRATION, OTHER])
    assert (first.title, second.title) == ("Thresholds: market, euclidean", "Thresholds: market, cosine, flip")
    names = [first.name, second.name, *(plot.name for one in (first, second) for plot in one.plots)]
    assert len(set(names)) == len(names) == 6
    assert len(second.tables) == 1


def test_a_curve_leaves_out_points_without_false_accepts():
    roc, searches = plot_rates([CALIBRATION, OTHER])
    axes = Figure().add_subplot()
    roc.draw(axes)
    axes.figure.canvas.draw()
    labels = {label.get_text() for label in axes.get_xticklabels(which="both")}
    assert {"0.1", "1"} <= labels <= {"", "0.001", "0.01", "0.1", "1", "10", "100"}
    assert [line.get_xydata().tolist() for line in axes.lines] == [[[0.1, 50], [1, 75]]] * 2
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["market, euclidean", "market, cosine, flip"]
    assert "market, euclidean: 50.0% at a FAR of 0.1%, 75.0% at 1%" in roc.alt
    assert searches.table.rows[0] == ["market, euclidean", "10", "50.0"]


def test_rates_elsewhere_are_next_to_those_of_the_calibration():
    point = {"name": "eer", "threshold": 3.0, "calibrated": {"far": 0.1, "tar": 0.9}, "far": None, "tar": 0.5}
    table = tabulate_realised([point | {"far_interval": None, "tar_interval": [0.25, 0.75]}], "tar")
    assert table.rows == [["eer", "3", "10", "–", "–", "90.0", "50.0", "25.0 to 75.0"]]
    assert table.columns[2:4] == ("FAR there (%)", "FAR here (%)")
