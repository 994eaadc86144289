"""MobileNetV3-Large and EfficientNet-B0 as torchvision and as timm name them: stages of inverted residuals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from medseg.transfer._rules import Rule, Tensors, by_rules

_SQUEEZE = {"fc1": 0, "fc2": 1, "conv_reduce": 0, "conv_expand": 1}


@dataclass(frozen=True)
class _Family:
    """First block of each of our five stages, and of each of theirs; blocks are numbered from 1 over the whole trunk."""

    ours: Sequence[int]
    theirs: Sequence[int]

    def block(self, number: int) -> str:
        """Ours of a number. The first one follows the two layers of the stem."""
        stage = max(n for n, start in enumerate(self.ours) if number >= start)
        return f"stages.{stage}.{number - self.ours[stage] + 2 * (stage == 0)}"


_V3 = _Family((1, 2, 4, 7, 13), (1, 2, 4, 7, 11, 13, 16))  # number 16 is the 1x1 unit at the end
_B0 = _Family((1, 2, 4, 6, 12), (1, 2, 4, 6, 9, 12, 16))
_FEATURES = r"(?:features\.)?"  # torchvision's segmenters have them as their trunk
_STEM: tuple[Rule, ...] = (
    (_FEATURES + r"0\.([01])\.(\w+)", lambda n, part: f"stages.0.{n}.{part}"),
    (r"conv_stem\.(\w+)", lambda part: f"stages.0.0.{part}"),
    (r"bn1\.(\w+)", lambda part: f"stages.0.1.{part}"),
)
_WITHIN = r"block\.(\d)\.(\d|fc[12])\.(\w+)"


def mobilenet_v3(tensors: Tensors) -> dict[str, Tensor]:
    """Our names."""
    rules: tuple[Rule, ...] = (
        (_FEATURES + r"([1-9]\d?)\." + _WITHIN, lambda number, *place: _within(_V3.block(number), *place)),
        (_FEATURES + r"16\.([01])\.(\w+)", lambda n, part: f"{_V3.block(16)}.{n}.{part}"),
        (r"blocks\.6\.0\.(conv|bn1)\.(\w+)", lambda kind, part: f"{_V3.block(16)}.{int(kind == 'bn1')}.{part}"),
    )
    return by_rules(tensors, (*_STEM, *rules, *_timm(tensors, _V3)))


def efficientnet_b0(tensors: Tensors) -> dict[str, Tensor]:
    """Our names."""
    torchvision: Rule = (
        r"features\.([1-7])\.(\d)\." + _WITHIN,
        lambda stage, n, *place: _within(_B0.block(_B0.theirs[stage - 1] + n), *place),
    )
    return by_rules(tensors, (*_STEM, torchvision, *_timm(tensors, _B0)))


def _within(block: str, unit: int, layer: int | str, part: str) -> str:
    return f"{block}.{unit}.{layer if isinstance(layer, int) else _SQUEEZE[layer]}.{part}"


def _timm(tensors: Tensors, family: _Family) -> tuple[Rule, ...]:
    """A block's units in their order: the last one is `pwl`, but `pw` where none before it widens."""

    def units(stage: int, n: int) -> list[str]:
        kinds = ("conv_pw", "conv_dw", "se", "conv_pwl")
        there = [kind for kind in kinds if any(f"blocks.{stage}.{n}.{kind}." in name for name in tensors)]
        return there if "conv_pwl" in there else [*there[1:], *there[:1]]

    def place(stage: int, n: int, kind: str, layer: int, part: str) -> str:
        ranks = {kind: rank for rank, kind in enumerate(units(stage, n))}
        return f"{family.block(family.theirs[stage] + n)}.{ranks.get(kind)}.{layer}.{part}"

    def normalisation(stage: int, n: int, number: int, part: str) -> str:
        convs = [kind for kind in units(stage, n) if kind != "se"]
        return place(stage, n, dict(enumerate(convs, start=1)).get(number, ""), 1, part)

    ahead = r"blocks\.([0-6])\.(\d)\."
    return (
        (ahead + r"(conv_\w+)\.(\w+)", lambda stage, n, kind, part: place(stage, n, kind, 0, part)),
        (ahead + r"bn([123])\.(\w+)", normalisation),
        (
            ahead + r"se\.(conv_(?:reduce|expand))\.(\w+)",
            lambda stage, n, layer, part: place(stage, n, "se", _SQUEEZE[layer], part),
        ),
    )
