"""Memory and seconds against the length of a scan and the number of classes: sliding window to labels, and whole predictions.

The network multiplies the one channel by a number for each class: it costs next to nothing, and what is measured is medseg.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil

import medseg
from benchmarks import _operation as operation
from benchmarks._operation import Variant
from benchmarks.sliding_window import Products, Task, monai, ours
from medseg import files

if TYPE_CHECKING:
    from medseg.predictor import Predictor

_COARSER = 1.5  # the model's spacing, in voxels of the scan
_BODY_MM, _BODY_PLANNED_MM = (0.8, 0.8, 1.0), 1.5  # spacing of a scan of the whole body, and of its model
_PREDICTION = "medseg, whole prediction"
_SMALL = 32  # voxels along each axis of the scan that goes before one of the whole body
Spacing = tuple[float | None, float | None, float | None]


def parser() -> argparse.ArgumentParser:
    """The arguments."""
    made = operation.parser(__doc__, repeats=1)
    made.add_argument("--plane", type=int, nargs=2, default=(192, 192), help="voxels of a slice")
    made.add_argument("--lengths", type=int, nargs="+", default=[120, 240, 480, 960], help="slices, at --at-classes")
    made.add_argument("--classes", type=int, nargs="+", default=[2, 16, 64], help="numbers of classes, at --at-length")
    made.add_argument("--at-classes", type=int, default=16)
    made.add_argument("--at-length", type=int, default=480)
    made.add_argument("--window", type=int, default=96, help="edge of the cubic window")
    made.add_argument("--body", type=int, nargs=3, default=(512, 512, 1000), help="voxels of the whole body")
    made.add_argument("--body-classes", type=int, default=118)
    made.add_argument("--plot", type=Path, metavar="FILE", help="draw peak memory and seconds into a PNG")
    return made


def main(arguments: list[str] | None = None) -> None:
    """Measure, print, write."""
    asked, found = parser().parse_args(arguments), operation.main("memory_scaling", parser(), sections, arguments)
    if asked.plot:
        draw(found, asked)


def sections(asked: argparse.Namespace) -> operation.Sections:
    """A section for each length and number of classes, every pair once; then the whole body on two grids."""
    pairs = [(length, asked.at_classes) for length in asked.lengths]
    pairs += [(asked.at_length, classes) for classes in asked.classes]
    grids: dict[str, Spacing] = {
        f"planned at {_BODY_PLANNED_MM} mm": (_BODY_PLANNED_MM,) * 3,
        "planned on its own grid": (None,) * 3,
    }
    task = Task(tuple(asked.body), asked.window, asked.body_classes, Products)
    scan = f"whole body, {_size(asked.body)} at {_size(_BODY_MM)} mm, {asked.body_classes} classes"
    bodies = {
        f"{scan}, {grid}": {_PREDICTION: Variant(partial(body, task, mm), partial(work, task, mm), warm_up=False)}
        for grid, mm in grids.items()
    }
    return {_title(asked, *pair): _section(asked, *pair) for pair in pairs} | bodies


def _size(numbers: Sequence[float]) -> str:
    return "x".join(f"{number:g}" for number in numbers)


def _title(asked: argparse.Namespace, length: int, classes: int) -> str:
    return f"{_size((*asked.plane, length))}, {classes} classes"


def _section(asked: argparse.Namespace, length: int, classes: int) -> dict[str, Variant]:
    task = Task((*asked.plane, length), asked.window, classes, Products)
    return {
        "medseg": Variant(partial(ours, task)),
        "monai": Variant(partial(monai, task, 1), left_out=operation.missing("monai") or _too_large(task)),
        _PREDICTION: Variant(partial(prediction, task)),
    }


def prediction(task: Task) -> Callable[[], Any]:
    """From a scan in memory to its mask: prepared onto a coarser grid, restored to its own."""
    predictor, scan = _predictor(task, (_COARSER,) * 3), _scan(task.shape, (1.0, 1.0, 1.0))
    return lambda: predictor(scan)


def body(task: Task, spacing_mm: Spacing) -> Callable[[], Any]:
    """The same of a scan that is so large that a small one goes before it, for what is loaded on first use."""
    predictor, scan = _predictor(task, spacing_mm), _scan(task.shape, _BODY_MM)
    predictor(_scan((_SMALL,) * 3, _BODY_MM))
    return lambda: predictor(scan)


def work(task: Task, spacing_mm: Spacing, found: medseg.Prediction) -> dict[str, float]:
    """How many regions the second axis was divided into, and how often a voxel was computed."""
    import torch

    from medseg import preprocess
    from medseg.inference.sliding import Stream

    predictor = _predictor(task, spacing_mm)
    shape = preprocess.grid(found.mask.geometry, predictor.bundle.preprocess).shape
    stream = Stream(torch.empty(1, *shape, device="meta"), predictor.ensemble, predictor.bundle.inference)
    return {"regions": stream.strips(task.classes)[1], "passes": found.passes}


def _predictor(task: Task, spacing_mm: Spacing) -> Predictor:
    import torch

    from medseg import Labels, preprocess
    from medseg.bundle import Bundle
    from medseg.inference import windows

    torch.manual_seed(0)
    described = Bundle(
        name="products",
        model={"name": "products"},
        spatial_dims=3,
        channels=("noise",),
        labels=Labels.of(range(1, task.classes)),
        preprocess=preprocess.Config(spacing_mm=spacing_mm, intensity=(preprocess.Intensity(kind="none"),)),
        inference=windows.Config(window=(task.window,) * 3),
    )
    return medseg.Predictor.of(described, [Products(task.classes)])


def _scan(shape: Sequence[int], spacing_mm: Sequence[float]) -> medseg.Volume:
    """Noise in int16, as scanners give it."""
    noise = np.random.default_rng(0).integers(-1000, 1000, tuple(shape), np.int16)
    i, j, k = shape
    return medseg.Volume(noise, medseg.Geometry((i, j, k), np.diag([*spacing_mm, 1.0])))


def _too_large(task: Task) -> str:
    """Why the whole scan's logits, and a copy of them, do not fit; empty where they do."""
    needed = 2 * 4 * task.classes * float(np.prod(task.shape))
    if operation.device().type == "cuda":
        import torch

        free = torch.cuda.mem_get_info()[0]
    else:
        free = psutil.virtual_memory().available
    return f"{needed / 1e9:.0f} GB do not fit" if needed > 0.9 * free else ""


def draw(found: operation.Found, asked: argparse.Namespace) -> None:
    """Peak memory and seconds against the length, and against the number of classes, a line per variant."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, ScalarFormatter

    figure = Figure(figsize=(9, 6.5), layout="constrained")
    panels = figure.subplots(2, 2, sharey="row", sharex="col")
    columns: list[tuple[str, list[int], Callable[[int], str]]] = [
        (f"slices ({asked.at_classes} classes)", asked.lengths, lambda n: _title(asked, n, asked.at_classes)),
        (f"classes ({asked.at_length} slices)", asked.classes, lambda n: _title(asked, asked.at_length, n)),
    ]
    rows = {"peak_mb": "peak memory above the input, MB", "median_s": "seconds"}
    for across, (figures, label) in zip(panels, rows.items(), strict=True):
        for axes, (along, values, title) in zip(across, columns, strict=True):
            measured = {n: found[title(n)] for n in sorted(values) if title(n) in found}
            for variant in dict.fromkeys(chain.from_iterable(measured.values())):
                points = {n: item[variant][figures] for n, item in measured.items() if variant in item}
                axes.plot(list(points), list(points.values()), marker="o", label=variant)
            axes.set(xscale="log", yscale="log", xticks=values, xticklabels=values)
            axes.minorticks_off()
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.yaxis.set_major_formatter(ScalarFormatter())
            axes.set_xlabel(along)
            axes.grid(alpha=0.3)
            axes.label_outer()
        across[0].set_ylabel(label)
    figure.legend(*panels[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=3, frameon=False)
    with files.atomic(asked.plot) as path:
        figure.savefig(path, format="png", dpi=150)


if __name__ == "__main__":
    main()
