"""What training cases are like, in a few numbers: the ground that a plan stands on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from medseg import geometry as geo
from medseg.arrays import Array
from medseg.data.cases import Case, named
from medseg.data.reading import each, read_case
from medseg.errors import DataError
from medseg.geometry.region import Region, part
from medseg.labels import Labels
from medseg.settings import Settings
from medseg.wording import counted

Triple = tuple[float, float, float]
_SAMPLES = 20_000  # intensities kept of each case
_MOST_CASES = 100  # read for the fingerprint; more change no median


class ChannelFacts(Settings):
    """Intensities of one channel over the training cases: inside structures, and how they look like.

    Args:
        name: as the dataset says.
        mean, std, low, high: inside structures; `low` and `high` are the percentiles 0.5 and 99.5.
        minimum: median over cases of the smallest value.
    """

    name: str
    mean: float
    std: float
    low: float
    high: float
    minimum: float

    @property
    def in_hu(self) -> tuple[bool, str]:
        """Whether the channel holds Hounsfield units, and how we know: the dataset's word first, then the numbers."""
        name = self.name.strip().lower()
        if name in ("ct", "cbct", "hu"):
            return True, "CT, the dataset says: clipped to the percentiles 0.5 and 99.5 inside structures"
        if name not in ("", "image") and not name.startswith("channel"):
            return False, f"'{self.name}' has no absolute unit: z-score of the scan's foreground"
        numbers = f"smallest values near {self.minimum:.4g}, inside structures {self.low:.4g} to {self.high:.4g}"
        if self.minimum <= -900 and self.low > -1100 and self.high < 4000:
            return True, f"taken for CT, for air is near -1000 ({numbers}): clipped as HU"
        return False, f"not taken for CT ({numbers}): z-score of the scan's foreground"


class Fingerprint(Settings):
    """What the training cases are like.

    Args:
        cases: number of cases it was taken from.
        spacing_mm, shape: medians, in RAS order.
        margin_mm: `shape` is that of what lies around the structures, with so much on every side; None where it is the scans'.
        thick_spacing_mm: percentile 10 of each axis, for axes with thick slices.
        channels: intensities.
        label_ml: median volume of each label over the cases that have it; a label that no case has is left out.
    """

    cases: int
    spacing_mm: Triple
    thick_spacing_mm: Triple
    shape: tuple[int, int, int]
    margin_mm: float | None = None
    channels: tuple[ChannelFacts, ...]
    label_ml: dict[str, float]

    @property
    def shown(self) -> str:
        """What `shape` is the shape of, in a word."""
        return "scan" if self.margin_mm is None else "part of a scan around the structures"


class _CaseFacts(NamedTuple):
    spacing_mm: Triple
    shape: tuple[int, ...]
    inside: list[Array]
    minima: list[float]
    label_ml: dict[str, float]


def take(cases: Sequence[Case], labels: Labels, channels: Sequence[str], region: Region | None = None) -> Fingerprint:
    """Read training cases and sum them up.

    Args:
        cases: labelled.
        labels, channels: of the dataset.
        region: of the scans, around the structures, that is learned from; None learns from whole scans.

    Raises:
        MedsegError: a case cannot be read; names it.
    """
    chosen = [cases[round(n)] for n in np.linspace(0, len(cases) - 1, min(len(cases), _MOST_CASES))]
    facts = each(lambda case: _facts(case, labels, region), chosen, "reading", len(channels))
    _same_channels(chosen, facts)
    spacings = np.array([f.spacing_mm for f in facts])
    sizes = [int(n) for n in np.median([f.shape for f in facts], 0)]
    names = [*channels, *(f"channel {n}" for n in range(len(channels), len(facts[0].inside)))]
    return Fingerprint(
        cases=len(facts),
        spacing_mm=_triple(np.median(spacings, 0)),
        thick_spacing_mm=_triple(np.percentile(spacings, 10, axis=0)),
        shape=(sizes[0], sizes[1], sizes[2]),
        margin_mm=region.margin_mm if region else None,
        channels=tuple(_channel(n, name, facts) for n, name in enumerate(names[: len(facts[0].inside)])),
        label_ml={name: float(np.median(found)) for name in labels.names if (found := _volumes(facts, name))},
    )


def _same_channels(cases: Sequence[Case], facts: Sequence[_CaseFacts]) -> None:
    counts = [len(f.inside) for f in facts]
    most = max(set(counts), key=counts.count)
    if odd := [(case.id, n) for case, n in zip(cases, counts, strict=True) if n != most]:
        raise DataError(
            f"{odd[0][0]}: {counted(odd[0][1], 'channel')}, where most cases have {most}. Give all cases the same channels."
        )


def _facts(case: Case, labels: Labels, region: Region | None) -> _CaseFacts:
    with named(case):
        image, mask = (geo.reorient(volume) for volume in read_case(case))
        anywhere, label_ml = np.zeros(mask.geometry.shape, bool), dict[str, float]()
        for item in labels:
            where = labels.mask(mask.array, item)
            anywhere |= where
            if count := np.count_nonzero(where):
                label_ml[item.name] = count * mask.geometry.voxel_ml
        grid = image.geometry
        return _CaseFacts(
            spacing_mm=grid.spacing_mm,
            shape=(part(grid, region.around(anywhere, grid, grid)) if region else grid).shape,
            inside=[_thinned(channel[anywhere]) for channel in image.array],
            minima=[float(channel.min()) for channel in image.array],
            label_ml=label_ml,
        )


def _thinned(values: Array) -> Array:
    return values[:: max(1, len(values) // _SAMPLES)].astype(np.float32)


def _channel(n: int, name: str, facts: Sequence[_CaseFacts]) -> ChannelFacts:
    inside = np.concatenate([f.inside[n] for f in facts])
    inside = inside[np.isfinite(inside)] if inside.size else np.zeros(1)
    low, high = np.percentile(inside, (0.5, 99.5))
    minimum = float(np.median([f.minima[n] for f in facts]))
    return ChannelFacts(
        name=name, mean=float(inside.mean()), std=float(inside.std()), low=float(low), high=float(high), minimum=minimum
    )


def _volumes(facts: Sequence[_CaseFacts], label: str) -> list[float]:
    return [f.label_ml[label] for f in facts if label in f.label_ml]


def _triple(values: Array) -> Triple:
    i, j, k = (float(f"{v:.6g}") for v in values)
    return i, j, k
