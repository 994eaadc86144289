"""What is exported computes what torch does, describes itself, and is written whole or not at all."""

from __future__ import annotations

import json
import logging
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import medseg
from medseg import api, bundle, files, io, models, runner
from medseg.bundle import Bundle
from medseg.bundle.runtimes import Exported
from medseg.errors import BundleError, ConfigError, DataError, MedsegError
from medseg.inference.windows import Config as Inference
from medseg.labels import Labels
from medseg.predictor import Predictor
from medseg.preprocess import Config as Preprocess
from medseg.preprocess import Intensity
from medseg.volume import Geometry, Volume

for package in ("onnx", "onnxruntime", "onnxscript"):
    pytest.importorskip(package, reason="the extra `onnx` is not installed")

Make = Callable[..., Path]
RUNTIMES = ("onnx", "openvino")


def stored(
    folder: Path, name: str = "vnet", dims: int = 3, *, members: int = 1, channels: int = 2, **changes: Any
) -> Path:
    """A bundle of random weights."""
    model = models.resolve({"name": name, "preset": "tiny"})
    described = Bundle(
        name="random",
        model=model,
        spatial_dims=dims,  # type: ignore[arg-type]
        channels=("T1", "T2")[:channels],
        labels=Labels.of({"a": 1, "b": 2}),
        preprocess=Preprocess(intensity=(Intensity(),) * channels),
        inference=Inference(window=(11, 12, 8 if dims == 3 else 1), batch=3),
        precision="bf16",
        scores={"inner_dice": 0.8},
    )
    networks = []
    for seed in range(members):
        torch.manual_seed(seed)
        networks.append(models.create_model(model, spatial_dims=dims, in_channels=channels, out_channels=3).train())
        networks[-1](torch.randn(2, channels, *(16, 16, 16)[:dims]))  # running figures of batch norm are not 0 and 1
    bundle.save(folder, described.model_copy(update=changes), [network.state_dict() for network in networks])
    return folder


def scan(channels: int = 2) -> Volume:
    array = np.random.default_rng(0).normal(size=(channels, 19, 15, 13)).astype(np.float32)
    return Volume(array, Geometry((19, 15, 13), np.eye(4)))


def logits(network: Callable[[Tensor], Tensor], *shape: int) -> Tensor:
    """Of three windows of random values, other ones than those of the export."""
    with torch.inference_mode():
        return network(torch.randn(3, *shape, generator=torch.Generator().manual_seed(7)))


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """An ensemble of two, and what it was exported to; nobody may change them."""
    root = tmp_path_factory.mktemp("pair")
    source = stored(root / "run" / "bundle", members=2)
    return source, api.export(root / "run", root / "onnx")


@pytest.mark.zoo
@pytest.mark.parametrize("name", models.names())
@pytest.mark.parametrize("dims", [2, 3])
def test_every_architecture_computes_the_same(tmp_path: Path, name: str, dims: int) -> None:
    """At sizes that no stride divides, with figures of batch norm that are not those of a new network."""
    source, shape = stored(tmp_path / "bundle", name, dims), (2, 11, 12, 8)[: dims + 1]
    whole = Predictor(source, device="cpu", precision="fp32").networks[0]
    if "ONNX" in models.about(name).without:
        with pytest.raises(MedsegError):
            api.export(source, tmp_path / "onnx")
        return
    path = api.export(source, tmp_path / "onnx") / "model.onnx"
    expected = logits(whole, *shape)
    assert expected.std() > 1e-4
    torch.testing.assert_close(logits(Exported(path, "onnx"), *shape), expected, rtol=0, atol=1e-4)
    assert str(Path.cwd()).encode() not in path.read_bytes(), "paths may name people"
    assert b".py" not in path.read_bytes()
    pytest.importorskip("openvino", reason="the extra `openvino` is not installed")
    torch.testing.assert_close(logits(Exported(path, "openvino"), *shape), expected, rtol=0, atol=1e-4)


def test_the_folder_describes_itself(pair: tuple[Path, Path]) -> None:
    source, folder = pair
    names = {"README.md", "config.json", "model_0.onnx", "model_1.onnx", "runner.py"}
    assert {path.name for path in folder.iterdir()} == names
    before, after = bundle.read(source), bundle.read(folder)
    kept = ("name", "model", "spatial_dims", "channels", "labels", "preprocess", "inference", "postprocess", "scores")
    for name in kept:
        assert getattr(before, name) == getattr(after, name), name
    assert (after.runtime, after.precision, after.members) == ("onnx", "fp32", 2)
    assert after.weights == {name: files.sha256(folder / name) for name in ("model_0.onnx", "model_1.onnx")}
    assert after.versions.keys() == {"python", "medseg", "torch", "onnxruntime"}
    card = (folder / "README.md").read_text()
    for words in ("Research use only", "python runner.py THIS_FOLDER", "medseg predict THIS_FOLDER", "2 members"):
        assert words in card
    assert (folder / "runner.py").read_text() == Path(runner.__file__).read_text()


def test_prediction_takes_it_like_any_model(pair: tuple[Path, Path], tmp_path: Path) -> None:
    source, folder = pair
    whole = Predictor(source, device="cpu", precision="fp32", mirrors=True)
    expected, found = (p(scan(), probabilities=True) for p in (whole, medseg.load(folder, tta=True)))
    np.testing.assert_allclose(found.probabilities.array, expected.probabilities.array, atol=1e-4)
    assert (found.mask.array == expected.mask.array).mean() > 0.999
    io.write(scan(), tmp_path / "scan.nii.gz")
    (outcome,) = api.predict(folder, tmp_path / "scan.nii.gz", tmp_path / "masks")
    np.testing.assert_array_equal(io.read(outcome.mask).array, found.mask.array)


def test_openvino(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    pytest.importorskip("openvino", reason="the extra `openvino` is not installed")
    source = stored(tmp_path / "bundle", channels=1)
    with caplog.at_level(logging.INFO, "medseg"):
        folder = api.export(source, tmp_path / "openvino", to="openvino")
    assert {path.name for path in folder.iterdir()} == {
        "README.md",
        "config.json",
        "model.bin",
        "model.xml",
        "runner.py",
    }
    assert bundle.read(folder).members == 1
    assert str(tmp_path) not in (folder / "model.xml").read_text()
    whole, exported = Predictor(source, device="cpu", precision="fp32"), Predictor(folder)
    torch.testing.assert_close(*(logits(p.ensemble, 1, 11, 12, 8) for p in (whole, exported)), rtol=0, atol=1e-4)
    assert "model: logits of random values within" in caplog.text
    (folder / "model.bin").write_bytes((folder / "model.bin").read_bytes()[:-1] + b"x")
    with pytest.raises(BundleError, match=r"'model\.bin' is not the file that was saved"):
        Predictor(folder)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_eight_bits(tmp_path: Path, make_dataset: Make, caplog: pytest.LogCaptureFixture, runtime: str) -> None:
    pytest.importorskip({"onnx": "onnxruntime"}.get(runtime, runtime), reason="an extra is not installed")
    data = make_dataset(tmp_path / "data", cases=5)
    source = stored(tmp_path / "bundle", channels=1)
    with caplog.at_level(logging.INFO, "medseg"):
        folder = api.export(source, tmp_path / "int8", to=runtime, int8=data)
    described = bundle.read(folder)
    found = described.scores["int8"]
    assert described.precision == "int8"
    assert described.scores["inner_dice"] == 0.8
    assert f"{found['fp32_dice']:.4f} in fp32, {found['dice']:.4f} in int8" in caplog.text
    assert "int8: dice" in (folder / "README.md").read_text()
    whole, rounded = (p.ensemble for p in (Predictor(source, device="cpu", precision="fp32"), Predictor(folder)))
    expected, answer = (logits(p, 1, 11, 12, 8) for p in (whole, rounded))
    assert 1e-4 < (answer - expected).abs().max() < 0.2 * expected.abs().max()
    assert (answer.argmax(1) == expected.argmax(1)).float().mean() > 0.9


@pytest.mark.parametrize("how", ["fp16", "int8"])
@pytest.mark.parametrize(
    "name", ["vnet", "attention_unet"]
)  # without normalisation, and with one that prediction merges
def test_smaller_weights(tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str, how: str) -> None:
    source = stored(tmp_path / "bundle", name, members=2)
    with caplog.at_level(logging.INFO, "medseg"):
        folder = api.export(source, tmp_path / how, to="bundle", weights=how)
    described = bundle.read(folder)
    assert (described.stored, described.runtime, described.precision, described.members) == (how, "torch", "bf16", 2)
    assert " MB -> " in caplog.text
    whole, small = (Predictor(path, device="cpu", precision="fp32") for path in (source, folder))
    assert {p.dtype for network in small.networks for p in network.parameters()} == {torch.float32}
    expected, answer = (logits(p.ensemble, 2, 11, 12, 8) for p in (whole, small))
    assert 0 < (answer - expected).abs().max() < {"fp16": 0.01, "int8": 0.1}[how] * expected.abs().max()


OWN = """
from torch import nn
from medseg.settings import Settings

class Config(Settings):
    width: int = 3

PRESETS = {}

def build(config, *, spatial_dims, in_channels, out_channels):
    return nn.Sequential(nn.Conv3d(in_channels, config.width, 3, padding=1), nn.ReLU(), nn.Conv3d(config.width, out_channels, 1))
"""


def test_a_users_own_module_is_needed_once_and_no_more(
    tmp_path: Path, own_modules: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (own_modules / "lab").mkdir()
    (own_modules / "lab" / "nets.py").write_text(OWN)
    network = models.create_model("lab.nets", spatial_dims=3, in_channels=1, out_channels=3, dotted=True)
    source = stored(tmp_path / "bundle", channels=1)
    bundle.save(
        source,
        bundle.read(source).model_copy(update={"model": {"name": "lab.nets", "width": 3}}),
        [network.state_dict()],
    )
    with pytest.raises(BundleError, match=r"own module 'lab\.nets'.*medseg\.load\(FOLDER.*alike in medseg\.export"):
        api.export(source, tmp_path / "onnx")
    api.export(source, tmp_path / "onnx", module="lab.nets")
    with monkeypatch.context() as patched:  # undone here: later, it would bring back what the fixture has forgotten
        patched.setitem(sys.modules, "lab.nets", None)
        exported = logits(Predictor(tmp_path / "onnx").ensemble, 1, 11, 12, 8)
    torch.testing.assert_close(exported, logits(network, 1, 11, 12, 8), rtol=0, atol=1e-4)
    card = (tmp_path / "onnx/README.md").read_text()
    assert "medseg predict THIS_FOLDER" in card
    assert "own module" not in card


class Unwritable(nn.Module):
    """Asks a value what to do, which no graph can hold."""

    def forward(self, x: Tensor) -> Tensor:
        return x if x.sum().item() > 0 else -x


def test_a_module_that_cannot_be_written_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = stored(tmp_path / "bundle")
    monkeypatch.setattr(Predictor, "networks", [Unwritable()])
    with pytest.raises(BundleError, match=r"^the network cannot be written as ONNX \(") as caught:
        api.export(source, tmp_path / "onnx")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "onnx").exists()


@pytest.mark.parametrize("answer", [lambda x: x + 1e-3, lambda x: x * float("nan")])
def test_what_computes_something_else_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: Callable[[Tensor], Tensor]
) -> None:
    computes = Exported.forward
    monkeypatch.setattr(Exported, "forward", lambda self, x: answer(computes(self, x)))
    with pytest.raises(
        BundleError, match=r"logits are (0\.001|nan) from torch's, and .* is allowed: nothing was written"
    ):
        api.export(stored(tmp_path / "bundle"), tmp_path / "onnx")
    assert not (tmp_path / "onnx").exists()


# What is refused.


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"to": "onxx"}, "export.to: expected 'onnx', 'openvino' or 'bundle', got 'onxx'"),
        (
            {"to": "bundle"},
            "export: a bundle is written anew for smaller weights: add --weights fp16 or --weights int8",
        ),
        ({"to": "bundle", "weights": "int4"}, "export.weights: expected 'fp16' or 'int8', got 'int4'"),
        ({"to": "bundle", "int8": "data"}, "export: a bundle computes in float32"),
        (
            {"weights": "fp16"},
            "export: weights are those of a bundle (--to bundle); onnx computes in 8 bits with --int8 DATA",
        ),
    ],
)
def test_options_that_do_not_go_together(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        api.export(tmp_path / "bundle", tmp_path / "out", **options)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_nothing_is_written_over(pair: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    for out in (tmp_path, tmp_path / "notes.txt"):
        with pytest.raises(DataError, match=r"holds files already\. Name a new or an empty folder"):
            api.export(pair[0], out)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_two_stages_are_not_exported(make_bundle: Make, tmp_path: Path) -> None:
    """A runner knows of one network, and half of such a model would look at whole scans."""
    make_bundle(tmp_path / "two/locator")
    two = make_bundle(tmp_path / "two", locate={"margin_mm": 20.0})
    for options in ({}, {"to": "openvino"}, {"to": "bundle", "weights": "fp16"}):
        with pytest.raises(
            BundleError, match=r"has two stages.* Predict with its bundle, or train one stage"
        ) as caught:
            api.export(two, tmp_path / "out", **options)
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_an_export_is_not_exported_again(pair: tuple[Path, Path], tmp_path: Path) -> None:
    for options in ({}, {"to": "openvino"}, {"to": "bundle", "weights": "fp16"}):
        with pytest.raises(BundleError, match=r"exported to onnx already\. Export the bundle that it was made from"):
            api.export(pair[1], tmp_path / "again", **options)


def test_an_export_has_no_weights_to_load(pair: tuple[Path, Path]) -> None:
    with pytest.raises(BundleError, match="was exported to onnx"):
        bundle.load(pair[1])


def test_an_export_computes_on_the_cpu(pair: tuple[Path, Path]) -> None:
    assert Predictor(pair[1]).ensemble.device.type == "cpu"
    with pytest.raises(
        DataError, match="exported to onnx, which computes on the CPU: leave the device out, got 'cuda'"
    ):
        Predictor(pair[1], device="cuda")


@pytest.mark.parametrize("what", ["changed", "missing"])
def test_damage_is_noticed(pair: tuple[Path, Path], tmp_path: Path, what: str) -> None:
    folder = Path(shutil.copytree(pair[1], tmp_path / "model"))
    data = bytearray((folder / "model_1.onnx").read_bytes())
    data[len(data) // 2] ^= 1
    (folder / "model_1.onnx").unlink() if what == "missing" else (folder / "model_1.onnx").write_bytes(data)
    with pytest.raises(
        BundleError, match=r"lacks 'model_1\.onnx'" if what == "missing" else r"'model_1\.onnx' is not the file"
    ):
        Predictor(folder)


@pytest.mark.parametrize("name", ["onnxscript", "onnx", "onnxruntime", "openvino"])
def test_a_missing_package_is_named_with_its_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    runtime = "openvino" if name == "openvino" else "onnx"
    with pytest.raises(MedsegError, match=rf"exporting to {runtime} needs {name}, .*pip install 'medseg\[{runtime}\]'"):
        api.export(stored(tmp_path / "bundle"), tmp_path / "out", to=runtime)
    assert not (tmp_path / "out").exists()


def test_bundles_of_before_are_bundles_of_torch(tmp_path: Path) -> None:
    folder = stored(tmp_path / "bundle")
    content = json.loads((folder / "config.json").read_text())
    for name in ("checksum", "runtime", "stored"):
        del content[name]
    (folder / "config.json").write_text(json.dumps(content))
    assert (bundle.read(folder).runtime, bundle.read(folder).stored) == ("torch", "fp32")
    Predictor(folder, device="cpu")
