from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from medseg.engine.stages import recompute, stages
from medseg.losses import create_loss
from medseg.models import create_model, names, resolve


def unit() -> nn.Module:
    return nn.Sequential(nn.Conv3d(2, 2, 3, padding=1), nn.BatchNorm3d(2))


class Parts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Conv3d(1, 2, 1), nn.Conv3d(2, 2, 1)
        self.levels = nn.ModuleList([unit(), nn.ModuleList([unit(), nn.Conv3d(2, 2, 1)])])
        self.named = nn.ModuleDict({"a": unit()})
        self.bottom = unit()


def test_stages_are_what_is_made_of_parts() -> None:
    model = Parts()
    assert stages(model) == [model.levels[0], model.levels[1][0], model.named["a"], model.bottom]  # type: ignore[index]
    assert stages(nn.Sequential(model)) == stages(model)
    assert stages(nn.Conv3d(1, 2, 1)) == stages(nn.Sequential(nn.Conv3d(1, 2, 1))) == []


@pytest.mark.parametrize("name", names())
def test_every_model_has_some(name: str) -> None:
    model = create_model(name, spatial_dims=3, in_channels=1, out_channels=2, preset="tiny")
    held = sum(weight.numel() for stage in stages(model) for weight in stage.parameters())
    assert held > 0.3 * sum(weight.numel() for weight in model.parameters())


def learned(model: nn.Module) -> tuple[Tensor, dict[str, Tensor], dict[str, Tensor]]:
    """What a step makes of a model: the loss, gradients, buffers."""
    torch.manual_seed(1)
    image = torch.randn(2, 1, 12, 10, 8)
    value = create_loss("dice_ce")(model(image), (image[:, 0] > 0.5).long())
    value.backward()
    torch.rand(1)
    slopes = {key: weight.grad for key, weight in model.named_parameters() if weight.grad is not None}
    return value.detach(), slopes, {"chance": torch.get_rng_state(), **dict(model.named_buffers())}


@pytest.mark.parametrize("norm", ["instance", "batch"])
@pytest.mark.parametrize("name", names())
def test_what_is_computed_again_is_the_same_to_the_last_bit(name: str, norm: str) -> None:
    """Running figures of normalisation, and chance (one of the models has dropout), too."""
    if (name, norm) == ("reversible_unet", "batch"):
        pytest.skip("it takes no running figures: it computes everything again by itself")
    has_norm = "norm" in resolve({"name": name, "preset": "tiny"})
    if norm == "batch" and not has_norm:
        pytest.skip("it has its own normalisation")
    torch.manual_seed(0)
    options = {"norm": norm} if has_norm else {}
    plain = create_model(name, spatial_dims=3, in_channels=1, out_channels=2, preset="tiny", **options).train()
    again = copy.deepcopy(plain)
    recompute(again)
    assert again.state_dict().keys() == plain.state_dict().keys()
    (value, slopes, buffers), (other, others, their_buffers) = learned(plain), learned(again)
    assert torch.equal(value, other)
    assert slopes.keys() == others.keys()
    assert all(torch.equal(slope, others[key]) for key, slope in slopes.items())
    assert all(torch.equal(buffer, their_buffers[key]) for key, buffer in buffers.items())


def test_a_copy_computes_with_its_own_weights() -> None:
    model = create_model("unet", spatial_dims=3, in_channels=1, out_channels=2, preset="tiny").train()
    recompute(model)
    other = copy.deepcopy(model)
    with torch.no_grad():
        for weight in model.parameters():
            weight.zero_()
    assert not torch.equal(learned(model)[0], learned(other)[0])


def peak_bytes(model: nn.Module) -> int:
    """Most that tensors held during a step, forward and back."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        learned(model)
    assert seen.profiler is not None
    assert seen.profiler.kineto_results is not None
    events = [event for event in seen.profiler.kineto_results.events() if event.name() == "[memory]"]
    now = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        now += event.nbytes()
        peak = max(peak, now)
    return peak


def test_less_memory_is_held() -> None:
    options = {"preset": "tiny", "strides": (1, 2, 2), "blocks": (3, 3, 3)}
    plain = create_model({"name": "unet"} | options, spatial_dims=3, in_channels=1, out_channels=2).train()
    again = copy.deepcopy(plain)
    recompute(again)
    assert peak_bytes(again) < 0.8 * peak_bytes(plain)
