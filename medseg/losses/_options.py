"""Options that losses share."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from medseg.settings import Settings

_LARGEST = 1e9  # what is larger, times what a voxel costs, leaves single precision
Weight = Annotated[float, Field(ge=0, le=_LARGEST, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, le=_LARGEST, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1)]
Times = Annotated[int, Field(ge=1, le=1000)]  # that something is repeated for each batch


class Options(Settings):
    """Options of every loss.

    Args:
        activation: "softmax" where classes exclude each other, "sigmoid" where they may overlap (or for one channel).
        ignore_index: target value of voxels that count nowhere; with memberships, a voxel is left out where any channel has it.
        class_weights: one number an output channel, background included; None weighs all alike. A mean over structures is divided
            by the sum of their weights; what a voxel costs is multiplied by its weight.
    """

    activation: Literal["softmax", "sigmoid"] = "softmax"
    ignore_index: int = -1
    class_weights: tuple[Weight, ...] | None = None


class StructureOptions(Options):
    """Options of losses that look at one structure after the other.

    Args:
        include_background: count channel 0 as a structure too. With "sigmoid" there is no background, and all channels count.
    """

    include_background: bool = False


class OverlapOptions(StructureOptions):
    """Options of losses that compare regions rather than voxels.

    Args:
        batch: sum regions over the batch before comparing, instead of sample by sample: steadier where structures are
            absent from many patches. Processes that train together share a batch.
        smooth: added above and below the fraction bar, so that a structure absent from both counts as a perfect match;
            with 0 such a structure is a perfect match by decision.
    """

    batch: bool = False
    smooth: Weight = 1e-5
