"""Runs that begin with weights of others: what is taken, said, stored and refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from medseg import bundle, cli, files, models, overrides, resources
from medseg.errors import BundleError, ConfigError, DataError, RunError
from medseg.training import build
from medseg.training.study import Study, settle

pytestmark = pytest.mark.usefixtures("one_thread", "no_charts")
Make = Callable[..., Path]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, make_dataset: Make) -> Path:
    return make_dataset(tmp_path_factory.mktemp("starting") / "data")


def settled(data: Path, quick: dict[str, Any], **changes: Any) -> Study:
    user = {name: value for name, value in quick.items() if name != "model"}
    return settle(data, overrides.merge(user, overrides.named({"model": "pspnet", **changes})))[0]


def trunk_file(path: Path) -> Path:
    """A ResNet of two dimensions and three channels, under torchvision's names, for the trunk of the tiny PSPNet."""
    found = {"conv1.weight": torch.randn(4, 3, 7, 7), "fc.weight": torch.zeros(10, 32)}
    for stage in (1, 2, 3, 4):
        width, inputs = 4 * 2 ** (stage - 1), 4 * 2 ** max(0, stage - 2)
        found[f"layer{stage}.0.conv1.weight"] = torch.randn(width, inputs, 3, 3)
        found[f"layer{stage}.0.conv2.weight"] = torch.randn(width, width, 3, 3)
    torch.save(found, path)
    return path


TINY = {"name": "pspnet", "preset": "tiny"}


def upright(kernel: torch.Tensor) -> torch.Tensor:
    """Rows and columns along J and I of RAS."""
    return kernel.transpose(2, 3).flip(2, 3)


def test_a_trunk_begins_with_the_file_and_the_rest_at_random(
    data: Path, quick: dict[str, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = trunk_file(tmp_path / "resnet.pth")
    study = settled(data, quick, model=TINY, init=str(path))
    assert "ResNet weights (SHA-256 " in study.plan["init"]
    assert "9 of 10 tensors there" in study.plan["init"]
    assert str(tmp_path) not in study.plan["init"]
    weights = build.network(study).state_dict()
    stored = torch.load(path, weights_only=True)
    mean = upright(stored["layer4.0.conv2.weight"]) / 3
    assert torch.allclose(weights["trunk.stages.4.0.body.1.0.weight"], mean[..., None].expand(-1, -1, -1, -1, 3))
    centre = settled(data, quick, model=TINY, init={"from": str(path), "inflate": "centre"})
    deep = build.network(centre).state_dict()["trunk.stages.0.0.weight"]
    assert torch.allclose(deep[..., 3], upright(stored["conv1.weight"]).sum(1, keepdim=True), atol=1e-5)
    assert not deep[..., 2].any()


def test_other_weights_than_at_the_beginning_are_refused(data: Path, quick: dict[str, Any], tmp_path: Path) -> None:
    path = trunk_file(tmp_path / "resnet.pth")
    study = settled(data, quick, model=TINY, init=path)
    trunk_file(path)
    with pytest.raises(RunError, match="the weights there are not those"):
        build.network(study)


def test_a_stored_model_gives_what_fits(data: Path, quick: dict[str, Any], make_bundle: Make, tmp_path: Path) -> None:
    wide = {"name": "unet", "preset": "tiny"}
    folder = make_bundle(tmp_path / "model", model=wide)
    study = settled(data, quick, model=wide, init=str(folder))
    assert study.plan["init"].startswith("medseg weights (unet of ")
    _, (stored,) = bundle.load(folder)
    found = build.network(study).state_dict()
    assert all(torch.equal(found[name], tensor) for name, tensor in stored.items())
    with pytest.raises(BundleError, match="a part of a model"):
        settled(data, quick, model=wide, init=str(folder / "model.safetensors"))


def test_a_model_that_saw_the_held_out_cases_is_refused(
    data: Path, quick: dict[str, Any], make_bundle: Make, tmp_path: Path
) -> None:
    make_bundle(tmp_path / "run/bundle", model=TINY | {"name": "unet"})
    ids = [f"case_{n}" for n in range(4)]
    files.write_json(tmp_path / "run/splits.json", [{"train": ids, "validation": [], "held_out": []}])
    with pytest.raises(DataError, match="would be too good"):
        settled(data, quick, model={"name": "unet", "preset": "tiny"}, init=str(tmp_path / "run"))


@pytest.mark.parametrize("init", ["nowhere.pth", {"from": "x.pth", "inflate": "sum"}, {"file": "x"}])
def test_mistakes_are_said_before_cases_are_prepared(data: Path, quick: dict[str, Any], init: Any) -> None:
    with pytest.raises((BundleError, ConfigError), match=r"no file of weights|inflate|unknown option"):
        settled(data, quick, model=TINY, init=init)


def shallow(tmp_path: Path) -> list[str]:
    words = ["train.steps=3", "train.validations=1", "train.batch=2", "optim.warm_up=0", "windows=planned"]
    return [*words, "model=pspnet", "model.preset=tiny", "--init", str(trunk_file(tmp_path / "resnet.pth"))]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sample", "words"),
    [("slices", ["sample.patch=[32,32,1]"]), ("mr", ["dims=2", "sample.patch=[32,32,1]"])],
    ids=["pictures", "slices of volumes"],
)
def test_a_network_for_pictures_learns_pictures_and_slices(tmp_path: Path, sample: str, words: list[str]) -> None:
    run = tmp_path / "run"
    with pytest.raises(SystemExit) as end:
        cli.main(["train", str(resources.shipped(f"sample_data/{sample}")), "-o", str(run), *words, *shallow(tmp_path)])
    assert not end.value.code
    described = bundle.read(run / "bundle")
    assert described.spatial_dims == 2
    assert described.model["name"] == "pspnet"
    assert described.training["init"].startswith("ResNet weights (SHA-256 ")
    assert list((run / "predictions").iterdir())
    assert models.parameters("pspnet", preset="tiny", spatial_dims=2, in_channels=1, out_channels=2) < 200_000
