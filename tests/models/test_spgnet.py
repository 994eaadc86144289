import torch

from medseg.models import create_model, parameters
from medseg.models.spgnet import Guidance

WIDTHS = (256, 512, 1024, 2048)


def unit(inputs, outputs, kernel=1):
    return inputs * outputs * kernel**2 + 2 * outputs


def test_weights():
    """By hand, as no count is published: two ResNets-50, of which the second has no stem; what joins them; decoders; scores.

    The paper gives the parts (figure 2: means of the image, laterals, bottlenecks, maps of both halves to the next stage by 1x1
    units as in arXiv:1901.00148); that decoders have 256 channels, and laterals no rectifier, is ours.
    """
    resnets = 2 * 23_508_032 - unit(3, 64, 7)
    joins = unit(256, 64) + sum(unit(n, n) + unit(256, n) for n in WIDTHS)
    block = unit(256, 64) + unit(64, 64, 3) + unit(64, 256)
    decoder = 2049 * 256 + sum(unit(n, 256) + block for n in WIDTHS)
    guidance, scores = 257 * 19 + 20 * 256, 257 * 19
    found = parameters("spgnet", spatial_dims=2, in_channels=3, out_channels=19)
    assert found == resnets + joins + 2 * decoder + guidance + scores == 57_189_350
    assert parameters("spgnet", aux=True, spatial_dims=2, in_channels=3, out_channels=19) == found


def test_guidance_passes_what_the_scores_say():
    part, x = Guidance(2, 3, 2), torch.randn(2, 3, 4, 5)
    for weight in part.parameters():
        torch.nn.init.zeros_(weight)
    part.weigh[0].weight.data[0, 1] = 50.0  # the first channel passes where the second class is likely, others by half
    part.scores.weight.data[1, 2] = 1.0
    weighed, scores = part(x)
    assert torch.equal(scores[:, 1], x[:, 2])
    torch.testing.assert_close(weighed[:, 1:], x[:, 1:] / 2)
    torch.testing.assert_close(weighed[:, 0], x[:, 0] * (50 * x[:, 2]).sigmoid())


def test_a_third_stage_has_scores_to_guide_it():
    options = {"preset": "tiny", "stages": 3, "aux": True}
    net = create_model("spgnet", spatial_dims=3, in_channels=1, out_channels=2, **options).train()
    found = net(torch.randn(1, 1, 33, 8, 17))
    assert found.logits.shape == (1, 2, 33, 8, 17)
    assert [level.shape for level in found.auxiliary] == [(1, 2, 9, 2, 5)] * 2
    found.logits.sum().backward()
    assert all(guide.scores.weight.grad.any() for guide in net.guides)  # guidance alone, no loss of its own
