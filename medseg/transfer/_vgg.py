"""VGG as torchvision and timm name it, with batch normalisation and without: one running number over all layers."""

from __future__ import annotations

import re

from torch import Tensor

from medseg.transfer._rules import Tensors, by_rules

_FEATURE = re.compile(r".*?features\.(\d+)\.(\w+)")


def translated(tensors: Tensors) -> dict[str, Tensor]:
    """Our names. A convolution is a number and its rectifier's apart from the next, with a normalisation another, and a pooling
    makes a gap."""
    names = {int(m[1]): tensors[m[0]].ndim for n in tensors if (m := _FEATURE.fullmatch(n)) and m[2] == "weight"}
    convs = sorted(number for number, ndim in names.items() if ndim > 1)
    step, places, stage, rank = 2 + any(ndim == 1 for ndim in names.values()), {}, 0, 0
    for before, number in zip([convs[0] - step, *convs] if convs else [], convs, strict=False):
        stage, rank = (stage, rank) if number - before == step else (stage + 1, 0)
        places[number] = f"stages.{stage}.{rank}.0"
        places[number + 1] = f"stages.{stage}.{rank}.1"
        rank += 1
    return by_rules(tensors, [(r"features\.(\d+)\.(\w+)", lambda n, part: f"{places.get(n)}.{part}")])
