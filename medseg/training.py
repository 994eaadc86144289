"""From a settled study to a stored model: prepare, measure, fit, choose, save."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import torch
from lightning_fabric import Fabric
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


def learn(study: Study, folder: Path, *, started: float, resume: bool) -> None:
    """Prepare, train and store a model as `bundle/`.

    Args:
        study: what was settled.
        folder: of the run.
        started: `time.monotonic()` at which the budget began.
        resume: go on from the checkpoint.
    """
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
    fabric = _fabric(device, trial.precision)
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
    if not fabric.is_global_zero:
        return
    weights = state.weights(folder / "checkpoints" / "best.safetensors")
    facts = {
        "cases": len(learned), "inner_cases": len(chosen), "held_out_cases": len(study.fold.test), "steps": run.step,
        "seconds": round(run.seconds, 1), "seconds_a_step": round(trial.step_s, 4), "seed": config.seed,
        "loss": config.loss["name"], "waiting_for_batches": round(run.waited_s / max(run.seconds, 1e-9), 4),
    }  # fmt: skip
    described = described.model_copy(update={"training": facts, "scores": {"inner_dice": round(run.best, 4)}})
    described = described.model_copy(update={"postprocess": inner.postprocess(weights, study.cases(study.inner.test))})
    bundles.save(folder / "bundle", described, [weights])


_PRECISION: Mapping[str, Literal["bf16-mixed", "32-true"]] = {"bf16": "bf16-mixed", "fp32": "32-true"}


def _fabric(device: torch.device, precision: str) -> Fabric:
    """Device, precision and processes; as many of these as `torchrun` or Slurm started."""
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # it repeats what `_trial` says
    _, ranks = system.ranks()
    local = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    fabric = Fabric(
        accelerator=device.type,
        devices=[device.index or 0] if device.type == "cuda" and ranks == 1 else local,
        num_nodes=ranks // local,
        strategy="ddp" if ranks > 1 else "auto",
        precision=_PRECISION[precision],
    )
    fabric.launch()
    return fabric


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
    rank, ranks = system.ranks()
    return Batches(
        learned,
        config.sample,
        config.augment,
        size=config.train.batch,
        device=device,
        seed=config.seed,
        rank=rank,
        ranks=ranks,
    )


def _trial(
    folder: Path, model: nn.Module, loss: nn.Module, batches: Batches, device: torch.device, config: RunConfig
) -> Trial:
    """Measured once for a run: a resumed one keeps its arithmetic. Processes that train together must not choose apart."""
    path, (rank, ranks) = folder / "checkpoints" / "trial.json", system.ranks()
    if path.exists() and ranks == 1:
        return Trial(**files.read_json(path))
    together = "bf16" if device.type == "cuda" and torch.cuda.is_bf16_supported() else "fp32"
    wanted = together if ranks > 1 and config.train.precision == "auto" else config.train.precision
    trial = measure(model, loss, batches, device, wanted)
    if rank == 0:
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
