"""Cleaning a mask by what is known of its structures: one piece each, or no piece below a size.

Whether it helps is decided by `choose`, on cases that are not the ones reported.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from pydantic import Field, NonNegativeFloat

from medseg.arrays import Array
from medseg.errors import ConfigError
from medseg.extent import bounding_box, components
from medseg.labels import Label, Labels
from medseg.metrics.overlap import Overlap
from medseg.registry import did_you_mean
from medseg.settings import Settings
from medseg.volume import Volume

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
    """Remove pieces of a mask. Pieces hang together by faces, edges or corners; what is removed becomes background, or what
    else lies there (see `Labels.without`).

    Args:
        mask: labels, in file values or one channel per label (see `Labels.mask`).
        labels: what the values mean.
        config: what to remove. An empty structure stays empty.

    Raises:
        ConfigError: a name that is no label's.
    """
    named = dict.fromkeys((*config.largest_component, *config.minimum_ml))
    items = {item.name: item for item in labels}
    if unknown := [name for name in named if name not in items]:
        raise ConfigError(f"postprocess: no label '{unknown[0]}'. {did_you_mean(unknown[0], items)}")
    if not named:
        return mask
    array = np.array(mask.array)
    for name in named:
        found = labels.mask(mask.array, items[name])
        minimum = config.minimum_ml.get(name, 0) / mask.geometry.voxel_ml
        box = bounding_box(found)
        pieces, sizes = _pieces(found[box])
        keep = _keep(sizes, name in config.largest_component, minimum)
        gone = ~np.concatenate([[True], keep])[pieces]
        channel = array[0 if mask.channels == 1 else labels.items.index(items[name])][box]
        channel[gone] = labels.without(channel[gone], items[name]) if mask.channels == 1 else 0
    return mask.replace(array=array)


def choose(pairs: Iterable[tuple[Volume, Volume]], labels: Labels) -> Config:
    """Decide for each label what to remove: whatever raises the mean Dice of cases kept aside for choices.

    Tried are the largest component, and a minimum of half the smallest piece of any reference. One is taken if it raises
    the mean by more than a hair and helps more cases than it harms. A case without the structure counts as 1 where
    nothing is predicted and as 0 where something is; a true structure that is removed counts as 0.

    Args:
        pairs: mask of the inner split, in file values, and its reference in the same space; one pair is in memory at a time.
        labels: what the values mean.

    Returns:
        The best of the tried for each label; without cases, nothing.
    """
    cases = [[_judged(*pair, labels, item) for item in labels] for pair in pairs]
    largest, minimum_ml = [], {}
    for item, found in zip(labels, zip(*cases, strict=True), strict=False):  # without cases there is nothing to judge
        half_ml = float(f"{min(np.concatenate([case.reference_ml for case in found]), default=0) / 2:.3g}")
        dices = np.array([case.tried(half_ml) for case in found])
        of_largest, of_minimum = _gain(dices[:, 1], dices[:, 0]), _gain(dices[:, 2], dices[:, 0])
        if of_largest > _WORTHWHILE and of_largest >= of_minimum:
            largest.append(item.name)
        elif of_minimum > _WORTHWHILE:
            minimum_ml[item.name] = half_ml
    return Config(largest_component=tuple(largest), minimum_ml=minimum_ml)


@dataclass(frozen=True)
class _Judged:
    """One label in one case: so much that what is removed can be judged without the masks.

    Args:
        sizes: voxels of each piece that was predicted.
        counted: of these, how many are annotated.
        hits: of these, how many the reference has too.
        true: annotated voxels of the reference.
        voxel_ml: volume of a voxel.
        reference_ml: volume of each piece of the reference.
    """

    sizes: Array
    counted: Array
    hits: Array
    true: int
    voxel_ml: float
    reference_ml: Array

    def tried(self, minimum_ml: float) -> list[float]:
        """Dice as predicted, of the largest piece, and without small pieces.

        Agreement on nothing is 1: all that is tried is judged on the same cases.
        """
        kept = (self.sizes > 0, _keep(self.sizes, True, 0), _keep(self.sizes, False, minimum_ml / self.voxel_ml))
        dices = [Overlap(self.hits[keep].sum(), self.counted[keep].sum(), self.true).dice() for keep in kept]
        return [1.0 if np.isnan(dice) else float(dice) for dice in dices]


def _judged(prediction: Volume, reference: Volume, labels: Labels, item: Label) -> _Judged:
    found, true = labels.mask(prediction.array, item), labels.mask(reference.array, item)
    box = bounding_box(found | true)  # numbering the pieces of all of a scan takes seconds
    found, true, known = found[box], true[box], labels.known(reference.array[:, *box])
    (pieces, sizes), (_, reference_sizes) = _pieces(found), _pieces(true)
    counted, hits = (np.bincount(pieces[where], minlength=len(sizes) + 1)[1:] for where in (known, known & true))
    voxel_ml = prediction.geometry.voxel_ml
    return _Judged(sizes, counted, hits, int(np.count_nonzero(known & true)), voxel_ml, reference_sizes * voxel_ml)


def _pieces(found: Array) -> tuple[Array, Array]:
    """Connected pieces numbered from 1, and their sizes in voxels."""
    pieces = components(found)
    return pieces, np.bincount(pieces.ravel())[1:]


def _keep(sizes: Array, largest: bool, minimum_voxels: float) -> Array:
    """Which pieces stay."""
    keep = sizes >= minimum_voxels
    if largest and len(sizes):
        keep &= np.arange(len(sizes)) == np.argmax(sizes)
    return np.asarray(keep)


def _gain(after: Array, before: Array) -> float:
    """Rise of the mean; none where as many cases lose as win."""
    wins = np.count_nonzero(after > before) > np.count_nonzero(after < before)
    return float((after - before).mean()) if wins else 0.0
