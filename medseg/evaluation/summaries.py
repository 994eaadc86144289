"""Means over cases with their uncertainty: of every label, of whole maps of classes, and of all labels together."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from medseg import metrics
from medseg.arrays import Array
from medseg.labels import Labels
from medseg.metrics import statistics

Rows = Sequence[Mapping[str, Any]]
COUNTS = ("cases", "missed", "invented", "absent")


def summarise(rows: Rows, scans: Rows, labels: Labels, names: Sequence[str], seed: int) -> dict[str, Any]:
    """What `metrics.json` says of some cases; see `medseg.evaluation.Evaluation`.

    Args:
        rows: one per case and label, the labels of a case one after the other.
        scans: one per case, with the metrics of its whole map; none where labels overlap.
        labels: those of the rows.
        names: metrics of the rows; Dice is one.
        seed: of the bootstrap.
    """
    status = np.array([row["status"] for row in rows]).reshape(-1, len(labels))
    values = np.array([[row[name] for name in names] for row in rows]).reshape(*status.shape, -1)
    values = np.where((status == "absent")[..., None], np.nan, values)  # (cases, labels, metrics)
    patients = [row["group"] for row in rows[:: len(labels)]]
    draws = statistics.bootstrap(values, patients, seed)
    means, dice = statistics.mean(values[..., names.index("dice")]), draws[..., names.index("dice")]
    low, high = statistics.interval(statistics.overall(dice, means)).tolist()
    of_labels = {
        name: _counts(status[:, index]) | _described(values[:, index], draws[:, index], names)
        for index, name in enumerate(labels.names)
    }
    overall = {"mean_dice": float(statistics.mean(means)), "mean_dice_low": low, "mean_dice_high": high}
    counts = {"cases": len(status), "patients": len(set(patients))}
    return {**overall, **counts, "labels": of_labels, "maps": _of_maps(scans, patients, seed)}


def shown(names: Collection[str], few: Collection[str]) -> list[str]:
    """Which metrics a table of means shows: of all the usual ones a few, and else all that were asked for but volumes."""
    usual = {*names} == {*metrics.USUAL}
    return [name for name in names if (name in few if usual else metrics.MEASURES[name].better)]


def _counts(status: Array) -> dict[str, int]:
    return {"cases": len(status)} | {word: int(np.count_nonzero(status == word)) for word in COUNTS[1:]}


def _of_maps(scans: Rows, patients: Sequence[str], seed: int) -> dict[str, dict[str, float]]:
    if not scans:
        return {}
    values = np.array([[scan[name] for name in metrics.MAPS] for scan in scans])
    return _described(values, statistics.bootstrap(values, patients, seed), tuple(metrics.MAPS))


def _described(values: Array, draws: Array, names: Sequence[str]) -> dict[str, dict[str, float]]:
    """Mean, median and 95 % interval of each metric, of values `(cases, metrics)` and bootstrapped means `(draws, metrics)`."""
    found = np.stack([statistics.mean(values), statistics.median(values), *statistics.interval(draws)], axis=-1)
    words = ("mean", "median", "low", "high")
    return {name: dict(zip(words, numbers, strict=True)) for name, numbers in zip(names, found.tolist(), strict=True)}
