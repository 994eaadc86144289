"""From a settled study to a stored model: prepare, measure, fit, choose, save."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from medseg import bundle as bundles
from medseg import config as configs
from medseg import distill, files, locating, losses, models, progress, prune, region, system, windows
from medseg.bundle import Bundle
from medseg.engine import fit, optim, state, together
from medseg.engine.determinism import deterministic
from medseg.engine.trial import Setup, Trial, measure
from medseg.errors import MedsegError
from medseg.inner import Inner
from medseg.loader import Batches
from medseg.predictor import Predictor
from medseg.prepared import Prepared, prepare_cases
from medseg.study import Study
from medseg.system import pick_device

if TYPE_CHECKING:
    from lightning_fabric import Fabric

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
    system.keep_heap()
    train = study.config.train
    several = together.fabric(pick_device(study.config.device), share=train.strategy)
    device = several.device
    locator = first_stage(study, device)
    with deterministic(train.deterministic):
        places = locating.locate(locator, study.region, study.cases(study.inner.test), study.labels)
    cases = {case.id: case for case in prepared(study, (*study.inner.train, *study.inner.test), cache, places)}
    learned, chosen = ([cases[name] for name in ids] for ids in (study.inner.train, study.inner.test))
    torch.manual_seed(study.config.seed)
    model, loss = network(study), criterion(study, device)
    with deterministic(train.deterministic), system.enough_memory(_LESS):
        trial = _agreed(several, study, folder, model, loss, learned)
        study = study.with_batch(trial.batch)
        inner = Inner(_describe(study, trial), model, chosen, str(device), locator)
        step_voxels = study.config.train.batch * math.prod(study.config.sample.patch)
        candidates = inner.candidates(_LIGHTER * step_voxels) if study.config.windows == "measured" else {}
        fabric = together.fabric(device, trial.precision, train.strategy)
        run = fit.fit(
            model,
            loss,
            batches(study, learned, device),
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


def prepared(
    study: Study, ids: Sequence[str], cache: Path, places: Mapping[str, region.Place] | None = None
) -> list[Prepared]:
    """Cases of a study as its network sees them; a second stage, around their masks, or at the places found."""
    config, cases = study.config, study.cases(ids)
    return prepare_cases(cases, config.preprocess, study.labels, cache, config.cache_gb, study.region, places)


def first_stage(study: Study, device: torch.device) -> Predictor | None:
    """The first of two stages, where there are two."""
    found = study.ancestor("locate.from")
    return found.predictor(study.fold.test, device) if found else None


def network(study: Study) -> nn.Module:
    """The network of a study before its first step: untrained, or a stored one made narrower."""
    made = models.create_model(
        study.config.model,
        spatial_dims=study.spatial_dims,
        in_channels=len(study.config.preprocess.intensity),
        out_channels=study.labels.channels,
        dotted=True,
    )
    if wide := study.ancestor("prune.from"):
        made.load_state_dict(prune.start(wide, study.config.model))
    return made


def criterion(study: Study, device: torch.device) -> nn.Module:
    """The loss of a study, with its teacher's word where it has one."""
    loss, labels = losses.create_loss(study.config.loss), study.labels
    if taught_by := study.ancestor("distill.from"):
        teacher = distill.teacher(taught_by, study.fold.test, device)
        return distill.Taught(loss, teacher, study.config.distill, exclusive=labels.exclusive)
    return loss


def batches(study: Study, learned: Sequence[Prepared], device: torch.device) -> Batches:
    """The batches that a study trains on; each of several processes draws its own part."""
    config, (rank, ranks) = study.config, system.ranks()
    share = {"size": config.train.batch, "parts": config.train.accumulate, "rank": rank, "ranks": ranks}
    return Batches(learned, config.sample, config.augment, device=device, seed=config.seed, **share)


def tried(
    study: Study,
    model: nn.Module,
    loss: nn.Module,
    learned: Sequence[Prepared],
    device: torch.device,
    setup: Setup | None = None,
) -> Trial:
    """A few steps before a run, with the batch halved until they fit; of a single patch the stages are computed again.

    Raises:
        MedsegError: nothing of that fits.
    """
    while True:
        train = study.config.train
        try:
            return measure(model, loss, batches(study, learned, device), device, train, setup, study.config.optim)
        except (MemoryError, RuntimeError) as error:
            if not system.is_out_of_memory(error):
                raise
            if setup or (train.batch == 1 and train.checkpointing != "auto"):  # one process cannot plan again alone
                what = "a single patch does" if train.batch == 1 else f"{train.batch} patches do"
                raise MedsegError(f"{what} not fit in the memory of {device}: make sample.patch smaller") from error
        # not above: the error holds on to what did not fit
        if train.batch > 1:
            study = study.with_batch(train.batch // 2)
            progress.warn(f"out of memory on {device}: planning again with batches of {study.config.train.batch}")
        else:
            config = study.config.model_copy(update={"train": train.model_copy(update={"checkpointing": True})})
            study = dataclasses.replace(study, config=config)
            progress.warn(
                f"out of memory on {device}: stages are computed again for their gradients, which takes longer"
            )


def _agreed(
    several: Fabric, study: Study, folder: Path, model: nn.Module, loss: nn.Module, learned: Sequence[Prepared]
) -> Trial:
    """What was tried before the first step: a divided model by all processes together, another by the first one for all."""
    setup = several.setup_module if study.config.train.strategy == "fsdp" else None
    tries = several.is_global_zero or setup is not None
    found = _measured(study, folder, model, loss, learned, several.device, setup) if tries else None
    trial: Trial = together.agree(found, several)
    return trial


def _measured(
    study: Study,
    folder: Path,
    model: nn.Module,
    loss: nn.Module,
    learned: Sequence[Prepared],
    device: torch.device,
    setup: Setup | None,
) -> Trial:
    """What was tried before the first step of a run; a resumed one keeps it, on a device of the same kind. From here on
    `config.yaml` has the batch that fits."""
    path = folder / "checkpoints" / "trial.json"
    if path.exists() and (known := files.read_json(path)).pop("device", device.type) == device.type:
        return Trial(**known)
    trial = tried(study, model, loss, learned, device, setup)
    if system.ranks()[0] == 0:
        files.write_text(folder / "config.yaml", configs.dump(study.with_batch(trial.batch).config))
        files.write_json(path, {"device": device.type, **dataclasses.asdict(trial)})
    shown = ", ".join(f"{name} {seconds:.3g} s" for name, seconds in trial.seconds.items())
    progress.say(f"training in {trial.precision} on {device} (measured a step: {shown})")
    return trial


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
        spatial_dims=study.spatial_dims,
        channels=tuple(channel["name"] for channel in study.plan["fingerprint"]["channels"]),
        labels=study.labels,
        preprocess=config.preprocess,
        inference=config.inference,
        locate=study.region,
        precision="bf16" if trial.precision == "bf16" else "fp32",
    )


def _store(
    study: Study, trial: Trial, run: state.Run, inner: Inner, weights: Mapping[str, Tensor], folder: Path
) -> None:
    """Choose what cleaning helps, and write the bundle."""
    progress.say(
        f"{run.step} steps in {progress.clock(run.seconds)}, {run.waited_s / run.seconds:.1%} of it waiting for batches; "
        f"best Dice on the inner split {run.best:.3f} at step {run.best_step}"
    )
    if run.step < _FEW_STEPS:
        progress.warn(f"only {run.step} step(s) were made, and some hundreds are needed: give it more time")
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
