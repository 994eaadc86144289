"""The architectures that are MONAI's: their size, the same numbers as MONAI's own classes, and what is said without MONAI."""

import subprocess
import sys

import pytest
import torch

from medseg.errors import ConfigError
from medseg.models import _table, about, create_model, list_models, parameters
from medseg.models._monai import monai

MILLIONS = [  # as the papers give them, which do not say for how many classes
    ("med_next", "s", 1, 14, 5.6),
    ("med_next", "s5", 1, 14, 5.9),
    ("med_next", "b", 1, 14, 10.5),
    ("med_next", "m", 1, 14, 17.6),
    ("med_next", "l", 1, 14, 61.8),
    ("swin_unetr", "paper", 4, 3, 61.98),
    ("unetr", "paper", 1, 14, 92.58),
    ("high_res_net", "paper", 1, 160, 0.81),
]


@pytest.mark.parametrize(("name", "preset", "inputs", "outputs", "millions"), MILLIONS, ids=str)
def test_published_sizes(name, preset, inputs, outputs, millions):
    count = parameters(name, preset=preset, spatial_dims=3, in_channels=inputs, out_channels=outputs)
    assert f"{count:,}" in about(name).presets[preset] or preset not in ("paper", "s")
    assert count / 1e6 == pytest.approx(millions, rel=0.02)


def made(name, dims, **options):
    torch.manual_seed(0)
    return create_model(name, spatial_dims=dims, in_channels=1, out_channels=2, **options)


def image(*size):
    return torch.randn(1, 1, *size, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("dims", [2, 3])
def test_dyn_unet_is_monais(dims):
    net = made("dyn_unet", dims, preset="tiny").eval()
    theirs = monai("nets.dynunet").DynUNet(
        dims,
        1,
        2,
        [3] * 3,
        [1, 2, 2],
        [2, 2],
        filters=[4, 8, 12],
        norm_name=("instance", {"affine": True}),
        res_block=True,
    )
    theirs.load_state_dict(net.net.state_dict(), strict=False)
    x = image(*[8] * dims)
    torch.testing.assert_close(net(x), theirs.eval()(x))


@pytest.mark.parametrize("size", [(32, 32), (32, 32, 32)])
def test_unetr_is_monais_at_its_own_size(size):
    net = made("unetr", len(size), preset="tiny").eval()
    x = image(*size)
    torch.testing.assert_close(net(x), net.net.net(x))


@pytest.mark.slow
def test_swin_unetr_is_monais():
    net = made("swin_unetr", 2, preset="tiny", channels=12, heads=(3, 6, 12, 24), window=7).eval()
    theirs = monai("nets.swin_unetr").SwinUNETR(1, 2, depths=(2, 1, 1, 1), feature_size=12, spatial_dims=2).eval()
    theirs.load_state_dict(net.net.state_dict())
    x = image(64, 32)
    torch.testing.assert_close(net(x), theirs(x))


def test_coarser_scores_keep_their_resolution_and_their_place():
    net = made("med_next", 2, preset="tiny", aux=True)
    logits, auxiliary, _ = net(image(13, 6))
    assert logits.shape[2:] == (13, 6)
    assert [level.shape[2:] for level in auxiliary] == [(7, 3), (4, 2)]


def test_segresnet_ds_gives_levels_in_training():
    net = made("seg_resnet", 2, blocks=(1, 1, 1), levels=2)
    logits, auxiliary, _ = net(image(9, 8))
    assert (logits.shape[2:], auxiliary[0].shape[2:]) == ((9, 8), (5, 4))
    assert net.eval()(image(9, 8)).shape[2:] == (9, 8)


def test_scores_of_high_res_net_may_be_negative():
    assert made("high_res_net", 2, preset="tiny")(image(8, 8)).min() < 0


def test_a_path_that_dints_leaves_out_is_not_there():
    kept = ((1, 0, 0, 1), (1, 0, 0, 1))  # both resolutions, no way between them
    whole, less = (parameters("dints", spatial_dims=2, preset="tiny", **more) for more in ({}, {"paths": kept}))
    assert less < whole
    assert made("dints", 2, preset="tiny", paths=kept).eval()(image(9, 8)).shape[2:] == (9, 8)
    with pytest.raises(ConfigError, match=r"expected 2 rows of 4 in paths, got rows of \[4\]"):
        made("dints", 2, preset="tiny", paths=kept[:1])


@pytest.mark.parametrize(
    ("name", "wrong", "message"),
    [
        ("swin_unetr", {"channels": 10}, r"heads that divide the stages' channels \[10, 20, 40, 80\]"),
        ("unetr", {"heads": 7}, "hidden to be a multiple of heads, got 768 and 7"),
        ("high_res_net", {"channels": (8, 4)}, "channels that do not fall"),
        ("seg_resnet", {"levels": 2, "dropout": 0.1}, "a dropout of 0 beside levels"),
        ("dyn_unet", {"stage_strides": (2,) * 6}, "a first stride of 1, so that the size is kept, got 2"),
        ("dyn_unet", {"stage_strides": (1, 2)}, r"expected 6 item\(s\) in stage_strides"),
        ("dints", {"operations": ((4,) * 7,) * 6}, "images have 0 and 1 alone, got 4"),
    ],
    ids=str,
)
def test_wrong_options_are_one_line(name, wrong, message):
    with pytest.raises(ConfigError, match=rf"^model.*{message}.*$"):
        made(name, 2, **wrong)


def test_without_the_package_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "einops", None)
    with pytest.raises(
        ConfigError, match=r"needs einops, which is not installed\. Run: pip install 'medseg\[monai\]'$"
    ):
        made("unetr", 2)
    monkeypatch.setattr(_table, "find_spec", lambda _: None)
    monkeypatch.setattr(_table, "list_models", lambda dims: [row for row in list_models(dims) if row.needs])
    assert len(_table.overview(3).splitlines()[-1].split(": ")[1].split(", ")) == 7


def test_telling_of_them_loads_no_monai():
    code = "import sys; from medseg import models; models.list_models(); models.resolve('unetr'); sys.exit('monai' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
