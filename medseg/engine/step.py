"""One step of training: batches in, weights moved."""

from __future__ import annotations

import math
import time
from functools import partial
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor, nn

from medseg.engine import distributed, optim
from medseg.engine.shards import whole
from medseg.engine.state import Run
from medseg.engine.tracking import Meter
from medseg.losses import LossContext

if TYPE_CHECKING:
    from lightning_fabric import Fabric


class Batches(Protocol):
    """What gives a run its batches, one after the other."""

    spacing_mm: tuple[float, float, float]
    size: int

    def __call__(self, number: int) -> tuple[Tensor, Tensor]:
        """Image and target of a batch."""


class Step:
    """Makes one step of training per call; `meter` has the mean loss since the last row of the history.

    Args:
        network: as Fabric has set it up.
        loss: of (output, target, LossContext); its own parameters move too.
        optimiser: of both.
        average: of the network's weights.
        batches: `accumulate` of them a step.
        optim_config: of the optimiser.
        fabric: device, precision and processes.
        accumulate: batches whose gradients are averaged.
        divided: each process has a part of the weights and of their gradients.
    """

    def __init__(
        self,
        network: nn.Module,
        loss: nn.Module,
        optimiser: torch.optim.Optimizer,
        average: optim.Average,
        batches: Batches,
        optim_config: optim.Config,
        fabric: Fabric,
        *,
        accumulate: int,
        divided: bool,
    ) -> None:
        self.network, self.loss, self.optimiser, self.average = network, loss, optimiser, average
        self.batches, self.optim_config, self.fabric = batches, optim_config, fabric
        self.accumulate, self.divided, self.meter = accumulate, divided, Meter()
        self.buffers = [buffer for module in (network, loss) for buffer in module.buffers()]

    def __call__(self, run: Run, share: float) -> float:
        """Make a step, unless the loss or its gradients are not numbers.

        Returns:
            The learning rate at this share of the run.

        Raises:
            MedsegError: they were not numbers for many steps.
        """
        rate = optim.set_rate(self.optimiser, self.optim_config, share)
        before = [buffer.clone() for buffer in self.buffers]
        value, most = self._gradients(run, share), self.optim_config.clip_norm or math.inf
        norm = self.fabric.clip_gradients(self.network, self.optimiser, max_norm=most, error_if_nonfinite=False)
        if self.meter.add(distributed.mean(value, self.fabric), whole(norm).item() if norm is not None else 0.0):
            self.optimiser.step()
            self.average.update()
        else:  # the running figures of normalisation have seen the bad batch already
            for buffer, old in zip(self.buffers, before, strict=True):
                buffer.copy_(old)
        self.optimiser.zero_grad(set_to_none=True)
        run.step += 1
        return rate

    def _gradients(self, run: Run, share: float) -> Tensor:
        """Put the gradients of a step in place; gives the mean loss of its batches in this process."""
        values, total = [], partial(distributed.total, fabric=self.fabric)
        for part in range(self.accumulate):
            asked = time.monotonic()
            image, target = self.batches(run.step * self.accumulate + part)
            run.waited_s += time.monotonic() - asked
            context = LossContext(image, self.batches.spacing_mm, progress=share, predict=self.network, total=total)
            # divided gradients are added up divided: whole ones may be what does not fit
            alone = part + 1 < self.accumulate and not self.divided
            with self.fabric.no_backward_sync(self.network, enabled=alone):  # type: ignore[arg-type]
                value = self.loss(self.network(image), target, context) / self.accumulate
                self.fabric.backward(value)
            values.append(value.detach())
        distributed.average_gradients(self.loss, self.fabric)
        return torch.stack(values).sum()
