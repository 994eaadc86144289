"""How good predictions are: every case and label, means with their uncertainty, and nothing left out in silence.

A structure that both masks lack is `absent`: it is left out of the means and counted. One that the prediction lacks is
`missed`, one that only the prediction has is `invented`: both count as the worst (see `medseg.metrics`). Means are taken
over cases and then over labels, so that a label seen rarely weighs as much as the others.
"""

from __future__ import annotations

import html
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from medseg import files, metrics, progress, tables
from medseg.errors import ConfigError, DataError, GeometryError
from medseg.geometry import difference, same_space
from medseg.labels import Labels
from medseg.metrics import statistics
from medseg.pairing import Pair, read_masks

Array = npt.NDArray[Any]
WHO = ("case", "group", "label", "status")  # what a row is about; its metrics follow
_ALWAYS = ("dice", "volume_ml", "reference_ml")  # the order of cases and the status rest on them
_COUNTS = ("cases", "missed", "invented", "absent")
_SHOWN = ("hd95_mm", "nsd", "volume_error_ml")  # in the table, beside the Dice


@dataclass(frozen=True)
class Evaluation:
    """What came out.

    Args:
        rows: one mapping a case and label, with the keys `WHO` and the names of metrics; what cannot be said is NaN. With
            subgroups, `subgroup` says which one a case belongs to.
        summary: what `metrics.json` holds: tolerance, mean Dice with its interval, and per label the counts of cases and,
            per metric, mean, median and the ends of the 95 % interval; the same for each subgroup.
    """

    rows: tuple[dict[str, Any], ...]
    summary: dict[str, Any]

    def table(self) -> str:
        """The summary as text, one line a label; then one a label of each subgroup."""
        groups = self.summary.get("subgroups", {"of": {}})
        names = [name for name in next(iter(self.summary["labels"].values())) if name in metrics.MEASURES]
        # What was asked for, or of the many usual ones those that most papers show.
        shown = [name for name in names if name not in _ALWAYS and (name in _SHOWN or set(names) != set(metrics.USUAL))]
        lines = [("label", *_COUNTS, "Dice [95 % CI]", "median", *(metrics.MEASURES[name].heading for name in shown))]
        lines += _lines(self.summary, shown)
        for name, summary in groups["of"].items():
            lines += _lines(summary, shown, f"{groups['by']} {name}: ")
        return tables.aligned(lines)

    def write(self, folder: str | Path) -> None:
        """Write `metrics.csv` (a value that cannot be said stays empty) and `metrics.json` (there it is null)."""
        tables.write(Path(folder) / "metrics.csv", self.rows)
        files.write_json(Path(folder) / "metrics.json", self.summary)

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(self.table())}</pre>"


def evaluate(
    pairs: Iterable[Pair | tuple[Any, ...]],
    labels: Labels,
    *,
    tolerance_mm: float = 1.0,
    seed: int = 0,
    names: Collection[str] = metrics.USUAL,
    by: str | None = None,
) -> Evaluation:
    """Measure predictions against references, one pair in memory at a time.

    Args:
        pairs: `Pair`s, or tuples in their order.
        labels: the structures to measure. Voxels that a reference marks as to be ignored are background in both masks.
        tolerance_mm: the distance of surfaces that NSD forgives.
        seed: of the bootstrap.
        names: metrics, out of `metrics.NAMES`; Dice and volumes are always among them.
        by: a column of the pairs' `about`: cases are also summed up apart by its values.

    Raises:
        ConfigError: no such metric, or no such column.
        DataError: no pair, a case that comes twice, or a value that no label declares.
        GeometryError: prediction and reference do not lie in the same space.
    """
    cases, wanted = [Pair(*pair) for pair in pairs], metrics.pick((_ALWAYS[0], *names, *_ALWAYS))
    ids = [pair.case for pair in cases]
    if not cases or not len(labels):
        raise DataError("nothing to evaluate: at least one pair of masks and one label are needed")
    if twice := sorted({name for name in ids if ids.count(name) > 1}):
        raise DataError(f"each case can be evaluated once, but these come again: {', '.join(twice)}. Rename them.")
    groups = [_subgroup(pair, by) for pair in cases] if by else []
    rows = []
    for number, pair in enumerate(progress.track(cases, "evaluating")):
        who = {"case": pair.case, "group": pair.group or pair.case} | ({"subgroup": groups[number]} if by else {})
        rows += [{**who, **row} for row in _measure(pair, labels, tolerance_mm, wanted)]
    summary = {"tolerance_mm": tolerance_mm, **_summarise(rows, labels, wanted, seed)}
    if by:
        apart = {name: [row for row in rows if row["subgroup"] == name] for name in sorted(set(groups))}
        of = {name: _summarise(some, labels, wanted, seed) for name, some in apart.items()}
        summary["subgroups"] = {"by": by, "of": of}
    return Evaluation(tuple(rows), summary)


def read(folder: str | Path) -> Evaluation:
    """What `Evaluation.write` wrote, in the folder of an evaluation or of a run.

    Raises:
        DataError: it is not there, or damaged.
    """
    summary, rows = files.read_json(Path(folder) / "metrics.json"), tables.read(Path(folder) / "metrics.csv")
    try:
        if not rows or not {"dice", "reference_ml", *WHO} <= rows[0].keys() or "labels" not in summary:
            raise ValueError
        numbers = [name for name in rows[0] if name in metrics.MEASURES]
        return Evaluation(tuple(row | {name: float(row[name] or "nan") for name in numbers} for row in rows), summary)
    except (TypeError, ValueError):
        again = "Measure again: medseg evaluate PRED REF -o OUT"
        raise DataError(f"'{folder}' holds no results that can be read. {again}") from None


def _subgroup(pair: Pair, by: str) -> str:
    if by not in pair.about:
        known = f"{pair.case} has {', '.join(pair.about)}" if pair.about else "no table of cases is known"
        raise ConfigError(f"there is no column '{by}' to divide cases by: {known}. Name a CSV with --manifest.")
    return pair.about[by] or "not said"


def _measure(pair: Pair, labels: Labels, tolerance_mm: float, names: Sequence[str]) -> Iterator[dict[str, Any]]:
    prediction, reference = read_masks((pair.prediction, pair.reference), labels)
    if not same_space(reference.geometry, prediction.geometry):
        raise GeometryError(
            f"{pair.case}: the prediction does not lie in the reference's space: "
            f"{difference(reference.geometry, prediction.geometry)}. Predict from the image that was annotated."
        )
    _check(prediction.array, labels, f"{pair.case}: the prediction")
    _check(reference.array, labels, f"{pair.case}: the reference")
    found = metrics.evaluate(
        prediction.array,
        reference.array,
        labels,
        reference.geometry.affine[:3, :3],
        tolerance_mm=tolerance_mm,
        diagonal_mm=reference.geometry.diagonal_mm,
        names=names,
    )
    return ({"label": name, "status": _status(scores), **scores} for name, scores in found.items())


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


def _summarise(rows: Sequence[Mapping[str, Any]], labels: Labels, names: Sequence[str], seed: int) -> dict[str, Any]:
    """Everything in `metrics.json` but the tolerance."""
    status = np.array([row["status"] for row in rows]).reshape(-1, len(labels))
    values = np.array([[row[name] for name in names] for row in rows]).reshape(*status.shape, -1)
    values = np.where((status == "absent")[..., None], np.nan, values)  # (cases, labels, metrics)
    patients = [row["group"] for row in rows[:: len(labels)]]
    draws = statistics.bootstrap(values, patients, seed)
    means, dice = statistics.mean(values), names.index("dice")
    described = np.stack([means, statistics.median(values), *statistics.interval(draws)], axis=-1)
    low, high = statistics.interval(statistics.overall(draws[..., dice], means[:, dice])).tolist()
    of_labels = {
        name: {"cases": len(status)}
        | {word: int(np.count_nonzero(status[:, index] == word)) for word in _COUNTS[1:]}
        | {
            metric: dict(zip(("mean", "median", "low", "high"), numbers, strict=True))
            for metric, numbers in zip(names, described[index].tolist(), strict=True)
        }
        for index, name in enumerate(labels.names)
    }
    mean_dice = float(statistics.mean(means[:, dice]))
    overall = {"mean_dice": mean_dice, "mean_dice_low": low, "mean_dice_high": high}
    return {**overall, "cases": len(status), "patients": len(set(patients)), "labels": of_labels}


def _lines(summary: Mapping[str, Any], shown: Sequence[str], before: str = "") -> Iterator[tuple[str, ...]]:
    for name, item in summary["labels"].items():
        dice, counts = item["dice"], (str(item[word]) for word in _COUNTS)
        means = (tables.number(item[metric]["mean"], metrics.MEASURES[metric].form) for metric in shown)
        median = tables.number(dice["median"], ".3f")
        yield f"{before}{name}", *counts, tables.interval(dice["mean"], dice["low"], dice["high"]), median, *means
    mean = tables.interval(*(summary[name] for name in ("mean_dice", "mean_dice_low", "mean_dice_high")))
    yield f"{before}mean", "", "", "", "", mean, "", *("" for _ in shown)
