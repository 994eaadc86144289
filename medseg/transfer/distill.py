"""Distillation: a student learns from the masks, and from what a stored model, its teacher, says of the same patches.

Source: Hinton, Vinyals, Dean 2015, Distilling the knowledge in a neural network, arXiv:1503.02531, section 2.
"""

from __future__ import annotations

import copy
from collections.abc import Collection
from typing import Any

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from medseg.inference.ensemble import Ensemble
from medseg.losses import LossContext
from medseg.losses._common import resolutions
from medseg.settings import Settings
from medseg.transfer.lineage import Ancestor


class Config(Settings):
    """Which stored model teaches, and how much it counts.

    Args:
        source: `from` in files and commands: the teacher's bundle or run, which may be an ensemble; None for no teacher.
        weight: of the distillation term beside the loss.
        temperature: divides the logits of both, so that the student also learns from what the teacher thinks unlikely.
    """

    source: str | None = Field(default=None, alias="from")
    weight: float = Field(default=1.0, gt=0)
    temperature: float = Field(default=2.0, gt=0)


def divergence(student: Tensor, teacher: Tensor, temperature: float, *, exclusive: bool) -> Tensor:
    """How far a student's softened probabilities are from its teacher's: T^2 KL(teacher || student), T the temperature.

    T^2 keeps the gradient's size when T changes (section 2 of the source). Overlapping labels are a yes or no each.

    Args:
        student, teacher: logits `(B, K, *spatial)`.
        temperature: above 0.
        exclusive: labels exclude each other.

    Returns:
        The mean over voxels (of overlapping labels, over channels too); 0 where both say the same.
    """
    ours, theirs = student.float() / temperature, teacher.float() / temperature
    if exclusive:
        return temperature**2 * _kl(ours.log_softmax(1), theirs.log_softmax(1)) / ours[:, 0].numel()
    yes, no = (_kl(F.logsigmoid(sign * ours), F.logsigmoid(sign * theirs)) for sign in (1, -1))
    return temperature**2 * (yes + no) / ours.numel()


def _kl(ours: Tensor, theirs: Tensor) -> Tensor:
    return F.kl_div(ours, theirs, reduction="sum", log_target=True)


class Taught(nn.Module):
    """A loss with a teacher's word added. The teacher sees the augmented patch itself, and no more than that.

    Voxels that nobody annotated count here: the teacher's word is all that there is about them, and such examples may teach
    as well as others do (section 2 of the source). Of a model's outputs only the main logits are compared.

    Args:
        loss: of (output, target, context).
        teacher: as a call, for it is no module: nothing of it is trained, stored or averaged.
        config: weight and temperature.
        exclusive: labels exclude each other.
    """

    def __init__(self, loss: nn.Module, teacher: Ensemble, config: Config, *, exclusive: bool) -> None:
        super().__init__()
        self.loss, self.teacher, self.config, self.exclusive = loss, teacher, config, exclusive

    def forward(self, output: Any, target: Tensor, context: LossContext) -> Tensor:
        """The loss of a batch; as in `losses`, with the image in the context."""
        assert context.image is not None
        logits = resolutions(output)[0]
        with torch.autocast(logits.device.type, enabled=False):
            apart = divergence(logits, self.teacher(context.image), self.config.temperature, exclusive=self.exclusive)
        value: Tensor = self.loss(output, target, context)
        return value + self.config.weight * apart

    def __deepcopy__(self, memo: dict[int, Any]) -> Taught:
        """With the same teacher: it never changes, and it may be large."""
        return Taught(copy.deepcopy(self.loss, memo), self.teacher, self.config, exclusive=self.exclusive)


def teacher(ancestor: Ancestor, held_out: Collection[str], device: torch.device) -> Ensemble:
    """The networks of a stored model that never saw the cases held out, in the arithmetic in which the model predicts.

    Raises:
        DataError: none of them.
    """
    return ancestor.predictor(held_out, device).ensemble
