"""Convolutions that torch is known to get wrong on some CPUs, beside those in double precision, which it computes otherwise."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from medseg.models._guarded import guard

LAYERS = (
    (nn.Conv2d(16, 32, 3, stride=2, padding=1), (16, 1)),
    (nn.Conv2d(8, 8, 5, padding=4, dilation=2), (9, 3)),
    (nn.Conv2d(16, 32, 3, stride=(1, 3), padding=1, groups=16), (16, 2)),
    (nn.Conv3d(16, 32, 3, padding=1), (2, 2, 2)),
    (nn.Conv3d(24, 48, (3, 3, 1), stride=(2, 2, 1), padding=(1, 1, 0)), (1, 8, 8)),
    (nn.Conv3d(1, 4, 7, stride=2, padding=3), (5, 1, 11)),
    (nn.ConvTranspose3d(16, 32, 8, stride=4, padding=2), (3, 1, 9)),
    (nn.ConvTranspose2d(4, 4, 3, stride=2, padding=1, output_padding=1), (1, 5)),
    # one element is left along an axis
    (nn.Conv2d(3, 48, 2, stride=2), (16, 2)),
    (nn.Conv2d(16, 32, 3, stride=(1, 2), padding=1, groups=16), (31, 1)),
    (nn.Conv3d(1, 8, (1, 7, 7), stride=(1, 1, 2), padding=(0, 3, 3)), (1, 12, 2)),
    (nn.ConvTranspose2d(24, 16, 4, stride=4), (7, 1)),
    (nn.ConvTranspose3d(32, 48, (3, 3, 2), stride=(1, 2, 2), padding=(1, 0, 0)), (4, 16, 1)),
    # wrong with AMX alone
    (nn.ConvTranspose2d(16, 24, 4, stride=4), (5, 20)),
    (nn.ConvTranspose3d(16, 8, (1, 5, 5), stride=(3, 2, 1), padding=(0, 2, 0)), (16, 4, 4)),
)
PRECISIONS = {torch.float32: 1e-4, torch.bfloat16: 0.02}


def through(layer: Any, x: Tensor) -> tuple[Any, ...]:
    """What comes out, and the gradients of weights and input."""
    x = x.clone().requires_grad_()
    y = layer(x)
    (y * torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view_as(y)).sum().backward()
    return y.detach(), layer.weight.grad, x.grad


@pytest.mark.parametrize("last", [False, True], ids=["channels first", "channels last"])
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize(("layer", "shape"), LAYERS, ids=lambda value: str(value).partition("(")[0])
def test_known_faults(layer: Any, shape: tuple[int, ...], precision: torch.dtype, last: bool) -> None:
    x = torch.randn((2, layer.in_channels, *shape), generator=torch.Generator().manual_seed(0))
    expected = through(copy.deepcopy(layer).double(), x.double())
    layout = (torch.channels_last if x.ndim == 4 else torch.channels_last_3d) if last else torch.contiguous_format
    guarded = guard(copy.deepcopy(layer)).to(memory_format=layout)
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == torch.bfloat16):
        found = through(guarded, x.to(memory_format=layout))
    for one, other in zip(found, expected, strict=True):
        assert one.shape == other.shape
        assert (one.double() - other).norm() < PRECISIONS[precision] * other.norm()


@pytest.mark.parametrize("layer", [nn.Conv2d(4, 4, 3, padding=1), nn.Conv3d(4, 4, 3, padding="same")])
def test_what_fits_is_computed_as_ever(layer: nn.Module) -> None:
    x = torch.randn(1, 4, *[5] * (2 if isinstance(layer, nn.Conv2d) else 3))
    assert torch.equal(guard(copy.deepcopy(layer))(x), layer(x))


@pytest.mark.parametrize(("own", "kept"), [({}, "AVX512_CORE_BF16"), ({"ONEDNN_MAX_CPU_ISA": "AVX2"}, "AVX2")])
def test_amx_is_left_out_unless_somebody_says_otherwise(own: dict[str, str], kept: str) -> None:
    code = "import os, medseg; print(os.environ['ONEDNN_MAX_CPU_ISA'])"
    environment = {key: value for key, value in os.environ.items() if not key.startswith("ONEDNN")} | own
    assert subprocess.check_output([sys.executable, "-c", code], env=environment, text=True).strip() == kept
