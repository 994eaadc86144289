"""From a settled study to a stored model: prepare, measure, fit, choose, save."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from medseg import bundle as bundles
from medseg import locating, losses, memory, progress, system
from medseg.bundle import Bundle
from medseg.engine import distributed, fit, optim, state
from medseg.engine.determinism import deterministic
from medseg.engine.trial import Trial
from medseg.geometry import region
from medseg.inference import windows
from medseg.training import build, trials
from medseg.training.inner_split import InnerSplit
from medseg.training.study import Study
from medseg.wording import counted

REPORT_S = 10.0  # of a budget, for evaluation and report
_FEW_STEPS = 100
_LESS = "Start again with a smaller train.batch, or with train.checkpointing=true."
_LIGHTER = 4  # a voxel takes so many times less memory in prediction than in training, at least


def learn(study: Study, folder: Path, cache: Path, *, started: float, resume: bool) -> None:
    """Prepare, train and store a model as `bundle/`.

    Args:
        study: what was settled.
        folder: of the run.
        cache: folder of prepared cases.
        started: `time.monotonic()` at which the budget began.
        resume: go on from the checkpoint.
    """
    memory.keep_heap()
    train = study.config.train
    several = distributed.fabric(system.pick_device(study.config.device), share=train.strategy)
    device = several.device
    locator = build.first_stage(study, device)
    with deterministic(train.deterministic):
        places = locating.locate(locator, study.region, study.cases(study.inner.test), study.labels)
    cases = {case.id: case for case in build.cases(study, (*study.inner.train, *study.inner.test), cache, places)}
    learned, chosen = ([cases[name] for name in ids] for ids in (study.inner.train, study.inner.test))
    torch.manual_seed(study.config.seed)
    model, loss = build.network(study), build.criterion(study, device)
    with deterministic(train.deterministic), memory.enough_memory(_LESS):
        trial = trials.agreed(several, study, folder, model, loss, learned)
        study = study.with_batch(trial.batch)
        inner = InnerSplit(_describe(study, trial), model, chosen, str(device), locator)
        step_voxels = study.config.train.batch * math.prod(study.config.sample.patch)
        candidates = inner.candidates(_LIGHTER * step_voxels) if study.config.windows == "measured" else {}
        fabric = distributed.fabric(device, trial.precision, train.strategy)
        run = fit.fit(
            model,
            loss,
            build.batches(study, learned, device),
            inner.dice,
            trial.settled(study.config.train),
            _optimiser(study, trial),
            fabric,
            folder / "checkpoints",
            started=started,
            reserve_s=_reserve(study, candidates, places),
            resume=resume,
        )
    if fabric.is_global_zero:
        weights = state.weights(folder / "checkpoints" / "best.safetensors")
        inner.choose_windows(weights, run.best, candidates)
        inner.choose_air([*learned, *chosen])
        _store(study, trial, run, inner, weights, folder)


def _optimiser(study: Study, trial: Trial) -> optim.Config:
    """The optimiser's settings, the average's memory as long as the run asks for."""
    how, train = study.config.optim, study.config.train
    steps = train.budget_s / trial.step_s if train.budget_s else train.steps
    return how if how.ema is not None else how.model_copy(update={"ema": optim.ema_decay(steps)})


def _reserve(
    study: Study, candidates: Mapping[windows.Config, float], places: Mapping[str, region.Place]
) -> Callable[[float], float]:
    """Seconds of a budget to keep for windows, cleaning, held-out cases and report, from the seconds that one validation took."""
    # on its own grid, with reading and writing, a case takes about twice what it takes in a validation
    whole = len(study.inner.test) + len(study.fold.test)
    ratio = 2 * whole / len(study.inner.test) + sum(candidates.values())
    first_s = whole * sum(place.seconds for place in places.values()) / max(1, len(places))
    return lambda validation_s: REPORT_S + first_s + ratio * validation_s


def _describe(study: Study, trial: Trial) -> Bundle:
    config = study.config
    return Bundle(
        name=study.dataset.name,
        model=config.model,
        spatial_dims=study.config.spatial_dims,
        channels=tuple(channel["name"] for channel in study.plan["fingerprint"]["channels"]),
        labels=study.labels,
        preprocess=config.preprocess,
        inference=config.inference,
        locate=study.region,
        precision="bf16" if trial.precision == "bf16" else "fp32",
    )


def _store(
    study: Study, trial: Trial, run: state.Run, inner: InnerSplit, weights: Mapping[str, Tensor], folder: Path
) -> None:
    """Choose what cleaning helps, and write the bundle."""
    progress.say(
        f"{counted(run.step, 'step')} in {progress.clock(run.seconds)}, {run.waited_s / run.seconds:.1%} of it waiting for batches; "
        f"best Dice on the inner split {run.best:.3f} at step {run.best_step}"
    )
    if run.step < _FEW_STEPS:
        progress.warn(
            f"only {counted(run.step, 'step was', 'steps were')} made, and some hundreds are needed: give it more time"
        )
    facts: dict[str, Any] = {
        "cases": len(study.inner.train),
        "inner_cases": len(study.inner.test),
        "held_out_cases": len(study.fold.test),
        "steps": run.step,
        "batch": study.config.train.batch,
        "accumulated_batches": study.config.train.accumulate,
        "processes": system.ranks()[1],
        "seconds": round(run.seconds, 1),
        "seconds_a_step": round(trial.step_s, 4),
        "waiting_for_batches": round(run.waited_s / run.seconds, 4),
        "seed": study.config.seed,
        "loss": losses.title(study.config.loss),
        **study.plan.get("ancestors", {}),
        **({"init": study.plan["init"]} if "init" in study.plan else {}),
    }
    described = inner.predictor.bundle.model_copy(
        update={
            "postprocess": inner.postprocess(weights, study.cases(study.inner.test)),
            "scores": {"inner_dice": round(run.best, 4)},
            "training": facts,
        }
    )
    if locator := study.ancestor("locate.from"):
        locator.save(folder / "bundle" / bundles.LOCATOR, study.fold.test)
    bundles.save(folder / "bundle", described, [weights])
