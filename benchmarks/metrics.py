"""Dice, HD95 and surface Dice of five labels: seconds, memory, and how far the numbers are from medseg's."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np

from benchmarks import _operation as operation
from benchmarks._operation import Variant
from benchmarks._phantom import LABELS, Array, ellipsoids

Spacing = tuple[float, float, float]
Scores = dict[str, list[float]]  # a number a label
_TOLERANCE_MM = 1.0
_NAMES = {"dice": "dice", "hd95_mm": "HD95 mm", "nsd": "surface Dice"}


def parser() -> argparse.ArgumentParser:
    """The arguments."""
    made = operation.parser(__doc__)
    made.add_argument("--size", type=int, default=256, help="edge of the cubic masks")
    made.add_argument("--spacing", type=float, nargs=3, default=(0.8, 0.8, 3.0), help="of the second comparison, in mm")
    return made


def main(arguments: list[str] | None = None) -> None:
    """Measure, print, write."""
    operation.main("metrics", parser(), sections, arguments, distances)


def distances(found: operation.Found, asked: argparse.Namespace) -> None:
    """How far the scores of all are from ours."""
    for results in found.values():
        for item in results.values():  # scores of every label are for the file, the distance to ours for the table
            item["scores"], item["facts"] = item["facts"], {}
        for item in results.values():
            item["facts"] = _differences(item["scores"], next(iter(results.values()))["scores"])


def sections(asked: argparse.Namespace) -> operation.Sections:
    """Cubic voxels, and thick slices."""
    return {
        f"{asked.size}^3, {' x '.join(f'{s:g}' for s in spacing)} mm": {
            "medseg": Variant(partial(ours, asked.size, spacing), dict),
            "surface-distance": Variant(
                partial(surface_distance, asked.size, spacing), dict, operation.missing("surface_distance")
            ),
            "monai": Variant(partial(monai, asked.size, spacing), dict, operation.missing("monai")),
            "SimpleITK": Variant(partial(simpleitk, asked.size, spacing), dict),
            "medseg, all metrics": Variant(partial(everything, asked.size, spacing), dict),
        }
        for spacing in ((1.0, 1.0, 1.0), tuple(asked.spacing))
    }


def masks(size: int) -> tuple[Array, Array]:
    """Prediction and reference `(size,) * 3` uint8, which lie a few voxels apart."""
    places = [(np.arange(size) + 0.5) / size] * 3
    return ellipsoids(places, shift=0.008), ellipsoids(places)


def ours(size: int, spacing_mm: Spacing) -> Callable[[], Scores]:
    """medseg's usual scores, which are more than the three."""
    from medseg import metrics

    return _evaluated(size, spacing_mm, metrics.USUAL)


def everything(size: int, spacing_mm: Spacing) -> Callable[[], Scores]:
    """All that medseg knows of a structure; most of the time goes into the centre lines of clDice."""
    from medseg import metrics

    return _evaluated(size, spacing_mm, metrics.NAMES)


def _evaluated(size: int, spacing_mm: Spacing, names: Sequence[str]) -> Callable[[], Scores]:
    from medseg import metrics

    prediction, reference = masks(size)

    def run() -> Scores:
        found = metrics.evaluate(prediction, reference, LABELS, spacing_mm, tolerance_mm=_TOLERANCE_MM, names=names)
        return {name: [found[label][name] for label in LABELS] for name in _NAMES}

    return run


def surface_distance(size: int, spacing_mm: Spacing) -> Callable[[], Scores]:
    """The package surface-distance, label by label."""
    import surface_distance as package

    prediction, reference = masks(size)

    def of(label: int) -> tuple[float, float, float]:
        predicted, true = prediction == label, reference == label
        distances = package.compute_surface_distances(true, predicted, spacing_mm)
        return (
            package.compute_dice_coefficient(true, predicted),
            package.compute_robust_hausdorff(distances, 95),
            package.compute_surface_dice_at_tolerance(distances, _TOLERANCE_MM),
        )

    def run() -> Scores:
        return {name: list(values) for name, values in zip(_NAMES, zip(*map(of, LABELS), strict=True), strict=True)}

    return run


def monai(size: int, spacing_mm: Spacing) -> Callable[[], Scores]:
    """MONAI's three functions, on one-hot masks."""
    import torch
    from monai.metrics import compute_dice, compute_hausdorff_distance, compute_surface_dice
    from monai.networks import one_hot

    both = [torch.from_numpy(mask)[None, None] for mask in masks(size)]
    thresholds = [_TOLERANCE_MM] * len(LABELS)

    def run() -> Scores:
        p, r = (one_hot(mask, len(LABELS) + 1, dtype=torch.uint8) for mask in both)
        found = (
            compute_dice(p, r, include_background=False),
            compute_hausdorff_distance(p, r, percentile=95, spacing=spacing_mm),
            compute_surface_dice(p, r, thresholds, spacing=spacing_mm),
        )
        return {name: values[0].tolist() for name, values in zip(_NAMES, found, strict=True)}

    return run


def simpleitk(size: int, spacing_mm: Spacing) -> Callable[[], Scores]:
    """SimpleITK's Dice, and the usual recipe for surfaces: contours of voxels, and a distance map of each."""
    import SimpleITK as sitk

    images = [sitk.GetImageFromArray(mask) for mask in masks(size)]
    for image in images:
        image.SetSpacing(spacing_mm[::-1])
    overlap = sitk.LabelOverlapMeasuresImageFilter()

    def of(label: int) -> tuple[float, float, float]:
        contours = [sitk.LabelContour(image == label) for image in images]
        maps = [
            sitk.SignedMaurerDistanceMap(contour, squaredDistance=False, useImageSpacing=True) for contour in contours
        ]
        p, r = (sitk.GetArrayViewFromImage(contour) > 0 for contour in contours)
        to_p, to_r = (np.abs(sitk.GetArrayViewFromImage(distance)) for distance in maps)
        both = to_r[p], to_p[r]
        near = sum(np.count_nonzero(mm <= _TOLERANCE_MM) for mm in both) / sum(map(len, both))
        return overlap.GetDiceCoefficient(label), max(float(np.percentile(mm, 95)) for mm in both), near

    def run() -> Scores:
        overlap.Execute(*images)
        return {name: list(values) for name, values in zip(_NAMES, zip(*map(of, LABELS), strict=True), strict=True)}

    return run


def _differences(scores: Mapping[str, Sequence[float]], ours: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """The largest difference over the labels, for each score."""
    return {
        f"{shown} off": max(abs(a - b) for a, b in zip(scores[name], ours[name], strict=True))
        for name, shown in _NAMES.items()
    }


if __name__ == "__main__":
    main()
