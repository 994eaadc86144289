"""How far two runs differ on the same cases, and whether chance would do as much: of every label, and of all labels together.

Values are of pairs: NaN in both runs where there is none.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from medseg import metrics
from medseg.arrays import Array
from medseg.metrics import paired, statistics

TESTS = ("permutation", "wilcoxon")


def contrast(
    values: Array, patients: Sequence[str], labels: Sequence[str], names: Sequence[str], seed: int
) -> dict[str, dict[str, Any]]:
    """What `comparison.json` says of each label and metric, with p values corrected over the labels.

    Args:
        values: `(2, cases, labels, metrics)`.
        patients: the patient of each case.
        labels: names.
        names: of the metrics.
        seed: of bootstrap and permutations.
    """
    low, high = statistics.interval(statistics.bootstrap(values[1] - values[0], patients, seed))
    found = {label: dict[str, Any]() for label in labels}
    for m, name in enumerate(names):
        for n, label in enumerate(labels):
            ends = {"low": float(low[n, m]), "high": float(high[n, m])}
            found[label][name] = _described(values[:, :, n, m], name, patients, seed) | ends
        for test in TESTS:
            corrected = paired.holm(np.array([found[label][name][f"p_{test}"] for label in labels]))
            for label, p in zip(labels, corrected.tolist(), strict=True):
                found[label][name][f"p_{test}_holm"] = p
    return found


def overall(dice: Array, patients: Sequence[str], seed: int) -> dict[str, Any]:
    """The mean over labels of the mean Dice over cases `(2, cases, labels)`; tests are of each case's mean over labels."""
    of_labels = statistics.mean(np.moveaxis(dice, 0, -1))  # (labels, 2)
    draws = statistics.bootstrap(dice[1] - dice[0], patients, seed)
    low, high = statistics.interval(statistics.overall(draws, of_labels[:, 1] - of_labels[:, 0])).tolist()
    a, b = statistics.mean(of_labels).tolist()
    of_cases = _described(statistics.mean(dice, axis=2), "dice", patients, seed)
    return of_cases | {"a": a, "b": b, "difference": b - a, "low": low, "high": high}


def _described(values: Array, name: str, patients: Sequence[str], seed: int) -> dict[str, Any]:
    """Means, counts and p values of the pairs `(2, cases)` of one label and metric."""
    gain = np.diff(metrics.MEASURES[name].goodness(values), axis=0)[0]
    difference = values[1] - values[0]
    means = statistics.mean(np.stack([*values, difference], axis=1))
    return dict(zip(("a", "b", "difference"), means.tolist(), strict=True)) | {
        "pairs": int(np.isfinite(difference).sum()),
        "better": int((gain > 0).sum()),
        "worse": int((gain < 0).sum()),
        "p_permutation": paired.permutation(difference, patients, seed),
        "p_wilcoxon": paired.wilcoxon(difference, patients),
    }
