"""Forward and backward of every loss, beside the one of the same meaning in MONAI or torch."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import medseg
from benchmarks import _operation as operation
from benchmarks._operation import Variant
from medseg import losses

# By medseg's name: MONAI's class, and the options with which it means the same.
_MONAI: dict[str, tuple[str, dict[str, Any]]] = {
    "boundary": ("BoundaryLoss", {"softmax": True, "include_background": False}),
    "cl_dice": ("SoftclDiceLoss", {"softmax": True, "include_background": False}),
    "dice": ("DiceLoss", {"softmax": True, "include_background": False}),
    "dice_ce": ("DiceCELoss", {"softmax": True, "include_background": False}),
    "focal": ("FocalLoss", {"use_softmax": True, "alpha": 0.25}),
    "generalised_dice": ("GeneralizedDiceLoss", {"softmax": True}),
    "hausdorff_dt": ("HausdorffDTLoss", {"softmax": True}),
    "jaccard": ("DiceLoss", {"softmax": True, "include_background": False, "jaccard": True}),
    "tversky": ("TverskyLoss", {"softmax": True, "include_background": False, "alpha": 0.3, "beta": 0.7}),
}


def parser() -> argparse.ArgumentParser:
    """The arguments."""
    made = operation.parser(__doc__, times=3)
    made.add_argument("--batch", type=int, default=2, help="samples")
    made.add_argument("--classes", type=int, default=4, help="channels of the logits")
    made.add_argument("--size", type=int, default=96, help="edge of a cubic sample")
    return made


def main(arguments: list[str] | None = None) -> None:
    """Measure, print, write."""
    operation.main("losses", parser(), sections, arguments)


def sections(asked: argparse.Namespace) -> operation.Sections:
    """A section a loss."""
    shape = (asked.batch, asked.classes, *(asked.size,) * 3)
    return {f"{name}, {'x'.join(map(str, shape))}": _section(name, shape) for name in losses.names()}


def _section(name: str, shape: tuple[int, ...]) -> dict[str, Variant]:
    section = {"medseg": Variant(partial(ours, name, shape), _value)}
    if name in _MONAI:
        section["monai"] = Variant(partial(monai, name, shape), _value, operation.missing("monai"))
    if name == "cross_entropy":
        section["torch"] = Variant(partial(_step, nn.CrossEntropyLoss(), shape), _value)
    return section


def ours(name: str, shape: tuple[int, ...]) -> Callable[[], float]:
    """medseg's loss with its defaults; those that want an image, a second prediction or boundaries are given noise."""
    loss, device = medseg.create_loss(name), operation.device()
    image = torch.randn(shape[0], 1, *shape[2:], generator=torch.Generator().manual_seed(1)).to(device)
    second = torch.randn(shape, generator=torch.Generator().manual_seed(2)).to(device)
    context = medseg.LossContext(image=image, extras={"second": second, "boundary": second[:, :1]})
    return _step(lambda logits, target: loss(logits, target, context), shape)


def monai(name: str, shape: tuple[int, ...]) -> Callable[[], float]:
    """MONAI's loss, which takes the target with a channel."""
    import monai.losses

    kind, options = _MONAI[name]
    loss = getattr(monai.losses, kind)(to_onehot_y=True, **options)
    return _step(lambda logits, target: loss(logits, target[:, None]), shape)


def _step(loss: Callable[[Tensor, Tensor], Tensor], shape: tuple[int, ...]) -> Callable[[], float]:
    """Forward and backward on logits that are right more often than not, of classes nested like shells."""
    torch.manual_seed(0)
    line = torch.linspace(-1, 1, shape[2])
    depth = 1 - (line[:, None, None] ** 2 + line[:, None] ** 2 + line**2).sqrt().clamp(max=0.999)
    target = (depth * shape[1]).long().expand(shape[0], -1, -1, -1).contiguous().to(operation.device())
    noise = torch.randn(shape).to(operation.device())
    logits = (noise + 2 * F.one_hot(target, shape[1]).movedim(-1, 1)).requires_grad_()

    def run() -> float:
        logits.grad = None
        value = loss(logits, target)
        value.backward()
        return float(value.detach())

    return run


def _value(value: float) -> dict[str, float]:
    return {"value": value}


if __name__ == "__main__":
    main()
