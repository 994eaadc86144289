"""What each architecture says about itself, read from its docstring without importing it."""

from __future__ import annotations

import ast
import re
import sys
from dataclasses import dataclass
from pathlib import Path

from medseg import registry

FAMILIES = (
    "u-shape",
    "fcn",
    "dense",
    "dilated",
    "attention",
    "pyramid",
    "real-time",
    "recurrent",
    "boundary",
    "transformer",
    "search",
)


@dataclass(frozen=True)
class About:
    """A row of the table of architectures.

    Args:
        name: for `create_model`.
        summary: what it is, in a sentence.
        family: one of `FAMILIES`.
        paper: authors, year, title, where it appeared.
        dims: spatial axes that it can have.
        presets: what each of its variants is; the first is the one without `preset`.
        without: what it cannot do of what the others can, and why.
        needs: the optional package that it is made of, if any.
    """

    name: str
    summary: str
    family: str
    paper: str
    dims: tuple[int, ...]
    presets: dict[str, str]
    without: str
    needs: str = ""

    @property
    def year(self) -> int:
        """Of the paper."""
        return int(self._cited[1])

    @property
    def author(self) -> str:
        """Of the paper: the first."""
        return self._cited[0].partition(", ")[0].removesuffix(" et al.")

    @property
    def _cited(self) -> tuple[str, str]:
        found = re.match(r"(.+?),? (\d{4}), .+", self.paper)
        assert found, f"{self.name}: 'Paper: authors year, title, where' is the form; got '{self.paper}'"
        return found[1], found[2]


def list_models(dims: int | None = None) -> tuple[About, ...]:
    """All architectures, or those for so many spatial axes, sorted by name."""
    rows = (about(path.stem) for path in sorted(Path(__file__).parent.glob("[!_]*.py")))
    return tuple(row for row in rows if dims is None or dims in row.dims)


def about(name: str) -> About:
    """What one architecture says about itself.

    Raises:
        ConfigError: no such architecture; names the nearest one.
    """
    registry.check(sys.modules[__name__.rpartition(".")[0]], name)
    source = Path(__file__).with_name(f"{name}.py").read_text(encoding="utf-8")
    return parsed(name, ast.get_docstring(ast.parse(source)))


def parsed(name: str, docstring: str | None) -> About:
    """The fields of a docstring; one without them is of no family, for images and volumes."""
    summary, fields = registry.said(docstring)
    dims = tuple(int(n) for n in re.findall(r"[23]", fields.get("dims", "2, 3")))
    variants = (docstring or "").partition("\nPresets:")[2]
    listed = re.findall(r"^ {4}(\w+): (.+(?:\n {8}.+)*)", variants, re.MULTILINE)
    presets = {preset: " ".join(text.split()) for preset, text in listed}
    family, paper, without, needs = (fields.get(key, "") for key in ("family", "paper", "without", "needs"))
    return About(name, summary, family, paper, dims, presets, without, needs)
