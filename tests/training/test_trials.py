from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from medseg import bundle, memory
from medseg.engine.trial import Trial
from medseg.errors import MedsegError
from medseg.losses import create_loss
from medseg.training import build, learning, trials
from medseg.training.study import Study

pytestmark = pytest.mark.usefixtures("one_thread")
Make = Callable[..., Path]


def learn(study: Study, folder: Path, resume: bool = False) -> Path:
    learning.learn(study, folder, folder.parent / "cache", started=time.monotonic(), resume=resume)
    return folder


def test_what_was_measured_is_kept(study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = learn(study, tmp_path / "run")
    kept = json.loads((run / "checkpoints/trial.json").read_text())
    assert kept["precision"] == "fp32"
    monkeypatch.setattr(trials, "measure", lambda *_: pytest.fail("a resumed run keeps its arithmetic"))
    learn(study, run, resume=True)


def test_out_of_memory_plans_again(study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The batch is halved until it fits, before the first step, and stays so when the run is resumed."""
    tried: list[int] = []

    def measure(model: Any, loss: Any, batches: Any, *_: Any) -> Trial:
        tried.append(batches.size)
        if batches.size > 2:
            raise torch.OutOfMemoryError("too much")
        return Trial("fp32", 0.01, {"fp32": 0.01}, batches.size, 0.1)

    monkeypatch.setattr(trials, "measure", measure)
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
    monkeypatch.setattr(trials, "measure", measure)
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

    monkeypatch.setattr(trials, "measure", measure)
    model, loss = build.network(study), create_loss(study.config.loss)
    learned = build.cases(study, study.inner.train, tmp_path / "cache")
    what = "a single patch does" if batch == 1 else "4 patches do"
    with pytest.raises(MedsegError, match=f"{what} not fit"):
        trials.tried(study.with_batch(batch), model, loss, learned, torch.device("cpu"), lambda model: model)


def test_a_patch_that_never_fits_is_told(study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def measure(*arguments: Any) -> Trial:
        raise torch.OutOfMemoryError("too much")

    monkeypatch.setattr(trials, "measure", measure)
    with pytest.raises(MedsegError, match=r"single patch does not fit.*sample\.patch"):
        learn(study, tmp_path / "run")


def test_a_network_too_large_for_the_machine_is_told_before_a_step(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "free_bytes", lambda: 1e4)
    monkeypatch.setattr(trials, "measure", lambda *_: pytest.fail("the system would end the process"))
    with pytest.raises(MedsegError, match=r"million weights need .* GB are free: take a smaller network"):
        learn(study, tmp_path / "run")
