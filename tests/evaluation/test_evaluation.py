"""Evaluation: statuses, means and files by hand, everything that it refuses, then real masks."""

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest

from medseg import metrics
from medseg.data.pairing import Pair, pair_folders
from medseg.errors import DataError, GeometryError
from medseg.evaluation import WHO, evaluate, read
from medseg.labels import Labels
from medseg.volume import Geometry, Volume

GRID = Geometry((10, 12, 8), np.diag([-1.0, 1.5, 2, 1]))
COLUMNS = (*WHO, *metrics.USUAL)
LABELS = Labels.of({"organ": 1, "tumour": 2})


def mask(organ: slice | None = None, tumour: slice | None = None, geometry: Geometry = GRID) -> Volume:
    array = np.zeros(geometry.shape, np.uint8)
    for value, where in ((1, organ), (2, tumour)):
        if where is not None:
            array[where, 2 * value : 2 * value + 2, 2:6] = value
    return Volume(array, geometry, "labels")


def four_cases() -> list[Pair]:
    """Tumours found, missed, invented and absent; the organ is right twice and half right twice."""
    here, half = slice(2, 6), slice(4, 8)
    return [
        Pair("a", mask(here, here), mask(here, here), "anna"),
        Pair("b", mask(here), mask(here, here), "bert"),
        Pair("c", mask(half, here), mask(here), "carl"),
        Pair("d", mask(half), mask(here), "carl"),
    ]


def test_statuses_and_means() -> None:
    result = evaluate(four_cases(), LABELS)
    assert [row["status"] for row in result.rows if row["label"] == "tumour"] == [
        "found",
        "missed",
        "invented",
        "absent",
    ]
    organ, tumour = result.summary["labels"]["organ"], result.summary["labels"]["tumour"]
    assert organ["dice"]["mean"] == organ["dice"]["median"] == 0.75
    assert tumour["dice"]["mean"] == pytest.approx(1 / 3)
    assert {word: tumour[word] for word in ("cases", "missed", "invented", "absent")} == {
        "cases": 4,
        "missed": 1,
        "invented": 1,
        "absent": 1,
    }
    assert result.summary["mean_dice"] == pytest.approx((0.75 + 1 / 3) / 2)
    assert (result.summary["cases"], result.summary["patients"]) == (4, 3)
    missed = result.rows[3]
    assert missed["hd95_mm"] == missed["assd_mm"] == pytest.approx(GRID.diagonal_mm)


def test_rows_hold_the_metrics_of_the_whole_masks() -> None:
    row = evaluate(four_cases()[2:3], LABELS, tolerance_mm=1.5).rows[0]
    case = four_cases()[2]
    whole = [np.asarray(volume.array[0] == 1) for volume in (case.prediction, case.reference)]
    expected = metrics.scores(*whole, spacing_mm=GRID.spacing_mm, tolerance_mm=1.5)
    assert tuple(row) == COLUMNS
    assert {name: row[name] for name in expected} == pytest.approx(expected)


def test_interval_is_over_patients_and_repeatable() -> None:
    first, again, other = (evaluate(four_cases(), LABELS, seed=seed).summary for seed in (1, 1, 2))
    assert json.dumps(first) == json.dumps(again)
    organ = first["labels"]["organ"]["dice"]
    assert (organ["low"], organ["high"]) == (0.5, 1.0)
    assert first["mean_dice_low"] < first["mean_dice"] < first["mean_dice_high"]
    assert first["mean_dice"] == other["mean_dice"]
    one = evaluate([pair._replace(group="one patient") for pair in four_cases()], LABELS).summary
    assert math.isnan(one["mean_dice_low"])
    assert one["patients"] == 1


def test_the_interval_holds_a_mean_of_which_one_patient_alone_has_a_label() -> None:
    here = slice(2, 6)
    pairs = [Pair(name, mask(here), mask(here)) for name in "ab"] + [Pair("c", mask(here), mask(here, here))]
    summary = evaluate(pairs, LABELS).summary  # the tumour, in one patient, is missed
    assert summary["mean_dice"] == summary["mean_dice_low"] == summary["mean_dice_high"] == 0.5


def test_files(tmp_path: Path) -> None:
    result = evaluate(four_cases(), LABELS)
    result.write(tmp_path)
    with (tmp_path / "metrics.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert tuple(rows[0]) == COLUMNS
    assert [row["dice"] for row in rows if row["label"] == "tumour"] == ["1", "0", "0", ""]
    summary = json.loads((tmp_path / "metrics.json").read_text())
    assert summary["labels"]["organ"]["dice"]["mean"] == 0.75
    assert summary["tolerance_mm"] == 1.0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["metrics.csv", "metrics.json", "scans.csv"]
    assert read(tmp_path).scans == tuple(
        {**scan, **{name: pytest.approx(scan[name], rel=1e-5) for name in metrics.MAPS}} for scan in result.scans
    )


def test_whole_maps_by_hand_and_in_subgroups() -> None:
    """A map that is right but for a missed tumour of 1 voxel in 8, and one that is right."""
    geometry = Geometry((2, 2, 2), np.eye(4))
    true = np.array([[[1, 1], [1, 1]], [[0, 0], [0, 2]]], np.uint8)
    pairs = [
        Pair(name, Volume(found, geometry, "labels"), Volume(true, geometry, "labels"), about={"site": name})
        for name, found in (("a", np.where(true == 2, 0, true)), ("b", true))
    ]
    result = evaluate(pairs, LABELS, names=("mean_iou",), by="site")
    expected = {
        "pixel_accuracy": 7 / 8,
        "mean_pixel_accuracy": 2 / 3,
        "mean_iou": (3 / 4 + 1 + 0) / 3,
        "frequency_weighted_iou": (3 * 3 / 4 + 4) / 8,
    }
    assert {name: result.scans[0][name] for name in metrics.MAPS} == pytest.approx(expected)
    assert {name: item["mean"] for name, item in result.summary["maps"].items()} == pytest.approx(
        {name: (value + 1) / 2 for name, value in expected.items()}
    )
    assert result.summary["subgroups"]["of"]["a"]["maps"]["mean_iou"]["mean"] == pytest.approx(expected["mean_iou"])
    assert "whole maps: Pixel accuracy 0.938, Mean pixel accuracy 0.833, Mean IoU" in result.table()


def test_subgroups_come_in_the_order_in_which_people_count() -> None:
    right = mask(slice(2, 6))
    sites = ["site 10", "", "site 9", "9", "100", "30.5", "Ost"]
    pairs = [Pair(f"c{n}", right, right, about={"site": site}) for n, site in enumerate(sites)]
    found = evaluate(pairs, LABELS, names=("dice",), by="site").summary["subgroups"]["of"]
    assert list(found) == ["9", "30.5", "100", "Ost", "not said", "site 9", "site 10"]


def test_table() -> None:
    lines = evaluate(four_cases(), LABELS).table().splitlines()
    assert [line.split()[0] for line in lines] == ["label", "organ", "tumour", "mean", "whole"]
    assert "0.750 [0.500, 1.000]" in lines[1]
    assert lines[2].split()[1:5] == ["4", "1", "1", "1"]


def test_a_label_that_no_case_holds() -> None:
    result = evaluate([("a", mask(slice(2, 6)), mask(slice(2, 6)))], LABELS)
    assert math.isnan(result.summary["labels"]["tumour"]["dice"]["mean"])
    assert result.summary["mean_dice"] == 1
    assert "-" in result.table().splitlines()[2]
    empty = evaluate([("a", mask(), mask())], LABELS)
    assert math.isnan(empty.summary["mean_dice"])


def test_ignored_voxels_are_left_out() -> None:
    labels = Labels.of({"organ": 1, "ignore": 9})
    reference = np.array(mask(slice(2, 6)).array)
    prediction = reference.copy()
    prediction[0, 0, 0, 0] = 1
    unsure = reference.copy()
    unsure[0, 0, 0, 0] = 9
    wrong, forgiven = (
        evaluate([("a", Volume(prediction, GRID, "labels"), Volume(truth, GRID, "labels"))], labels).rows[0]
        for truth in (reference, unsure)
    )
    assert wrong["dice"] < forgiven["dice"] == 1
    assert forgiven["hd95_mm"] == 0


def test_overlapping_labels() -> None:
    labels = Labels.of({"whole": [1, 2], "core": 2})
    reference = mask(slice(2, 6), slice(2, 6))
    channels = np.stack([reference.array[0] > 0, reference.array[0] == 2]).astype(np.uint8)
    result = evaluate([("a", Volume(channels, GRID, "labels"), reference)], labels)
    assert [row["dice"] for row in result.rows] == [1, 1]
    with pytest.raises(DataError, match="2 channels"):
        evaluate([("a", Volume(channels, GRID, "labels"), reference)], LABELS)


def test_a_sheared_grid_and_a_single_slice_are_measured() -> None:
    affine = np.array([[1.0, 0, 0.5, 0], [0, 1, 0, 0], [0, 0, 2, 0], [0, 0, 0, 1]])
    sheared = Geometry(GRID.shape, affine)
    row = evaluate([("a", mask(slice(3, 7), geometry=sheared), mask(slice(2, 6), geometry=sheared))], LABELS).rows[0]
    assert row["volume_ml"] == pytest.approx(4 * 2 * 4 * 2 / 1000)
    assert row["hd95_mm"] == pytest.approx(1)
    flat = Geometry((20, 20, 1), np.diag([-0.5, -0.5, 1, 1]))
    image = np.zeros((2, 20, 20, 1), np.uint8)
    image[0, 4:10, 5:9], image[1, 5:11, 5:9] = 1, 1
    row = evaluate([("a", *(Volume(plane, flat, "labels") for plane in image))], LABELS).rows[0]
    assert row["hd95_mm"] == pytest.approx(0.5)


def test_other_spaces_are_refused_with_the_case_and_the_distance() -> None:
    moved = np.array(GRID.affine)
    moved[2, 3] += 0.8
    here, there = mask(slice(2, 6)), mask(slice(2, 6), geometry=Geometry(GRID.shape, moved))
    with pytest.raises(GeometryError, match=r"case_7: .*0\.8 mm.* along k"):
        evaluate([("case_7", there, here)], LABELS)
    moved[2, 3] -= 0.795
    near = mask(slice(2, 6), geometry=Geometry(GRID.shape, moved))
    assert evaluate([("case_7", near, here)], LABELS).summary["mean_dice"] == 1


def test_what_cannot_be_evaluated() -> None:
    right = mask(slice(2, 6))
    strange = Volume(np.array(right.array) * 255, GRID, "labels")
    with pytest.raises(DataError, match=r"a: the prediction holds \[255\]; the labels declare \[0, 1, 2\]"):
        evaluate([("a", strange, right)], LABELS)
    with pytest.raises(DataError, match="a: the reference holds"):
        evaluate([("a", right, strange)], LABELS)
    with pytest.raises(DataError, match="nothing to evaluate: at least one pair"):
        evaluate([], LABELS)
    with pytest.raises(DataError, match=r"nothing to evaluate: no labels .* Are they all empty"):
        evaluate([("a", right, right)], Labels.of([]))
    with pytest.raises(DataError, match="come again: a"):
        evaluate([("a", right, right), ("a", right, right)], LABELS)


def test_real_masks(shared_data: Path) -> None:
    references = shared_data / "Task04_Hippocampus" / "labelsTr"
    pairs = pair_folders(references, references)[:3]
    result = evaluate(pairs, Labels.of({"anterior": 1, "posterior": 2}))
    assert result.summary["mean_dice"] == 1
    assert all(row["hd95_mm"] == 0 and row["volume_ml"] == row["reference_ml"] > 0.5 for row in result.rows)
