"""What runtimes compute otherwise than torch."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from medseg.bundle.runtimes import Exported
from medseg.exporting import translation
from medseg.models import _blocks

NORMS = [
    _blocks.norm("instance", 4),
    _blocks.norm("group", 4),
    nn.GroupNorm(2, 4),
    nn.InstanceNorm3d(4),
    nn.InstanceNorm3d(4, affine=True),
    nn.InstanceNorm3d(4, affine=True, track_running_stats=True),
]


@pytest.mark.parametrize("norm", NORMS, ids=str)
@pytest.mark.parametrize("size", [(5, 1, 7), (1, 1, 1)], ids=str)
def test_line_means_change_no_answer(norm: nn.Module, size: tuple[int, ...]) -> None:
    network = nn.Sequential(nn.Conv3d(2, 4, 1), nn.Sequential(norm)).eval()
    for weight in norm.parameters():
        nn.init.uniform_(weight)
    other, x = translation.with_line_means(network), torch.randn(3, 2, *size)
    if size != (1, 1, 1) or not isinstance(norm, nn.InstanceNorm3d):
        torch.testing.assert_close(other(x), network(x))
    assert network[1][0] is norm


def test_runtimes_keep_their_digits_where_most_of_a_window_is_one_value(tmp_path: Path) -> None:
    pytest.importorskip("onnxscript", reason="the extra `onnx` is not installed")
    network = nn.Sequential(_blocks.norm("instance", 1)).eval()
    x = torch.randn(1, 1, 96, 96, 96, generator=torch.Generator().manual_seed(0))
    x[:, :, 20:] = 0.3
    translation.write_onnx(network, x, tmp_path / "model.onnx")
    exact = x.double()
    exact = (exact - exact.mean()) / (exact.var(correction=0) + 1e-5).sqrt()
    found = Exported(tmp_path / "model.onnx", "onnx")(x)
    assert (found.double() - exact).abs().max() < 2e-5  # 0.0015 with the runtime's own normalisation
