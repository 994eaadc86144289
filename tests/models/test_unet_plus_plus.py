import pytest
import torch

from medseg.errors import ConfigError
from medseg.models import Output, create_model


def make(**options):
    torch.manual_seed(0)
    return create_model("unet_plus_plus", spatial_dims=2, in_channels=1, out_channels=2, preset="tiny", **options)


def test_weights_of_the_paper(count):
    assert count("unet_plus_plus", "paper", 2, 3, 1) == 9_042_276


def test_a_stage_sees_all_before_it_at_its_level():
    with torch.device("meta"):
        net = create_model("unet_plus_plus", spatial_dims=2, in_channels=3, out_channels=1)
    seen = [[stage[0].in_channels for stage in step] for step in net.stages]
    assert seen == [[64, 128, 256, 512], [96, 192, 384], [128, 256], [160]]


def test_what_is_predicted_is_the_mean_of_all_answers():
    net, x = make(), torch.rand(1, 1, 9, 11)
    output = net.train()(x)
    assert isinstance(output, Output)
    assert [level.shape for level in output.auxiliary] == [(1, 2, 9, 11)]
    torch.testing.assert_close(net.eval()(x), (output.logits + output.auxiliary[0]) / 2)


def test_without_supervision_the_deepest_answers_alone():
    net = make(deep_supervision=False)
    assert len(net.heads) == 1
    assert isinstance(net.train()(torch.rand(1, 1, 8, 8)), torch.Tensor)


def test_a_pruned_network_leaves_the_coarse_stages_out():
    whole, pruned, x = make(), make(pruned=1).eval(), torch.rand(1, 1, 8, 8)
    pruned.load_state_dict(whole.state_dict())
    ran = []
    for stage in pruned.encoder:
        stage.register_forward_hook(lambda part, *_: ran.append(part))
    shallow = whole.train()(x).auxiliary[0]
    torch.testing.assert_close(pruned(x), shallow)
    assert ran == list(pruned.encoder[:2])


@pytest.mark.parametrize("options", [{"pruned": 3}, {"pruned": 1, "deep_supervision": False}], ids=str)
def test_what_cannot_be_pruned(options):
    with pytest.raises(ConfigError, match=r"pruned: expected \d at most"):
        make(**options)
