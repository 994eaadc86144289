"""Choices made on the inner split: which weights are best, which windows suffice, and what cleaning helps.

Held-out cases are never seen here.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from medseg import metrics, postprocess, progress
from medseg.arrays import Array
from medseg.bundle import Bundle
from medseg.data.cases import Case
from medseg.data.reading import read_mask
from medseg.errors import MedsegError
from medseg.inference import windows
from medseg.inference.sliding import Stream
from medseg.labels import Labels
from medseg.logits import finite
from medseg.metrics import statistics
from medseg.predictor import Predictor
from medseg.training.prepared import Prepared

_QUICKER = 0.9  # of the planned windows' cost: less is not worth a measurement
_LOST = 0.001  # of Dice, for quicker windows
_ADVICE = "Train again with train.precision=fp32 or a lower optim.learning_rate."


class InnerSplit:
    """The inner split, predicted whole by sliding windows.

    Args:
        described: of the model, as it will be stored.
        network: its architecture; a copy takes the weights to judge.
        cases: prepared.
        device: to predict on.
        locator: the first of two stages, which has shown where the cases were prepared.
    """

    def __init__(
        self,
        described: Bundle,
        network: nn.Module,
        cases: Sequence[Prepared],
        device: str = "auto",
        locator: Predictor | None = None,
    ) -> None:
        self.network, self.cases = copy.deepcopy(network), cases
        self.predictor = Predictor.of(described, [self.network], device=device, locator=locator)

    def dice(self, weights: Mapping[str, Tensor]) -> float:
        """Mean over labels of the mean Dice over cases, on the prepared grid; absent structures as in `metrics`.

        Raises:
            MedsegError: the weights give values that are not numbers, so that nothing can be chosen by them.
        """
        self.network.load_state_dict(dict(weights))
        self.network.eval()
        return mean_dice([case_dice(self.predictor, case) for case in self.cases])

    def choose_windows(
        self, weights: Mapping[str, Tensor], dice: float, candidates: Mapping[windows.Config, float]
    ) -> None:
        """Take the quickest windows that are as good as the planned ones, for what is predicted from here on.

        Args:
            weights: of the model.
            dice: of these weights with the planned windows.
            candidates: from the quickest on, with their shares of the planned cost: see `candidates`.
        """
        planned = self.predictor.bundle
        for config in candidates:
            self.predictor.bundle = planned.model_copy(update={"inference": config})
            if (found := self.dice(weights)) >= dice - _LOST:
                progress.say(
                    f"predicting in {config}: {candidates[config]:.0%} of the work, Dice on the inner split {found:.3f}"
                )
                return
        self.predictor.bundle = planned

    def choose_air(self, cases: Sequence[Prepared]) -> None:
        """Leave out windows of air from here on, where the cases learned from show that no structure ever lay in one."""
        found, how = self.predictor.bundle, self.predictor.bundle.inference
        air, share = windows.find_air(how.window, ((case.image, case.target) for case in cases))
        if air is not None:
            progress.say(f"{share:.0%} of the windows are of air, where no structure lay, and will not be computed")
        self.predictor.bundle = found.model_copy(update={"inference": how.model_copy(update={"air": air})})

    def candidates(self, voxels: float) -> dict[windows.Config, float]:
        """Windows that would be quicker on the inner split than the planned ones, and the share of those' cost, least first.

        Args:
            voxels: that fit in memory at once.
        """
        planned, shapes = self.predictor.bundle.inference, [case.geometry.shape for case in self.cases]
        larger = planned.larger(voxels, np.max(shapes, axis=0))
        less = {"overlap": min(planned.overlap, 0.25)}
        tried = [larger, larger.model_copy(update=less), planned.model_copy(update=less)]
        whole = sum(planned.cost(shape) * np.prod(shape) for shape in shapes)
        shares = [sum(config.cost(shape) * np.prod(shape) for shape in shapes) / whole for config in tried]
        ranked = sorted(zip(shares, tried, strict=True), key=lambda pair: pair[0])
        return {config: share for share, config in ranked if share <= _QUICKER}

    def postprocess(self, weights: Mapping[str, Tensor], cases: Sequence[Case]) -> postprocess.Config:
        """What to clean, judged on the scans' own grids."""
        self.network.load_state_dict(dict(weights))
        pairs = ((self.predictor(list(case.images)).mask, read_mask(case)) for case in cases if case.label)
        return postprocess.choose(pairs, self.predictor.labels)


def case_dice(predictor: Predictor, case: Prepared) -> list[float]:
    """Dice of each label in a case, predicted whole by sliding windows, on the prepared grid; NaN as in `metrics`.

    What of a structure lies outside of the part that a second stage looks at counts as missed.

    Raises:
        MedsegError: the model gives values that are not numbers.
    """
    labels, known = predictor.labels, case.target >= 0
    found = predictor.stream(torch.tensor(case.image), functools.partial(_classes, labels))
    if labels.exclusive:
        pairs = [((found == n) & known, (case.target == n) & known) for n in range(1, len(labels) + 1)]
    else:
        pairs = [((p > 0) & k, (t > 0) & k) for p, t, k in zip(found, case.target, known, strict=True)]
    missed = case.missed_ml or (0.0,) * len(labels)
    return [_dice(*pair, ml / case.geometry.voxel_ml) for pair, ml in zip(pairs, missed, strict=True)]


def _dice(found: Array, true: Array, missed: float) -> float:
    both, predicted, reference = (int(np.count_nonzero(mask)) for mask in (found & true, found, true))
    return metrics.overlap.Overlap(both, predicted, reference + missed).dice()


def mean_dice(cases: Sequence[Sequence[float]]) -> float:
    """Mean over labels of the mean over cases, from `case_dice` of each; 0 where nothing has a value."""
    return float(np.nan_to_num(statistics.mean(statistics.mean(np.atleast_2d(cases)))))


def _classes(labels: Labels, stream: Stream) -> Array:
    def make(logits: Tensor) -> Tensor:
        if not finite(logits):
            raise MedsegError(f"the model gives values that are not numbers on the inner split. {_ADVICE}")
        return labels.of_logits(logits).cpu()

    return np.asarray(stream.collect(make, labels.channels).numpy())
