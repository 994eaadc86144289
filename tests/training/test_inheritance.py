"""What a run takes over from stored models, as `settle` brings it together."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from medseg import bundle, files, models, overrides
from medseg.errors import BundleError, ConfigError, DataError, RunError
from medseg.training import build
from medseg.training.study import Study, settle

pytestmark = pytest.mark.usefixtures("one_thread")
Make = Callable[..., Path]
WIDE = {"name": "unet", "preset": "tiny", "widths": (16, 24, 40), "norm": "batch"}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, make_dataset: Make) -> Path:
    return make_dataset(tmp_path_factory.mktemp("descent") / "data")


def settled(data: Path, quick: dict[str, Any], **changes: Any) -> Study:
    user = {name: value for name, value in quick.items() if name != "model"}
    return settle(data, overrides.merge(user, changes))[0]


# --- what follows from the model


def test_without_a_model_nothing_is_different(data: Path, quick: dict[str, Any]) -> None:
    study = settled(data, quick)
    assert "ancestors" not in study.plan
    assert study.ancestor("distill.from") is None
    assert study.config.distill.source is study.config.prune.source is None


@pytest.mark.parametrize("alone", [{"distill": {"weight": 2}}, {"prune": {"keep": 0.25}}, {"locate": {"margin_mm": 5}}])
def test_how_a_model_counts_says_nothing_without_one(data: Path, quick: dict[str, Any], alone: dict[str, Any]) -> None:
    (name,) = alone
    with pytest.raises(ConfigError, match=rf"^{name}\.from: no stored model is named"):
        settled(data, quick, **alone)


@pytest.mark.parametrize("stage", ["distill", "prune"])
def test_scans_are_prepared_as_the_model_was_trained(
    data: Path, quick: dict[str, Any], make_bundle: Make, tmp_path: Path, stage: str
) -> None:
    clip = {"kind": "clip", "low": 20.0, "high": 200.0, "mean": 100.0, "std": 9.5}
    asked = {"orientation": "ASR", "spacing_mm": (2.0, None, 1.5), "intensity": (clip,), "crop_empty": False}
    model = make_bundle(tmp_path / "model", preprocess=asked, model=WIDE)
    study = settled(data, quick, **{stage: {"from": str(model)}}, sample={}, fold="none")
    assert study.config.preprocess.model_dump() == asked
    reasons = {choice["name"]: choice["reason"] for choice in study.plan["choices"]}
    assert "as the model was trained" in reasons["preprocess.spacing_mm"]
    assert study.ancestor(f"{stage}.from") is not None  # type: ignore[arg-type]


def test_the_plan_is_made_on_the_models_grid(
    quick: dict[str, Any], make_dataset: Make, make_bundle: Make, tmp_path: Path
) -> None:
    """Flips keep left and right apart, and patches have the extent of scans, along the model's own axes."""
    from medseg.labels import Labels

    names = {"background": 0, "left box": 1, "right box": 2}
    data = make_dataset(tmp_path / "data", shape=(40, 24, 16), spacing_mm=(1.0, 1.0, 1.0), labels=names)
    grid = {"orientation": "SAR", "spacing_mm": (1.0, 1.0, 2.0)}
    known = {"labels": Labels.of(names), "channels": ("sequence 0",), "preprocess": grid}
    model = make_bundle(tmp_path / "model", **known)
    user = {"distill": {"from": str(model)}, "fold": "none"}
    (study,) = settle(data, user)
    assert study.config.augment.mirror_axes == study.config.inference.mirror_axes == (0, 1)
    assert study.config.sample.patch[:2] == (16, 24)
    assert 20 <= study.config.sample.patch[2] < 40  # 40 mm at 2 mm
    assert set(study.config.model["kernels"]) == {(3, 3, 3)}


def test_slices_follow_from_a_model_of_slices(
    data: Path, quick: dict[str, Any], make_bundle: Make, tmp_path: Path
) -> None:
    flat = {"spatial_dims": 2, "inference": {"window": (16, 16, 1)}}
    model = str(make_bundle(tmp_path / "model", **flat))
    study = settled(data, quick, distill={"from": model}, sample={"patch": (16, 16, 1)}, fold="none")
    assert study.config.spatial_dims == 2
    (study,) = settle(data, {"distill": {"from": model}, "fold": "none"})
    assert study.config.spatial_dims == 2
    for changes in ({"dims": "3"}, {"sample": {"patch": (16, 16, 8)}, "inference": {"window": (16, 16, 8)}}):
        with pytest.raises(ConfigError, match="takes slices, and this run learns volumes"):
            settle(data, {"distill": {"from": model}, "fold": "none", **changes})


def test_a_pruned_run_has_the_models_architecture_made_narrower(
    data: Path, quick: dict[str, Any], make_bundle: Make, tmp_path: Path
) -> None:
    model = str(make_bundle(tmp_path / "model", model=WIDE))
    study = settled(data, quick, prune={"from": model, "keep": 0.5}, fold="none")
    assert study.config.model == models.resolve(WIDE | {"widths": (8, 16, 24)})
    choices = {choice["name"]: choice for choice in study.plan["choices"]}
    assert choices["model.widths"]["value"] == (8, 16, 24)
    assert choices["model.widths"]["reason"] == "at least 50% of the stored model's channels, in multiples of 8"
    assert "model.strides" not in choices
    same = settled(data, quick, prune={"from": model}, model=study.config.model, fold="none")
    assert same.config.model == study.config.model  # as in the `config.yaml` of a run


def test_a_pruned_run_begins_with_the_models_weights(
    data: Path, quick: dict[str, Any], make_bundle: Make, tmp_path: Path
) -> None:
    model = make_bundle(tmp_path / "model", model=WIDE)
    for keep, same in ((1.0, True), (0.5, False)):
        study = settled(data, quick, prune={"from": str(model), "keep": keep}, fold="none")
        (weights,), begun = bundle.load(model)[1], build.network(study).state_dict()
        assert all(torch.equal(weights[name], tensor) for name, tensor in begun.items()) == same
        assert torch.equal(weights["heads.0.bias"], begun["heads.0.bias"])


def test_a_student_may_be_of_any_architecture(
    data: Path, quick: dict[str, Any], make_bundle: Make, tmp_path: Path
) -> None:
    model = str(make_bundle(tmp_path / "model"))
    study = settled(data, quick, distill={"from": model}, model={"name": "vnet", "preset": "tiny"}, fold="none")
    assert study.config.model["name"] == "vnet"


# --- what is refused, or said


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"prune": {"from": "MODEL"}, "model": {"name": "vnet"}}, r"^model: prune\.from and prune\.keep decide"),
        ({"prune": {"from": "MODEL"}, "model": {"widths": (4, 4, 4)}}, r"^model: prune\.from and prune\.keep decide"),
        ({"distill": {"from": "MODEL"}, "preprocess": {"crop_empty": False}}, r"leave preprocess\.crop_empty out"),
        ({"distill": {"from": "MODEL"}, "modality": "CT"}, "takes the channels image, and this run has CT"),
        ({"prune": {"from": "MODEL", "keep": 0.2}}, r"^prune\.keep: layers would be gone"),
    ],
)
def test_what_contradicts_the_model_is_refused(
    data: Path, quick: dict[str, Any], make_bundle: Make, tmp_path: Path, changes: dict[str, Any], expected: str
) -> None:
    model = str(make_bundle(tmp_path / "model", model=WIDE))
    named = {
        stage: {**options, "from": model} if isinstance(options, dict) and "from" in options else options
        for stage, options in changes.items()
    }
    with pytest.raises(ConfigError, match=expected) as caught:
        settled(data, quick, fold="none", **named)
    assert "\n" not in str(caught.value)


def test_two_models_that_see_differently_are_refused(
    data: Path, quick: dict[str, Any], make_bundle: Make, tmp_path: Path
) -> None:
    teacher, wide = make_bundle(tmp_path / "a"), make_bundle(tmp_path / "b", preprocess={}, model=WIDE)
    with pytest.raises(ConfigError, match=r"^prune\.from: .*another preprocess\.spacing_mm"):
        settled(data, quick, distill={"from": str(teacher)}, prune={"from": str(wide)}, fold="none")


def run_of(folder: Path, make_bundle: Make, *parts: tuple[list[str], list[str]], **description: Any) -> str:
    make_bundle(folder / "bundle", **description)
    files.write_json(folder / "splits.json", [{"held_out": a, "train": b[:-1], "validation": b[-1:]} for a, b in parts])
    return str(folder)


@pytest.mark.parametrize("stage", ["distill", "prune"])
def test_a_model_that_saw_held_out_cases_is_refused(
    data: Path, quick: dict[str, Any], make_bundle: Make, tmp_path: Path, stage: str
) -> None:
    parts = [f"case_{n}" for n in (0, 3)], [f"case_{n}" for n in (1, 2)]
    model = run_of(tmp_path / "run", make_bundle, (parts[1], parts[0]), model=WIDE)
    named = {stage: {"from": model}}
    assert settled(data, quick, fold="0/2", **named).fold.test == tuple(parts[1])
    assert settled(data, quick, fold="none", **named)
    for fold in ("1/2", "all/2"):
        with pytest.raises(
            DataError, match=rf"^{stage}\.from: .*\(case_0, case_3\), so that their scores would be too good"
        ):
            settled(data, quick, fold=fold, **named)


def test_each_fold_has_a_teacher_of_its_own(
    data: Path, quick: dict[str, Any], make_bundle: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """An ensemble of all folds teaches a run of all folds: each part by the network that never saw it."""
    a, b = [f"case_{n}" for n in (0, 3)], [f"case_{n}" for n in (1, 2)]
    model = run_of(tmp_path / "run", make_bundle, (b, a), (a, b), members=2)
    user = overrides.merge(quick, {"distill": {"from": model}, "fold": "all/2"})
    with caplog.at_level(logging.INFO, "medseg"):
        studies = settle(data, user)
    assert "1 of 2 networks never saw the cases held out, and are used" in caplog.text
    found = [study.ancestor("distill.from") for study in studies]
    assert [each and each.unseen(study.fold.test) for each, study in zip(found, studies, strict=True)] == [[0], [1]]


def test_where_nobody_knows_a_warning_is_given(
    data: Path, quick: dict[str, Any], make_bundle: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = str(make_bundle(tmp_path / "model"))
    with caplog.at_level(logging.WARNING, "medseg"):
        settled(data, quick, distill={"from": model}, fold="none")
        assert "nobody knows" not in caplog.text
        settled(data, quick, distill={"from": model}, fold="0/2")
    assert "distill.from: it is unknown which cases that model learned from" in caplog.text
    assert str(tmp_path) not in caplog.text


# --- later


def test_another_model_in_its_place_is_noticed(
    data: Path, quick: dict[str, Any], make_bundle: Make, tmp_path: Path
) -> None:
    model = make_bundle(tmp_path / "model")
    study = settled(data, quick, distill={"from": str(model)}, fold="none")
    make_bundle(model, seed=1)
    with pytest.raises(RunError, match=r"^distill\.from: the model there is not the one that the run began with"):
        study.ancestor("distill.from")
    (model / "config.json").unlink()
    with pytest.raises(BundleError, match=r"^distill\.from: .* holds no bundle"):
        study.ancestor("distill.from")
