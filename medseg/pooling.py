"""What the members of an ensemble say of themselves, made one: facts, windows, cleaning."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from medseg import postprocess, windows
from medseg.description import Bundle


def pooled(members: Sequence[Bundle], planned: windows.Config) -> Bundle:
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
    (first, *others), airs = ({c.model_copy(update={"air": None}) for c in configs}), [c.air for c in configs]
    if others:
        return planned
    return first.model_copy(update={"air": None if None in airs else min(a for a in airs if a is not None)})


def _agreed(configs: Sequence[postprocess.Config]) -> postprocess.Config:
    """What more than half of the members want removed; of their minima the median."""
    names = dict.fromkeys(name for config in configs for name in (*config.largest_component, *config.minimum_ml))
    minima = {name: [c.minimum_ml[name] for c in configs if name in c.minimum_ml] for name in names}
    return postprocess.Config(
        largest_component=tuple(n for n in names if sum(n in c.largest_component for c in configs) > len(configs) / 2),
        minimum_ml={name: median(found) for name, found in minima.items() if len(found) > len(configs) / 2},
    )
