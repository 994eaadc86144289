"""What a device affords, and what fits the clock: the numbers that a plan is held to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from medseg.settings import Settings

Device = Literal["cpu", "gpu"]
_STEPS = 1000  # that a budget must hold
_SMALLEST_PATCH = 32**3


class Limits(Settings):
    """What a device affords.

    Args:
        case_voxels: of a whole scan on the training grid, beyond which the grid is made coarser.
        patch_voxels: of one patch; slice_voxels: of one slice for 2D models.
        step_voxels: of all patches of a step.
        width: channels of the first stage; doubled each stage up to `widest`.
        first_stride: 2 computes the first stage at half resolution.
    """

    case_voxels: float
    patch_voxels: float
    slice_voxels: float
    step_voxels: float
    width: int
    widest: int
    first_stride: int

    def patch(self, flat: bool) -> float:
        """Voxels of a patch, or of a slice."""
        return self.slice_voxels if flat else self.patch_voxels


# On a CPU the network decides: its first stage at half resolution learns several times more a second.
LIMITS: Mapping[Device, Limits] = {
    "cpu": Limits(
        case_voxels=3e6,
        patch_voxels=96**3,
        slice_voxels=256**2,
        step_voxels=200_000,  # many small steps learn more than few large ones, as long as a step costs what its voxels cost
        width=24,
        widest=192,
        first_stride=2,
    ),
    "gpu": Limits(
        case_voxels=4e7,
        patch_voxels=128**3,
        slice_voxels=512**2,
        step_voxels=2 * 128**3,
        width=32,
        widest=320,
        first_stride=1,
    ),
}


# What the default network gets through, forward and back: measured on two cores with bf16, guessed for a GPU.
# A CPU's figure is for each core.
_VOXELS_A_SECOND: Mapping[Device, float] = {"cpu": 7e5, "gpu": 5e7}


def afforded(device: Device, cores: int = 1, budget_s: float | None = None) -> Limits:
    """Limits of a device that leave a budget at least 1000 steps of two patches; patches stay above 32^3.

    Args:
        device: which limits hold.
        cores: of a CPU.
        budget_s: seconds of training; None for as many as it likes.
    """
    limits = LIMITS[device]
    if budget_s is None:
        return limits
    a_step = _VOXELS_A_SECOND[device] * (cores if device == "cpu" else 1) * budget_s / _STEPS
    patch = min(limits.patch_voxels, max(a_step / 2, _SMALLEST_PATCH))
    smaller = {"patch_voxels": patch, "slice_voxels": min(limits.slice_voxels, patch)}
    return limits.model_copy(update={"step_voxels": min(limits.step_voxels, a_step), **smaller})
