"""How good predictions are: every case and label, means with their uncertainty, and nothing left out in silence.

A structure that both masks lack is `absent`: it is left out of the means and counted. One that the prediction lacks is
`missed`, one that only the prediction has is `invented`: both count as the worst (see `medseg.metrics`). Means are taken
over cases and then over labels, so that a label seen rarely weighs as much as the others.
"""

from __future__ import annotations

import csv
import html
import io as text_io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from medseg import files, metrics, progress
from medseg.errors import DataError, GeometryError
from medseg.geometry import difference, same_space
from medseg.labels import Labels
from medseg.metrics import statistics
from medseg.pairing import Pair, read_masks

Array = npt.NDArray[Any]
COLUMNS = ("case", "group", "label", "status", *metrics.NAMES)
_COUNTS = ("cases", "missed", "invented", "absent")
_HEAD = ("label", *_COUNTS, "Dice [95 % CI]", "median", "HD95 mm", "NSD", "volume error ml")


@dataclass(frozen=True)
class Evaluation:
    """What came out.

    Args:
        rows: one mapping a case and label, with the keys of `COLUMNS`; what cannot be said is NaN.
        summary: what `metrics.json` holds: tolerance, mean Dice with its interval, and per label the counts of cases and,
            per metric, mean, median and the ends of the 95 % interval.
    """

    rows: tuple[dict[str, Any], ...]
    summary: dict[str, Any]

    def table(self) -> str:
        """The summary as text, one line a label."""
        lines = [_HEAD, *(_line(name, item) for name, item in self.summary["labels"].items())]
        mean = _interval(*(self.summary[name] for name in ("mean_dice", "mean_dice_low", "mean_dice_high")))
        lines.append(("mean", "", "", "", "", mean, "", "", "", ""))
        widths = [max(len(line[column]) for line in lines) for column in range(len(_HEAD))]
        return "\n".join(
            "  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])]).rstrip() for line in lines
        )

    def write(self, folder: str | Path) -> None:
        """Write `metrics.csv` (a value that cannot be said stays empty) and `metrics.json` (there it is null)."""
        text = text_io.StringIO()
        writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows({name: _cell(value) for name, value in row.items()} for row in self.rows)
        files.write_text(Path(folder) / "metrics.csv", text.getvalue())
        files.write_json(Path(folder) / "metrics.json", self.summary)

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(self.table())}</pre>"


def evaluate(
    pairs: Iterable[Pair | tuple[Any, ...]],
    labels: Labels,
    *,
    tolerance_mm: float = 1.0,
    seed: int = 0,
) -> Evaluation:
    """Measure predictions against references, one pair in memory at a time.

    Args:
        pairs: `Pair`s, or tuples in their order.
        labels: the structures to measure. Voxels that a reference marks as to be ignored are background in both masks.
        tolerance_mm: the distance of surfaces that NSD forgives.
        seed: of the bootstrap.

    Raises:
        DataError: no pair, a case that comes twice, or a value that no label declares.
        GeometryError: prediction and reference do not lie in the same space.
    """
    cases = [Pair(*pair) for pair in pairs]
    names = [pair.case for pair in cases]
    if not cases or not len(labels):
        raise DataError("nothing to evaluate: at least one pair of masks and one label are needed")
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise DataError(f"each case can be evaluated once, but these come again: {', '.join(twice)}. Rename them.")
    rows = []
    for pair in progress.track(cases, "evaluating"):
        rows += [
            {"case": pair.case, "group": pair.group or pair.case, **row} for row in _measure(pair, labels, tolerance_mm)
        ]
    return Evaluation(tuple(rows), {"tolerance_mm": tolerance_mm, **_summarise(rows, labels, seed)})


def _measure(pair: Pair, labels: Labels, tolerance_mm: float) -> Iterator[dict[str, Any]]:
    prediction, reference = read_masks(pair, labels)
    if not same_space(reference.geometry, prediction.geometry):
        raise GeometryError(
            f"{pair.case}: the prediction does not lie in the reference's space: "
            f"{difference(reference.geometry, prediction.geometry)}. Predict from the image that was annotated."
        )
    # Most of a scan is background: from here on only the box that holds all structures is looked at.
    anything = (prediction.array != 0).any(axis=0) | (reference.array != 0).any(axis=0)
    box = (slice(None), *metrics.bounding_box(anything, margin=1))
    predicted, true = prediction.array[box], reference.array[box]
    _check(predicted, labels, f"{pair.case}: the prediction")
    _check(true, labels, f"{pair.case}: the reference")
    known = labels.known(true)
    for item in labels:
        scores = metrics.scores(
            labels.mask(predicted, item) & known,
            labels.mask(true, item) & known,
            spacing_mm=reference.geometry.affine[:3, :3],
            tolerance_mm=tolerance_mm,
            diagonal_mm=reference.geometry.diagonal_mm,
        )
        yield {"label": item.name, "status": _status(scores), **scores}


def _check(mask: Array, labels: Labels, what: str) -> None:
    allowed = labels.allowed_channels
    if mask.shape[0] not in allowed:
        raise DataError(f"{what} has {mask.shape[0]} channels; {allowed[-1]} are expected. Give one mask a case.")
    if mask.shape[0] == 1 and (unknown := labels.undeclared(mask)):
        raise DataError(f"{what} holds {list(unknown)}; the labels declare {[0, *labels.values]}. Correct one of them.")


def _status(scores: Mapping[str, float]) -> str:
    if scores["reference_ml"] > 0:
        return "found" if scores["volume_ml"] > 0 else "missed"
    return "invented" if scores["volume_ml"] > 0 else "absent"


def _summarise(rows: Sequence[Mapping[str, Any]], labels: Labels, seed: int) -> dict[str, Any]:
    """Everything in `metrics.json` but the tolerance."""
    status = np.array([row["status"] for row in rows]).reshape(-1, len(labels))
    values = np.array([[row[name] for name in metrics.NAMES] for row in rows]).reshape(*status.shape, -1)
    values = np.where((status == "absent")[..., None], np.nan, values)  # (cases, labels, metrics)
    patients = [row["group"] for row in rows[:: len(labels)]]
    draws = statistics.bootstrap(values, patients, seed)
    means, dice = statistics.mean(values), metrics.NAMES.index("dice")
    described = np.stack([means, statistics.median(values), *statistics.interval(draws)], axis=-1)
    low, high = statistics.interval(statistics.overall(draws[..., dice], means[:, dice])).tolist()
    of_labels = {
        name: {"cases": len(status)}
        | {word: int(np.count_nonzero(status[:, index] == word)) for word in _COUNTS[1:]}
        | {
            metric: dict(zip(("mean", "median", "low", "high"), numbers, strict=True))
            for metric, numbers in zip(metrics.NAMES, described[index].tolist(), strict=True)
        }
        for index, name in enumerate(labels.names)
    }
    mean_dice = float(statistics.mean(means[:, dice]))
    overall = {"mean_dice": mean_dice, "mean_dice_low": low, "mean_dice_high": high}
    return {**overall, "cases": len(status), "patients": len(set(patients)), "labels": of_labels}


def _cell(value: Any) -> str:
    return value if isinstance(value, str) else "" if np.isnan(value) else f"{value:.6g}"


def _line(name: str, item: Mapping[str, Any]) -> tuple[str, ...]:
    counts = (str(item[word]) for word in _COUNTS)
    dice = item["dice"]
    means = (_number(item[metric]["mean"], places) for metric, places in (("hd95_mm", 2), ("nsd", 3)))
    volume = _number(item["volume_error_ml"]["mean"], 2)
    return name, *counts, _interval(dice["mean"], dice["low"], dice["high"]), _number(dice["median"], 3), *means, volume


def _interval(mean: float, low: float, high: float) -> str:
    return _number(mean, 3) + ("" if np.isnan(low) else f" [{low:.3f}, {high:.3f}]")


def _number(value: float, places: int) -> str:
    return "-" if np.isnan(value) else f"{value:.{places}f}"
