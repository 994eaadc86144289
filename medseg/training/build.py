"""What a run is built of, from its study: cases, first stage, network, loss and batches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import nn

from medseg import losses, models, progress, system, transfer
from medseg.errors import RunError
from medseg.geometry import region
from medseg.predictor import Predictor
from medseg.training import inheritance
from medseg.training.loader import Batches
from medseg.training.prepared import Prepared, prepare_cases
from medseg.training.study import Study
from medseg.transfer import distill, prune


def cases(
    study: Study, ids: Sequence[str], cache: Path, places: Mapping[str, region.Place] | None = None
) -> list[Prepared]:
    """Cases of a study as its network sees them; a second stage, around their masks, or at the places found."""
    config = study.config
    return prepare_cases(
        study.cases(ids), config.preprocess, study.labels, cache, config.cache_gb, study.region, places
    )


def first_stage(study: Study, device: torch.device) -> Predictor | None:
    """The first of two stages, where there are two."""
    found = study.ancestor("locate.from")
    return found.predictor(study.fold.test, device) if found else None


def network(study: Study) -> nn.Module:
    """The network of a study before its first step: untrained, with the weights that `init` names, or a stored one made narrower.

    Raises:
        ConfigError: it cannot be divided between processes, and is to be.
        RunError: `init` names other weights than when the study was settled.
    """
    if study.config.train.strategy == "fsdp":
        models.require(study.config.model, "strategy=fsdp", "Use train.strategy=ddp.")
    made = inheritance.untrained(study.config, study.labels)
    if study.config.init.source:
        start = transfer.find(study.config.init, made)
        if str(start) != study.plan["init"]:
            raise RunError(
                "init.from: the weights there are not those that the run began with. Put those back, or name a new folder with -o."
            )
        made.load_state_dict(start.weights, strict=False)
        progress.say(f"begins with {start}")
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
