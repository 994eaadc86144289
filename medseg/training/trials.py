"""Trial steps before a run, which decide on its precision and on a batch that fits this device."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from medseg import config as configs
from medseg import files, memory, progress
from medseg.engine import distributed
from medseg.engine.trial import Setup, Trial, measure
from medseg.errors import MedsegError
from medseg.training import build
from medseg.training.prepared import Prepared
from medseg.training.study import Study

if TYPE_CHECKING:
    from lightning_fabric import Fabric

_COPIES = 5  # of the weights, besides the model: that of the trial, slopes, momentum, average, and weights and slopes in halves


def agreed(
    several: Fabric, study: Study, folder: Path, model: nn.Module, loss: nn.Module, learned: Sequence[Prepared]
) -> Trial:
    """The trial of a run: of a divided model by all processes together, of any other by the first one for all.

    A resumed run keeps it, on a device of the same kind. From here on `config.yaml` has the batch that fits.
    """
    path, device = folder / "checkpoints" / "trial.json", several.device
    setup = several.setup_module if study.config.train.strategy == "fsdp" else None
    found = None
    if several.is_global_zero or setup is not None:
        found = _kept(path, device)
        if found is None:
            found = tried(study, model, loss, learned, device, setup)
            if several.is_global_zero:
                files.write_text(folder / "config.yaml", configs.dump(study.with_batch(found.batch).config))
                files.write_json(path, {"device": device.type, **dataclasses.asdict(found)})
                shown = ", ".join(f"{name} {seconds:.3g} s" for name, seconds in found.seconds.items())
                progress.say(f"training in {found.precision} on {device} (measured a step: {shown})")
    trial: Trial = distributed.agree(found, several)
    return trial


def _kept(path: Path, device: torch.device) -> Trial | None:
    """What an earlier start measured on a device of this kind."""
    if not path.exists():
        return None
    known = files.read_json(path)
    return Trial(**known) if known.pop("device", device.type) == device.type else None


def tried(
    study: Study,
    model: nn.Module,
    loss: nn.Module,
    learned: Sequence[Prepared],
    device: torch.device,
    setup: Setup | None = None,
) -> Trial:
    """A few steps before a run. The batch is halved until they fit; a single patch that does not fit gets checkpointing.

    Raises:
        MedsegError: it does not fit even so.
    """
    if device.type == "cpu" and setup is None:
        _check_memory(model)
    while True:
        train = study.config.train
        try:
            return measure(model, loss, build.batches(study, learned, device), device, train, setup, study.config.optim)
        except (MemoryError, RuntimeError) as error:
            if not memory.is_out_of_memory(error):
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


def _check_memory(model: nn.Module) -> None:
    """Refuse a network whose training a system would only stop at by ending the process: Linux promises more than it has."""
    sizes = [weight.numel() for weight in model.parameters()]
    weights, free = sum(sizes), memory.free_bytes()
    # a layer and its slopes are copied once more while they are computed
    needed = 4 * (_COPIES * weights + 2 * max(sizes, default=0))
    if needed > free:
        raise MedsegError(
            f"{weights / 1e6:.0f} million weights need {needed / 1e9:.0f} GB to be trained, and {free / 1e9:.0f} GB are free: "
            "take a smaller network or preset, such as model.preset=tiny, or a larger machine"
        )
