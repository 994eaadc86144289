"""What a study trains, and on what: its cases, first stage, network, loss and batches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import nn

from medseg import descent, distill, losses, models, progress, prune, region, system, transfer
from medseg.errors import RunError
from medseg.loader import Batches
from medseg.predictor import Predictor
from medseg.prepared import Prepared, prepare_cases
from medseg.study import Study


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
    """The network of a study before its first step: untrained, with the weights that `init` names, or a stored one made narrower.

    Raises:
        ConfigError: it cannot be divided between processes, and is to be.
        RunError: `init` names other weights than when the study was settled.
    """
    if study.config.train.strategy == "fsdp":
        models.require(study.config.model, "strategy=fsdp", "Use train.strategy=ddp.")
    made = descent.untrained(study.config, study.labels, study.spatial_dims)
    if study.config.init.source:
        start = transfer.find(study.config.init, made)
        if str(start) != study.plan["init"]:
            raise RunError(
                "init.from: other weights lie there than when the run began. Put the old ones back, or name a new folder with -o."
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
