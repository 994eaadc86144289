"""Cleaning a mask by what is known of its structures: one piece each, or no piece below a size.

Whether it helps is decided by `choose`, on cases that are not the ones reported.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import Field, NonNegativeFloat

from medseg.errors import ConfigError
from medseg.labels import Label, Labels
from medseg.registry import did_you_mean
from medseg.settings import Settings
from medseg.volume import Volume

Array = npt.NDArray[Any]
# Mean Dice must rise by more than this: smaller gains are chance, and every step is a way to lose a true finding.
_WORTHWHILE = 1e-3


class Config(Settings):
    """What to remove; nothing by default.

    Args:
        largest_component: labels of which only the largest connected piece stays.
        minimum_ml: label -> volume in ml below which a connected piece goes, even if it is the only one.
    """

    largest_component: tuple[str, ...] = ()
    minimum_ml: dict[str, NonNegativeFloat] = Field(default_factory=dict)


def apply(mask: Volume, labels: Labels, config: Config) -> Volume:
    """Remove pieces of a mask. Pieces hang together by faces, edges or corners; what is removed becomes background.

    Args:
        mask: labels, in file values or one channel a label (see `Labels.mask`).
        labels: what the values mean.
        config: what to remove. An empty structure stays empty.

    Raises:
        ConfigError: a name that is no label's.
    """
    named = dict.fromkeys((*config.largest_component, *config.minimum_ml))
    items = {item.name: item for item in labels}
    if unknown := [name for name in named if name not in items]:
        raise ConfigError(f"postprocess: no label '{unknown[0]}'. {did_you_mean(unknown[0], items)}")
    array = np.array(mask.array)
    for name in named:
        found = labels.mask(mask.array, items[name])
        minimum = config.minimum_ml.get(name, 0) / mask.geometry.voxel_ml
        kept = _kept(found, name in config.largest_component, minimum)
        channel = 0 if labels.exclusive or mask.channels == 1 else labels.items.index(items[name])
        array[channel][found & ~kept] = 0
    return mask.replace(array=array)


def choose(predictions: Sequence[Volume], references: Sequence[Volume], labels: Labels) -> Config:
    """Decide for each label what to remove: whatever raises the mean Dice of cases kept aside for choices.

    Tried are the largest component, and a minimum of half the smallest piece of any reference. One is taken if it raises
    the mean by more than a hair and helps more cases than it harms. A case without the structure counts as 1 where
    nothing is predicted and as 0 where something is; a true structure that is removed counts as 0.

    Args:
        predictions: masks of the inner split, in file values.
        references: their references, in the same order and space.
        labels: what the values mean.

    Returns:
        The best of the tried for each label; without cases, nothing.
    """
    largest, minimum_ml = [], {}
    for item in labels if len(references) else ():
        pieces_ml = [size for mask in references for size in _sizes_ml(mask, labels, item)]
        half_ml = float(f"{min(pieces_ml, default=0) / 2:.3g}")
        dices = np.array(
            [_tried(*pair, labels, item, half_ml) for pair in zip(predictions, references, strict=True)]
        )  # (cases, 3): as predicted, the largest piece, no small piece
        of_largest, of_minimum = _gain(dices[:, 1], dices[:, 0]), _gain(dices[:, 2], dices[:, 0])
        if of_largest > _WORTHWHILE and of_largest >= of_minimum:
            largest.append(item.name)
        elif of_minimum > _WORTHWHILE:
            minimum_ml[item.name] = half_ml
    return Config(largest_component=tuple(largest), minimum_ml=minimum_ml)


def _kept(found: Array, largest: bool, minimum_voxels: float) -> Array:
    """The voxels of a mask that stay."""
    pieces, sizes = _pieces(found)
    keep = sizes >= minimum_voxels
    if largest and len(sizes):
        keep &= np.arange(len(sizes)) == np.argmax(sizes)
    return np.asarray(np.concatenate([[False], keep])[pieces])


def _pieces(found: Array) -> tuple[Array, Array]:
    """Connected pieces numbered from 1, and their sizes in voxels."""
    import cc3d

    pieces = cc3d.connected_components(np.ascontiguousarray(found), connectivity=26)
    return pieces, np.bincount(pieces.ravel())[1:]


def _sizes_ml(mask: Volume, labels: Labels, item: Label) -> Array:
    return _pieces(labels.mask(mask.array, item))[1] * mask.geometry.voxel_ml


def _tried(prediction: Volume, reference: Volume, labels: Labels, item: Label, minimum_ml: float) -> list[float]:
    found, true = labels.mask(prediction.array, item), labels.mask(reference.array, item)
    known = True if labels.ignore is None else (reference.array != labels.ignore).all(axis=0)
    kept = (found, _kept(found, True, 0), _kept(found, False, minimum_ml / prediction.geometry.voxel_ml))
    return [_dice(mask & known, true & known) for mask in kept]


def _dice(found: Array, true: Array) -> float:
    """As `medseg.metrics`, but agreement on nothing is 1: all candidates are judged on the same cases."""
    total = np.count_nonzero(found) + np.count_nonzero(true)
    return 2 * np.count_nonzero(found & true) / total if total else 1.0


def _gain(after: Array, before: Array) -> float:
    """Rise of the mean; none where as many cases lose as win."""
    wins = np.count_nonzero(after > before) > np.count_nonzero(after < before)
    return float((after - before).mean()) if wins else 0.0
