"""Two runs on the same cases: where they differ, by how much, and whether chance would do as much.

Every number is of pairs: a case and label that both runs were judged on by the same reference. A structure that the reference
lacks and both runs left out is no pair; where one run invented it, the other one was right, and counts as perfect. So nothing
that only one of them got wrong is lost, but in `relative_volume_error`, which an invented structure has none of.
"""

from __future__ import annotations

import html
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from medseg import files, metrics, progress, tables
from medseg.arrays import Array
from medseg.errors import ConfigError, DataError
from medseg.evaluation import Evaluation, contrasts
from medseg.wording import counted, few

USUAL = ("dice", "nsd", "hd95_mm")
_PERFECT = {"high": 1.0, "low": 0.0, "near 0": 0.0}


@dataclass(frozen=True)
class Comparison:
    """What came out.

    Args:
        rows: one mapping a case and label: `case`, `group`, `label`, the status in both (`status_a`, `status_b`), and of each
            metric its value in both and the difference B - A.
        summary: what `comparison.json` holds: names of both, counts, and per label and metric the means of the pairs, their
            difference with its 95 % interval, how many patients' cases got better and worse, and p values, plain and corrected.
    """

    rows: tuple[dict[str, Any], ...]
    summary: dict[str, Any]

    def table(self) -> str:
        """The summary as text, one line per label and metric."""
        lines: list[tuple[str, ...]] = [
            ("label", "metric", "pairs", "A", "B", "B - A [95 % CI]", "better", "worse", "p", "p Wilcoxon")
        ]
        for label, found in self.summary["labels"].items():
            lines += [_line(label, name, item) for name, item in found.items()]
        mean = self.summary["mean_dice"]
        lines += [_line("mean", "dice", mean)] if mean else []
        names = f"A: {self.summary['a']}\nB: {self.summary['b']}\n"
        end = "\np values are corrected for the number of labels (Holm)"
        left = [self.summary[f"only_in_{side}"] for side in "ab"]
        if any(left):
            end += f"\nleft out: {counted(left[0], 'case')} that A alone has, {left[1]} that B alone has"
        return names + tables.aligned(lines) + end

    def write(self, folder: str | Path) -> None:
        """Write `comparison.csv` (a value that cannot be said stays empty) and `comparison.json` (there it is null)."""
        tables.write(Path(folder) / "comparison.csv", self.rows)
        files.write_json(Path(folder) / "comparison.json", self.summary)

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(self.table())}</pre>"


def compare(
    a: Evaluation,
    b: Evaluation,
    called: tuple[str, str] = ("A", "B"),
    *,
    names: Collection[str] = USUAL,
    seed: int = 0,
    alone: tuple[int, int] = (0, 0),
) -> Comparison:
    """Compare two evaluations on the cases and labels that both have.

    Args:
        a: what is compared with: the older run.
        b: the newer one.
        called: names of both, for tables.
        names: metrics, out of `metrics.NAMES`; both must have been measured with them.
        seed: of bootstrap and permutations.
        alone: how many cases only a, and only b, had a mask of, and that were therefore not measured.

    Raises:
        ConfigError: as in `comparable`.
        DataError: no case or label in common, other references, another tolerance, or a metric that was not measured.
    """
    wanted = comparable(names)
    sides = [{(row["case"], row["label"]): row for row in found.rows} for found in (a, b)]
    _complete(*sides)
    _check(sides, wanted, a.summary, b.summary)
    cases, labels = _common(sides, 0), _common(sides, 1)
    _check_rows(sides, called, [(case, label) for case in cases for label in labels])
    pairs = [[(side[case, label]) for case in cases for label in labels] for side in sides]
    shape = (len(cases), len(labels))
    status = np.array([[row["status"] for row in side] for side in pairs]).reshape(2, *shape)
    values = np.array([[[row[name] for name in wanted] for row in side] for side in pairs]).reshape(2, *shape, -1)
    values = _paired(values, status, wanted)
    patients = [row["group"] for row in pairs[0][:: len(labels)]]
    rows = [
        _row(x, y, wanted, pair)
        for x, y, pair in zip(*pairs, values.reshape(2, -1, len(wanted)).swapaxes(0, 1), strict=True)
    ]
    summary: dict[str, Any] = dict(zip("ab", called, strict=True)) | {
        "cases": len(cases),
        "patients": len(set(patients)),
        "only_in_a": len({case for case, _ in sides[0]}) - len(cases) + alone[0],
        "only_in_b": len({case for case, _ in sides[1]}) - len(cases) + alone[1],
        "tolerance_mm": b.summary.get("tolerance_mm"),
        "labels": contrasts.contrast(values, patients, labels, wanted, seed),
        "mean_dice": contrasts.overall(values[..., wanted.index("dice")], patients, seed) if "dice" in wanted else None,
    }
    return Comparison(tuple(rows), summary)


def comparable(names: Collection[str]) -> tuple[str, ...]:
    """Metrics of labels of which one value is better than another; of "all" and "usual" those alone.

    Raises:
        ConfigError: no such metric, or one that is named cannot be compared.
    """
    fit = tuple(name for name in metrics.pick(names) if metrics.MEASURES[name].better)
    if wrong := sorted({*metrics.asked(names)} - {*fit, "all", "usual"}):
        raise ConfigError(
            f"{', '.join(wrong)} cannot be compared: volumes are neither good nor bad, and whole maps have no labels. "
            "Leave it out."
        )
    if not fit:
        raise ConfigError(f"metrics to compare: one at least is needed, such as {', '.join(USUAL)}")
    return fit


def _complete(a: dict[tuple[str, str], dict[str, Any]], b: dict[tuple[str, str], dict[str, Any]]) -> None:
    """Add to each what the other one invented: where labels have no names, only the masks that hold a value know of it."""
    for one, other in ((a, b), (b, a)):
        cases, labels = {case for case, _ in other}, {label for _, label in other}
        real = labels | {label for (_, label), row in one.items() if row["reference_ml"] > 0}
        for (case, label), row in one.items():
            if label not in real and case in cases:
                unsaid = {name: float("nan") for name in row if name in metrics.MEASURES}
                other[case, label] = row | unsaid | {"status": "absent", "reference_ml": 0.0}


def _check(sides: Sequence[Mapping[Any, Any]], names: Sequence[str], *summaries: Mapping[str, Any]) -> None:
    """Say what keeps two evaluations from being compared."""
    both = [key for key in sides[0] if key in sides[1]]
    if not both:
        shown = " and ".join(few(sorted({case for case, _ in side}), 3) for side in sides)
        raise DataError(
            f"the two have no case and label in common: {shown}. Compare what was measured on the same cases."
        )
    if missing := [name for name in names if any(name not in side[both[0]] for side in sides)]:
        raise DataError(
            f"{', '.join(missing)} was not measured in both. Measure again: medseg evaluate A B REF --metrics ..."
        )
    volumes = np.array([[side[key]["reference_ml"] for key in both] for side in sides])
    if (other := ~np.isclose(volumes[0], volumes[1], rtol=1e-4)).any():
        cases = sorted({both[n][0] for n in np.flatnonzero(other)})
        raise DataError(
            f"the references differ in {counted(len(cases), 'case')}: {few(cases, 5)}. Measure both against the same ones."
        )
    tolerances = {summary.get("tolerance_mm") for summary in summaries}
    if "nsd" in names and len(tolerances) > 1:
        raise DataError(
            f"NSD was measured with tolerances of {' and '.join(sorted(map(str, tolerances)))} mm. "
            "Measure both with one (--tolerance-mm), or compare other metrics (--metrics)."
        )


def _check_rows(sides: Sequence[Mapping[Any, Any]], called: Sequence[str], expected: Sequence[tuple[str, str]]) -> None:
    """Say which rows somebody deleted of a table."""
    for side, name in zip(sides, called, strict=True):
        if missing := [key for key in expected if key not in side]:
            case, label = missing[0]
            raise DataError(
                f"{name} lacks {counted(len(missing), 'row')}, such as label '{label}' of {case}. "
                "Leave cases out with all their labels, or measure again."
            )


def _common(sides: Sequence[Mapping[tuple[str, str], Any]], part: int) -> list[str]:
    """Cases (part 0) or labels (part 1) that both have, in the order of the first."""
    first, second = (list(dict.fromkeys(key[part] for key in side)) for side in sides)
    if alone := sorted(set(first) ^ set(second)):
        progress.warn(
            f"{len(alone)} {('cases', 'labels')[part]} are in one of the two alone and are left out: {few(alone, 5)}"
        )
    return [name for name in first if name in second]


def _paired(values: Array, status: Array, names: Sequence[str]) -> Array:
    """Values `(2, cases, labels, metrics)` of pairs: NaN in both where there is none."""
    perfect = np.array([_PERFECT[metrics.MEASURES[name].better] for name in names])
    right = (status == "absent") & (status[::-1] == "invented")
    values = np.where(right[..., None], perfect, np.where((status == "absent")[..., None], np.nan, values))
    return np.where(np.isnan(values).any(axis=0), np.nan, values)


def _row(a: Mapping[str, Any], b: Mapping[str, Any], names: Sequence[str], pair: Array) -> dict[str, Any]:
    row = {name: a[name] for name in ("case", "group", "label")} | {"status_a": a["status"], "status_b": b["status"]}
    for name, first, second in zip(names, *pair.tolist(), strict=True):
        row |= {f"{name}_a": first, f"{name}_b": second, f"{name}_difference": second - first}
    return row


def _line(label: str, name: str, item: Mapping[str, Any]) -> tuple[str, ...]:
    form = metrics.MEASURES[name].form.lstrip("+")
    signed = f"+{form}"
    p_values = (item.get(f"p_{test}_holm", item[f"p_{test}"]) for test in contrasts.TESTS)
    return (
        *(label, name, str(item["pairs"]), tables.number(item["a"], form), tables.number(item["b"], form)),
        tables.interval(item["difference"], item["low"], item["high"], signed),
        *(str(item["better"]), str(item["worse"]), *(tables.number(p, ".3g") for p in p_values)),
    )
