"""Many metrics in one pass: those of the functions, of structures by themselves and of whole scans."""

import math

import numpy as np
import pytest
from scipy import ndimage

from medseg import metrics
from medseg.errors import ConfigError, GeometryError
from medseg.labels import Labels

SPACING = (0.5, 1.0, 2.0)


def masks() -> tuple[np.ndarray, np.ndarray]:
    prediction, reference = np.zeros((2, 40, 30, 20), bool)
    prediction[10:20, 5:15, 4:8] = True
    reference[12:20, 5:15, 4:10] = True
    return prediction, reference


def maps(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Two maps of three labels in parts of a grid; the third is in the prediction alone."""
    rng = np.random.default_rng(seed)
    field = ndimage.gaussian_filter(rng.normal(size=(2, 30, 24, 16)), (0, 2, 2, 2))
    field[1] = field[0] + 0.4 * field[1]
    prediction, reference = np.digitize(field, (0.03, 0.09)).astype(np.uint8)
    prediction[:, :, 12:], reference[:, :, 12:] = 0, 0
    prediction[25:28, 3:6, 13:15] = 7
    return prediction, reference


def test_scores_are_the_functions_of_the_whole_arrays() -> None:
    pair = masks()
    scores = metrics.scores(*pair, spacing_mm=SPACING, tolerance_mm=1.5, names=metrics.NAMES)
    assert tuple(scores) == metrics.NAMES
    same = "dice iou precision recall specificity accuracy balanced_accuracy kappa mcc boundary_iou lesion_f1 lesion_precision"
    same += " lesion_recall lesion_dice betti_error cl_dice volumetric_similarity volume_error_ml relative_volume_error"
    expected = {name: getattr(metrics, name)(*pair, spacing_mm=SPACING) for name in same.split()}
    expected |= {
        "nsd": metrics.nsd(*pair, spacing_mm=SPACING, tolerance_mm=1.5),
        "hd_mm": metrics.hausdorff(*pair, spacing_mm=SPACING),
        "hd95_mm": metrics.hausdorff(*pair, spacing_mm=SPACING, percentile=95),
        "assd_mm": metrics.assd(*pair, spacing_mm=SPACING),
        "masd_mm": metrics.masd(*pair, spacing_mm=SPACING),
        "panoptic_quality": metrics.panoptic_quality(*(mask.astype(int) for mask in pair)),
        "average_precision": metrics.average_precision(*(mask.astype(int) for mask in pair)),
        "volume_ml": 0.4,
        "reference_ml": 0.48,
    }
    assert scores == pytest.approx(expected)
    assert expected["volume_error_ml"] == pytest.approx(-0.08)


def test_missed_invented_and_absent() -> None:
    some, none = masks()[0], np.zeros((40, 30, 20), bool)
    unbounded = {"betti_error": 1, "volume_error_ml": 0.4, "relative_volume_error": -1}
    for scores in (metrics.scores(none, some, names=("all",)), metrics.scores(some, none, names=("all",))):
        for name, measure in metrics.MEASURES.items():
            if measure.form == ".2f" and measure.better == "low" and name not in unbounded:
                assert scores[name] == pytest.approx(math.sqrt(40**2 + 30**2 + 20**2)), name
            elif name not in {*unbounded, "volume_ml", "reference_ml", "specificity", "accuracy", "balanced_accuracy"}:
                assert scores[name] == 0, name
    absent = metrics.scores(none, none, names=metrics.NAMES)
    volumes = {"volume_ml", "reference_ml"}
    assert all(absent[name] == 0 if name in volumes else math.isnan(absent[name]) for name in metrics.NAMES)


def test_a_structure_within_one_slice_of_many_is_no_flat_image() -> None:
    disc = np.zeros((10, 10, 5), bool)
    disc[3:7, 3:7, 2] = True
    assert metrics.scores(disc, np.roll(disc, 1, 2), spacing_mm=(1, 1, 4))["hd95_mm"] == pytest.approx(4)


def test_a_scan_is_its_structures() -> None:
    pair = maps()
    found = metrics.evaluate(*pair, (2, 1, 7, 9), SPACING)
    assert list(found) == [2, 1, 7, 9]
    for label, scores in found.items():
        alone = metrics.scores(*(array == label for array in pair), spacing_mm=SPACING, names=metrics.NAMES)
        assert scores == pytest.approx(alone, nan_ok=True)
    assert found[7]["dice"] == 0
    assert math.isnan(found[9]["dice"])
    for name in ("pixel_accuracy", "mean_pixel_accuracy", "mean_iou", "frequency_weighted_iou"):
        assert found.overall[name] == pytest.approx(getattr(metrics, name)(*pair)), name


def test_labels_may_have_names_regions_and_voxels_to_ignore() -> None:
    prediction, reference = maps()
    some = ("dice", "specificity")
    named = metrics.evaluate(prediction, reference, {"both": [1, 2], "other": 7}, names=some)
    assert named["both"]["dice"] == metrics.dice(np.isin(prediction, (1, 2)), np.isin(reference, (1, 2)))
    marked = np.where(prediction == 7, 255, reference)
    ignoring = metrics.evaluate(prediction, marked, Labels.of({"one": 1, "other": 7, "ignore": 255}), names=some)
    assert math.isnan(ignoring["other"]["dice"])
    known = marked != 255
    expected = metrics.specificity((prediction == 1)[known][None], (marked == 1)[known][None])
    assert ignoring["one"]["specificity"] == pytest.approx(expected)
    ones = ((array == 1)[known][None].astype(int) for array in (prediction, marked))
    assert ignoring.overall["mean_iou"] == pytest.approx(metrics.mean_iou(*ones))


def test_labels_that_overlap_have_a_channel_each() -> None:
    prediction, reference = maps()
    labels = Labels.of({"whole": [1, 2], "core": 2})
    channels = np.stack([np.isin(prediction, (1, 2)), prediction == 2]).astype(np.uint8)
    found = metrics.evaluate(channels, reference[None], labels, names=("dice",))
    assert found == metrics.evaluate(prediction, reference, labels, names=("dice",))
    assert found.overall == {}


def test_tensors_pictures_and_empty_scans() -> None:
    import torch

    prediction, reference = maps()
    tensors = (torch.from_numpy(array) for array in (prediction, reference))
    assert metrics.evaluate(*tensors, (1, 2), SPACING) == metrics.evaluate(prediction, reference, (1, 2), SPACING)
    flat = metrics.evaluate(prediction[..., 6], reference[..., 6], (1, 2), SPACING[:2])
    assert flat[1]["hd_mm"] == metrics.hausdorff(
        prediction[..., 6] == 1, reference[..., 6] == 1, spacing_mm=SPACING[:2]
    )
    empty = np.zeros((5, 5, 5), np.uint8)
    assert math.isnan(metrics.evaluate(empty, empty, (1,))[1]["dice"])
    assert metrics.evaluate(empty, empty, (1,)).overall["pixel_accuracy"] == 1


def test_names_are_checked() -> None:
    assert metrics.pick(["nsd", "usual", "dice"])[:3] == ("nsd", "dice", "iou")
    assert metrics.pick(["all"]) == metrics.NAMES
    assert metrics.pick("dice, nsd") == metrics.pick(["dice", "nsd"]) == ("dice", "nsd")
    assert tuple(metrics.scores(*masks(), names="iou")) == ("iou",)
    with pytest.raises(ConfigError, match=r"there is no 'hd95'\. Did you mean 'hd95_mm'\?"):
        metrics.pick(["dice", "hd95"])
    with pytest.raises(GeometryError, match="of one shape"):
        metrics.evaluate(np.zeros((3, 3), int), np.zeros((3, 4), int), (1,))


@pytest.mark.parametrize("spacing", ["1x1x2", 1.0, (1, 1), (1, (1, 1), 1), np.eye(4)[:, :3], np.eye(4)])
def test_spacings_that_no_volume_has(spacing: object) -> None:
    with pytest.raises(GeometryError, match="voxel sizes in mm"):
        metrics.scores(*masks(), spacing_mm=spacing)
    with pytest.raises(GeometryError, match="voxel sizes in mm"):
        metrics.evaluate(*maps(), (1, 2), spacing)


def test_a_channel_of_each_class_is_no_map() -> None:
    prediction, reference = maps()
    likely = np.stack([prediction == n for n in range(3)]).astype(np.uint8)
    with pytest.raises(GeometryError, match="ask for a map of 1 channel, got 3"):
        metrics.evaluate(likely, reference, (1, 2))
    with pytest.raises(GeometryError, match="ask for a map of 1 channel or 2 channels, got 3"):
        metrics.evaluate(reference, likely, {"whole": [1, 2], "core": 2})
