"""Instances: pictures that can be counted by hand, then MONAI and pycocotools."""

import math

import numpy as np
import pytest

from medseg.errors import ConfigError, GeometryError
from medseg.metrics import average_precision, panoptic_quality
from medseg.metrics.instances import qualities


def row(*runs: tuple[int, int]) -> np.ndarray:
    """A map of one row, from lengths and numbers."""
    return np.repeat([number for _, number in runs], [length for length, _ in runs])[None]


# IoU of the three objects: 8/10, 6/10, 3/10.
REFERENCE = row((10, 1), (2, 0), (10, 2), (2, 0), (10, 3))
PREDICTION = row((8, 7), (4, 0), (6, 9), (6, 0), (3, 4), (7, 0))


def test_panoptic_quality_by_hand() -> None:
    (found,) = qualities(PREDICTION, REFERENCE).values()
    assert (found.matched, found.missed, found.invented) == (2, 1, 1)
    assert (found.sq, found.rq) == (pytest.approx(0.7), pytest.approx(2 / 3))
    assert panoptic_quality(PREDICTION, REFERENCE) == pytest.approx(0.7 * 2 / 3)


def test_half_is_not_enough_for_panoptic_quality() -> None:
    assert panoptic_quality(row((5, 1), (5, 0)), row((10, 1))) == 0


def test_panoptic_quality_of_each_class() -> None:
    classes = np.where(np.arange(34) < 12, 1, 2)[None]
    found = qualities(PREDICTION, REFERENCE, (classes, classes))
    assert {each: (one.matched, one.missed, one.invented) for each, one in found.items()} == {
        1: (1, 0, 0),
        2: (1, 1, 1),
    }
    assert panoptic_quality(PREDICTION, REFERENCE, classes=(classes, classes)) == pytest.approx((0.8 + 0.6 / 2) / 2)
    turned = np.where(classes == 1, 2, 1)  # everything found, nothing as what it is
    assert panoptic_quality(PREDICTION, REFERENCE, classes=(turned, classes)) == 0


def test_average_precision_by_hand() -> None:
    at = {0.3: 1.0, 0.5: 2 / 4, 0.6: 2 / 4, 0.75: 1 / 5, 0.85: 0.0}
    for threshold, expected in at.items():
        assert average_precision(PREDICTION, REFERENCE, thresholds=threshold) == pytest.approx(expected)
    assert average_precision(PREDICTION, REFERENCE, thresholds=(0.5, 0.75)) == pytest.approx((0.5 + 0.2) / 2)
    coco = (3 * 0.5 + 4 * 0.2 + 3 * 0) / 10  # .5, .55, .6; .65 ... .8; .85 ...
    assert average_precision(PREDICTION, REFERENCE) == pytest.approx(coco)


def test_average_precision_with_scores_by_hand() -> None:
    """The wrong one first: precision is 0, 1/2, 2/3 at recalls 0, 1/3, 2/3, and 2/3 up to there once it may only fall."""
    found = average_precision(PREDICTION, REFERENCE, thresholds=0.5, scores={4: 0.9, 7: 0.8, 9: 0.7})
    assert found == pytest.approx(2 / 3 * 67 / 101)
    found = average_precision(PREDICTION, REFERENCE, thresholds=0.5, scores={4: 0.1, 7: 0.8, 9: 0.7})
    assert found == pytest.approx(67 / 101)


def test_numbers_mean_nothing() -> None:
    renamed = np.where(PREDICTION == 9, 2_000_000_000, PREDICTION)
    assert average_precision(renamed, REFERENCE) == average_precision(PREDICTION, REFERENCE)
    assert panoptic_quality(renamed, REFERENCE) == panoptic_quality(PREDICTION, REFERENCE)


@pytest.mark.parametrize("metric", [average_precision, panoptic_quality])
def test_empty_maps_and_single_voxels(metric) -> None:
    empty, one = np.zeros((3, 4, 5), int), np.zeros((3, 4, 5), int)
    one[1, 1, 1] = 3
    assert math.isnan(metric(empty, empty))
    assert metric(one, empty) == metric(empty, one) == 0
    assert metric(one, one) == 1


def test_what_cannot_be_measured() -> None:
    with pytest.raises(GeometryError, match=r"score, but \[4, 9\] have none"):
        average_precision(PREDICTION, REFERENCE, scores={7: 1.0})
    with pytest.raises(GeometryError, match=r"score, but \[9\] have none"):
        average_precision(PREDICTION, REFERENCE, scores={7: 1.0, 4: 0.5, 9: math.nan})
    with pytest.raises(GeometryError, match="whole numbers"):
        panoptic_quality(PREDICTION * 0.5, REFERENCE)


@pytest.mark.parametrize("thresholds", [50, 0, -0.5, math.nan, (), (0.5, 75)])
def test_thresholds_that_are_no_iou(thresholds) -> None:
    with pytest.raises(ConfigError, match="lie above 0 and up to 1"):
        average_precision(PREDICTION, REFERENCE, thresholds=thresholds)


@pytest.mark.parametrize("kind", [bool, np.uint8, np.int8, np.uint64])
def test_maps_of_any_whole_numbers(kind: type) -> None:
    prediction, reference = PREDICTION.astype(kind), REFERENCE.astype(kind)
    for metric in (average_precision, panoptic_quality):
        assert metric(prediction, reference) == metric(prediction.astype(int), reference.astype(int))


def noise(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Objects in rows of a map, most of them found more or less."""
    rng = np.random.default_rng(seed)
    reference = np.repeat(np.arange(60).reshape(6, 10), 9, axis=1).repeat(5, axis=0)
    reference[rng.random(reference.shape) < 0.1] = 0
    prediction = np.roll(reference, 2, axis=1) * (rng.random(reference.shape) < 0.95)
    wrong = rng.choice(60, 12)
    return np.where(np.isin(prediction, wrong) & (rng.random(reference.shape) < 0.7), 0, prediction), reference


@pytest.mark.filterwarnings("ignore")  # theirs
@pytest.mark.parametrize("seed", [0, 1])
def test_monai_agrees(seed: int) -> None:
    import torch
    from monai.metrics import compute_panoptic_quality

    prediction, reference = (torch.from_numpy(array) for array in noise(seed))
    for name, expected in (("pq", "pq"), ("sq", "sq"), ("rq", "rq")):
        theirs = compute_panoptic_quality(prediction, reference, metric_name=name, match_iou_threshold=0.5)
        (ours,) = qualities(prediction, reference).values()
        assert getattr(ours, expected) == pytest.approx(float(theirs), rel=1e-5)


@pytest.mark.filterwarnings("ignore")  # theirs
@pytest.mark.parametrize("seed", [0, 1])
def test_coco_agrees(seed: int, capsys: pytest.CaptureFixture[str]) -> None:
    coco = pytest.importorskip("pycocotools.coco").COCO
    evaluation = pytest.importorskip("pycocotools.cocoeval").COCOeval
    from pycocotools import mask as rle

    def entries(array: np.ndarray) -> list[dict[str, object]]:
        coded = {n: rle.encode(np.asfortranarray(array == n, np.uint8)) for n in np.unique(array[array > 0]).tolist()}
        return [
            {"id": n, "image_id": 1, "category_id": 1, "segmentation": code, "area": 1, "iscrowd": 0}
            for n, code in coded.items()
        ]

    prediction, reference = noise(seed)
    rng = np.random.default_rng(seed)
    scores = {n: float(score) for n, score in enumerate(rng.permutation(60) / 60)}
    truth = coco()
    truth.dataset = {
        "images": [{"id": 1, "height": 30, "width": 90}],
        "categories": [{"id": 1}],
        "annotations": entries(reference),
    }
    truth.createIndex()
    found = truth.loadRes([{**entry, "score": scores[entry["id"]]} for entry in entries(prediction)])
    peer = evaluation(truth, found, "segm")
    peer.params.areaRng, peer.params.areaRngLbl = [[0, 1e10]], ["all"]
    peer.evaluate()
    peer.accumulate()
    for position, threshold in enumerate(peer.params.iouThrs):
        theirs = peer.eval["precision"][position, :, 0, 0, -1].mean()
        assert average_precision(prediction, reference, thresholds=threshold, scores=scores) == pytest.approx(theirs)
