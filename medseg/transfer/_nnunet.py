"""Networks of nnU-Net v2: plain convolutions onto `unet`, residual encoders onto `resenc_unet`."""

from __future__ import annotations

import re

import torch
from torch import Tensor

from medseg.transfer._fitting import by_axes
from medseg.transfer._rules import Rule, Tensors, by_rules

_KINDS = {"conv": 0, "norm": 1}
_LEVEL = re.compile(r"(?:module\.|_orig_mod\.)*decoder\.seg_layers\.(\d+)\.weight")
_SKIPPED = re.compile(r"decoder\.\d+\.(?:0\.)?0\.weight")  # the first convolution of a level on the way up


def plain(tensors: Tensors) -> dict[str, Tensor]:
    """Names in `unet`."""
    return _named(
        tensors,
        (
            r"encoder\.stages\.(\d+)\.(?:0\.)?convs\.(\d+)\.(conv|norm)\.(\w+)",
            lambda s, n, kind, part: f"encoder.{s}.{n}.{_KINDS[kind]}.{part}",
        ),
        (
            r"decoder\.stages\.(\d+)\.convs\.(\d+)\.(conv|norm)\.(\w+)",
            lambda s, n, kind, part: f"decoder.{s}.{n}.{_KINDS[kind]}.{part}",
        ),
    )


def residual(tensors: Tensors) -> dict[str, Tensor]:
    """Names in `resenc_unet`, whose first level begins with the stem."""
    return _named(
        tensors,
        (
            r"encoder\.stem\.convs\.(\d+)\.(conv|norm)\.(\w+)",
            lambda n, kind, part: f"encoder.0.{2 * n + _KINDS[kind]}.{part}",
        ),
        (
            r"encoder\.stages\.(\d+)\.blocks\.(\d+)\.conv([12])\.(conv|norm)\.(\w+)",
            lambda s, b, n, kind, part: f"encoder.{s}.{b + 2 * (s == 0)}.{2 * (n - 1) + _KINDS[kind]}.{part}",
        ),
        (
            r"encoder\.stages\.(\d+)\.blocks\.(\d+)\.skip\.\d\.(conv|norm)\.(\w+)",
            lambda s, b, kind, part: f"encoder.{s}.{b + 2 * (s == 0)}.past.{_KINDS[kind]}.{part}",
        ),
        (
            r"decoder\.stages\.(\d+)\.convs\.(\d+)\.(conv|norm)\.(\w+)",
            lambda s, n, kind, part: f"decoder.{s}.{2 * n + _KINDS[kind]}.{part}",
        ),
    )


def _named(tensors: Tensors, *stages: Rule) -> dict[str, Tensor]:
    """Our tensors. Their arrays have slices first, ours x; their scores begin with the coarsest, ours with the finest.

    Their joins have the map from below first, ours the skip; both have as many channels.
    """
    levels = 1 + max((int(match[1]) for name in tensors if (match := _LEVEL.fullmatch(name))), default=0)
    ups: Rule = (r"decoder\.transpconvs\.(\d+)\.(\w+)", lambda level, part: f"ups.{level}.{part}")
    heads: Rule = (
        r"decoder\.seg_layers\.(\d+)\.(\w+)",
        lambda level, part: f"heads.{levels - 1 - level}.{part}",
    )
    found = {name: by_axes(tensor) for name, tensor in by_rules(tensors, (*stages, ups, heads)).items()}
    for name, tensor in found.items():
        if _SKIPPED.fullmatch(name) and tensor.ndim > 2 and tensor.shape[1] % 2 == 0:
            found[name] = torch.cat(tensor.chunk(2, dim=1)[::-1], dim=1)
    return found
