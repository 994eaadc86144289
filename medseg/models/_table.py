"""What is printed of the architectures: the list, the presets of one, and the page docs/models.md."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec

from medseg import models
from medseg.errors import ConfigError
from medseg.models._about import About, about, list_models

_PAGE = """# Models

Every architecture has one name, for `medseg train`, for files and for notebooks. `medseg models` lists them, `medseg models NAME` says what each
of its presets is and costs. This page is made by `medseg models --page`.

```bash
medseg models --dims 2
medseg models pspnet
medseg train scans -o runs/psp --budget 20m model.name=pspnet model.aux=true
```

Counts are of the default preset, the first one, for 1 channel and 2 classes. Parameters are in millions. Multiply-adds (G) are those of convolutions
and matrix products for one image of {image} or one volume of {volume}; operations are twice as many. Memory is what training
keeps for the way back of the same input, in float32, without weights, gradients and optimiser. A name without 3D columns is for images alone.

"""
_HEAD = "| name | paper | family | presets | 2D: M | G | MiB | 3D: M | G | MiB | without |"


def overview(dims: int) -> str:
    """A line an architecture: name, paper, family, parameters of the default preset, presets."""
    if dims not in (2, 3):
        raise ConfigError(f"--dims: expected 2 or 3, got {dims}")
    rows = [("name", "paper", "family", "M", "presets")]
    for row in list_models(dims):
        rows.append((row.name, f"{row.authors} {row.year}", row.family, _millions(row, dims), ", ".join(row.presets)))
    return f"{_columns(rows)}\nM: parameters in millions, {dims}D, 1 channel, 2 classes, first preset"


def _millions(row: About, dims: int) -> str:
    if row.needs and find_spec(row.needs) is None:
        return f"needs {row.needs}"
    return f"{models.parameters(row.name, spatial_dims=dims) / 1e6:.2f}"


def presets(name: str, dims: int) -> str:
    """What an architecture is, and what each preset is and costs."""
    row = about(name)
    lines = [row.summary, f"    {row.paper}", *([f"    without: {row.without}"] if row.without else [])]
    size = "x".join(map(str, models.SIZES[dims]))
    rows = [("preset", "M parameters", "G multiply-adds", "MiB kept")]
    rows += [(preset, *_costs(name, preset, dims)) for preset in row.presets]
    what = "\n".join(f"    {preset}: {text}" for preset, text in row.presets.items())
    return "\n".join([*lines, what, "", f"1 channel, 2 classes, one input of {size}:", _columns(rows)])


def page() -> str:
    """The whole of docs/models.md."""
    sizes = {"image": "x".join(map(str, models.SIZES[2])), "volume": "x".join(map(str, models.SIZES[3]))}
    lines = [_HEAD, "|---" * _HEAD.count(" | ") + "|---|", *map(line, list_models())]
    return _PAGE.format(**sizes) + "\n".join(lines) + "\n"


def line(row: About) -> str:
    """An architecture's row of the page."""
    default = next(iter(row.presets))
    counts = [cell for dims in (2, 3) for cell in (_costs(row.name, default, dims) if dims in row.dims else [""] * 3)]
    cells = [f"`{row.name}`", row.paper, row.family, ", ".join(row.presets), *counts, row.without]
    return f"| {' | '.join(cells)} |"


def _costs(name: str, preset: str, dims: int) -> tuple[str, str, str]:
    cost = models.cost(name, preset=preset, spatial_dims=dims)
    return f"{cost.parameters / 1e6:.2f}", f"{cost.multiply_adds / 1e9:.1f}", f"{cost.kept_bytes / 2**20:.0f}"


def _columns(rows: Sequence[tuple[str, ...]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)
