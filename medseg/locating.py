"""Coarse to fine: a stored model, the first of two stages, finds where in a scan the second one looks."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence

import numpy as np
from pydantic import Field

from medseg import progress
from medseg.data.cases import Case, named
from medseg.data.reading import read_case
from medseg.geometry.region import Box, Place, Region
from medseg.labels import Labels
from medseg.predictor import Predictor
from medseg.settings import Settings
from medseg.volume import Volume

_ENOUGH = 0.99  # of each structure


class Config(Settings):
    """Which stored model finds where to look, and how much around it the run sees.

    Args:
        source: `from` in files and commands: the bundle or run of the first stage, which may be an ensemble; None looks at
            whole scans.
        margin_mm: on every side of what the first stage finds.
    """

    source: str | None = Field(default=None, alias="from")
    margin_mm: float = Field(default=20.0, ge=0)

    def region(self, least_mm: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> Region | None:
        """What the second stage sees of a scan; None where there is one stage."""
        return Region(margin_mm=self.margin_mm, least_mm=least_mm) if self.source else None


def locate(locator: Predictor | None, region: Region | None, cases: Sequence[Case], labels: Labels) -> dict[str, Place]:
    """Where the second stage looks in labelled cases, by their ids: found as in any scan, without a look at the mask.

    What the first stage misses is said, with a warning where it is more than a little.

    Args:
        locator, region: the first stage, and what the second one sees around what is found; None where there is one stage.
        cases: one or more.
        labels: of the cases; those of the locator may be others.

    Raises:
        MedsegError: a case cannot be used; names it.
    """
    if locator is None or region is None:
        return {}
    places = {case.id: _place(locator, region, case, labels) for case in progress.track(cases, "locating", len(cases))}
    _tell(places, labels)
    return places


def _place(locator: Predictor, region: Region, case: Case, labels: Labels) -> Place:
    with named(case):
        began = time.monotonic()
        image, mask = read_case(case)
        found, grid = locator.find(image)
        box = region.around(found, grid, image.geometry)
        seconds = time.monotonic() - began
        held, missed = _ml(mask, box, labels)
        share = math.prod(s.stop - s.start for s in box) / math.prod(image.geometry.shape)
        return Place(box, share, held, missed, seconds)


def _ml(mask: Volume, box: Box, labels: Labels) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Millilitres of each label inside and outside of a box."""
    held, missed = [], []
    for item in labels:
        where = labels.mask(mask.array, item)
        inside = np.count_nonzero(where[box])
        held.append(inside * mask.geometry.voxel_ml)
        missed.append((np.count_nonzero(where) - inside) * mask.geometry.voxel_ml)
    return tuple(held), tuple(missed)


def _tell(places: Mapping[str, Place], labels: Labels) -> None:
    held = np.sum([place.held_ml for place in places.values()], 0)
    missed = np.sum([place.missed_ml for place in places.values()], 0)
    shown = np.divide(held, held + missed, out=np.ones(len(labels)), where=held + missed > 0)
    least, of_scans = int(shown.argmin()), float(np.mean([place.share for place in places.values()]))
    progress.say(
        f"locate.from: that model shows {of_scans:.0%} of the inner cases' voxels, and in them {shown[least]:.1%} of "
        f"'{labels.names[least]}' (of other structures as much or more)"
    )
    if shown[least] < _ENOUGH:
        progress.warn(
            f"locate.from: {1 - shown[least]:.1%} of '{labels.names[least]}' lies where that model finds nothing near, and is lost. "
            "Train it longer or on a finer grid, or raise locate.margin_mm"
        )
