import torch

from medseg.models import create_model, parameters


def test_weights():
    assert parameters("hrnet_ocr", spatial_dims=2, in_channels=3, out_channels=19) == 70_372_678


def test_coarse_scores_make_the_regions_with_and_without_aux():
    net = create_model("hrnet_ocr", spatial_dims=2, in_channels=1, out_channels=3, preset="tiny", aux=True, dropout=0.0)
    x = torch.randn(2, 1, 32, 24)
    output = net.train()(x)
    assert output.auxiliary[0].shape == (2, 3, 8, 6)
    net.eval()
    before = net(x)
    with torch.no_grad():
        net.regions.coarse[1].weight.mul_(-3)
    assert (net(x) - before).abs().max() > 1e-4
