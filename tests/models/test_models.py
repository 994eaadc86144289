"""Finding and describing models by name."""

import subprocess
import sys

import pytest
import torch

from medseg.errors import ConfigError, MedsegError
from medseg.models import check_names, create_model, names, presets, resolve

CHANNELS = {"spatial_dims": 3, "in_channels": 1, "out_channels": 2}


def test_names_load_no_torch():
    code = "import sys; from medseg import models; print(*models.names()); sys.exit('torch' in sys.modules)"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.split() == list(names())


def test_the_architectures_that_are_promised():
    assert {"unet", "vnet", "attention_unet", "fc_densenet", "fcn", "segnet", "pspnet", "deeplab_v3"} <= set(names())
    assert set(presets("unet")) == {"residual", "nnunet", "paper", "paper3d", "tiny"}
    assert set(presets("fc_densenet")) == {"103", "67", "56", "tiny"}


def test_a_description_is_complete_and_its_own_equal():
    settings = resolve({"name": "unet", "preset": "tiny", "norm": "batch"})
    assert settings["norm"] == "batch"
    assert settings["widths"] == (4, 6, 8)
    assert resolve(settings) == settings
    assert resolve("unet") == resolve({"name": "unet", "preset": "residual"})


def test_options_win_over_those_of_the_mapping():
    net = create_model({"name": "unet", "preset": "paper", "norm": "batch"}, **CHANNELS, preset="tiny", norm="none")
    assert not any("norm" in type(part).__name__.lower() for part in net.modules())
    assert sum(weight.numel() for weight in net.parameters()) < 20_000


def test_a_preset_may_be_a_number():
    assert resolve({"name": "fc_densenet", "preset": 103}) == resolve({"name": "fc_densenet", "preset": "103"})
    check_names({"name": "fc_densenet", "preset": 56})


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("unett", "unknown model 'unett'. Did you mean 'unet'?"),
        ("_blocks", "unknown model '_blocks'."),
        ("os.path", "unknown model 'os.path'."),
        ({"preset": "tiny"}, "model: needs a name, got None. Known: apc_net, attention_unet"),
        ({"name": "unet", "preset": "papr"}, "unknown preset 'papr' of model 'unet'. Did you mean 'paper'?"),
        ({"name": "unet", "width": 3}, "model.width: unknown option"),
    ],
    ids=str,
)
def test_wrong_names(model, message):
    for reject in (resolve, lambda m: create_model(m, **CHANNELS)):
        with pytest.raises(ConfigError) as error:
            reject(model)
        assert str(error.value).startswith(message)
        assert "\n" not in str(error.value)
    if isinstance(model, dict):
        with pytest.raises(ConfigError) as error:
            check_names(model)
        assert str(error.value).startswith(message)


def test_values_may_still_be_completed_when_names_are_checked():
    check_names({"name": "unet", "widths": "from the plan"})
    check_names({"name": "unet", "preset": None})


@pytest.mark.parametrize(
    ("ends", "message"),
    [({"spatial_dims": 1}, "2 or 3, got 1"), ({"in_channels": 0}, "got 0 and 2"), ({"out_channels": 0}, "got 1 and 0")],
    ids=str,
)
def test_impossible_ends(ends, message):
    with pytest.raises(ConfigError, match=message):
        create_model("unet", **CHANNELS | ends)


def test_a_model_that_no_memory_holds():
    with pytest.raises(
        MedsegError, match=r"^out of memory\. The model is too large for this machine: make it narrower"
    ):
        create_model("unet", spatial_dims=3, in_channels=1 << 40, out_channels=2, preset="tiny")


def test_a_model_of_ones_own(own_modules):
    lab = own_modules / "lab"
    lab.mkdir()
    (lab / "nets.py").write_text(
        "from torch import nn\n"
        "from medseg.settings import Settings\n"
        "class Config(Settings):\n    kernel: int = 3\n"
        "PRESETS = {'wide': Config(kernel=5)}\n"
        "def build(config, *, spatial_dims, in_channels, out_channels):\n"
        "    return nn.Conv3d(in_channels, out_channels, config.kernel, padding=config.kernel // 2)\n"
    )
    (lab / "half.py").write_text("PRESETS = {}\n")
    net = create_model({"name": "lab.nets", "preset": "wide"}, **CHANNELS, dotted=True)
    assert net(torch.zeros(1, 1, 4, 4, 4)).shape == (1, 2, 4, 4, 4)
    with pytest.raises(ConfigError, match=r"'lab\.half' lacks Config, build"):
        create_model("lab.half", **CHANNELS, dotted=True)
    with pytest.raises(ConfigError, match="cannot be imported"):
        create_model("lab.none", **CHANNELS, dotted=True)
    with pytest.raises(ConfigError, match=r"unknown model 'lab\.nets'"):
        create_model("lab.nets", **CHANNELS)


@pytest.mark.parametrize("model", [3, None, ["unet"], b"unet"])
def test_what_is_no_model_is_told(model):
    with pytest.raises(ConfigError, match=r"^model: expected a name, or names and values; got"):
        create_model(model, **CHANNELS)


@pytest.mark.parametrize(
    "wrong",
    [{"spatial_dims": 2.0}, {"spatial_dims": "2"}, {"in_channels": 1.0}, {"out_channels": None}, {"in_channels": 0}],
)
def test_ends_that_are_no_whole_numbers_are_told(wrong):
    with pytest.raises(ConfigError, match=r"^model: .*got"):
        create_model("unet", **CHANNELS | {"preset": "tiny"} | wrong)


def test_a_path_of_dots_is_no_module():
    with pytest.raises(ConfigError, match=r"^model '\.\.' cannot be imported"):
        create_model("..", dotted=True, **CHANNELS)
