from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from medseg import bundle as bundles
from medseg import models
from medseg.errors import ConfigError
from medseg.inference.windows import Config as Inference
from medseg.labels import Labels
from medseg.preprocess import Config as Preprocess
from medseg.transfer import prune
from medseg.transfer.channels import follow
from medseg.transfer.lineage import Ancestor

pytestmark = pytest.mark.usefixtures("one_thread")
UNET: dict[str, Any] = {
    "name": "unet",
    "widths": (16, 24, 40),
    "strides": (2, 2, 2),
    "kernels": (3,) * 3,
    "blocks": (1,) * 3,
    "full_width": 16,
}
PLAIN = {"block": "plain", "downsample": "pool", "activation": "relu", "bias": True, "deep_supervision": False}
# Every way in which the architectures that can be pruned join channels.
PRUNABLE: dict[str, dict[str, Any]] = {
    "unet": UNET,
    "unet, equal widths and more units": UNET | {"widths": (16, 24, 24), "blocks": (2, 1, 2), "decoder_blocks": 2},
    "unet, batch norm": UNET | {"norm": "batch", "strides": (1, 2, 2)},
    "unet, no norm": UNET | {"norm": "none"},
    "unet, 2015": UNET | PLAIN | {"norm": "none", "strides": (1, 2, 2), "blocks": (2,) * 3, "decoder_blocks": 2},
    "unet, 2016": UNET
    | PLAIN
    | {"norm": "batch", "strides": (1, 2, 2), "blocks": (2,) * 3, "narrow_first": True, "up_keeps_width": True},
    "attention_unet": {"name": "attention_unet", "widths": (16, 24, 40), "strides": (2, 2)},
    "fc_densenet": {"name": "fc_densenet", "first": 24, "growth": 16, "blocks": (1, 2, 2), "strides": (2, 2)},
}
every_kind = pytest.mark.parametrize("model", PRUNABLE.values(), ids=list(PRUNABLE))


def network(model: Mapping[str, Any], dims: int = 2, channels: int = 2) -> nn.Module:
    """With weights, biases and running figures that are all different from what they begin with."""
    torch.manual_seed(0)
    made = models.create_model(model, spatial_dims=dims, in_channels=channels, out_channels=3).eval()
    for tensor in made.state_dict().values():
        if tensor.ndim == 1:
            tensor.copy_(torch.rand(tensor.shape) + 0.5)
    return made


def ancestor(model: Mapping[str, Any], weights: Mapping[str, Tensor], dims: int = 2, channels: int = 2) -> Ancestor:
    described = bundles.Bundle(
        name="phantoms",
        model=models.resolve(model),
        spatial_dims=dims,  # type: ignore[arg-type]
        channels=("MR",) * channels,
        labels=Labels.of([1, 2]),
        preprocess=Preprocess(),
        inference=Inference(window=(16, 16, 1)),
    )
    return Ancestor("prune.from", described, [weights], None)


def pruned(wide: nn.Module, model: Mapping[str, Any], keep: float, dims: int = 2, channels: int = 2) -> nn.Module:
    """The narrower network, with weights that it takes strictly."""
    described = prune.narrowed(models.resolve(model), keep)
    narrow = models.create_model(described, spatial_dims=dims, in_channels=channels, out_channels=3).eval()
    narrow.load_state_dict(prune.start(ancestor(model, wide.state_dict(), dims, channels), described))
    return narrow


def image(dims: int = 2, channels: int = 2) -> Tensor:
    return torch.randn(2, channels, *(18, 21, 16)[:dims], generator=torch.Generator().manual_seed(1))


# --- widths


@pytest.mark.parametrize(
    ("widths", "keep", "expected"),
    [
        ((24, 48, 96, 192), 0.5, (16, 24, 48, 96)),
        ((24, 48, 96, 192), 0.25, (8, 16, 24, 48)),
        ((24, 48, 96, 192), 1.0, (24, 48, 96, 192)),
        ((4, 8, 12), 0.1, (4, 8, 8)),  # never more than there were
        ((4, 12, 20), 1.0, (4, 12, 20)),
    ],
)
def test_widths_are_multiples_of_8(widths: tuple[int, ...], keep: float, expected: tuple[int, ...]) -> None:
    model = models.resolve({"name": "attention_unet", "widths": widths, "strides": (2,) * (len(widths) - 1)})
    assert prune.narrowed(model, keep) == model | {"widths": expected}


def test_all_that_counts_channels_becomes_smaller_and_nothing_else() -> None:
    model = models.resolve(UNET | {"widths": (32, 64, 96)})
    assert prune.narrowed(model, 0.5) == model | {"widths": (16, 32, 48), "full_width": 8}
    dense = models.resolve({"name": "fc_densenet", "preset": "103"})
    assert prune.narrowed(dense, 0.5) == dense | {"first": 24, "growth": 8}


# --- weights


@every_kind
@pytest.mark.parametrize("dims", [2, 3])
def test_all_channels_kept_is_the_same_network(model: dict[str, Any], dims: int) -> None:
    wide = network(model, dims)
    narrow = pruned(wide, model, 1.0, dims)
    assert narrow.state_dict().keys() == wide.state_dict().keys()
    assert all(torch.equal(narrow.state_dict()[name], tensor) for name, tensor in wide.state_dict().items())


@every_kind
def test_channels_that_are_zero_are_not_missed(model: dict[str, Any]) -> None:
    """Where just so many channels live as stay, and these lie anywhere, no logit changes."""
    wide = network(model)
    described = prune.narrowed(models.resolve(model), 0.5)
    with torch.device("meta"):
        empty = models.create_model(model, spatial_dims=2, in_channels=2, out_channels=3).train()
        room = models.create_model(described, spatial_dims=2, in_channels=2, out_channels=3).state_dict()
        uses = follow(empty, torch.empty(1, 2, 64, 64))
    count = {run.head: room[name].shape[axis] for name, axis, (run, *_), role in uses if role == "makes"}
    chance = torch.Generator().manual_seed(2)
    dead = {run: torch.randperm(run.size, generator=chance)[kept:] for run, kept in count.items()}
    for name, axis, runs, role in uses:
        if role != "reads":
            start = 0
            for run in runs:
                places = start + dead[run.head]
                wide.state_dict()[name].index_fill_(axis, places, 0.0)
                start += run.size
    narrow, half = pruned(wide, model, 0.5), sum(t.numel() for t in wide.state_dict().values()) / 2
    assert sum(tensor.numel() for tensor in narrow.state_dict().values()) < half
    with torch.no_grad():
        before, after = wide(image()), narrow(image())
    assert before.std() > 0.01
    assert torch.allclose(before, after, atol=1e-4 * float(before.abs().max()))


@every_kind
def test_a_narrower_network_learns(model: dict[str, Any]) -> None:
    narrow = pruned(network(model), model, 0.5).train()
    output = narrow(image())
    getattr(output, "logits", output).square().mean().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in narrow.parameters())


# --- which channels are strong: of 16, 8 stay


def stay(model: dict[str, Any], marks: str, changes: Mapping[str, Any]) -> set[int]:
    """Which channels stay, by the values of a tensor that has one for each."""
    weights = network(model, channels=1).state_dict()
    for name, values in changes.items():
        weights[name].copy_(torch.tensor(values).view(-1, *[1] * (weights[name].ndim - 1)).expand_as(weights[name]))
    weights[marks] += torch.arange(16.0) * 1e-3
    narrow = prune.start(ancestor(model, weights, channels=1), prune.narrowed(models.resolve(model), 0.5))[marks]
    assert len(narrow) == 8
    return {n for n in range(16) if weights[marks][n] in narrow}


def ones(*places: int) -> list[float]:
    return [float(n in places) for n in range(16)]


def test_filters_count_by_their_size_where_nothing_normalises() -> None:
    """Li et al. 2017; a bias belongs to its filter."""
    model, bias = UNET | PLAIN | {"norm": "none", "strides": (1, 2, 2)}, "encoder.0.0.0.bias"
    sizes = {"encoder.0.0.0.weight": [1.0, -9, 2, -8, 3, -7, 4, -6] * 2, bias: ones()}
    assert stay(model, bias, sizes) == {1, 3, 5, 7, 9, 11, 13, 15}
    assert stay(model, bias, sizes | {bias: [100 * x for x in ones(0, 2)]}) > {0, 1, 2, 3}


def test_scale_and_shift_count_where_something_normalises() -> None:
    """Liu et al. 2017; the filter's own size is normalised away."""
    model = UNET | PLAIN | {"norm": "batch", "strides": (1, 2, 2)}
    filters, scale, shift = "encoder.0.0.0.weight", "encoder.0.0.1.weight", "encoder.0.0.1.bias"
    changes = {filters: range(16), scale: ones(0, 1, 2, 3), shift: [-2 * x for x in ones(4, 5, 6, 15)]}
    assert stay(model, scale, changes) == {0, 1, 2, 3, 4, 5, 6, 15}


def test_channels_that_are_summed_are_judged_together() -> None:
    """A unit's convolutions and the way past them: channel 4 is weak in both, 5 and 6 are strong in one."""
    model, last, past = UNET | {"strides": (1, 2, 2)}, "encoder.0.0.body.4", "encoder.0.0.past.1"
    changes = {
        f"{last}.weight": [3 * x for x in ones(0, 1, 2, 5)],
        f"{past}.weight": [3 * x for x in ones(0, 1, 3, 6)],
        f"{last}.bias": [0.1] * 16,
        f"{past}.bias": [2 * x for x in ones(7, 8)],
    }
    for marks in (f"{last}.bias", f"{past}.weight"):
        assert stay(model, marks, changes) == {0, 1, 2, 3, 5, 6, 7, 8}


# --- what is refused


@pytest.mark.parametrize(
    ("model", "keep", "expected"),
    [
        ({"name": "vnet", "widths": (16, 24, 32), "convs": (1, 2, 2), "strides": (2, 2), "kernel": 3}, 0.5, "prune.from: a 'vnet' cannot be made narrower: its channels cannot be followed"),
        (UNET | {"widths": (16, 24, 40)}, 0.3, "prune.keep: layers would be gone where one width becomes equal to the next"),
    ],
)  # fmt: skip
def test_refusals_are_one_line(model: dict[str, Any], keep: float, expected: str) -> None:
    whole = models.resolve(model)
    with pytest.raises(ConfigError) as caught:
        prune.start(ancestor(model, network(model).state_dict()), prune.narrowed(whole, keep))
    assert str(caught.value).startswith(expected)
    assert "\n" not in str(caught.value)


def test_an_architecture_without_widths_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"a 'stone' has no widths.*distill\.from"):
        prune.narrowed({"name": "stone", "depth": 3}, 0.5)


def test_an_ensemble_is_refused() -> None:
    both = ancestor(UNET, network(UNET).state_dict())
    both = Ancestor(both.setting, both.bundle, [*both.members] * 2, None)
    with pytest.raises(ConfigError, match=r"prune\.from: that model is an ensemble of 2\. Name one of them"):
        prune.start(both, prune.narrowed(both.bundle.model, 0.5))


@pytest.mark.parametrize("name", models.names())
@pytest.mark.parametrize("dims", [2, 3])
def test_every_listed_architecture_is_made_narrower_or_refused(name: str, dims: int) -> None:
    model = models.resolve({"name": name, "preset": "tiny"})
    said = ""
    try:
        assert pruned(network(model, dims), model, 0.5, dims)(image(dims)).shape == (2, 3, *image(dims).shape[2:])
    except ConfigError as error:
        said = str(error)
    assert not said or "can be distilled (distill.from)" in said  # what else there is
