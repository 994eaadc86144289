from __future__ import annotations

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

from medseg import bundle, overrides
from medseg.data.splits import Fold
from medseg.errors import Interrupted
from medseg.geometry.region import Place, whole
from medseg.training import learning
from medseg.training.loader import Batches
from medseg.training.study import Study, settle
from medseg.volume import Geometry

pytestmark = pytest.mark.usefixtures("one_thread")
Make = Callable[..., Path]


def learn(study: Study, folder: Path, resume: bool = False) -> Path:
    learning.learn(study, folder, folder.parent / "cache", started=time.monotonic(), resume=resume)
    return folder


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory, study: Study) -> Path:
    """A run of the study; nobody may change it."""
    return learn(study, tmp_path_factory.mktemp("learned") / "run")


def test_the_bundle_holds_the_best_weights_and_the_facts(study: Study, learned: Path) -> None:
    described, (weights,) = bundle.load(learned / "bundle")
    best = learning.state.weights(learned / "checkpoints/best.safetensors")
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


def test_a_seed_gives_a_model(study: Study, learned: Path, tmp_path: Path) -> None:
    first, again = (run / "bundle/model.safetensors" for run in (learned, learn(study, tmp_path / "b")))
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
    (study,) = settle(make_dataset(tmp_path / "data"), overrides.merge({**quick, "model": {}}, changes))
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


def test_the_held_out_cases_are_not_even_prepared(study: Study, learned: Path) -> None:
    assert len(list((learned.parent / "cache").glob("*/image.npy"))) == len(study.fold.train)


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
    reserve = learning._reserve(study, {}, {})
    inner, test = len(study.inner.test), len(study.fold.test)
    assert reserve(inner) - reserve(0) == pytest.approx(2 * (inner + test))
    alone = Study(**(vars(study) | {"fold": Fold(study.fold.train, ())}))
    reserve = learning._reserve(alone, {}, {})
    assert reserve(inner) - reserve(0) == pytest.approx(2 * inner)
    places = {
        f"{n}": Place(whole(Geometry((4, 4, 4), np.eye(4))), 1.0, (), (), seconds) for n, seconds in enumerate((2, 4))
    }
    located = learning._reserve(study, {}, places)
    assert located(5.0) - learning._reserve(study, {}, {})(5.0) == pytest.approx(3 * (inner + test))
