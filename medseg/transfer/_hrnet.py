"""HRNet as its authors and timm name it."""

from __future__ import annotations

from torch import Tensor

from medseg.transfer._rules import Rule, Tensors, by_rules

_KINDS = {"conv": 0, "bn": 1}


def _block(place: str, kind: str, number: int, part: str) -> str:
    return f"{place}.{number - 1}.{_KINDS[kind]}.{part}"


_RULES: tuple[Rule, ...] = (
    (r"(conv|bn)([12])\.(\w+)", lambda kind, n, part: _block("stages.0", kind, n, part)),
    (r"layer1\.(\d)\.(conv|bn)(\d)\.(\w+)", lambda b, kind, n, part: _block(f"stages.0.{b + 2}", kind, n, part)),
    (r"layer1\.(\d)\.downsample\.(\d)\.(\w+)", lambda b, n, part: f"stages.0.{b + 2}.past.{n}.{part}"),
    (r"transition(\d)\.(\d)\.(?:0\.)?([01])\.(\w+)", lambda s, i, n, part: f"stages.{s}.0.parts.{i}.{n}.{part}"),
    (
        r"stage(\d)\.(\d)\.branches\.(\d)\.(\d)\.(conv|bn)(\d)\.(\w+)",
        lambda s, m, i, b, kind, n, part: _block(f"stages.{s - 1}.{1 + 2 * m}.parts.{i}.{b}", kind, n, part),
    ),
    (
        r"stage(\d)\.(\d)\.fuse_layers\.(\d)\.(\d)\.(\w+(?:\.\d)?)\.(\w+)",
        lambda s, m, i, j, n, part: f"stages.{s - 1}.{2 + 2 * m}.fusions.{i}.paths.{j}.{n}.{part}",
    ),
)


def translated(tensors: Tensors) -> dict[str, Tensor]:
    """Our names."""
    return by_rules(tensors, _RULES)
