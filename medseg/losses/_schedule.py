"""Numbers that change while a model is trained."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Discriminator, Field, Tag

from medseg.losses._options import Share, Weight
from medseg.settings import Settings


class Ramp(Settings):
    """A straight line over the training.

    Args:
        start: `from` in files and commands: the value at the beginning.
        end: `to`: the value after the share `over` of the training, and from there on.
        over: 0 to 1.
    """

    start: Weight = Field(alias="from")
    end: Weight = Field(alias="to")
    over: float = Field(default=1.0, gt=0, le=1)


class ShareRamp(Ramp):
    """A straight line between two shares."""

    start: Share = Field(alias="from")
    end: Share = Field(alias="to")


def _kind(value: Any) -> str:
    return "dict[]" if isinstance(value, Mapping | Ramp) else "float"


# The tags are as pydantic names types, so that a mistake is told by its place alone.
Scheduled = Annotated[
    Annotated[Weight, Tag("float")] | Annotated[Ramp, Tag("dict[]")],
    Discriminator(_kind),
]
ScheduledShare = Annotated[
    Annotated[Share, Tag("float")] | Annotated[ShareRamp, Tag("dict[]")],
    Discriminator(_kind),
]


def at(value: float | Ramp, progress: float) -> float:
    """The value when a share `progress` of the training is over."""
    if not isinstance(value, Ramp):
        return value
    return value.start + (value.end - value.start) * min(1.0, progress / value.over)
