"""What a run inherits from the stored models that it names (grid, architecture, where to look), and whether it may."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from medseg import models, planning, progress, transfer
from medseg.config import RunConfig
from medseg.data.splits import Fold
from medseg.errors import ConfigError
from medseg.labels import Labels
from medseg.planning.choices import Choice, nested
from medseg.planning.fingerprint import Fingerprint
from medseg.planning.limits import Limits
from medseg.settings import Settings
from medseg.transfer import lineage, prune
from medseg.transfer.lineage import Ancestor, Setting

Ancestors = Mapping[Setting, Ancestor]
_FOLLOWED = ("distill.from", "prune.from")  # whose grid and intensities a run takes over


def find(config: RunConfig) -> dict[Setting, Ancestor]:
    """The stored models that the settings name; none in most runs.

    Raises:
        ConfigError: no model is named, but settings beside it are.
        BundleError: one of them cannot be used.
    """
    named = folders(config)
    parts: dict[Setting, Settings] = {
        "distill.from": config.distill,
        "prune.from": config.prune,
        "locate.from": config.locate,
    }
    for setting, part in parts.items():
        if setting not in named and part != type(part)():
            raise ConfigError(
                f"{setting}: no stored model is named, but settings beside it are. Name one, or leave those out."
            )
    return {setting: lineage.find(setting, folder) for setting, folder in named.items()}


def folders(config: RunConfig) -> dict[Setting, str]:
    """Where the stored models lie that the settings name."""
    named: dict[Setting, str | None] = {
        "init.from": config.init.source if Path(config.init.source or "").is_dir() else None,
        "distill.from": config.distill.source,
        "prune.from": config.prune.source,
        "locate.from": config.locate.source,
    }
    return {setting: folder for setting, folder in named.items() if folder}


def plan(
    found: Fingerprint, labels: Labels, limits: Limits, asked: RunConfig, ancestors: Ancestors
) -> tuple[tuple[Choice, ...], dict[str, Any]]:
    """The plan of a run, made for the grid and the intensities of the models that it names.

    Returns:
        The choices, and their values by stage. Where a stored model is made narrower, it decides the architecture.

    Raises:
        ConfigError: that model cannot be made narrower.
    """
    dims: Any = asked.dims
    first = next((ancestor for setting, ancestor in ancestors.items() if setting in _FOLLOWED), None)
    if first and dims == "auto":
        dims = str(first.bundle.spatial_dims)
    given, wanted = first.bundle.preprocess if first else None, asked.preprocess
    orientation = wanted.orientation if "orientation" in wanted.model_fields_set else None
    choices = planning.plan(found, labels, limits, dims, given, wanted.spacing_mm, orientation)
    if locator := ancestors.get("locate.from"):
        why = f"the network is shown the part of a scan around what {locator} finds"
        choices = (*choices, Choice("locate.margin_mm", asked.locate.margin_mm, why))
    if not (wide := ancestors.get("prune.from")):
        return choices, nested(choices)
    model = prune.narrowed(wide.bundle.model, asked.prune.keep)
    why = f"at least {asked.prune.keep:.0%} of the stored model's channels, in multiples of 8"
    widths = (Choice(f"model.{name}", model[name], why) for name in prune.WIDTHS if name in model)
    choices = (*(choice for choice in choices if not choice.name.startswith("model.")), *widths)
    return choices, {**nested(choices), "model": model}


def check(
    ancestors: Ancestors, config: RunConfig, labels: Labels, channels: Sequence[str], folds: Sequence[Fold]
) -> None:
    """Check that the stored models fit what is to be learned, and never saw what is held out.

    Args:
        ancestors: as found.
        config: complete.
        labels, channels: of the dataset.
        folds: its divisions.

    Raises:
        ConfigError: a model does not fit.
        DataError: a model learned from cases that are held out.
    """
    for setting, ancestor in ancestors.items():
        if setting == "locate.from":
            ancestor.check_locates(channels)
        elif setting in _FOLLOWED:
            ancestor.check(labels, channels, config.spatial_dims, config.preprocess, config.locate.region())
        _check_seen(ancestor, folds)
    if config.init.source and config.prune.source:
        raise ConfigError("init.from and prune.from both say with which weights a run begins. Leave one out.")
    if wide := ancestors.get("prune.from"):
        if config.model != prune.narrowed(wide.bundle.model, config.prune.keep):
            raise ConfigError(
                "model: prune.from and prune.keep decide the architecture. Leave model out, or prune.from."
            )
        prune.start(wide, config.model)  # refused now, rather than when all cases are prepared


def untrained(config: RunConfig, labels: Labels) -> nn.Module:
    """The network of a run with random weights; on the meta device without any."""
    return models.create_model(
        config.model,
        spatial_dims=config.spatial_dims,
        in_channels=len(config.preprocess.intensity),
        out_channels=labels.channels,
        dotted=True,
    )


def start(config: RunConfig, labels: Labels) -> transfer.Start:
    """What `init` has for the network of a run, from shapes alone: said before all cases are prepared.

    Raises:
        BundleError: nothing usable lies there.
        ConfigError: nothing of it fits.
    """
    with torch.device("meta"):
        found = transfer.find(config.init, untrained(config, labels))
    if found.foreign:
        progress.warn(
            f"init.from: {len(found.weights)} of {found.held} tensors there fit, and most of the network's trunk begins with random "
            "values. Is it a file of this network's trunk, of its depth and width?"
        )
    return found


def _check_seen(ancestor: Ancestor, folds: Sequence[Fold]) -> None:
    if ancestor.seen is None and any(fold.test for fold in folds):
        progress.warn(
            f"{ancestor.setting}: it is unknown which cases that model learned from (its run would say). If it saw cases "
            "that are held out here, their scores are too good"
        )
    for fold in folds:
        clean, members = len(ancestor.unseen(fold.test)), len(ancestor.members)
        if clean < members:
            progress.say(
                f"{ancestor.setting}: {clean} of {members} networks never saw the cases held out, and are used"
            )
