"""Pictures of the cases that a report shows: the scan, and over it each mask, at the same slices."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from medseg import files, metrics, picture, preprocess
from medseg.data.pairing import Mask, Pair, read_masks
from medseg.evaluation import Evaluation
from medseg.evaluation.comparison import Comparison
from medseg.geometry import reorient, resample_to
from medseg.labels import Labels
from medseg.metrics.statistics import mean

_MOST_DIFFERENT = 2  # cases that lost, and cases that gained
_ORDINALS = ("", "second ", "third ")


class Shown(NamedTuple):
    """A case to draw.

    Args:
        kind: why it is shown, such as "worst".
        case: its id.
        facts: what else `index.json` says of it.
        masks: by their captions, from top to bottom; the first one chooses the slices.
        images: the scan's files; without, the masks are drawn on black.
    """

    kind: str
    case: str
    facts: Mapping[str, Any]
    masks: Mapping[str, Mask]
    images: tuple[Path, ...] = ()


def draw(shown: Iterable[Shown], labels: Labels, folder: Path) -> None:
    """Write a PNG of each case, and `index.json`, which says what they are."""
    index = []
    for item in shown:
        file = f"{item.kind.replace(' ', '_')}_{item.case}.png"
        files.write_bytes(folder / file, _overlay(item, labels))
        index.append({"kind": item.kind, "case": item.case, **item.facts, "file": file})
    files.write_json(folder / "index.json", index)


def extremes(result: Evaluation, pairs: Iterable[Pair], worst: int = 1) -> list[Shown]:
    """The worst cases, the median and the best one, by their mean Dice over labels; each once."""
    by_case: dict[str, list[float]] = {}
    for row in result.rows:
        by_case.setdefault(row["case"], []).append(row["dice"])
    means = {case: float(np.nanmean(values)) for case, values in by_case.items() if not np.isnan(values).all()}
    order, known = sorted(means, key=lambda case: means[case]), {pair.case: pair for pair in pairs}
    middle = len(order) // 2
    kinds = {middle: "median"} if order else {}
    kinds |= {place: f"{_ORDINALS[place]}worst" for place in range(1, min(worst, middle))}
    if len(order) > 1:
        kinds |= {0: "worst", len(order) - 1: "best"}
    return [_shown(kind, known[order[place]], means[order[place]]) for place, kind in sorted(kinds.items())]


def differences(
    result: Comparison, masks: Mapping[str, Sequence[Mask]], images: Mapping[str, tuple[Path, ...]]
) -> list[Shown]:
    """The cases in which the second run lost most against the first, and in which it gained most, by the first metric.

    Args:
        result: of the comparison.
        masks: of each case, the mask of the first run and that of the second; before them the reference, where it is known.
        images: of each case, the scan's files, where they are known.
    """
    name = next(iter(next(iter(result.summary["labels"].values()))))
    captions = ("Reference", *(f"{side.upper()}: {result.summary[side]}" for side in "ab"))
    means = {case: _means([row for row in result.rows if row["case"] == case], name) for case in masks}
    gains = {case: np.diff(metrics.MEASURES[name].goodness(np.array(both)))[0] for case, both in means.items()}
    order = sorted(gains, key=lambda case: gains[case])
    lost, gained = [case for case in order if gains[case] < 0], [case for case in order[::-1] if gains[case] > 0]
    shown = []
    for kind, cases in (("lost most", lost), ("gained most", gained)):
        for case in cases[:_MOST_DIFFERENT]:
            facts = {"metric": metrics.MEASURES[name].heading} | dict(zip("ab", means[case], strict=True))
            captioned = dict(zip(captions[-len(masks[case]) :], masks[case], strict=True))
            shown.append(Shown(kind, case, facts, captioned, images.get(case, ())))
    return shown


def _means(rows: Sequence[Mapping[str, Any]], name: str) -> tuple[float, float]:
    """Means over the labels of a case, in both runs; NaN where it has no pair."""
    values = np.array([[row[f"{name}_a"], row[f"{name}_b"]] for row in rows]).reshape(-1, 2)
    a, b = mean(values).tolist()
    return a, b


def _shown(kind: str, pair: Pair, dice: float) -> Shown:
    masks = {"Reference": pair.reference, "Prediction": pair.prediction}
    return Shown(kind, pair.case, {"dice": dice}, masks, pair.images)


def _overlay(shown: Shown, labels: Labels) -> bytes:
    masks = dict(zip(shown.masks, read_masks(shown.masks.values(), labels), strict=True))
    ground = preprocess.read_image(shown.images) if shown.images else next(iter(masks.values()))
    ground = reorient(ground)
    drawn = {caption: _flat(resample_to(mask, ground.geometry).array, labels) for caption, mask in masks.items()}
    image = ground.array[0] if shown.images else None
    return picture.captioned(image, drawn, ground.geometry.spacing_mm, labels.colours)


def _flat(array: npt.NDArray[Any], labels: Labels) -> npt.NDArray[Any]:
    """One map of values to draw: overlapping labels lie over each other in their order."""
    flat = np.zeros(array.shape[1:], np.int32)
    for item, value in zip(labels, labels.written, strict=True):
        flat[labels.mask(array, item)] = value
    return flat
