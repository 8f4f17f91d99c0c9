"""What was measured can be read from the files, and from the charts."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from tests.tools.compare.fakes import candidate, comparison, result
from tools.bench.compare.catalogue import catalogue
from tools.bench.compare.comparison import Scale, Target
from tools.bench.compare.machine import Machine
from tools.bench.compare.report import Report, write_json, write_ratios, write_samples
from tools.bench.compare.rounds import Sample


@pytest.fixture
def report() -> Report:
    asked = comparison(candidate("ours"), candidate("peer"), targets=(Target("peer", 1.5),))
    return Report(
        command="compare",
        began="2026-01-01T00:00:00+00:00",
        machine=Machine("some CPU", 2, 24.0, "Linux", "ext4 (rw)", 0.1),
        rounds=1,
        scale=Scale(),
        versions={"ours": ("1.0",), "peer": ("2.0",)},
        missing={},
        comparisons=[asked],
        samples=[
            Sample("work", "ours", 0, result(300.0)),
            Sample("work", "peer", 0, result(100.0)),
            Sample("work", "peer", 1, None, "Miscounted: lost"),
        ],
    )


def test_every_run_is_a_line_failed_ones_with_their_error(report: Report, tmp_path: Path) -> None:
    write_samples(report, tmp_path / "samples.csv")
    rows = list(csv.DictReader((tmp_path / "samples.csv").read_text().splitlines()))
    assert [(row["candidate"], row["received_a_second"], row["error"]) for row in rows] == [
        ("ours", "300.0", ""),
        ("peer", "100.0", ""),
        ("peer", "", "Miscounted: lost"),
    ]


def test_every_ratio_is_a_line(report: Report, tmp_path: Path) -> None:
    write_ratios(report, tmp_path / "ratios.csv")
    [row] = csv.DictReader((tmp_path / "ratios.csv").read_text().splitlines())
    assert (row["ratio"], row["target"], row["is"]) == ("3.0", "1.5", "failed")


def test_the_document_has_machine_versions_settings_and_samples(
    report: Report, tmp_path: Path
) -> None:
    write_json(report, tmp_path / "report.json")
    found = json.loads((tmp_path / "report.json").read_text())
    assert found["machine"]["cpu"] == "some CPU"
    assert found["comparisons"][0]["candidates"][1]["versions"] == ["2.0"]
    assert found["comparisons"][0]["candidates"][1]["settings"] == {"set": "so"}
    assert len(found["samples"]) == 3


def test_charts_are_drawn_as_pictures_of_both_kinds(report: Report, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    from tools.bench.compare.charts import draw

    names = {path.name for path in draw(report, tmp_path)}
    assert names == {"ratios.png", "ratios.svg", "at-most-once.png", "at-most-once.svg"}
    assert (tmp_path / "ratios.png").read_bytes().startswith(b"\x89PNG")


def test_every_target_names_one_who_is_compared(tmp_path: Path) -> None:
    comparisons = catalogue(tmp_path)
    assert len({each.name for each in comparisons}) == len(comparisons)
    for each in comparisons:
        names = {other.name for other in each.others}
        assert {target.candidate for target in each.targets} <= names
