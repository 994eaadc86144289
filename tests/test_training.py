from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from medseg import bundle, training
from medseg import config as configs
from medseg.division import Fold
from medseg.engine.trial import Trial
from medseg.errors import Interrupted, MedsegError
from medseg.loader import Batches
from medseg.losses import create_loss
from medseg.region import Place, whole
from medseg.study import Study, settle
from medseg.volume import Geometry

pytestmark = pytest.mark.usefixtures("one_thread")
Make = Callable[..., Path]


@pytest.fixture
def study(tmp_path: Path, quick: dict[str, Any], make_dataset: Make) -> Study:
    return settle(make_dataset(tmp_path / "data"), quick)[0]


def learn(study: Study, folder: Path, resume: bool = False) -> Path:
    training.learn(study, folder, folder.parent / "cache", started=time.monotonic(), resume=resume)
    return folder


def test_the_bundle_holds_the_best_weights_and_the_facts(study: Study, tmp_path: Path) -> None:
    run = learn(study, tmp_path / "run")
    described, (weights,) = bundle.load(run / "bundle")
    best = training.state.weights(run / "checkpoints/best.safetensors")
    assert all(torch.equal(best[name], tensor) for name, tensor in weights.items())
    assert described.labels == study.labels
    assert described.preprocess == study.config.preprocess
    assert described.model["widths"]  # complete, so that nothing depends on later presets
    assert "preset" not in described.model
    assert described.training["steps"] == 4
    assert described.training["cases"] == len(study.inner.train)
    assert 0 <= described.scores["inner_dice"] <= 1


def test_a_sum_of_losses_with_weights_that_are_learned(
    tmp_path: Path, quick: dict[str, Any], make_dataset: Make
) -> None:
    """Image, second prediction, spacing and progress reach the losses, and what they learn reaches the checkpoint."""
    parts = [{"name": name} for name in ("dice", "level_set", "consistency", "boundary")]
    loss = [{"name": "cross_entropy", "weight": {"from": 1, "to": 0}}, {"name": "multi_task", "losses": parts}]
    (study, *_) = settle(make_dataset(tmp_path / "data"), quick | {"loss": loss})
    run = learn(study, tmp_path / "run")
    learned = load_file(run / "checkpoints/last.safetensors")["loss/losses.1.log_variance"]
    assert learned.shape == (4,)
    assert learned.ne(0).all()
    assert bundle.read(run / "bundle").training["loss"] == "cross_entropy + multi_task"


def test_a_seed_gives_a_model(study: Study, tmp_path: Path) -> None:
    first, again = (learn(study, tmp_path / name) / "bundle/model.safetensors" for name in ("a", "b"))
    assert first.read_bytes() == again.read_bytes()
    config = study.config.model_copy(update={"seed": 1})
    other = learn(Study(**(vars(study) | {"config": config})), tmp_path / "c") / "bundle/model.safetensors"
    assert other.read_bytes() != first.read_bytes()


def test_on_request_a_run_is_the_same_to_the_last_bit_however_often_it_was_interrupted(
    tmp_path: Path, quick: dict[str, Any], make_dataset: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With dropout, and a trial whose number of steps follows the clock."""
    changes = {
        "model": {"name": "fc_densenet", "preset": "tiny"},
        "train": {"deterministic": True, "precision": "auto"},
    }
    (study,) = settle(make_dataset(tmp_path / "data"), configs.merge({**quick, "model": {}}, changes))
    whole, seen = learn(study, tmp_path / "whole"), []
    call = Batches.__call__

    def stop(self: Batches, number: int) -> Any:
        seen.append(torch.are_deterministic_algorithms_enabled())
        if number == 2 and (tmp_path / "parts/checkpoints/trial.json").exists() and len(seen) < 50:
            seen.extend([True] * 50)
            os.kill(os.getpid(), signal.SIGTERM)
        return call(self, number)

    monkeypatch.setattr(Batches, "__call__", stop)
    monkeypatch.setattr("medseg.engine.trial._STEPS", 2)
    with pytest.raises(Interrupted):
        learn(study, tmp_path / "parts")
    learn(study, tmp_path / "parts", resume=True)
    assert all(seen)
    assert not torch.are_deterministic_algorithms_enabled()
    for name in ("checkpoints/last.safetensors", "bundle/model.safetensors"):
        ours, theirs = load_file(whole / name), load_file(tmp_path / "parts" / name)
        assert all(torch.equal(tensor, theirs[key]) for key, tensor in ours.items())


def test_the_held_out_cases_are_not_even_prepared(study: Study, tmp_path: Path) -> None:
    learn(study, tmp_path / "run")
    assert len(list((tmp_path / "cache").glob("*/image.npy"))) == len(study.fold.train)


def test_a_small_cache_holds_what_its_own_run_needs(study: Study, tmp_path: Path) -> None:
    """All cases of a run are prepared together, so that none makes way for another."""
    config = study.config.model_copy(update={"cache_gb": 1e-9})
    small = Study(**(vars(study) | {"config": config}))
    (tmp_path / "cache").mkdir()
    old = tmp_path / "cache" / ("0" * 32)
    old.mkdir()
    (old / "target.npy").write_bytes(b"of another run")
    learn(small, tmp_path / "run")
    assert len(list((tmp_path / "cache").glob("*/image.npy"))) == len(study.fold.train) > 1
    assert not old.exists()


def test_time_is_kept_for_all_that_is_predicted_after_training(study: Study) -> None:
    """Each inner case once more for its cleaning, with and without held-out cases."""
    reserve = training._reserve(study, {}, {})
    inner, test = len(study.inner.test), len(study.fold.test)
    assert reserve(inner) - reserve(0) == pytest.approx(2 * (inner + test))
    alone = Study(**(vars(study) | {"fold": Fold(study.fold.train, ())}))
    reserve = training._reserve(alone, {}, {})
    assert reserve(inner) - reserve(0) == pytest.approx(2 * inner)
    places = {
        f"{n}": Place(whole(Geometry((4, 4, 4), np.eye(4))), 1.0, (), (), seconds) for n, seconds in enumerate((2, 4))
    }
    located = training._reserve(study, {}, places)
    assert located(5.0) - training._reserve(study, {}, {})(5.0) == pytest.approx(3 * (inner + test))


def test_what_was_measured_is_kept(study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = learn(study, tmp_path / "run")
    kept = json.loads((run / "checkpoints/trial.json").read_text())
    assert kept["precision"] == "fp32"
    monkeypatch.setattr(training, "measure", lambda *_: pytest.fail("a resumed run keeps its arithmetic"))
    learn(study, run, resume=True)


def test_out_of_memory_plans_again(study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The batch is halved until it fits, before the first step, and stays so when the run is resumed."""
    tried: list[int] = []

    def measure(model: Any, loss: Any, batches: Any, *_: Any) -> Trial:
        tried.append(batches.size)
        if batches.size > 2:
            raise torch.OutOfMemoryError("too much")
        return Trial("fp32", 0.01, {"fp32": 0.01}, batches.size, 0.1)

    monkeypatch.setattr(training, "measure", measure)
    run = learn(study.with_batch(8), tmp_path / "run")
    assert tried == [8, 4, 2]
    assert bundle.read(run / "bundle").training["batch"] == 2


def test_a_patch_that_does_not_fit_is_tried_with_stages_computed_again(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """And trained so, and resumed so; the model that is stored is the usual one."""
    tried: list[tuple[int, Any]] = []

    def measure(model: Any, loss: Any, batches: Any, device: Any, train: Any, *_: Any) -> Trial:
        tried.append((batches.size, train.checkpointing))
        if train.checkpointing is not True:
            raise torch.OutOfMemoryError("too much")
        return Trial("fp32", 0.01, {"fp32": 0.01}, batches.size, 0.1, checkpointing=True)

    calls: list[Any] = []
    monkeypatch.setattr(training, "measure", measure)
    monkeypatch.setattr("medseg.engine.fit.recompute", calls.append)
    run = learn(study, tmp_path / "run")
    assert tried == [(2, "auto"), (1, "auto"), (1, True)]
    assert "stages are computed again" in caplog.text
    learn(study, run, resume=True)
    assert len(calls) == 2
    assert len(tried) == 3
    assert bundle.read(run / "bundle").training["batch"] == 1


@pytest.mark.parametrize("batch", [1, 4])
def test_processes_that_divide_a_model_do_not_plan_again_alone(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batch: int
) -> None:
    def measure(*arguments: Any) -> Trial:
        raise torch.OutOfMemoryError("too much")

    monkeypatch.setattr(training, "measure", measure)
    model, loss = training.network(study), create_loss(study.config.loss)
    learned = training.prepared(study, study.inner.train, tmp_path / "cache")
    what = "a single patch does" if batch == 1 else "4 patches do"
    with pytest.raises(MedsegError, match=f"{what} not fit"):
        training.tried(study.with_batch(batch), model, loss, learned, torch.device("cpu"), lambda model: model)


def test_a_patch_that_never_fits_is_told(study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def measure(*arguments: Any) -> Trial:
        raise torch.OutOfMemoryError("too much")

    monkeypatch.setattr(training, "measure", measure)
    with pytest.raises(MedsegError, match=r"single patch does not fit.*sample\.patch"):
        learn(study, tmp_path / "run")


def test_batches_are_the_studys(study: Study, tmp_path: Path) -> None:
    drawn = training.batches(
        study, training.prepared(study, study.inner.train, tmp_path / "cache"), torch.device("cpu")
    )
    image, target = drawn(0)
    assert image.shape == (2, 1, 16, 16, 8)
    assert target.shape == (2, 16, 16, 8)
    assert set(target.unique().tolist()) <= {0, 1, 2}


def test_overlapping_labels_have_a_channel_each(tmp_path: Path, quick: dict[str, Any], make_dataset: Make) -> None:
    data = make_dataset(tmp_path / "data", labels={"background": 0, "whole": [1, 2], "core": [2]})
    (study,) = settle(data, configs.merge(quick, {}))
    cases = training.prepared(study, study.inner.train, tmp_path / "cache")
    assert training.batches(study, cases, torch.device("cpu"))(0)[1].shape == (2, 2, 16, 16, 8)
    assert training.network(study).eval()(torch.zeros(1, 1, 16, 16, 8)).shape == (1, 2, 16, 16, 8)
