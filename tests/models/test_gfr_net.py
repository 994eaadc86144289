import torch
from torch import nn

from medseg.models import Output, create_model
from medseg.models.gfr_net import Refine


def test_weights_of_the_authors_layers(count):
    """VGG-16 with normalisation, 3x3 convolutions of 512 to 1024 to 1024, and a few of as many channels as classes."""
    trunk, running = 14_714_688, 2 * (2 * 64 + 2 * 128 + 3 * 256 + 6 * 512)
    bottom = 9 * (512 * 1024 + 1024 * 1024) + 2 * 2 * 1024
    classes = 11
    first = 9 * 1024 * classes + classes
    features = sum(9 * n * classes + classes for n in (64, 128, 256, 512, 512, 512)) + 5 * 2 * classes
    refine = 5 * (9 * 2 * classes * classes + classes + 2 * classes)
    assert count("gfr_net", "vgg16", 2, 3, classes) == trunk + running + bottom + first + features + refine


def test_a_closed_gate_leaves_the_coarse_scores():
    step = Refine(2, 3, "none")
    fine, coarse, scores = torch.rand(1, 3, 6, 6), torch.zeros(1, 3, 3, 3), torch.rand(1, 3, 3, 3)
    before = step(fine, coarse, scores)
    assert torch.equal(step(7 * fine, coarse, scores), before)
    assert not torch.equal(step(7 * fine, coarse + 1, scores), before)


def test_scores_from_coarse_to_fine():
    net = create_model("gfr_net", spatial_dims=2, in_channels=1, out_channels=4, preset="tiny")
    output = net.train()(torch.rand(2, 1, 33, 32))
    assert isinstance(output, Output)
    sizes = [tuple(level.shape[2:]) for level in output.auxiliary]
    assert sizes == [(17, 16), (9, 8), (5, 4), (3, 2), (2, 1)]
    assert not any(isinstance(part, nn.ReLU) for feature in net.features for part in feature.modules())
