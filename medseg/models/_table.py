"""What is printed of the architectures: the list, the presets of one, and the page docs/models.md."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec

from medseg import models
from medseg.errors import ConfigError
from medseg.models._about import About, about, list_models
from medseg.resources import shipped

_PAGE = """# Models

Every architecture has one name, for `medseg train`, for files and for notebooks. `medseg models` lists them, `medseg models NAME` says what each
of its presets is and costs. This page is made by `medseg models --page`.

```bash
medseg models --dims 2
medseg models pspnet
medseg train scans -o runs/psp --budget 20m model.name=pspnet model.aux=true
python pipelines/compare_models.py scans compared --budget 10m unet linknet pspnet:tiny  # trained and judged alike
```

Counts are of the default preset, the first one, for 1 channel and 2 classes. Parameters are in millions. Multiply-adds (G) are those of convolutions
and matrix products for one image of {image} or one volume of {volume}; operations are twice as many. Memory is what training
keeps for the way back of the same input, in float32, without weights, gradients and optimiser. A name without 3D columns is for images alone.

"""
_UNITS = """M: parameters in millions; G: multiply-adds in thousand millions (GFLOPs: twice
that); MiB: kept in training for the way back. {dims}D, one input of {size},
1 channel, 2 classes, the first preset. Of the others: medseg models NAME"""
_NARROW = 95  # letters a line; fewer leave no room for presets
_HEAD = "| name | paper | family | presets | 2D: M | G | MiB | 3D: M | G | MiB | without |"


def overview(dims: int, width: int = 0) -> str:
    """A line an architecture: name, paper, family, dims, parameters, operations and memory of the default preset, presets.

    The counts are those of docs/models.md: to count all of them anew takes more than a minute.

    Args:
        dims: 2 or 3, for which they are counted.
        width: letters that a line may have; 0 for any number.
    """
    if dims not in (2, 3):
        raise ConfigError(f"--dims: expected 2 or 3, got {dims}")
    listed, counted = list_models(dims), _counted(dims)
    rows: list[tuple[str, ...]] = [("name", "first author", "family", "dim", "M", "G", "MiB", "presets")]
    for row in listed:
        costs = counted.get(row.name) or _costs(row.name, next(iter(row.presets)), dims)
        axes, variants = " ".join(map(str, row.dims)), ", ".join(row.presets)
        rows.append((row.name, f"{row.author} {row.year}", row.family, axes, *map(_rounded, costs), variants))
    if 0 < width < _NARROW:
        rows = [row[:-1] for row in rows]
    lines = _columns(rows, numbers=range(4, 7)).splitlines()
    shown = (line if not 0 < width < len(line) else f"{line[: width - 4].rstrip(', ')} ..." for line in lines)
    size = "x".join(map(str, models.SIZES[dims]))
    return "\n".join([*shown, "", _UNITS.format(dims=dims, size=size), *_missing(listed)])


def _counted(dims: int) -> dict[str, list[str]]:
    """Parameters, operations and memory that the page gives, by name."""
    lines = shipped("docs/models.md").read_text(encoding="utf-8").splitlines()
    rows = [[cell.strip() for cell in line.split("|")] for line in lines if line.startswith("| `")]
    first = 5 + 3 * (dims - 2)
    return {row[1].strip("`"): row[first : first + 3] for row in rows}


def _rounded(number: str) -> str:
    """To three figures, or the whole of it."""
    whole, _, decimals = number.partition(".")
    return f"{float(number):.{min(len(decimals), max(0, 3 - len(whole)))}f}"


def _missing(listed: Sequence[About]) -> list[str]:
    """Which packages are not here, and what needs them."""
    needed = {row.needs for row in listed if row.needs and find_spec(row.needs) is None}
    return [
        f"not here without {each}: {', '.join(r.name for r in listed if r.needs == each)}" for each in sorted(needed)
    ]


def presets(name: str, dims: int) -> str:
    """What an architecture is, and what each preset is and costs."""
    row = about(name)
    lines = [row.summary, f"    {row.paper}", *([f"    without: {row.without}"] if row.without else [])]
    size = "x".join(map(str, models.SIZES[dims]))
    rows = [("preset", "M parameters", "G multiply-adds", "MiB kept")]
    rows += [(preset, *_costs(name, preset, dims)) for preset in row.presets]
    what = "\n".join(f"    {preset}: {text}" for preset, text in row.presets.items())
    return "\n".join(
        [*lines, what, "", f"1 channel, 2 classes, one input of {size}:", _columns(rows, numbers=range(1, 4))]
    )


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


def _columns(rows: Sequence[tuple[str, ...]], numbers: Sequence[int]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    placed = [str.rjust if n in numbers else str.ljust for n in range(len(widths))]
    cells = ([place(cell, width) for place, cell, width in zip(placed, row, widths, strict=True)] for row in rows)
    return "\n".join("  ".join(row).rstrip() for row in cells)
