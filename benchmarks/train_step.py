"""Seconds of a training step: medseg's default network, and nnU-Net's planned network in nnU-Net's way and in medseg's.

Both networks are those of MSD Task04 Hippocampus. The loss is medseg's for all, so that what differs is what is named: network,
arithmetic, optimiser and what becomes of freed memory.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

import medseg
from benchmarks import _operation as operation
from benchmarks._operation import Variant
from benchmarks.sliding_window import has_bf16
from medseg import system
from medseg.engine import optim
from medseg.models import Output

_CLASSES = 3
_CLIP_NORM = 12.0  # the default of both


def parser() -> argparse.ArgumentParser:
    """The arguments."""
    made = operation.parser(__doc__, times=3)
    made.add_argument("--patch", type=int, nargs=3, default=(40, 56, 40), help="voxels of a sample")
    made.add_argument("--batch", type=int, default=6, help="samples of medseg's step")
    made.add_argument("--nnunet-batch", type=int, default=7, help="samples of nnU-Net's step")
    return made


def main(arguments: list[str] | None = None) -> None:
    """Measure, print, write."""
    asked = parser().parse_args(arguments)
    chosen = sections(asked)
    found = operation.compare("train_step", chosen, asked, arguments)
    operation.publish("train_step", chosen, found, asked)


def sections(asked: argparse.Namespace) -> operation.Sections:
    """The two networks."""
    default, planned = ((batch, 1, *asked.patch) for batch in (asked.batch, asked.nnunet_batch))
    no_bf16 = "" if has_bf16() else "no bf16 here"
    return {
        f"medseg's default network, {'x'.join(map(str, default))}": {
            "bf16, heap kept": Variant(partial(ours, default_network, default, bf16=True), left_out=no_bf16),
            "fp32, heap kept": Variant(partial(ours, default_network, default, bf16=False)),
        },
        f"nnU-Net's network, {'x'.join(map(str, planned))}": {
            "medseg's way: bf16, heap kept": Variant(
                partial(ours, nnunet_network, planned, bf16=True), left_out=no_bf16
            ),
            "fp32, heap kept": Variant(partial(ours, nnunet_network, planned, bf16=False)),
            "nnU-Net's way": Variant(partial(theirs, planned)),
        },
    }


def default_network() -> nn.Module:
    """What medseg plans for the hippocampus on a CPU."""
    return medseg.create_model("unet", spatial_dims=3, in_channels=1, out_channels=_CLASSES)


def nnunet_network() -> nn.Module:
    """What nnU-Net plans for it: its own code if that is installed, else medseg's with the same options."""
    widths, strides, blocks = (32, 64, 128, 256), (1, 2, 2, 2), (2, 2, 2, 2)
    if operation.missing("dynamic_network_architectures"):
        options = {"widths": widths, "strides": strides, "blocks": blocks, "kernels": (3,) * 4, "decoder_blocks": 2}
        described = {"name": "unet", "block": "plain", "bias": True, **options}
        return medseg.create_model(described, spatial_dims=3, in_channels=1, out_channels=_CLASSES)
    from dynamic_network_architectures.architectures.unet import PlainConvUNet

    return _Wrapped(
        PlainConvUNet(
            1,
            len(widths),
            widths,
            nn.Conv3d,
            3,
            strides,
            blocks,
            _CLASSES,
            blocks[1:],
            conv_bias=True,
            norm_op=nn.InstanceNorm3d,
            norm_op_kwargs={"eps": 1e-5, "affine": True},
            nonlin=nn.LeakyReLU,
            nonlin_kwargs={"inplace": True},
            deep_supervision=True,
        )
    )


class _Wrapped(nn.Module):
    """A network that returns a list of logits, finest first, in the form that medseg's losses take."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Output:
        logits, *auxiliary = self.network(x)
        return Output(logits, tuple(auxiliary))


def ours(network: Callable[[], nn.Module], shape: tuple[int, ...], *, bf16: bool) -> Callable[[], float]:
    """A step as medseg's engine makes it."""
    system.keep_heap()
    model, loss, image, target = _ready(network, shape)
    optimiser = optim.build((model, loss), optim.Config())
    average = optim.Average(model, 0.99)

    def run() -> float:
        with torch.autocast(image.device.type, torch.bfloat16, enabled=bf16):
            output = model(image)
        value = loss(output, target)
        value.backward()
        nn.utils.clip_grad_norm_(model.parameters(), _CLIP_NORM)
        optimiser.step()
        average.update()
        optimiser.zero_grad(set_to_none=True)
        return float(value.detach())

    return run


def theirs(shape: tuple[int, ...]) -> Callable[[], float]:
    """A step of nnU-Net's trainer: fp32 on a CPU, fp16 on a GPU (whose `torch.compile` is left out)."""
    model, loss, image, target = _ready(nnunet_network, shape)
    on_gpu = image.device.type == "cuda"
    optimiser = torch.optim.SGD(model.parameters(), 0.01, momentum=0.99, nesterov=True, weight_decay=3e-5)
    scaler = torch.amp.GradScaler(image.device.type, enabled=on_gpu)

    def run() -> float:
        optimiser.zero_grad(set_to_none=True)
        with torch.autocast(image.device.type, torch.float16, enabled=on_gpu):
            output = model(image)
        value = loss(output, target)
        scaler.scale(value).backward()
        scaler.unscale_(optimiser)
        nn.utils.clip_grad_norm_(model.parameters(), _CLIP_NORM)
        scaler.step(optimiser)
        scaler.update()
        return float(value.detach())

    return run


def _ready(network: Callable[[], nn.Module], shape: tuple[int, ...]) -> tuple[nn.Module, nn.Module, Tensor, Tensor]:
    """Model in training, loss, image and target, on the device."""
    torch.manual_seed(0)
    model, device = network().to(operation.device()).train(), operation.device()
    image, target = torch.randn(shape).to(device), torch.randint(_CLASSES, (shape[0], *shape[2:])).to(device)
    return model, medseg.create_loss("dice_ce"), image, target


if __name__ == "__main__":
    main()
