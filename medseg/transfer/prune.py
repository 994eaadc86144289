"""Channel pruning: a narrower network of the same architecture sets out from the strongest channels of a stored one.

Nothing is written down about any architecture. Its channels are followed through one pass on tensors without values, which
shows what each layer makes, reads and sums; channels that are summed are kept or dropped together.

Sources: Li et al. 2017, Pruning filters for efficient ConvNets, arXiv:1608.08710, section 3 (norms of filters, and those of
summed maps together); Liu et al. 2017, Learning efficient convolutional networks through network slimming, arXiv:1708.06519,
section 3 (scales of the normalisation).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

from medseg import models
from medseg.bundle import Bundle
from medseg.errors import ConfigError
from medseg.settings import Settings
from medseg.transfer.channels import Run, Use, follow
from medseg.transfer.lineage import Ancestor

WIDTHS = ("widths", "full_width", "first", "growth")  # options that count channels
_MULTIPLE = 8  # of channels, in which hardware computes
_SIDE = 256  # of an image that costs nothing; 2 elements and more are left of it at the coarsest level
_INSTEAD = "A model of any architecture can be distilled (distill.from) into a smaller one of your choice."


class Config(Settings):
    """Which model is made narrower, and by how much.

    Args:
        source: `from` in files and commands: the bundle or run of a single model, not an ensemble; None prunes nothing.
        keep: least share of the channels that is kept at every width; widths are rounded up to a multiple of 8.
    """

    source: str | None = Field(default=None, alias="from")
    keep: float = Field(default=0.5, gt=0, le=1)


def narrowed(model: Mapping[str, Any], keep: float) -> dict[str, Any]:
    """The description of the same architecture with fewer channels; a width of 8 or less stays.

    Raises:
        ConfigError: the architecture has no widths.
    """
    if not (widths := {name: _fewer(model[name], keep) for name in WIDTHS if name in model}):
        raise ConfigError(f"prune.from: a '{model['name']}' has no widths that could be smaller. {_INSTEAD}")
    return models.resolve({**model, **widths})


def _fewer(width: int | Sequence[int], keep: float) -> int | tuple[int, ...]:
    if not isinstance(width, int):
        return tuple(_fewer(n, keep) for n in width)  # type: ignore[misc]
    return min(width, math.ceil(keep * width / _MULTIPLE) * _MULTIPLE)


def start(ancestor: Ancestor, model: Mapping[str, Any]) -> dict[str, Tensor]:
    """The strongest channels of a stored model, as the weights of its narrower version.

    A channel's strength is the sum of squares of the scale and the shift of its normalisation: the mean square of what
    passes on, for a filter's own size is normalised away. Without a normalisation it is that of the filter and its bias. The
    strengths of channels that are summed are summed. Channels that are zero are not missed; what else is lost, fine-tuning
    has to mend, and with "group" normalisation also that other channels share a group's mean.

    Args:
        ancestor: what is stored.
        model: description of the narrower version; see `narrowed`.

    Raises:
        ConfigError: an ensemble, an architecture whose channels cannot be followed, or widths at which layers would be gone.
    """
    if len(ancestor.members) > 1:
        raise ConfigError(
            f"prune.from: that model is an ensemble of {len(ancestor.members)}. Name one of them, such as RUN/fold_0."
        )
    (weights,), bundle = ancestor.members, ancestor.bundle
    shapes = {name: tensor.shape for name, tensor in _empty(bundle, model).state_dict().items()}
    if shapes.keys() != weights.keys():
        raise ConfigError("prune.keep: layers would be gone where one width becomes equal to the next. Keep more.")
    image = torch.empty(1, len(bundle.channels), *[_SIDE] * bundle.spatial_dims, device="meta")
    try:
        uses = follow(_empty(bundle, bundle.model).train(), image)
    except ConfigError as error:
        raise ConfigError(
            f"prune.from: a '{bundle.model['name']}' cannot be made narrower: {error}. {_INSTEAD}"
        ) from error
    kept, cut = _kept(uses, weights, shapes), dict(weights)
    for name, axis, runs, _ in uses:
        cut[name] = cut[name].index_select(axis, _places(runs, kept))
    return cut


def _empty(bundle: Bundle, model: Mapping[str, Any]) -> nn.Module:
    """A network of shapes alone."""
    with torch.device("meta"):
        return models.create_model(
            model,
            spatial_dims=bundle.spatial_dims,
            in_channels=len(bundle.channels),
            out_channels=bundle.labels.channels,
        )


def _kept(uses: Sequence[Use], weights: Mapping[str, Tensor], shapes: Mapping[str, torch.Size]) -> dict[Run, Tensor]:
    """Which channels stay, in their order; as many as the narrower network has room for."""
    strengths = _strengths(uses, weights, "makes") | _strengths(uses, weights, "scales")  # the second wins
    room = {runs[0].head: shapes[name][axis] for name, axis, runs, role in uses if role == "makes"}
    return {run: strengths[run].topk(count).indices.sort().values for run, count in room.items()}


def _strengths(uses: Sequence[Use], weights: Mapping[str, Tensor], role: str) -> dict[Run, Tensor]:
    """Sums of squares over all weights of one role, by channel, for those that are kept or dropped together."""
    found: dict[Run, Tensor] = {}
    for name, axis, runs, its_role in uses:
        if its_role == role:
            squares = weights[name].float().square().movedim(axis, 0).reshape(sum(run.size for run in runs), -1).sum(1)
            for run, part in zip(runs, squares.split([run.size for run in runs]), strict=True):
                found[run.head] = found.get(run.head, 0) + part
    return found


def _places(runs: Sequence[Run], kept: Mapping[Run, Tensor]) -> Tensor:
    """Where the kept channels of some runs, one after the other, lie along an axis; the image's channels all stay."""
    starts = itertools.accumulate((run.size for run in runs[:-1]), initial=0)
    whole = (kept.get(run.head, torch.arange(run.size)) for run in runs)
    return torch.cat([start + places for start, places in zip(starts, whole, strict=True)])
