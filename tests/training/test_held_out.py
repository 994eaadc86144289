from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from medseg import cohort, io
from medseg.data.cases import Case
from medseg.data.scans import Scan
from medseg.errors import DataError
from medseg.labels import Labels
from medseg.training import held_out
from medseg.volume import Geometry, Volume

LABELS = Labels.of({"background": 0, "cyst": 1})
GEOMETRY = Geometry((12, 10, 8), np.diag([1.0, 1.0, 2.0, 1.0]))


def volume(width: int, kind: Any = "labels") -> Volume:
    array = np.zeros(GEOMETRY.shape, np.uint8)
    array[1 : 1 + width, 2:8, 2:6] = 1
    return Volume(array, GEOMETRY, kind)


@pytest.fixture
def cases(tmp_path: Path) -> list[Case]:
    """Five references of eight voxels' width."""
    made = []
    for name in "abcde":
        io.write(volume(8, "image"), tmp_path / f"{name}.nii.gz")
        io.write(volume(8), tmp_path / f"{name}_mask.nii.gz")
        made.append(Case(name, (tmp_path / f"{name}.nii.gz",), tmp_path / f"{name}_mask.nii.gz"))
    return made


def predicted(folder: Path, **widths: int) -> dict[str, Path]:
    for name, width in widths.items():
        io.write(volume(width), folder / f"predictions/{name}.nii.gz", parents=True)
    return {name: folder / f"predictions/{name}.nii.gz" for name in widths}


def test_scores_and_the_worst_the_median_and_the_best(tmp_path: Path, cases: list[Case]) -> None:
    run = tmp_path / "run"
    masks = predicted(run, a=8, b=2, c=6, d=4, e=7)
    result = held_out.measure(cases, masks, LABELS, 1.0, run)
    dice = {name: 2 * min(width, 8) / (width + 8) for name, width in {"a": 8, "b": 2, "c": 6, "d": 4, "e": 7}.items()}
    assert {row["case"]: row["dice"] for row in result.rows} == pytest.approx(dice)
    assert json.loads((run / "metrics.json").read_text())["mean_dice"] == pytest.approx(np.mean(list(dice.values())))
    index = json.loads((run / "pictures/index.json").read_text())
    assert [(entry["kind"], entry["case"]) for entry in index] == [("worst", "b"), ("median", "c"), ("best", "a")]
    assert [entry["dice"] for entry in index] == pytest.approx([dice["b"], dice["c"], dice["a"]])
    for entry in index:
        with Image.open(run / "pictures" / entry["file"]) as picture:
            assert picture.mode == "RGB"


def test_masks_that_are_there_are_not_made_again(
    tmp_path: Path, cases: list[Case], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A held-out case is predicted once, also where a start was interrupted."""
    asked: list[str] = []

    def predict(predictor: Any, scans: list[Scan], out: Path) -> list[cohort.Outcome]:
        asked.extend(scan.id for scan in scans)
        return [cohort.Outcome(scan.id, out / f"{scan.id}.nii.gz") for scan in scans]

    monkeypatch.setattr(held_out.cohort, "predict", predict)
    monkeypatch.setattr(held_out, "Predictor", lambda *arguments, **named: None)
    predicted(tmp_path / "run", a=8, c=8)
    masks = held_out.predict(cases, tmp_path / "run", "cpu")
    assert asked == ["b", "d", "e"]
    assert list(masks) == list("abcde")


def test_a_case_that_fails_is_not_left_out_of_the_report(
    tmp_path: Path, cases: list[Case], monkeypatch: pytest.MonkeyPatch
) -> None:
    failed: Callable[..., list[cohort.Outcome]] = lambda *_: [cohort.Outcome("b", error="no luck")]  # noqa: E731
    monkeypatch.setattr(held_out.cohort, "predict", failed)
    monkeypatch.setattr(held_out, "Predictor", lambda *arguments, **named: None)
    with pytest.raises(DataError, match="b was held back and cannot be predicted: no luck"):
        held_out.predict(cases, tmp_path / "run", "cpu")


def test_nothing_to_draw_where_no_structure_is(tmp_path: Path) -> None:
    for name in ("image", "mask"):
        io.write(volume(0, "labels" if name == "mask" else "image"), tmp_path / f"{name}.nii.gz")
    case = Case("a", (tmp_path / "image.nii.gz",), tmp_path / "mask.nii.gz")
    held_out.measure([case], {"a": tmp_path / "mask.nii.gz"}, LABELS, 1.0, tmp_path / "run")
    assert json.loads((tmp_path / "run/pictures/index.json").read_text()) == []


def test_of_two_cases_one_is_the_worst_and_one_the_best(tmp_path: Path, cases: list[Case]) -> None:
    masks = predicted(tmp_path / "run", a=8, b=2)
    held_out.measure(cases[:2], masks, LABELS, 1.0, tmp_path / "run")
    index = json.loads((tmp_path / "run/pictures/index.json").read_text())
    assert [(entry["kind"], entry["case"]) for entry in index] == [("worst", "b"), ("best", "a")]
