import torch

from medseg.models import create_model, parameters

STAGES = (
    (3, (128, 128)),
    (3, (256, 256)),
    (6, (512, 512)),
    (3, (512, 1024)),
    (1, (512, 1024, 2048)),
    (1, (1024, 2048, 4096)),
)


def test_weights():
    """By hand (table 1, model A): blocks of 3x3, or of 1x1, 3x3 and 1x1, behind normalisations, a projection where channels change."""
    trunk, inputs = 27 * 64, 64
    for blocks, widths in STAGES:
        trunk += inputs * widths[-1]
        for kernel, width in zip((9, 9) if len(widths) == 2 else (1, 9, 1), widths, strict=True):
            trunk += kernel * inputs * width + 2 * inputs
            inputs = width
        trunk += (blocks - 1) * sum(9 * a * b + 2 * a for a, b in ((widths[-1], widths[0]), widths[:2]))
    trunk += 2 * inputs
    one = 4096 * 21 * 9 + 21
    two = 4096 * 512 * 9 + 512 + 512 * 21 * 9 + 21
    ends = {"spatial_dims": 2, "in_channels": 3, "out_channels": 21}
    assert parameters("wide_resnet38", **ends) == trunk + two == 124_042_581
    assert parameters("wide_resnet38", preset="linear", **ends) == trunk + one


def test_the_classifier_reaches_as_far_as_its_dilation():
    net = create_model("wide_resnet38", spatial_dims=2, in_channels=1, out_channels=2, preset="tiny", rate=3).eval()
    last = torch.rand(1, net.trunk.channels[-1], 15, 15, requires_grad=True)
    (slope,) = torch.autograd.grad(net.head([last])[0, 0, 7, 7], last)
    rows = slope[0].abs().sum((0, 2)).nonzero().flatten()
    assert set(rows.tolist()) <= {1, 4, 7, 10, 13}
    assert len(rows) > 1
