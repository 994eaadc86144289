import torch

from medseg.models import create_model, parameters


def exit_of(channels, classes):
    return channels * channels // 4 * 9 + channels // 2 + (channels // 4 + 1) * classes


def test_weights():
    """Derived: the trunk, and at each exit a 3x3 unit of a quarter of the channels and scores."""
    found = parameters("layer_cascade", preset="resnet101", spatial_dims=2, in_channels=3, out_channels=21)
    assert found == 42_500_160 + sum(exit_of(channels, 21) for channels in (512, 1024, 2048))


def made(certainty):
    torch.manual_seed(0)
    return create_model(
        "layer_cascade", spatial_dims=2, in_channels=1, out_channels=2, preset="tiny", certainty=certainty, dropout=0
    ).train()


def test_what_the_first_exit_settles_stays():
    """Everything is sure enough for a certainty below one half, nothing for one of 1."""
    x = torch.randn(2, 1, 16, 16)
    _, (first, second), _ = made(0.1)(x)
    assert torch.equal(first, second)
    _, (first, second), _ = made(1.0)(x)
    assert not torch.isclose(first, second).any()
