"""WideResNet-38 as In-Place ABN's published code names it, and Gated-SCNN's, where normalisation and rectifier are a pair.

Those trained with In-Place ABN have leaky rectifiers (slope 0.01), ours none: they begin near, not equal.
"""

from __future__ import annotations

from torch import Tensor

from medseg.transfer._rules import Rule, Tensors, by_rules

_PAIR = r"(?:0\.)?"


def _block(module: int, number: int) -> str:
    """Their modules 2 to 6 are our stages 1 to 5, of which the last goes on with the one block of module 7."""
    return f"stages.{module - 1}.{number - 1}" if module < 7 else "stages.5.1"


_RULES: tuple[Rule, ...] = (
    (r"mod1\.conv1\.(\w+)", lambda part: f"stages.0.0.{part}"),
    (r"mod(\d)\.block(\d)\.bn1\." + _PAIR + r"(\w+)", lambda m, n, part: f"{_block(m, n)}.first.0.{part}"),
    (r"mod(\d)\.block(\d)\.proj_conv\.(\w+)", lambda m, n, part: f"{_block(m, n)}.past.{part}"),
    (
        r"mod(\d)\.block(\d)\.convs\.conv([123])\.(\w+)",
        lambda m, n, number, part: f"{_block(m, n)}.{2 * number - 2}.{part}",
    ),
    (
        r"mod(\d)\.block(\d)\.convs\.bn([23])\." + _PAIR + r"(\w+)",
        lambda m, n, number, part: f"{_block(m, n)}.{2 * number - 3}.{part}",
    ),
    (r"bn_out\." + _PAIR + r"(\w+)", lambda part: f"stages.5.2.{part}"),
)


def translated(tensors: Tensors) -> dict[str, Tensor]:
    """Our names."""
    return by_rules(tensors, _RULES)
