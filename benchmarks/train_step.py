"""Seconds of a training step: medseg's planned network, and nnU-Net's in nnU-Net's way and in medseg's.

The networks, patches and batches are those that the two plan for MSD Task04 Hippocampus, and nnU-Net for CT of the whole body
at 1.5 mm. nnU-Net's way is its own trainer's step; medseg's is the engine's: bf16 where the hardware has it, freed memory kept.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import medseg
from benchmarks import _described as described
from benchmarks import _operation as operation
from benchmarks._described import Described
from benchmarks._operation import Variant
from medseg import memory, system
from medseg.engine import distributed, optim
from medseg.models import Output

_OPTIMISERS = ("muon", "adamw", "sgd")  # medseg's default first
_CT_LABELS = 20
Ready = tuple[nn.Module, Tensor, Tensor]


def parser() -> argparse.ArgumentParser:
    """The arguments."""
    made = operation.parser(__doc__)
    made.add_argument("--hippocampus", type=int, nargs=3, default=(36, 50, 35), help="voxels of a scan of 1 mm")
    made.add_argument("--ct", type=int, nargs=3, default=(240, 240, 240), help="voxels of a scan of 1.5 mm")
    return made


def main(arguments: list[str] | None = None) -> None:
    """Measure, print, write."""
    operation.main("train_step", parser(), sections, arguments)


def sections(asked: argparse.Namespace) -> operation.Sections:
    """medseg's network, and nnU-Net's two."""
    hippocampus = Described(tuple(asked.hippocampus), (1.0, 1.0, 1.0), labels=2, cases=203, modality="MRI")
    ct = Described(tuple(asked.ct), (1.5, 1.5, 1.5), labels=_CT_LABELS)
    without = operation.missing("nnunetv2")
    return {
        "medseg's network for the hippocampus": _ways(medsegs, hippocampus, _OPTIMISERS),
        "nnU-Net's network for the hippocampus": {
            **_ways(nnunets, hippocampus, _OPTIMISERS, without),
            "nnunetv2": Variant(partial(theirs, hippocampus), left_out=without),
        },
        "nnU-Net's network for CT": {
            **_ways(nnunets, ct, _OPTIMISERS[:1], without),
            "nnunetv2": Variant(partial(theirs, ct), left_out=without),
        },
    }


def _ways(
    network: Callable[[Described], Ready], data: Described, optimisers: Sequence[str], without: str = ""
) -> dict[str, Variant]:
    """medseg's ways of making a step, its default first, and in fp32."""
    no_bf16 = without or ("" if system.has_bf16(operation.device()) else "no bf16 here")
    bf16 = {
        f"medseg, bf16, {name}": Variant(partial(ours, network, data, name, "bf16"), sizes, no_bf16)
        for name in optimisers
    }
    fp32 = Variant(partial(ours, network, data, optimisers[0], "fp32"), sizes, without)
    return {**bf16, f"medseg, fp32, {optimisers[0]}": fp32}


def medsegs(data: Described) -> Ready:
    """What medseg plans on this machine, and a batch of noise."""
    config = described.plan(data, coarsens=True)
    return _ready(described.network(data, config), (config.train.batch, 1, *config.sample.patch), data)


def nnunets(data: Described) -> Ready:
    """What nnU-Net plans, with the weights that its own step begins with, and a batch of noise."""
    from benchmarks.peers import nnunet

    with tempfile.TemporaryDirectory(prefix="medseg-bench-") as folder:
        made = nnunet.trainer(data, Path(folder))
    return _ready(_Wrapped(made.network), nnunet.batch(made), data)


class _Wrapped(nn.Module):
    """A network that returns a list of logits, finest first, in the form that medseg's losses take."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Output:
        logits, *auxiliary = self.network(x)
        return Output(logits, tuple(auxiliary))


def ours(network: Callable[[Described], Ready], data: Described, name: str, precision: str) -> Callable[[], Any]:
    """A step as medseg's engine makes it; on a GPU compiled, as in runs that are long enough.

    Args:
        network: makes it, and a batch.
        data: that it is planned for.
        name: of the optimiser.
        precision: "bf16" or "fp32".
    """
    memory.keep_heap()
    model, image, target = network(data)
    fabric = distributed.fabric(image.device, precision)
    fitted = fabric.setup_module(torch.compile(model) if image.device.type == "cuda" else model).train()  # type: ignore[arg-type]
    loss, how = medseg.create_loss("dice_ce"), optim.Config(name=name)  # type: ignore[arg-type]
    optimiser: Any = fabric.setup_optimizers(optim.build((model, loss), how))
    average = optim.Average(model, 0.99)

    def run() -> Tensor:
        fabric.backward(loss(fitted(image), target))
        fabric.clip_gradients(fitted, optimiser, max_norm=how.clip_norm, error_if_nonfinite=False)
        optimiser.step()
        average.update()
        optimiser.zero_grad(set_to_none=True)
        return image

    return run


def theirs(data: Described) -> Callable[[], Any]:
    """A step of nnU-Net's trainer."""
    from benchmarks.peers import nnunet

    with tempfile.TemporaryDirectory(prefix="medseg-bench-") as folder:
        made = nnunet.trainer(data, Path(folder))
    _, image, target = _ready(made.network, nnunet.batch(made), data)
    return nnunet.step(made, image, target)


def sizes(image: Tensor) -> Mapping[str, str]:
    """Of a batch, as a fact."""
    return {"batch": "x".join(map(str, image.shape))}


def _ready(model: nn.Module, shape: tuple[int, ...], data: Described) -> Ready:
    """Model in training, image and target, on the device."""
    device = operation.device()
    image, target = torch.randn(shape), torch.randint(data.labels + 1, (shape[0], *shape[2:]))
    return model.to(device).train(), image.to(device), target.to(device)


if __name__ == "__main__":
    main()
