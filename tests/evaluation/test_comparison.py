"""Two evaluations compared: means, pairs and p values by hand, and all that keeps them from being compared."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medseg.errors import ConfigError, DataError
from medseg.evaluation import Evaluation
from medseg.evaluation.comparison import comparable, compare

NAN = float("nan")


def evaluation(
    dices: dict[str, tuple[float, ...]], status: dict[tuple[str, str], str] | None = None, **summary: Any
) -> Evaluation:
    """Of the labels liver and cyst; distances fall as Dice rises."""
    rows = []
    for case, values in dices.items():
        for label, dice in zip(("liver", "cyst"), values, strict=True):
            found = (status or {}).get((case, label), "found")
            rows.append(
                {
                    "case": case,
                    "group": case[0],
                    "label": label,
                    "status": found,
                    "dice": dice,
                    "hd95_mm": 10 * (1 - dice),
                }
                | {"reference_ml": 0.0 if found in ("absent", "invented") else 2.0, "relative_volume_error": 0.1}
            )
    return Evaluation(tuple(rows), {"tolerance_mm": 1.0, "labels": {}, **summary})


OLD = evaluation({f"{name}1": (0.5, 0.8) for name in "abcd"})
NEW = evaluation({f"{name}1": (0.5 + 0.1 * n, 0.8) for n, name in enumerate("abcd", 1)})


def test_by_hand() -> None:
    found = compare(OLD, NEW, ("old", "new"), names=("dice", "hd95_mm")).summary
    assert (found["a"], found["b"], found["cases"], found["patients"]) == ("old", "new", 4, 4)
    liver, cyst = found["labels"]["liver"]["dice"], found["labels"]["cyst"]["dice"]
    assert (liver["a"], liver["b"], liver["difference"]) == pytest.approx((0.5, 0.75, 0.25))
    assert (liver["pairs"], liver["better"], liver["worse"]) == (4, 4, 0)
    assert liver["p_permutation"] == liver["p_wilcoxon"] == 2 / 16
    assert (cyst["difference"], cyst["better"], cyst["worse"], cyst["p_permutation"]) == (0, 0, 0, 1)
    assert liver["p_permutation_holm"] == 4 / 16
    assert 0.1 <= liver["low"] < 0.25 < liver["high"] <= 0.4
    distance = found["labels"]["liver"]["hd95_mm"]
    assert distance["difference"] == pytest.approx(-2.5)
    assert (distance["better"], distance["worse"]) == (4, 0)
    mean = found["mean_dice"]
    assert (mean["a"], mean["b"], mean["difference"]) == pytest.approx((0.65, 0.775, 0.125))
    assert mean["low"] < 0.125 < mean["high"]


def test_who_left_out_what_is_not_there_was_right() -> None:
    """Of structures that the reference lacks: both left it out (no pair), and one invented it."""
    values = {"a1": (0.5, NAN), "b1": (0.5, NAN), "c1": (0.5, 0.5)}
    nothing = {("a1", "cyst"): "absent", ("b1", "cyst"): "absent"}
    invented = evaluation({**values, "b1": (0.5, 0.0)}, {**nothing, ("b1", "cyst"): "invented"})
    found = compare(evaluation(values, nothing), invented, names=("dice", "hd95_mm")).summary["labels"]["cyst"]
    assert (found["dice"]["a"], found["dice"]["b"], found["dice"]["pairs"]) == (0.75, 0.25, 2)
    assert (found["dice"]["better"], found["dice"]["worse"]) == (0, 1)
    assert found["hd95_mm"]["a"] == 2.5


def test_a_label_that_one_alone_invented_is_held_against_it() -> None:
    """Of masks whose labels nobody declared, the one that did not invent anything has no row of it."""
    invented = {("a1", "cyst"): "invented", ("b1", "cyst"): "absent"}
    a = evaluation({"a1": (0.5, 0.0), "b1": (0.5, NAN)}, invented)
    b = Evaluation(tuple(row for row in a.rows if row["label"] == "liver"), a.summary)
    for one, other, better in ((a, b, 1), (b, a, 0)):
        found = compare(one, other, names=("dice",)).summary["labels"]["cyst"]["dice"]
        assert (found["a"], found["b"], found["pairs"]) == ((0, 1, 1) if better else (1, 0, 1))
        assert (found["better"], found["worse"]) == (better, 1 - better)


def test_cases_in_one_alone_are_counted(caplog: pytest.LogCaptureFixture) -> None:
    more = evaluation({"a1": (0.5, 0.5), "b1": (0.5, 0.5), "z9": (0.1, 0.1)})
    found = compare(OLD, more, names=("dice",))
    assert (found.summary["cases"], found.summary["only_in_a"], found.summary["only_in_b"]) == (2, 2, 1)
    assert {row["case"] for row in found.rows} == {"a1", "b1"}
    assert "3 cases are in one of the two alone" in caplog.text


def test_files_and_tables(tmp_path: Path) -> None:
    found = compare(OLD, NEW, ("old", "new"), names=("dice", "hd95_mm"))
    found.write(tmp_path)
    with (tmp_path / "comparison.csv").open() as stream:
        first = next(csv.DictReader(stream))
    assert (first["dice_a"], first["dice_b"], first["dice_difference"]) == ("0.5", "0.6", "0.1")
    assert json.loads((tmp_path / "comparison.json").read_text())["labels"]["liver"]["dice"]["pairs"] == 4
    lines = found.table().splitlines()
    assert lines[:2] == ["A: old", "B: new"]
    assert lines[3].split()[:6] == ["liver", "dice", "4", "0.500", "0.750", "+0.250"]
    assert lines[-2].split()[:2] == ["mean", "dice"]
    assert "liver" in found._repr_html_()


@pytest.mark.parametrize("name", ["volume_ml", "mean_iou"])
def test_what_cannot_be_better_is_not_left_out_in_silence(name: str) -> None:
    with pytest.raises(ConfigError, match=f"{name} cannot be compared: volumes are neither good nor bad"):
        compare(OLD, NEW, names=("dice", name))
    assert "volume_ml" not in comparable(("usual",))
    assert comparable("dice, hd95_mm") == ("dice", "hd95_mm")
    with pytest.raises(ConfigError, match="one at least is needed, such as dice"):
        comparable(())


def test_a_run_compared_with_itself_differs_nowhere() -> None:
    found = compare(OLD, OLD, names=("dice",)).summary
    assert found["mean_dice"]["difference"] == 0
    assert found["mean_dice"]["p_permutation"] == 1


def test_what_cannot_be_compared() -> None:
    with pytest.raises(DataError, match="no case and label in common"):
        compare(OLD, evaluation({"z1": (0.1, 0.1)}), names=("dice",))
    with pytest.raises(DataError, match="nsd was not measured in both"):
        compare(OLD, NEW)
    with pytest.raises(ConfigError, match="Did you mean 'dice'"):
        compare(OLD, NEW, names=("dise",))
    other = Evaluation(tuple({**row, "reference_ml": 3.0} for row in NEW.rows), NEW.summary)
    with pytest.raises(DataError, match="the references differ in 4 cases: a1"):
        compare(OLD, other, names=("dice",))
    sides = [
        Evaluation(tuple({**row, "nsd": 0.9} for row in OLD.rows), {"tolerance_mm": tolerance})
        for tolerance in (1.0, 2.0)
    ]
    with pytest.raises(DataError, match=r"tolerances of 1\.0 and 2\.0 mm\. Measure both with one"):
        compare(*sides, names=("nsd",))
    assert compare(*sides, names=("dice",)).summary["mean_dice"]["difference"] == 0


def test_p_values_are_those_of_patients() -> None:
    """Ten cases of each of two patients prove no more than two patients can."""
    names = [f"{patient}{n}" for patient in "ab" for n in range(10)]
    old, new = (evaluation(dict.fromkeys(names, (dice, dice))) for dice in (0.5, 0.9))
    assert compare(old, new, names=("dice",)).summary["labels"]["liver"]["dice"]["p_permutation"] == 0.5
    assert np.isclose(compare(old, new, names=("dice",)).summary["mean_dice"]["low"], 0.4)
