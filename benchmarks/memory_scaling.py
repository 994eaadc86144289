"""Memory and seconds against the length of a scan and the number of classes: sliding window to labels, and a whole prediction."""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil

import medseg
from benchmarks import _operation as operation
from benchmarks._operation import Variant
from benchmarks.sliding_window import Products, Task, monai, ours
from medseg import files

_COARSER = 1.5  # the model's spacing, in voxels of the scan
_PREDICTION = "medseg, whole prediction"


def parser() -> argparse.ArgumentParser:
    """The arguments."""
    made = operation.parser(__doc__)
    made.add_argument("--plane", type=int, nargs=2, default=(192, 192), help="voxels of a slice")
    made.add_argument("--lengths", type=int, nargs="+", default=[120, 240, 480, 960], help="slices, at --at-classes")
    made.add_argument("--classes", type=int, nargs="+", default=[2, 16, 64], help="numbers of classes, at --at-length")
    made.add_argument("--at-classes", type=int, default=16)
    made.add_argument("--at-length", type=int, default=480)
    made.add_argument("--window", type=int, default=96, help="edge of the cubic window")
    made.add_argument("--plot", type=Path, metavar="FILE", help="draw peak memory into a PNG")
    return made


def main(arguments: list[str] | None = None) -> None:
    """Measure, print, write."""
    asked = parser().parse_args(arguments)
    chosen = sections(asked)
    found = operation.compare("memory_scaling", chosen, asked, arguments)
    operation.publish("memory_scaling", chosen, found, asked)
    if asked.plot:
        draw(found, asked)


def sections(asked: argparse.Namespace) -> operation.Sections:
    """A section for each length and number of classes, every pair once."""
    pairs = [(length, asked.at_classes) for length in asked.lengths]
    pairs += [(asked.at_length, classes) for classes in asked.classes]
    return {_title(asked, *pair): _section(asked, *pair) for pair in pairs}


def _title(asked: argparse.Namespace, length: int, classes: int) -> str:
    return f"{asked.plane[0]}x{asked.plane[1]}x{length}, {classes} classes"


def _section(asked: argparse.Namespace, length: int, classes: int) -> dict[str, Variant]:
    task = Task((*asked.plane, length), asked.window, classes, Products)
    return {
        "medseg": Variant(partial(ours, task)),
        "monai": Variant(partial(monai, task, 1), left_out=operation.missing("monai") or _too_large(task)),
        _PREDICTION: Variant(partial(prediction, task)),
    }


def prediction(task: Task) -> Callable[[], Any]:
    """From a scan in memory to its mask: prepared onto a coarser grid, restored to its own."""
    import torch

    from medseg import Labels, preprocess, windows
    from medseg.bundle import Bundle

    torch.manual_seed(0)
    described = Bundle(
        name="products",
        model={"name": "products"},
        spatial_dims=3,
        channels=("noise",),
        labels=Labels.of(range(1, task.classes)),
        preprocess=preprocess.Config(spacing_mm=(_COARSER,) * 3, intensity=(preprocess.Intensity(kind="none"),)),
        inference=windows.Config(window=(task.window,) * 3),
    )
    predictor = medseg.Predictor.of(described, [Products(task.classes)])
    noise = np.random.default_rng(0).standard_normal(task.shape, dtype=np.float32)
    scan = medseg.Volume(noise, medseg.Geometry(task.shape, np.eye(4)))  # type: ignore[arg-type]
    return lambda: predictor(scan).mask


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
    """Peak memory against the length, and against the number of classes, a line a variant."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    by_length, by_classes = figure.subplots(1, 2, sharey=True)
    for axes, label, values, title in (
        (
            by_length,
            f"slices ({asked.at_classes} classes)",
            asked.lengths,
            lambda n: _title(asked, n, asked.at_classes),
        ),
        (by_classes, f"classes ({asked.at_length} slices)", asked.classes, lambda n: _title(asked, asked.at_length, n)),
    ):
        for variant in dict.fromkeys(itertools.chain.from_iterable(found.values())):
            measured = {n: found[title(n)].get(variant) for n in sorted(values) if title(n) in found}
            points = {n: item["peak_mb"] for n, item in measured.items() if item}
            axes.plot(list(points), list(points.values()), marker="o", label=variant)
        axes.set(xlabel=label, xscale="log", yscale="log", xticks=values, xticklabels=values)
        axes.minorticks_off()
        axes.grid(alpha=0.3)
    by_length.set_ylabel("peak memory above the input, MB")
    by_length.legend(frameon=False)
    with files.atomic(asked.plot) as path:
        figure.savefig(path, format="png", dpi=150)


if __name__ == "__main__":
    main()
