import pytest
import torch

from medseg.models import create_model
from medseg.models.multires_unet import MultiRes


@pytest.mark.parametrize(("dims", "channels", "published"), [(2, 3, 7_262_750), (3, 4, 18_657_689)])
def test_weights_of_the_paper(dims, channels, published):
    """Table 2 counts as Keras does: running means and variances too. Its convolutions' normalisations have no scale, its last
    convolution no bias but a normalisation."""
    with torch.device("meta"):
        net = create_model("multires_unet", spatial_dims=dims, in_channels=channels, out_channels=1)
    kernels = sum(weight.numel() for weight in net.parameters() if weight.ndim > 1)
    ups = sum(part.bias.numel() for part in net.ups)
    norms = {name: part.num_features for name, part in net.named_modules() if hasattr(part, "running_mean")}
    scaled = sum(width for name, width in norms.items() if name.endswith((".end", ".together")))
    assert kernels + ups + 3 * (sum(norms.values()) + 1) + scaled == published


def test_channels_of_the_stages():
    """A sixth, a third and a half of 1.67 times the level's width, each rounded down: 51, 105, 212, 426, 853."""
    with torch.device("meta"):
        net = create_model("multires_unet", spatial_dims=2, in_channels=3, out_channels=1)
    assert [stage[-1].end.num_features for stage in net.encoder] == [51, 105, 212, 426, 853]
    assert [len(path) for path in net.skips] == [1, 2, 3, 4]


@pytest.mark.parametrize(("part", "reach"), [(0, 3), (1, 5), (2, 7)])
def test_the_three_convolutions_see_3_5_and_7_voxels(part, reach):
    block = MultiRes(2, 1, (1, 1, 1), 3, "none").double()
    image = torch.rand(1, 1, 15, 15, dtype=torch.float64, requires_grad=True)
    x = image
    for conv in block.convs[: part + 1]:
        torch.nn.init.uniform_(conv[0].weight)
        x = conv(x)
    (slope,) = torch.autograd.grad(x[0, 0, 7, 7], image)
    assert int((slope[0, 0].abs().sum(1) > 0).sum()) == reach
