"""Distributed training: how the processes are set up, and what they tell each other."""

from __future__ import annotations

import atexit
import logging
import os
from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from medseg import system
from medseg.engine.stages import stages
from medseg.errors import ConfigError

if TYPE_CHECKING:  # it takes a second, which prediction has no use for
    from lightning_fabric import Fabric
    from lightning_fabric.strategies import Strategy

Share = Literal["ddp", "fsdp"]
# The others wait while the first process predicts. One that dies is noticed by `torchrun` and not by this.
_PATIENCE = timedelta(days=1)
_PRECISION: Mapping[str, Literal["bf16-mixed", "32-true"]] = {"bf16": "bf16-mixed", "fp32": "32-true"}


def fabric(device: torch.device, precision: str = "fp32", share: Share = "ddp") -> Fabric:
    """Device, precision and processes; as many of these as `torchrun` started.

    Args:
        device: of this machine.
        precision: "fp32" or "bf16".
        share: "fsdp" divides the weights, their gradients and all that the optimiser keeps between the processes; otherwise
            each has all of it.

    Raises:
        ConfigError: "fsdp" with a single process; or several processes, which take a GPU each, and a device with a number.
    """
    from lightning_fabric import Fabric

    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # it repeats what the run says
    _, ranks = system.ranks()
    if share == "fsdp" and ranks == 1:
        raise ConfigError("train.strategy=fsdp needs several processes: start with torchrun, or leave it out")
    if ranks > 1 and device.index is not None:
        raise ConfigError(
            f"several processes take a GPU each, and all would take {device}. Leave its number out: device={device.type}"
        )
    local = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    made = Fabric(
        accelerator=device.type,
        devices=[device.index or 0] if device.type == "cuda" and ranks == 1 else local,
        num_nodes=ranks // local,
        strategy=_strategy(share, ranks),
        precision=_PRECISION[precision],
    )
    if ranks > 1 and not torch.distributed.is_initialized():
        atexit.register(_leave)
    made.launch()
    return made


def _leave() -> None:
    """A process that ends with the threads of its connections still running is aborted now and then."""
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def _strategy(share: Share, ranks: int) -> Strategy | str:
    from lightning_fabric.strategies import DDPStrategy, ModelParallelStrategy

    if ranks == 1:
        return "auto"
    if share == "fsdp":
        return ModelParallelStrategy(_divide, data_parallel_size=ranks, tensor_parallel_size=1, timeout=_PATIENCE)
    return DDPStrategy(timeout=_PATIENCE)


def _divide(model: nn.Module, mesh: Any) -> nn.Module:
    """Each stage gathers its weights when it computes, and lets them go: a process holds one stage's at a time."""
    from torch.distributed.fsdp import fully_shard

    for part in (*stages(model), model):
        fully_shard(part, mesh=mesh["data_parallel"])
    return model


def agree(value: Any, fabric: Fabric) -> Any:
    """What the first process says, where several train together: their clocks and signals differ."""
    return fabric.broadcast(value) if fabric.world_size > 1 else value


def mean(value: Tensor, fabric: Fabric) -> float:
    """The mean over all processes; not a number for all where it is for one, so that all skip the step."""
    reduced = fabric.all_reduce(value.detach()) if fabric.world_size > 1 else value.detach()
    assert isinstance(reduced, Tensor)
    return reduced.item()


def average_gradients(loss: nn.Module, fabric: Fabric) -> None:
    """The mean over all processes of the gradients of a loss's own parameters; Fabric cares for the model's."""
    for parameter in loss.parameters() if fabric.world_size > 1 else ():
        if parameter.requires_grad:
            gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            reduced = fabric.all_reduce(gradient)
            assert isinstance(reduced, Tensor)
            parameter.grad = reduced


class _Total(torch.autograd.Function):
    """The sum over all processes, of values and of gradients: what each process makes of it depends on all of them."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        values = values.clone()
        torch.distributed.all_reduce(values)
        return values

    @staticmethod
    def backward(ctx: Any, gradients: Tensor) -> Tensor:
        return _Total.forward(ctx, gradients)


def total(values: Tensor, fabric: Fabric) -> Tensor:
    """The sum over all processes. Differentiable.

    The gradient of a mean over the processes of what they make of the sum is that of one process with all samples.
    """
    summed: Tensor = _Total.apply(values) if fabric.world_size > 1 else values
    return summed
