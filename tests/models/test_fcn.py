import pytest
import torch

from medseg.models import create_model, parameters

FOR_21 = {"spatial_dims": 2, "in_channels": 3, "out_channels": 21}


@pytest.mark.parametrize(
    ("preset", "aux", "expected"),
    [
        ("8s", False, 134_489_759),
        ("resnet50", False, 32_957_013),
        ("resnet50", True, 35_322_218),
        ("resnet101", True, 54_314_346),
    ],
)
def test_weights(preset, aux, expected):
    assert parameters("fcn", preset=preset, aux=aux, **FOR_21) == expected


@pytest.mark.parametrize(("preset", "millions"), [("alexnet", 57), ("32s", 134)])
def test_weights_of_table_1(preset, millions):
    """The paper's interpolation to the image is fixed, so that it does not count."""
    fixed = 21 * 21 * 64 * 64
    assert round((parameters("fcn", preset=preset, **FOR_21) - fixed) / 1e6) in (millions, millions + 2)


def test_coarse_scores_are_added_to_finer_ones():
    net = create_model("fcn", spatial_dims=2, in_channels=1, out_channels=2, preset="tiny", aux=True).train()
    assert [score.in_channels for score in net.scores] == [32, 16]
    x = torch.randn(1, 1, 64, 40)
    fine, middle, coarse = net(x).auxiliary
    assert [level.shape[2:] for level in (fine, middle, coarse)] == [(8, 5), (4, 3), (2, 2)]
    for score in net.scores:
        torch.nn.init.zeros_(score.weight)
    net.eval()
    coarse = net.classifier(net.pool(net.trunk(x)[-1]))
    torch.testing.assert_close(net(x), net.ups[2](net.ups[1](net.ups[0](coarse)[..., :3])[..., :5]))
