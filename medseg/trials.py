"""Steps before the first one: how a run computes, and with how large a batch, so that it fits this device."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from medseg import config as configs
from medseg import files, parts, progress, system
from medseg.engine import together
from medseg.engine.trial import Setup, Trial, measure
from medseg.errors import MedsegError
from medseg.prepared import Prepared
from medseg.study import Study

if TYPE_CHECKING:
    from lightning_fabric import Fabric


def agreed(
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
            return measure(model, loss, parts.batches(study, learned, device), device, train, setup, study.config.optim)
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
