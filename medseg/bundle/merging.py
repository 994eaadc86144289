"""The description of an ensemble, merged from those of its members: facts, windows, post-processing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from medseg import postprocess
from medseg.bundle.description import Bundle
from medseg.inference import windows


def merged(members: Sequence[Bundle], planned: windows.Config) -> Bundle:
    """The description of an ensemble.

    Args:
        members: of one architecture, on one grid.
        planned: the windows that hold where the members chose different ones.
    """
    return members[0].model_copy(
        update={
            "inference": common_windows([member.inference for member in members], planned),
            "postprocess": _agreed([member.postprocess for member in members]),
            "precision": "bf16" if all(member.precision == "bf16" for member in members) else "fp32",
            "scores": _of_each([member.scores for member in members]),
            "training": _of_each([member.training for member in members]),
        }
    )


def _of_each(members: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Facts about several members: what all share once, what differs as a list."""
    columns = {name: [facts.get(name) for facts in members] for name in members[0]}
    return {name: found[0] if all(f == found[0] for f in found) else found for name, found in columns.items()}


def common_windows(configs: Sequence[windows.Config], planned: windows.Config) -> windows.Config:
    """The windows that all members chose, or the planned ones; of air is what each of them knows as air."""
    if len({config.model_copy(update={"air": None}) for config in configs}) > 1:
        return planned
    airs = [config.air for config in configs if config.air is not None]
    return configs[0].model_copy(update={"air": min(airs) if len(airs) == len(configs) else None})


def _agreed(configs: Sequence[postprocess.Config]) -> postprocess.Config:
    """What more than half of the members want removed; of their minima the median."""
    names = dict.fromkeys(name for config in configs for name in (*config.largest_component, *config.minimum_ml))
    minima = {name: [c.minimum_ml[name] for c in configs if name in c.minimum_ml] for name in names}
    return postprocess.Config(
        largest_component=tuple(n for n in names if sum(n in c.largest_component for c in configs) > len(configs) / 2),
        minimum_ml={name: median(found) for name, found in minima.items() if len(found) > len(configs) / 2},
    )
