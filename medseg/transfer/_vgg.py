"""VGG as torchvision and timm name it, with batch normalisation and without: one running number over all layers."""

from __future__ import annotations

import re

from torch import Tensor

from medseg.transfer._rules import Rule, Tensors, by_rules

_FEATURE = re.compile(r".*?features\.(\d+)\.(\w+)")
_SIDE = 7  # elements an axis of the last map of their images, all of which the first fully connected layer sees
_HIDDEN: tuple[Rule, ...] = (
    (r"classifier\.([03])\.(\w+)", lambda n, part: f"hidden.{n // 3}.0.{part}"),
    (r"pre_logits\.fc([12])\.(\w+)", lambda n, part: f"hidden.{n - 1}.0.{part}"),
)


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
    layers: Rule = (r"features\.(\d+)\.(\w+)", lambda n, part: f"{places.get(n)}.{part}")
    return {name: _convolved(name, tensor) for name, tensor in by_rules(tensors, (layers, *_HIDDEN)).items()}


def _convolved(name: str, tensor: Tensor) -> Tensor:
    """A matrix of a fully connected layer as the convolution that it is of a map (Long et al. 2015, arXiv:1411.4038, 3.1)."""
    side = _SIDE if name == "hidden.0.0.weight" else 1
    return tensor.unflatten(1, (-1, side, side)) if tensor.ndim == 2 and tensor.shape[1] % side**2 == 0 else tensor
