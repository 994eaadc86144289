"""What of a published VGG each network on one begins with."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from medseg.models import _backbones, create_model
from medseg.transfer import matched

pytestmark = pytest.mark.usefixtures("one_thread")
SMALL: dict[str, Any] = {"width": 1 / 16, "hidden": 6}


def vgg11(bn: bool) -> dict[str, Tensor]:
    """The convolutions of torchvision's vgg11 and vgg11_bn, at a sixteenth of their width."""
    found, number, inputs = {}, 0, 3
    for width in (4, 0, 8, 0, 16, 16, 0, 32, 32, 0, 32, 32, 0):
        if not width:
            number += 1
            continue
        found[f"features.{number}.weight"] = torch.randn(width, inputs, 3, 3)
        found[f"features.{number}.bias"] = torch.randn(width)
        for part in ("weight", "bias", "running_mean", "running_var") if bn else ():
            found[f"features.{number + 1}.{part}"] = torch.rand(width)
        number, inputs = number + 2 + bn, width
    return found


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize(("name", "hidden"), [("segnet", {}), ("bayesian_segnet", {}), ("deconvnet", {"hidden": 6})])
def test_a_network_with_its_mirror_begins_with_the_published_half(name: str, hidden: Any, dims: int) -> None:
    network = create_model(name, depth=11, width=1 / 16, **hidden, spatial_dims=dims, in_channels=1, out_channels=2)
    start = matched(vgg11(bn=True), network, "a file")
    assert start.layout == "VGG"
    encoder = {name for name in network.state_dict() if name.startswith("encoder.") and "num_batches" not in name}
    assert set(start.weights) == encoder


@pytest.mark.parametrize("timm", [False, True])
@pytest.mark.parametrize(
    ("name", "options", "place"),
    [
        ("fcn", {"trunk": "vgg11", "stride": 32}, "classifier.0"),
        ("deconvnet", {"depth": 11}, "middle.0"),
        ("dilated_net", {"depth": 11}, "front.1"),
    ],
)
def test_fully_connected_layers_become_convolutions(name: str, options: Any, place: str, timm: bool) -> None:
    """Long et al. 2015, figure 2: upon a map of 7x7 the convolution gives in the middle what the layer gave."""
    network = create_model(name, **SMALL, **options, spatial_dims=2, in_channels=3, out_channels=2)
    first, bias, second = torch.randn(6, 32 * 49), torch.randn(6), torch.randn(6, 6)
    layers = {"classifier.0.weight": first, "classifier.0.bias": bias, "classifier.3.weight": second}
    if timm:
        layers = {"pre_logits.fc1.weight": first.view(6, 32, 7, 7), "pre_logits.fc1.bias": bias}
        layers["pre_logits.fc2.weight"] = second[..., None, None]
    network.load_state_dict(matched(vgg11(bn=False) | layers, network, "a file").weights, strict=False)
    one, two = (
        next(part for part in layer.modules() if isinstance(part, nn.Conv2d))
        for layer in network.get_submodule(place).children()
    )
    assert one.bias is not None
    seen = torch.randn(1, 32, 7, 7)
    upright = seen.transpose(2, 3).flip(2, 3)  # rows and columns along J and I of RAS
    found = (one.weight * upright).sum((1, 2, 3)) + one.bias
    torch.testing.assert_close(found, first @ seen.flatten() + bias, rtol=1e-4, atol=1e-4)
    assert torch.equal(two.weight[..., 0, 0], second)


def test_each_trunk_of_a_network_begins_with_the_file() -> None:
    network = nn.ModuleDict({place: _backbones.vgg(2, 3, 11, width=1 / 16) for place in "ab"})
    start = matched(vgg11(bn=False), network, "a file")
    assert start.share == 1
    assert torch.equal(start.weights["a.stages.0.0.0.weight"], start.weights["b.stages.0.0.0.weight"])


def test_a_file_of_which_few_layers_fit_is_foreign() -> None:
    """Plain VGGs have no normalisation, which SegNet's trunk has: that alone makes none foreign."""
    network = create_model("segnet", depth=11, width=1 / 16, spatial_dims=2, in_channels=1, out_channels=2)
    assert not matched(vgg11(bn=False), network, "a file").foreign
    few = dict(list(vgg11(bn=False).items())[:4]) | {f"encoder.{n}.weight": torch.zeros(3, 3) for n in range(30)}
    assert matched(few, network, "a file").foreign
