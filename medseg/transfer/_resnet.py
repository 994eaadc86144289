"""ResNets as torchvision, timm and MedicalNet name them; timm's deep stem too."""

from __future__ import annotations

from torch import Tensor

from medseg.transfer._rules import Rule, Tensors, by_rules

_RULES: tuple[Rule, ...] = (
    (r"conv1\.(weight)", lambda part: f"stages.0.0.{part}"),
    (r"conv1\.([03])\.(\w+)", lambda n, part: f"stages.0.{n // 3}.0.{part}"),
    (r"conv1\.([14])\.(\w+)", lambda n, part: f"stages.0.{n // 3}.1.{part}"),
    (r"conv1\.6\.(\w+)", lambda part: f"stages.0.2.0.{part}"),
    (r"layer(\d)\.(\d+)\.conv(\d)\.(\w+)", lambda s, b, n, part: f"stages.{s}.{b}.{n - 1}.0.{part}"),
    (r"layer(\d)\.(\d+)\.bn(\d)\.(\w+)", lambda s, b, n, part: f"stages.{s}.{b}.{n - 1}.1.{part}"),
    (r"layer(\d)\.(\d+)\.downsample\.([01])\.(\w+)", lambda s, b, n, part: f"stages.{s}.{b}.past.{n}.{part}"),
)


def translated(tensors: Tensors) -> dict[str, Tensor]:
    """Our names; the last normalisation of the stem is `bn1`, be it deep or plain."""
    deep = any(name.endswith("conv1.6.weight") for name in tensors)
    stem: Rule = (r"bn1\.(\w+)", lambda part: f"stages.0.{'2.1' if deep else '1'}.{part}")
    return by_rules(tensors, (*_RULES, stem))
