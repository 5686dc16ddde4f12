"""Table files for papers."""

from __future__ import annotations

import csv
from io import StringIO

import pytest

from ptlreid.errors import OptionError
from ptlreid.reports.elements import Table
from ptlreid.reports.tables import write_table

TABLE = Table(("run", "mAP"), [["market_a|b", "52.7"], ["50% & $1 {x}\\y~^#", "8.0"]])


def test_markdown_lines_up_and_escapes(tmp_path):
    write_table(TABLE, tmp_path / "t.md")
    assert (tmp_path / "t.md").read_text() == (
        "| run | mAP |\n"
        "| --- | ---: |\n"
        "| market\\_a\\|b | 52.7 |\n"
        "| 50% & $1 {x}\\\\y~^# | 8.0 |\n"
    )  # fmt: skip


def test_latex_escapes_every_special_character(tmp_path):
    write_table(TABLE, tmp_path / "t.tex")
    assert (tmp_path / "t.tex").read_text() == (
        "\\begin{tabular}{lr}\n"
        "\\hline\n"
        "run & mAP \\\\\n"
        "\\hline\n"
        "market\\_a|b & 52.7 \\\\\n"
        "50\\% \\& \\$1 \\{x\\}\\textbackslash{}y\\textasciitilde{}\\textasciicircum{}\\# & 8.0 \\\\\n"
        "\\hline\n"
        "\\end{tabular}\n"
    )


def test_csv_reads_back(tmp_path):
    table = Table(("run", "mAP"), [['a,"b"\nc', "52.7"]])
    write_table(table, tmp_path / "t.CSV")
    assert list(csv.reader(StringIO((tmp_path / "t.CSV").read_text()))) == [["run", "mAP"], ['a,"b"\nc', "52.7"]]


def test_another_suffix_is_an_error(tmp_path):
    with pytest.raises(OptionError, match=r"--table .*t\.xlsx: expected a file name that ends in \.md, \.tex or \.csv"):
        write_table(TABLE, tmp_path / "t.xlsx")
