"""What each loss says about itself, read from where it is said: its docstring and its `Config`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from medseg import registry
from medseg.losses._factory import module, names, title


@dataclass(frozen=True)
class About:
    """A row of the table of losses. In formulas t is the truth and p the predicted probability.

    Args:
        name: for `create_loss`.
        summary: what it is, in a sentence.
        formula, paper, equation: of the loss; an equation without a paper is of the loss's own.
        defaults: the options that are not those of every loss.
    """

    name: str
    summary: str
    formula: str
    paper: str
    equation: str
    defaults: dict[str, Any]

    def __str__(self) -> str:
        """Several lines of text."""
        rows = [
            ("formula", self.formula),
            ("paper", self.paper),
            ("equation", self.equation),
            ("options", self.options),
        ]
        return "\n".join([f"{self.name}: {self.summary}", *(f"    {title:9s} {text}" for title, text in rows if text)])

    @property
    def options(self) -> str:
        """Options with their defaults, as they are written on the command line."""
        return ", ".join(f"{name}={_plain(value)}" for name, value in self.defaults.items())


def list_losses() -> tuple[About, ...]:
    """All losses with formula, paper, equation and defaults, sorted by name."""
    return tuple(about(name) for name in names())


def about(name: str) -> About:
    """What one loss says about itself."""
    from medseg.losses._options import Options

    loss = module(name)
    summary, said = registry.said(loss.__doc__)
    options = loss.Config().model_dump(mode="json")
    defaults = {key: value for key, value in options.items() if key not in Options.model_fields}
    return About(name, summary, said["formula"], said["paper"], said["equation"], defaults)


def _plain(value: Any) -> str:
    """A value as YAML writes it, of losses within a loss the names. Read again, a number is the same: 4/3 is not 1.333."""
    if isinstance(value, float):
        return f"{value:g}" if float(f"{value:g}") == value else repr(value)
    nested = isinstance(value, list) and value and all(isinstance(item, dict) for item in value)
    return title(value) if nested else json.dumps(value)
