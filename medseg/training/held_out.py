"""The cases that were held back: predicted once with the stored model, measured, pictured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from medseg import bundle as bundles
from medseg import cohort, evaluation
from medseg.data import mask_files
from medseg.data.cases import Case
from medseg.data.pairing import Pair
from medseg.data.scans import Scan
from medseg.errors import DataError
from medseg.evaluation import Evaluation, gallery
from medseg.labels import Labels
from medseg.predictor import Predictor


def predict(cases: Sequence[Case], folder: Path, device: str, module: str | None = None) -> dict[str, Path]:
    """Masks of cases with the bundle of a run, in `predictions/`; those that an interrupted start left are kept.

    Raises:
        DataError: a case cannot be predicted; a report without it would flatter the model.
    """
    masks = {case.id: mask_files.mask_path(folder / "predictions", case.id) for case in cases}
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
    """Measure masks of held-out cases; writes `metrics.csv`, `scans.csv`, `metrics.json` and `pictures/` of the worst, median and best."""
    pairs = [Pair(case.id, masks[case.id], case, case.group, case.images) for case in cases if case.label]
    result = evaluation.evaluate(pairs, labels, tolerance_mm=tolerance_mm)
    result.write(folder)
    gallery.draw(gallery.extremes(result, pairs), labels, folder / "pictures")
    return result


def rescore(bundle: Path, result: Evaluation) -> None:
    """Write the held-out Dice into a bundle and its card."""
    described = bundles.read(bundle)
    scores = described.scores | {"held_out_dice": round(result.summary["mean_dice"], 4)}
    bundles.describe(bundle, described.model_copy(update={"scores": scores}))
