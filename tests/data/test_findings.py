from __future__ import annotations

import json
from pathlib import Path

from medseg.data.cases import Case, Dataset
from medseg.data.findings import Finding, Report

DATASET = Dataset("knees", "by hand", (Case("a", (Path("a.nii"),)),), None, ("CT",), Path("here"))


def report(*findings: Finding) -> Report:
    return Report.of(DATASET, findings)


def test_the_gravest_comes_first() -> None:
    kinds = ("note", "error", "warning")
    assert [f.severity for f in report(*(Finding(k, "a", "x", "text") for k in kinds)).findings] == [  # type: ignore[arg-type]
        "error",
        "warning",
        "note",
    ]


def test_only_errors_stop_a_training() -> None:
    assert report(Finding("warning", "a", "x", "text"), Finding("note", "a", "x", "text")).ok
    assert not report(Finding("error", "a", "x", "text")).ok


def test_verdict() -> None:
    assert report().verdict == "knees, 1 case (by hand): nothing found; training can start"
    text = report(
        Finding("error", "a", "x", "1"), Finding("note", "a", "x", "2"), Finding("note", "a", "x", "3")
    ).verdict
    assert text == "knees, 1 case (by hand): 1 error, 2 notes; training would fail or mislead: correct the errors first"


def test_table_is_the_verdict_alone_when_all_is_well() -> None:
    assert report().table() == report().verdict


def test_table_shares_rows_between_equal_messages() -> None:
    lines = report(*(Finding("note", name, "file", "odd") for name in "abcd")).table().splitlines()
    assert lines[:2] == ["severity  kind  case             finding", "note      file  a, b and 2 more  odd"]


def test_table_shows_a_few_of_a_kind_and_json_shows_all() -> None:
    found = report(
        *(Finding("error", f"c{n}", "geometry", f"{n} mm off") for n in range(20)), Finding("note", "", "z", "all")
    )
    lines = found.table().splitlines()
    assert sum("mm off" in line for line in lines) == 6
    assert any("14 more of this kind" in line for line in lines)
    assert "(all)" in lines[-2]
    assert len(found.to_json()["findings"]) == 21


def test_json() -> None:
    content = json.loads(json.dumps(report(Finding("error", "a", "x", "text")).to_json()))
    assert content["ok"] is False
    assert content["findings"] == [{"severity": "error", "case": "a", "code": "x", "message": "text"}]
    assert (content["dataset"], content["cases"]) == ("knees", 1)
