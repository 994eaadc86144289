"""Runs that two processes make together, for test_distributed.py; `torchrun` starts this file twice.

Each run goes into a folder of its own name. The test makes the same runs in one process with batches twice as large.
"""

from __future__ import annotations

import copy
import faulthandler
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from medseg import augment, files, sample, system
from medseg.engine import distributed, optim
from medseg.engine.fit import Config, fit
from medseg.engine.shards import whole
from medseg.errors import Interrupted
from medseg.losses import create_loss
from medseg.models import about, create_model, names
from medseg.settings import parse
from medseg.training.loader import Batches
from medseg.training.prepared import Prepared
from medseg.volume import Geometry

SGD = {"name": "sgd", "learning_rate": 0.05, "momentum": 0.9}
GROUP = {"name": "unet", "preset": "tiny", "norm": "group"}
BATCH_DICE = {"name": "dice_ce", "batch": True}
# Each differs from a run with the tiny U-Net (instance normalisation), SGD and Dice of samples in what it says.
RUNS: dict[str, dict[str, Any]] = {
    "instance": {},
    "group": {"model": GROUP},
    "adamw": {"how": {"name": "adamw", "learning_rate": 0.01}},
    "batch_dice": {"loss": BATCH_DICE},
    "generalised": {"loss": {"name": "generalised_dice", "batch": True}, "model": GROUP},
    "accumulated": {"train": {"accumulate": 2, "batch": 1}},
    "divided": {"train": {"strategy": "fsdp"}, "loss": BATCH_DICE},
    "divided_adamw": {"train": {"strategy": "fsdp", "accumulate": 2, "batch": 1}, "how": {"name": "adamw"}},
    "divided_lean": {"train": {"strategy": "fsdp", "checkpointing": True}},
}


def cases() -> list[Prepared]:
    """Three scans of noise whose bright voxels are two structures; the first scan has far more of them."""
    made = []
    for number in range(3):
        rng = np.random.default_rng(number)
        image = rng.normal(2 - number, 1, (1, 20, 18, 16)).astype(np.float32)
        target = (image > 0.5).astype(np.int16) + (image > 1.5)
        points = sample.points_by_class(target)
        made.append(Prepared(f"{number}", Geometry(image.shape[1:], np.eye(4)), image, target, points))
    return made


def run(folder: Path, *, size: int, before: Callable[[int], Any] = lambda _: None, **changes: Any) -> dict[str, Tensor]:
    """A few steps of `size` samples in each process; gives the weights."""
    config = parse(Config, {"steps": 4, "validations": 2, "batch": size} | changes.get("train", {}))
    rank, ranks = system.ranks()
    draw = Batches(
        cases(), sample.Config(patch=(16, 16, 8)), augment.Config(), size=config.batch, parts=config.accumulate,
        device=torch.device("cpu"), rank=rank, ranks=ranks,
    )  # fmt: skip
    torch.manual_seed(0 if config.strategy == "fsdp" else rank)  # undivided, the first process's weights hold for all
    described = changes.get("model", {"name": "unet", "preset": "tiny"})
    model = create_model(described, spatial_dims=3, in_channels=1, out_channels=3)

    def watched(number: int) -> tuple[Tensor, Tensor]:
        before(number)
        return draw(number)

    watched.spacing_mm = draw.spacing_mm  # type: ignore[attr-defined]
    fit(
        model,
        create_loss(changes.get("loss", "dice_ce")),
        watched,  # type: ignore[arg-type]
        lambda weights: float(weights["heads.0.weight"].abs().mean()),
        config,
        parse(optim.Config, changes.get("how", SGD)),
        distributed.fabric(torch.device("cpu"), share=config.strategy),
        folder / "checkpoints",
        started=time.monotonic(),
        resume=changes.get("resume", False),
    )
    return model.state_dict()


def interrupted(folder: Path, **changes: Any) -> None:
    """Stopped by a signal to the first process, which tells the other; then gone on with."""

    def stop(number: int) -> None:
        if number == 1 and system.ranks()[0] == 0:
            os.kill(os.getpid(), signal.SIGTERM)

    try:
        run(folder, size=2, before=stop, **changes)
    except Interrupted:
        torch.distributed.barrier()  # what a second start takes for granted: the first process has written the checkpoint
        run(folder, size=2, resume=True, **changes)


def divided(name: str) -> float:
    """Largest difference that division makes to the gradients of an architecture, relative to the largest gradient."""
    fabric = distributed.fabric(torch.device("cpu"), share="fsdp")
    torch.manual_seed(0)
    model = create_model(name, spatial_dims=3, in_channels=1, out_channels=3, preset="tiny").train()
    found = []
    for network, backward in ((copy.deepcopy(model), Tensor.backward), (fabric.setup_module(model), fabric.backward)):
        torch.manual_seed(1)  # of dropout, too
        image = torch.randn(2, 1, 16, 12, 8)
        backward(create_loss("dice_ce")(network(image), (image[:, 0] > 0.5).long()))
        found.append({key: whole(weight.grad) for key, weight in network.named_parameters() if weight.grad is not None})
    plain, ours = found[0], {key.removeprefix("_forward_module."): slope for key, slope in found[1].items()}
    assert plain.keys() == ours.keys()
    apart = max((slope - ours[key]).abs().max().item() for key, slope in plain.items())
    return apart / max(slope.abs().max().item() for slope in plain.values())


if __name__ == "__main__":
    faulthandler.enable()
    torch.set_num_threads(1)
    root = Path(sys.argv[1])
    apart = {name: divided(name) for name in names() if "fsdp" not in about(name).without}
    if system.ranks()[0] == 0:
        files.write_json(root / "divided.json", apart)
    for name, changes in RUNS.items():
        run(root / name, size=2, **changes)
    for name in ("instance", "divided_adamw"):
        interrupted(root / f"{name}_interrupted", **RUNS[name])
