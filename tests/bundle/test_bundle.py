from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from medseg import bundle, files
from medseg.bundle import Bundle
from medseg.errors import BundleError, DataError
from medseg.inference.windows import Config as Inference
from medseg.labels import Labels
from medseg.postprocess import Config as Postprocess
from medseg.predictor import Predictor
from medseg.preprocess import Config as Preprocess
from medseg.volume import Geometry, Volume

STORED = Path(__file__).parent / "bundle_format_1"
DESCRIBED = Bundle(
    name="livers",
    model={"name": "unet", "widths": (4, 8)},
    spatial_dims=3,
    channels=("CT", "PET"),
    labels=Labels.of({"liver": 1, "tumour": [2, 3]}),
    preprocess=Preprocess(spacing_mm=(1.0, 1.0, None)),
    inference=Inference(window=(8, 8, 4), mirror_axes=(0, 2)),
    postprocess=Postprocess(minimum_ml={"tumour": 0.5}),
    scores={"inner_dice": 0.876543, "held_out": {"liver": 0.9, "tumour": float("nan")}},
    training={"cases": 12, "loss": "dice_ce"},
)


def weights(seed: int = 0) -> dict[str, torch.Tensor]:
    random = torch.Generator().manual_seed(seed)
    return {"a.weight": torch.randn(3, 4, generator=random), "steps": torch.tensor(7), "h": torch.ones(2).bfloat16()}


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    bundle.save(tmp_path / "bundle", DESCRIBED, [weights()])
    return tmp_path / "bundle"


def changed(folder: Path, change: Callable[[dict[str, Any]], Any], *, keep: bool = False) -> None:
    """Write another description, with the checksum of the old one or, as in the first bundles, without any."""
    content = json.loads((folder / "config.json").read_text())
    if not keep:
        del content["checksum"]
    change(content)
    (folder / "config.json").write_text(json.dumps(content))


@pytest.mark.parametrize("members", [1, 3])
def test_what_is_saved_is_loaded(tmp_path: Path, members: int) -> None:
    saved = [weights(seed) for seed in range(members)]
    whole = bundle.save(tmp_path, DESCRIBED, saved)
    described, loaded = bundle.load(tmp_path)
    assert len(loaded) == members
    for before, after in zip(saved, loaded, strict=True):
        assert before.keys() == after.keys()
        for name in before:
            assert before[name].dtype == after[name].dtype
            torch.testing.assert_close(before[name], after[name], rtol=0, atol=0)
    for name in ("name", "spatial_dims", "channels", "labels", "preprocess", "inference", "postprocess", "training"):
        assert getattr(described, name) == getattr(DESCRIBED, name), name
    assert described.weights == whole.weights
    assert described.versions.keys() == {"medseg", "torch", "python"}
    assert described.scores["held_out"] == {"liver": 0.9, "tumour": None}, "JSON knows no nan"
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["README.md", "config.json", *whole.weights])


def test_tensors_of_any_layout_are_saved(tmp_path: Path) -> None:
    base = torch.arange(24.0).reshape(1, 2, 3, 4)
    given = {"view": base[0, 0].T, "last": base.to(memory_format=torch.channels_last), "grad": base.requires_grad_()}
    bundle.save(tmp_path, DESCRIBED, [given])
    (loaded,) = bundle.load(tmp_path)[1]
    for name, tensor in given.items():
        torch.testing.assert_close(loaded[name], tensor.detach(), rtol=0, atol=0)


def test_the_card_says_what_people_need(stored: Path) -> None:
    card = (stored / "README.md").read_text()
    for words in (
        "Research use only",
        "livers",
        "CT, PET",
        "1 x 1 x own mm",
        "- 2, 3: tumour",
        "inner dice: 0.8765",
        "unet, 3D",
    ):
        assert words in card, words


def test_the_card_of_an_own_module_says_how_to_use_it() -> None:
    card = bundle.card(DESCRIBED.model_copy(update={"model": {"name": "lab.nets"}}))
    assert "medseg predict" not in card
    assert 'medseg.load("THIS_FOLDER", module="lab.nets")' in card


def test_the_card_lists_what_differs_between_members() -> None:
    facts = {"seed": 3, "steps": [10, 12], "seconds": [1.25, 1.5]}
    card = bundle.card(DESCRIBED.model_copy(update={"training": facts}))
    for line in ("- seed: 3", "- steps: 10, 12 (one per member)", "- seconds: 1.25, 1.5 (one per member)"):
        assert f"{line}\n" in card


def test_describing_again_leaves_the_weights(stored: Path) -> None:
    before = (stored / "model.safetensors").stat().st_mtime_ns
    described = bundle.read(stored)
    bundle.describe(stored, described.model_copy(update={"scores": {"dice": 0.5}}))
    assert bundle.load(stored)[0].scores == {"dice": 0.5}
    assert (stored / "model.safetensors").stat().st_mtime_ns == before


def test_a_changed_byte_is_noticed(stored: Path) -> None:
    path = stored / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(
        BundleError, match=r"'model\.safetensors' is not the file that was saved \(its SHA-256 differs\)"
    ):
        bundle.load(stored)


@pytest.mark.parametrize(
    "change",
    [
        lambda c: c["preprocess"].update(spacing_mm=[1.0, 1.5, None]),
        lambda c: c["labels"]["items"].reverse(),
        lambda c: c["scores"].update(inner_dice=0.9),
        lambda c: c.update(checksum="0"),
    ],
)
def test_a_changed_value_is_noticed(stored: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    changed(stored, change, keep=True)
    with pytest.raises(BundleError, match=r"config\.json is not what was saved \(its checksum differs\)\. Copy"):
        bundle.read(stored)


def test_a_description_may_be_spaced_and_ordered_otherwise(stored: Path) -> None:
    before = bundle.read(stored)
    changed(stored, lambda c: c.update(name=c.pop("name")), keep=True)
    assert bundle.read(stored) == before


@pytest.mark.parametrize("folder", [3, None, ["a"]])
def test_a_model_that_is_no_folder(folder: Any) -> None:
    with pytest.raises(BundleError, match=r"^a model is named by its folder.*; got (int|NoneType|list)\.$"):
        Predictor(folder)


def test_a_hash_that_was_changed_along_does_not_make_weights_of_it(stored: Path) -> None:
    (stored / "model.safetensors").write_bytes(b"no weights at all")
    digest = files.sha256(stored / "model.safetensors")
    changed(stored, lambda c: c["weights"].update({"model.safetensors": digest}))
    with pytest.raises(BundleError, match="holds no readable weights"):
        bundle.load(stored)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.update(naem="x"), "config.json.naem: unknown option. Did you mean 'name'?"),
        (
            lambda c: c["inference"].update(overlop=0.5),
            "config.json.inference.overlop: unknown option. Did you mean 'overlap'?",
        ),
        (lambda c: c.pop("labels"), "config.json.labels: a value is missing"),
        (lambda c: c.update(spatial_dims=4), "config.json.spatial_dims: expected 2 or 3, got 4"),
        (lambda c: c.update(format=2), "the model has format 2, this medseg reads 1. Update medseg."),
        (lambda c: c.pop("format"), "the model has format None, this medseg reads 1. Update medseg."),
        (lambda c: c.update(weights={}), "the model's config.json names no weights"),
        (lambda c: c.update(weights={"other.safetensors": "0"}), "the model lacks 'other.safetensors'"),
    ],
)
def test_a_changed_description_is_one_line(stored: Path, change: Callable[[dict[str, Any]], Any], message: str) -> None:
    changed(stored, change)
    with pytest.raises(BundleError) as caught:
        bundle.load(stored)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["../model.safetensors", "sub/model.safetensors", "..", "ABSOLUTE"])
def test_weights_are_read_from_nowhere_else(stored: Path, name: str) -> None:
    """Even where the file is there and its hash is right."""
    for place in (stored.parent, stored / "sub"):
        place.mkdir(exist_ok=True)
        shutil.copy(stored / "model.safetensors", place)
    name = str(stored.parent / "model.safetensors") if name == "ABSOLUTE" else name
    changed(stored, lambda c: c.update(weights={name: c["weights"]["model.safetensors"]}))
    with pytest.raises(BundleError, match="the model lacks"):
        bundle.load(stored)


def test_no_code_comes_from_a_bundle(stored: Path, own_modules: Path) -> None:
    (own_modules / "pkg").mkdir()
    (own_modules / "pkg" / "evil.py").write_text("raise SystemExit('this ran')\n")
    changed(stored, lambda c: c.update(model={"name": "pkg.evil"}))
    for module in (None, "pkg.other", "unet"):
        with pytest.raises(
            BundleError, match=r"own module 'pkg\.evil'.*medseg\.load\(FOLDER, module='pkg\.evil'\)"
        ) as caught:
            Predictor(stored, module=module)
        assert "\n" not in str(caught.value)
    with pytest.raises(SystemExit, match="this ran"):
        Predictor(stored, module="pkg.evil")


@pytest.mark.parametrize("missing", ["model.safetensors", "config.json"])
def test_a_missing_file_is_named(stored: Path, missing: str) -> None:
    (stored / missing).unlink()
    with pytest.raises(BundleError, match=missing):
        bundle.load(stored)


@pytest.mark.parametrize("content", ["[1, 2]", "{", ""])
def test_a_description_that_is_none(stored: Path, content: str) -> None:
    (stored / "config.json").write_text(content)
    with pytest.raises(BundleError, match=r"config\.json"):
        bundle.load(stored)


def test_weights_of_another_architecture(stored: Path) -> None:
    changed(stored, lambda c: c.update(model={"name": "unet", "preset": "tiny"}))
    with pytest.raises(BundleError, match="the weights do not fit the model"):
        Predictor(stored)


def test_a_full_disk_leaves_no_half_of_a_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(DataError, match=r"no space left for '.*model\.safetensors'"):
        bundle.save(tmp_path, DESCRIBED, [weights()])
    assert list(tmp_path.iterdir()) == []


def test_a_bundle_is_found_in_a_run(stored: Path) -> None:
    run = stored.parent / "run"
    shutil.copytree(stored, run / "bundle")
    assert bundle.find(run) == bundle.find(run / "bundle") == run / "bundle"


def test_where_there_is_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="holds no bundle: no model there"):
        Predictor(tmp_path)
    with pytest.raises(BundleError, match="holds no bundle: no model there"):
        bundle.find(tmp_path / "nothing")
    (tmp_path / "config.yaml").write_text("seed: 0\n")
    with pytest.raises(BundleError, match=r"this run has not finished \(finish it with --resume\)"):
        bundle.find(tmp_path)


def test_a_model_of_format_1_is_loaded_for_ever() -> None:
    """`data/make_bundle.py` wrote it. When this fails, mend the reader; never write the folder anew."""
    predictor = Predictor(STORED, device="cpu")
    assert predictor.bundle.labels.names == ("liver", "tumour")
    assert predictor.bundle.labels.values == (1, 5)
    assert predictor.bundle.preprocess.intensity[0].kind == "clip"
    assert predictor.bundle.postprocess.minimum_ml == {"tumour": 0.002}
    assert predictor.bundle.scores["per_label"] == {"liver": 0.6, "tumour": 0.4}
    ramp = torch.linspace(-1, 1, 8 * 8 * 4).reshape(1, 1, 8, 8, 4)
    with torch.inference_mode():
        answer = predictor.networks[0](ramp)[0].numpy()
    np.testing.assert_allclose(answer, np.load(STORED / "answer.npy"), atol=1e-4)
    scan = Volume(np.random.default_rng(0).normal(40, 60, (20, 16, 9)), Geometry((20, 16, 9), np.diag([1.0, 1, 2, 1])))
    assert set(np.unique(predictor(scan).mask.array)) <= {0, 1, 5}
