"""The cases that were held back: predicted once with the stored model, measured, pictured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from medseg import bundle as bundles
from medseg import cohort, evaluation, files, io, plot, preprocess
from medseg.cases import Case
from medseg.errors import DataError
from medseg.evaluation import Evaluation
from medseg.geometry import reorient, resample_to
from medseg.labels import Labels
from medseg.pairing import Pair
from medseg.predictor import Predictor
from medseg.reading import read_mask
from medseg.scans import Scan


def predict(cases: Sequence[Case], folder: Path, device: str, module: str | None = None) -> dict[str, Path]:
    """Masks of cases with the bundle of a run, in `predictions/`; those that an interrupted start left are kept.

    Raises:
        DataError: a case cannot be predicted; a report without it would flatter the model.
    """
    masks = {case.id: cohort.mask_path(folder / "predictions", case.id) for case in cases}
    missing = [Scan(case.id, case.images) for case in cases if not masks[case.id].exists()]
    if missing:
        outcomes = cohort.predict(
            Predictor(folder / "bundle", device=device, module=module), missing, folder / "predictions"
        )
        if failed := [outcome for outcome in outcomes if outcome.error]:
            raise DataError(f"{failed[0].id} was held back and cannot be predicted: {failed[0].error}")
    return masks


def measure(
    cases: Sequence[Case], masks: Mapping[str, Path], labels: Labels, tolerance_mm: float, folder: Path
) -> Evaluation:
    """Measure masks of held-out cases; writes `metrics.csv`, `metrics.json` and `pictures/` of the worst, median and best."""
    pairs = [Pair(case.id, masks[case.id], case, case.group) for case in cases if case.label]
    result = evaluation.evaluate(pairs, labels, tolerance_mm=tolerance_mm)
    result.write(folder)
    _draw({case.id: case for case in cases}, masks, result, labels, folder / "pictures")
    return result


def rescore(bundle: Path, result: Evaluation) -> None:
    """Write the held-out Dice into a bundle and its card."""
    described = bundles.read(bundle)
    scores = described.scores | {"held_out_dice": round(result.summary["mean_dice"], 4)}
    bundles.describe(bundle, described.model_copy(update={"scores": scores}))


def _draw(
    cases: Mapping[str, Case], masks: Mapping[str, Path], result: Evaluation, labels: Labels, folder: Path
) -> None:
    by_case: dict[str, list[float]] = {}
    for row in result.rows:
        by_case.setdefault(row["case"], []).append(row["dice"])
    means = {case: float(np.nanmean(values)) for case, values in by_case.items() if not np.isnan(values).all()}
    order = sorted(means, key=lambda case: means[case])
    ends = {0: "worst", len(order) - 1: "best"} if len(order) > 1 else {}
    places = {len(order) // 2: "median"} | ends if order else {}
    index = []
    for place, kind in sorted(places.items()):
        name = order[place]
        file = f"{kind}_{name}.png"
        files.write_bytes(folder / file, _overlay(cases[name], masks[name], labels))
        index.append({"kind": kind, "case": name, "dice": means[name], "file": file})
    files.write_json(folder / "index.json", index)


def _overlay(case: Case, mask: Path, labels: Labels) -> bytes:
    image = reorient(preprocess.read_image(case.images))
    masks = (io.read(mask, "labels"), read_mask(case))
    prediction, reference = (resample_to(volume, image.geometry) for volume in masks)
    shown = [_flat(volume.array, labels) for volume in (prediction, reference)]
    return plot.compare(image.array[0], shown[0], shown[1], image.geometry.spacing_mm, labels.colours)


def _flat(array: np.ndarray, labels: Labels) -> np.ndarray:
    """One map of values to draw: overlapping labels lie over each other in their order."""
    flat = np.zeros(array.shape[1:], np.int32)
    for item, value in zip(labels, labels.written, strict=True):
        flat[labels.mask(array, item)] = value
    return flat
