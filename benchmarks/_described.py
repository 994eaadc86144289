"""Datasets that numbers describe, and what medseg plans for them: networks to measure that nobody has to train."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch

from medseg import Labels, bundle, models, planning, preprocess, system
from medseg import config as configs
from medseg.config import RunConfig
from medseg.planning import fingerprint, limits
from medseg.planning.choices import nested

CT_SPACING_MM = (0.8, 0.8, 1.5)  # of an abdomen
# Hounsfield units inside structures, for whoever plans: mean, standard deviation, percentiles 0.5 and 99.5, smallest in a scan.
CT_MEAN, CT_STD, CT_LOW, CT_HIGH, CT_MINIMUM = 40.0, 100.0, -200.0, 300.0, -1000.0
_LABEL_ML = 30.0
_SEED = 0


class Described(NamedTuple):
    """What a planner knows of a dataset whose scans are all alike.

    Args:
        shape: voxels of a scan along i, j and k.
        spacing_mm: of its voxels.
        labels: number of structures, background not counted.
        cases: labelled scans.
        modality: "CT" or "MRI".
    """

    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    labels: int
    cases: int = 100
    modality: str = "CT"


def plan(data: Described, *, coarsens: bool) -> RunConfig:
    """The configuration that `medseg train` without a budget would choose on this machine.

    Args:
        data: to be learned.
        coarsens: the planner chooses the grid, which it makes coarser for a CPU; else it is the scans' own.
    """
    facts = fingerprint.ChannelFacts(
        name=data.modality, mean=CT_MEAN, std=CT_STD, low=CT_LOW, high=CT_HIGH, minimum=CT_MINIMUM
    )
    labels = labels_of(data)
    found = fingerprint.Fingerprint(
        cases=data.cases,
        spacing_mm=data.spacing_mm,
        thick_spacing_mm=data.spacing_mm,
        shape=data.shape,
        channels=(facts,),
        label_ml=dict.fromkeys(labels.names, _LABEL_ML),
    )
    afforded = limits.afforded("cpu" if system.pick_device("auto").type == "cpu" else "gpu", system.cores())
    choices = nested(planning.plan(found, labels, afforded))
    if not coarsens:
        given = preprocess.Config(**{**choices["preprocess"], "spacing_mm": data.spacing_mm})
        choices = nested(planning.plan(found, labels, afforded, given=given))
    return configs.complete(configs.resolve(choices, {}))


def labels_of(data: Described) -> Labels:
    """Structures numbered from 1."""
    return Labels.of(range(1, data.labels + 1))


def network(data: Described, config: RunConfig) -> torch.nn.Module:
    """The planned network with random weights, the same ones each time."""
    torch.manual_seed(_SEED)
    return models.create_model(config.model, spatial_dims=3, in_channels=1, out_channels=labels_of(data).channels)


def save(data: Described, folder: Path, *, coarsens: bool) -> Path:
    """A bundle of the planned network, untrained: as slow as a good one, but with masks of noise."""
    config, device = plan(data, coarsens=coarsens), system.pick_device("auto")
    described = bundle.Bundle(
        name="untrained",
        model=config.model,
        spatial_dims=3,
        channels=(data.modality,),
        labels=labels_of(data),
        preprocess=config.preprocess,
        inference=config.inference,
        precision="bf16" if system.has_bf16(device) else "fp32",
    )
    bundle.save(folder, described, [network(data, config).state_dict()])
    return folder
