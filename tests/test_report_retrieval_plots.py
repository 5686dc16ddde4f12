"""What is plotted of an evaluation."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from ptlreid.reports.retrieval_plots import plot_distances, tabulate_thresholds
from ptlreid.retrieval.thresholds import PairCounts

# Same identity: 75% in bin 1, 25% in bin 3. Different identities: 10% in bin 2, 40% in bin 3, 50% in bin 4.
COUNTS = PairCounts(np.array([0.0, 1, 2, 3, 4]), np.array([3, 0, 1, 0]), np.array([0, 10, 40, 50]))


def test_thresholds_are_given_at_equal_error_and_at_each_false_accept_rate():
    # EER, FAR 5%: see test_thresholds.py. FAR 0.1% of 100 pairs: less than one.
    assert tabulate_thresholds(COUNTS, [0.05, 0.001]).rows == [
        ["EER", "2", "10", "75.0"],
        ["FAR 5e-2", "1", "0", "75.0"],
        ["FAR 1e-3", "too few pairs", "", ""],
    ]


def test_the_histogram_shows_both_kinds_of_pairs_and_the_thresholds():
    axes = Figure().add_subplot()
    plot_distances(COUNTS, [0.05, 0.001]).draw(axes)
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels == ["same identity", "different identities", "EER", "FAR 5e-2"]
    assert [line.get_xdata()[0] for line in axes.lines] == [2, 1]
