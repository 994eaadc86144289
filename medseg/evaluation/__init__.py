"""How good predictions are: every case and label, means with their uncertainty, and nothing left out in silence.

A structure that both masks lack is `absent`: it is left out of the means and counted. One that the prediction lacks is
`missed`, one that only the prediction has is `invented`: both count as the worst (see `medseg.metrics`). Means are taken
over cases and then over labels, so that a label seen rarely weighs as much as the others.
"""

from __future__ import annotations

import html
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medseg import files, metrics, progress, tables
from medseg.arrays import Array
from medseg.data.pairing import Pair, read_masks
from medseg.errors import ConfigError, DataError, GeometryError
from medseg.evaluation import summaries
from medseg.geometry import difference, same_space
from medseg.labels import Labels
from medseg.metrics import ScanScores
from medseg.wording import counted, repeated

WHO = ("case", "group", "label", "status")  # what a row is about; its metrics follow
_ALWAYS = ("dice", "volume_ml", "reference_ml")  # the order of cases and the status rest on them
_SHOWN = ("hd95_mm", "nsd", "volume_error_ml")  # in the table, beside the Dice


@dataclass(frozen=True)
class Evaluation:
    """What came out.

    Args:
        rows: one mapping a case and label, with the keys `WHO` and the names of metrics; what cannot be said is NaN. With
            subgroups, `subgroup` says which one a case belongs to.
        summary: what `metrics.json` holds: tolerance, mean Dice with its interval, and per label the counts of cases and,
            per metric, mean, median and the ends of the 95 % interval; the same of `scans`, and for each subgroup.
        scans: one mapping a case, with the metrics of its whole map of classes (`metrics.MAPS`); none where labels overlap.
    """

    rows: tuple[dict[str, Any], ...]
    summary: dict[str, Any]
    scans: tuple[dict[str, Any], ...] = ()

    def table(self) -> str:
        """The summary as text, one line per label; then one per label of each subgroup; last the means of whole maps."""
        groups = self.summary.get("subgroups", {"of": {}})
        names = [name for name in next(iter(self.summary["labels"].values())) if name in metrics.MEASURES]
        shown = [name for name in summaries.shown(names, _SHOWN) if name != "dice"]
        lines = [
            (
                "label",
                *summaries.COUNTS,
                "Dice [95 % CI]",
                "median",
                *(metrics.MEASURES[name].heading for name in shown),
            )
        ]
        lines += _lines(self.summary, shown)
        for name, summary in groups["of"].items():
            lines += _lines(summary, shown, f"{groups['by']} {name}: ")
        maps = self.summary.get("maps", {})
        means = [f"{metrics.MAPS[name]} {tables.number(item['mean'], '.3f')}" for name, item in maps.items()]
        return tables.aligned(lines) + (f"\nwhole maps: {', '.join(means)}" if means else "")

    def write(self, folder: str | Path) -> None:
        """Write `metrics.csv` and `scans.csv` (a value that cannot be said stays empty) and `metrics.json` (there it is null)."""
        tables.write(Path(folder) / "metrics.csv", self.rows)
        if self.scans:
            tables.write(Path(folder) / "scans.csv", self.scans)
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
    cases, wanted = [Pair(*pair) for pair in pairs], metrics.pick((_ALWAYS[0], *metrics.asked(names), *_ALWAYS))
    if not cases:
        raise DataError("nothing to evaluate: at least one pair of masks is needed")
    if not len(labels):
        raise DataError("nothing to evaluate: no labels are named, and the masks hold none. Are they all empty?")
    if twice := sorted(repeated(pair.case for pair in cases)):
        raise DataError(f"each case can be evaluated once, but these come again: {', '.join(twice)}. Rename them.")
    groups = [_subgroup(pair, by) for pair in cases] if by else []
    rows, scans = [], []
    for number, pair in enumerate(progress.track(cases, "evaluating")):
        who = {"case": pair.case, "group": pair.group or pair.case} | ({"subgroup": groups[number]} if by else {})
        found = _measure(pair, labels, tolerance_mm, wanted)
        rows += [{**who, "label": name, "status": _status(item), **item} for name, item in found.items()]
        scans += [{**who, **found.overall}] if found.overall else []
    summary = {"tolerance_mm": tolerance_mm, **summaries.summarise(rows, scans, labels, wanted, seed)}
    if by:
        of = {}
        for name in sorted(set(groups), key=_as_counted):
            own = [[row for row in table if row["subgroup"] == name] for table in (rows, scans)]
            of[name] = summaries.summarise(own[0], own[1], labels, wanted, seed)
        summary["subgroups"] = {"by": by, "of": of}
    return Evaluation(tuple(rows), summary, tuple(scans))


def read(folder: str | Path) -> Evaluation:
    """What `Evaluation.write` wrote, in the folder of an evaluation or of a run.

    Raises:
        DataError: it is not there, or damaged.
    """
    summary = files.read_json(Path(folder) / "metrics.json")
    rows = tables.read(Path(folder) / "metrics.csv", *WHO, "dice", "reference_ml", numbers=metrics.MEASURES)
    maps = Path(folder) / "scans.csv"
    scans = tables.read(maps, numbers=metrics.MAPS) if maps.is_file() else []
    try:
        if not rows or "labels" not in summary:
            raise ValueError
        if twice := repeated((row["case"], row["label"]) for row in rows):
            raise DataError(f"'{folder}' has label '{twice[0][1]}' of {twice[0][0]} in two rows. Remove one.")
        return Evaluation(tuple(map(_numbers, rows)), summary, tuple(map(_numbers, scans)))
    except (TypeError, ValueError):
        again = "Measure again: medseg evaluate PRED REF -o OUT"
        raise DataError(f"'{folder}' holds no results that can be read. {again}") from None


def _numbers(row: Mapping[str, str]) -> dict[str, Any]:
    """A row as it was before it was written."""
    measured = metrics.MEASURES.keys() | metrics.MAPS.keys()
    return {name: float(value or "nan") if name in measured else value for name, value in row.items()}


def _subgroup(pair: Pair, by: str) -> str:
    if by not in pair.about:
        known = f"{pair.case} has {', '.join(pair.about)}" if pair.about else "no table of cases is known"
        raise ConfigError(f"there is no column '{by}' to divide cases by: {known}. Name a CSV with --manifest.")
    return pair.about[by] or "not said"


def _as_counted(name: str) -> list[int | str]:
    """A key for sorting, by which site 9 comes before site 10."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", name)]


def _measure(pair: Pair, labels: Labels, tolerance_mm: float, names: Sequence[str]) -> ScanScores:
    prediction, reference = read_masks((pair.prediction, pair.reference), labels)
    if not same_space(reference.geometry, prediction.geometry):
        raise GeometryError(
            f"{pair.case}: the prediction does not lie in the reference's space: "
            f"{difference(reference.geometry, prediction.geometry)}. Predict from the image that was annotated."
        )
    _check(prediction.array, labels, f"{pair.case}: the prediction")
    _check(reference.array, labels, f"{pair.case}: the reference")
    return metrics.evaluate(
        prediction.array,
        reference.array,
        labels,
        reference.geometry.affine[:3, :3],
        tolerance_mm=tolerance_mm,
        diagonal_mm=reference.geometry.diagonal_mm,
        names=names,
    )


def _check(mask: Array, labels: Labels, what: str) -> None:
    allowed = labels.allowed_channels
    if mask.shape[0] not in allowed:
        raise DataError(
            f"{what} has {counted(mask.shape[0], 'channel')}; {counted(allowed[-1], 'is', 'are')} expected. Give one mask per case."
        )
    if mask.shape[0] == 1 and (unknown := labels.undeclared(mask)):
        raise DataError(f"{what} holds {list(unknown)}; the labels declare {[0, *labels.values]}. Correct one of them.")


def _status(scores: Mapping[str, float]) -> str:
    if scores["reference_ml"] > 0:
        return "found" if scores["volume_ml"] > 0 else "missed"
    return "invented" if scores["volume_ml"] > 0 else "absent"


def _lines(summary: Mapping[str, Any], shown: Sequence[str], before: str = "") -> Iterator[tuple[str, ...]]:
    for name, item in summary["labels"].items():
        dice, counts = item["dice"], (str(item[word]) for word in summaries.COUNTS)
        means = (tables.number(item[metric]["mean"], metrics.MEASURES[metric].form) for metric in shown)
        median = tables.number(dice["median"], ".3f")
        yield f"{before}{name}", *counts, tables.interval(dice["mean"], dice["low"], dice["high"]), median, *means
    mean = tables.interval(*(summary[name] for name in ("mean_dice", "mean_dice_low", "mean_dice_high")))
    yield f"{before}mean", "", "", "", "", mean, "", *("" for _ in shown)
