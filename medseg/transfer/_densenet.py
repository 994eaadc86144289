"""DenseNets as torchvision and timm name them; `norm.1` for `norm1` in the oldest files."""

from __future__ import annotations

import re

from torch import Tensor

from medseg.transfer._rules import Rule, Tensors, by_rules

_FEATURES = r"(?:features\.)?"
_LAST = re.compile(r".*denseblock4\.denselayer\d+\.conv\.?1\.weight")
_RULES: tuple[Rule, ...] = (
    (_FEATURES + r"conv0\.(\w+)", lambda part: f"stages.0.0.{part}"),
    (_FEATURES + r"norm0\.(\w+)", lambda part: f"stages.0.1.{part}"),
    (
        _FEATURES + r"denseblock(\d)\.denselayer(\d+)\.(norm|conv)\.?([12])\.(\w+)",
        lambda s, n, kind, k, part: f"stages.{s}.{n - (s == 1)}.{2 * (k - 1) + (kind == 'conv')}.{part}",
    ),
    (_FEATURES + r"transition(\d)\.norm\.(\w+)", lambda s, part: f"stages.{s + 1}.0.0.{part}"),
    (_FEATURES + r"transition(\d)\.conv\.(\w+)", lambda s, part: f"stages.{s + 1}.0.1.{part}"),
)


def translated(tensors: Tensors) -> dict[str, Tensor]:
    """Our names. The last normalisation follows the layers of the last block, before which is a transition."""
    layers = sum(bool(_LAST.fullmatch(name)) for name in tensors)
    return by_rules(tensors, (*_RULES, (_FEATURES + r"norm5\.(\w+)", lambda part: f"stages.4.{1 + layers}.{part}")))
