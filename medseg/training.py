"""From a settled study to a stored model: prepare, measure, fit, choose, save."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import torch
from torch import nn

from medseg import bundle as bundles
from medseg import files, loader, losses, models, progress, system
from medseg.bundle import Bundle
from medseg.config import RunConfig
from medseg.engine import fit, optim, state
from medseg.engine.trial import Trial, measure
from medseg.inner import Inner
from medseg.loader import Batches, Prepared
from medseg.predictor import pick_device
from medseg.study import Study

_REPORT_S = 10.0  # of a budget, for evaluation and report


def learn(study: Study, folder: Path, *, started: float, resume: bool) -> Bundle:
    """Prepare, train and store a model; returns the bundle that it left in the folder.

    Args:
        study: what was settled.
        folder: of the run.
        started: `time.monotonic()` at which the budget began.
        resume: go on from the checkpoint.
    """
    from lightning_fabric import Fabric

    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # says on its own what `_trial` says
    system.keep_heap()
    config, device = study.config, pick_device(study.config.device)
    cache = Path(config.cache) if config.cache else folder.parent / "medseg_cache"
    learned, chosen = (prepared(study, ids, cache) for ids in (study.inner.train, study.inner.test))
    torch.manual_seed(config.seed)
    model, loss, drawn = network(study), losses.create_loss(config.loss), batches(study, learned, device)
    trial = _trial(folder, model, loss, drawn, device, config)
    how = config.optim
    if how.ema is None:
        steps = config.train.budget_s / trial.step_s if config.train.budget_s else config.train.steps
        how = how.model_copy(update={"ema": optim.ema_decay(steps)})
    fabric = Fabric(
        accelerator=device.type,
        devices=[device.index or 0] if device.type == "cuda" else 1,
        precision=_PRECISION[trial.precision],
    )
    described = _describe(study, trial)
    inner = Inner(described, model, chosen)
    run = fit.fit(
        model, loss, drawn, inner.dice, config.train, how, fabric, folder / "checkpoints",
        started=started, resume=resume,
        reserve_s=lambda validation_s: _REPORT_S + 2 * validation_s * len(study.fold.test) / len(chosen),
    )  # fmt: skip
    progress.say(
        f"{run.step} steps in {progress.clock(run.seconds)}; best Dice on the inner split {run.best:.3f} at step {run.best_step}"
    )
    weights = state.load(folder / "checkpoints" / "best.safetensors")[1]["model"]
    facts = {
        "cases": len(learned), "inner_cases": len(chosen), "held_out_cases": len(study.fold.test), "steps": run.step,
        "seconds": round(run.seconds, 1), "seconds_a_step": round(trial.step_s, 4), "seed": config.seed,
        "loss": config.loss["name"], "waiting_for_batches": round(run.waited_s / max(run.seconds, 1e-9), 4),
    }  # fmt: skip
    described = described.model_copy(update={"training": facts, "scores": {"inner_dice": round(run.best, 4)}})
    described = described.model_copy(update={"postprocess": inner.postprocess(weights, study.cases(study.inner.test))})
    return bundles.save(folder / "bundle", described, [weights])


_PRECISION: Mapping[str, Literal["bf16-mixed", "32-true"]] = {"bf16": "bf16-mixed", "fp32": "32-true"}


def prepared(study: Study, ids: Sequence[str], cache: Path) -> list[Prepared]:
    """Cases of a study as its network sees them."""
    return loader.prepare_cases(study.cases(ids), study.config.preprocess, study.labels, cache)


def network(study: Study) -> nn.Module:
    """The untrained network of a study."""
    return models.create_model(
        study.config.model,
        spatial_dims=study.spatial_dims,
        in_channels=len(study.config.preprocess.intensity),
        out_channels=study.labels.channels,
        dotted=True,
    )


def batches(study: Study, learned: Sequence[Prepared], device: torch.device) -> Batches:
    """The batches that a study trains on."""
    config = study.config
    return Batches(learned, config.sample, config.augment, size=config.train.batch, device=device, seed=config.seed)


def _trial(
    folder: Path, model: nn.Module, loss: nn.Module, batches: Batches, device: torch.device, config: RunConfig
) -> Trial:
    """Measured once for a run: a resumed one keeps its arithmetic."""
    path = folder / "checkpoints" / "trial.json"
    if path.exists():
        return Trial(**files.read_json(path))
    trial = measure(model, loss, batches, device, config.train.precision)
    files.write_json(path, trial.__dict__)
    shown = ", ".join(f"{name} {seconds:.3g} s" for name, seconds in trial.seconds.items())
    progress.say(f"training in {trial.precision} on {device} (measured a step: {shown})")
    return trial


def _describe(study: Study, trial: Trial) -> Bundle:
    config = study.config
    channels = study.dataset.channels or tuple(f"channel {n}" for n in range(len(config.preprocess.intensity)))
    return Bundle(
        name=study.dataset.name,
        model=models.resolve(config.model, dotted=True),
        spatial_dims=study.spatial_dims,
        channels=channels,
        labels=study.labels,
        preprocess=config.preprocess,
        inference=config.inference,
        precision="bf16" if trial.precision == "bf16" else "fp32",
    )
