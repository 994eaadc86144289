import math

import numpy as np
import pytest

from medseg import metrics


def masks() -> tuple[np.ndarray, np.ndarray]:
    prediction, reference = np.zeros((2, 40, 30, 20), bool)
    prediction[10:20, 5:15, 4:8] = True
    reference[12:20, 5:15, 4:10] = True
    return prediction, reference


def test_scores_are_the_functions_of_the_whole_arrays() -> None:
    spacing = (0.5, 1.0, 2.0)
    pair, scores = masks(), metrics.scores(*masks(), spacing_mm=spacing, tolerance_mm=1.5)
    assert tuple(scores) == metrics.NAMES
    expected = {
        "dice": metrics.dice(*pair),
        "recall": metrics.recall(*pair),
        "hd95_mm": metrics.hausdorff(*pair, spacing_mm=spacing, percentile=95),
        "assd_mm": metrics.assd(*pair, spacing_mm=spacing),
        "nsd": metrics.nsd(*pair, spacing_mm=spacing, tolerance_mm=1.5),
        "volume_ml": 0.4,
        "reference_ml": 0.48,
        "volume_error_ml": -0.08,
        "relative_volume_error": -1 / 6,
    }
    assert {name: scores[name] for name in expected} == pytest.approx(expected)


def test_missed_invented_and_absent() -> None:
    some, none = masks()[0], np.zeros((40, 30, 20), bool)
    for scores in (metrics.scores(none, some), metrics.scores(some, none)):
        assert scores["dice"] == scores["nsd"] == scores["precision"] == 0
        assert scores["hd95_mm"] == scores["assd_mm"] == pytest.approx(math.sqrt(40**2 + 30**2 + 20**2))
    absent = metrics.scores(none, none)
    volumes = {"volume_ml", "reference_ml"}
    assert all(absent[name] == 0 if name in volumes else math.isnan(absent[name]) for name in metrics.NAMES)


def test_a_structure_within_one_slice_of_many_is_no_flat_image() -> None:
    disc = np.zeros((10, 10, 5), bool)
    disc[3:7, 3:7, 2] = True
    assert metrics.scores(disc, np.roll(disc, 1, 2), spacing_mm=(1, 1, 4))["hd95_mm"] == pytest.approx(4)
