"""MobileNetV2 as torchvision and as timm name it."""

from __future__ import annotations

from torch import Tensor

from medseg.transfer._rules import Rule, Tensors, by_rules

_STARTS = (1, 2, 4, 7, 14)  # first block of each of our stages, of 17 blocks numbered from 1
_TIMM = (1, 2, 4, 7, 11, 14, 17)  # and of each of timm's
_UNITS = {"pw": 0, "dw": 1, "pwl": 2}


def _unit(block: int, unit: int, layer: int, part: str) -> str:
    """The first block has no unit that widens, and follows the two layers of the stem."""
    stage = max(n for n, start in enumerate(_STARTS) if block >= start)
    rank = block - _STARTS[stage] + (2 if block == 1 else 0)
    return f"stages.{stage}.{rank}.{unit}.{layer}.{part}"


def _timm(stage: int, block: int, kind: str, part: str) -> str:
    first, number = stage == 0, kind.removeprefix("bn")
    if kind.startswith("bn"):
        return _unit(_TIMM[stage] + block, int(number) - 1, 1, part)
    unit = {"dw": 0, "pw": 1}[kind] if first else _UNITS[kind]
    return _unit(_TIMM[stage] + block, unit, 0, part)


_RULES: tuple[Rule, ...] = (
    (r"features\.0\.([01])\.(\w+)", lambda n, part: f"stages.0.{n}.{part}"),
    (r"features\.(1?\d)\.conv\.(\d)\.([01])\.(\w+)", _unit),
    (r"features\.1\.conv\.([12])\.(\w+)", lambda n, part: _unit(1, 1, n - 1, part)),
    (r"features\.(1?\d)\.conv\.([23])\.(\w+)", lambda block, n, part: _unit(block, 2, n - 2, part)),
    (r"conv_stem\.(\w+)", lambda part: f"stages.0.0.{part}"),
    (r"bn1\.(\w+)", lambda part: f"stages.0.1.{part}"),
    (r"blocks\.([0-6])\.(\d)\.(?:conv_)?(pw|dw|pwl|bn[123])\.(\w+)", _timm),
)


def translated(tensors: Tensors) -> dict[str, Tensor]:
    """Our names."""
    return by_rules(tensors, _RULES)
