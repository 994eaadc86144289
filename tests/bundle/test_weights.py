from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from medseg import bundle, models
from medseg.bundle import Bundle
from medseg.bundle.weights import packed, unpacked
from medseg.inference.windows import Config as Inference
from medseg.labels import Labels
from medseg.preprocess import Config as Preprocess


class Parts(nn.Module):
    """A convolution, a transposed one, a linear layer, and what is left as it is."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.up = nn.Conv3d(2, 3, 3), nn.ConvTranspose2d(4, 5, 2)
        self.linear, self.norm = nn.Linear(6, 7), nn.BatchNorm3d(3)


def test_bytes_are_rounded_to_half_a_step_of_each_output_channel() -> None:
    """By hand: a channel's largest weight becomes 127 steps, and the others whole steps of it."""
    conv = nn.Conv2d(1, 2, (1, 3), bias=False)
    conv.weight.data = torch.tensor([[[[1.27, -0.504, 0.0]]], [[[0.0, 12.7, -12.6]]]])
    state = packed(conv, "int8")
    assert state["weight"].dtype == torch.int8
    assert state["weight"].flatten().tolist() == [127, -50, 0, 0, 127, -126]
    torch.testing.assert_close(state["weight.int8_scale"].flatten(), torch.tensor([0.01, 0.1]))
    torch.testing.assert_close(
        unpacked(state, "int8")["weight"].flatten(), torch.tensor([1.27, -0.5, 0, 0, 12.7, -12.6])
    )


@pytest.mark.parametrize("name", ["conv.weight", "up.weight", "linear.weight"])
def test_no_weight_is_off_by_more_than_half_a_step(name: str) -> None:
    network = Parts()
    before = network.state_dict()[name]
    state = packed(network, "int8")
    scale = state[f"{name}.int8_scale"]
    assert scale.numel() == before.shape[1 if name == "up.weight" else 0], "one per output channel"
    off = (unpacked(state, "int8")[name] - before).abs()
    assert (off <= scale / 2 * 1.0001).all()
    assert off.max() > scale.max() / 4


@pytest.mark.parametrize("how", ["fp32", "fp16", "int8"])
def test_what_comes_back_has_the_names_shapes_and_types_of_what_was_stored(how: Any) -> None:
    network = Parts()
    network.conv.weight.data[1] = 0  # a channel without weights has no scale to speak of
    before, after = network.state_dict(), unpacked(packed(network, how), how)
    assert list(after) == list(before)
    for name, tensor in before.items():
        assert (after[name].shape, after[name].dtype) == (tensor.shape, tensor.dtype), name
        if "weight" not in name or "norm" in name:
            torch.testing.assert_close(after[name], tensor, rtol=0, atol=0)
    assert (after["conv.weight"][1] == 0).all()
    torch.testing.assert_close(
        after["conv.weight"], before["conv.weight"], rtol=0, atol={"fp32": 0, "fp16": 2e-4, "int8": 2e-3}[how]
    )


@pytest.mark.parametrize(("how", "share"), [("fp16", 0.5), ("int8", 0.25)])
def test_a_bundle_of_smaller_weights_is_loaded_like_any(tmp_path: Path, how: Any, share: float) -> None:
    torch.manual_seed(0)
    model = models.resolve({"name": "vnet", "preset": "tiny", "widths": (24, 32, 32)})
    network = models.create_model(model, spatial_dims=3, in_channels=1, out_channels=2).eval()
    described = Bundle(
        name="small",
        model=model,
        spatial_dims=3,
        channels=("MR",),
        labels=Labels.of([1]),
        preprocess=Preprocess(),
        inference=Inference(window=(8, 8, 8)),
    )
    bundle.save(tmp_path / "whole", described, [network.state_dict()])
    bundle.save(tmp_path / "small", described.model_copy(update={"stored": how}), [packed(network, how)])
    whole, small = ((tmp_path / name / "model.safetensors").stat().st_size for name in ("whole", "small"))
    assert small == pytest.approx(share * whole, rel=0.15)
    (before,), (after,) = (bundle.load(tmp_path / name)[1] for name in ("whole", "small"))
    assert after.keys() == before.keys()
    for name, tensor in before.items():
        torch.testing.assert_close(after[name], tensor, rtol=0, atol=float(tensor.abs().max()) / 200)
    assert f"weights stored as {how}" in (tmp_path / "small/README.md").read_text()
