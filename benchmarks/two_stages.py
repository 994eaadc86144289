"""A large scan in one stage and in two: the whole at a fine resolution, or the place at a coarse one and its surroundings alone.

The networks are of the default size and untrained, so that they take as long as good ones; what they answer is where the scan
is bright, so that masks can be compared.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import medseg
from benchmarks import _operation as operation
from benchmarks._operation import Variant
from medseg import Geometry, Labels, Predictor, Volume, preprocess
from medseg.bundle import Bundle
from medseg.geometry.region import Region
from medseg.inference import windows
from medseg.models import create_model

_BRIGHT, _ELSEWHERE = 200, 100


def parser() -> argparse.ArgumentParser:
    """The arguments."""
    made = operation.parser(__doc__)
    made.add_argument("--shape", type=int, nargs=3, default=(512, 512, 200), help="of the scan")
    made.add_argument("--spacing", type=float, nargs=3, default=(0.8, 0.8, 1.0), help="of the scan, mm")
    made.add_argument("--structure", type=float, default=60.0, help="diameter of the ball that is segmented, mm")
    made.add_argument("--fine", type=float, default=1.5, help="spacing of the one stage, and of the second of two, mm")
    made.add_argument("--coarse", type=float, default=4.0, help="spacing of the first of two stages, mm")
    made.add_argument("--margin", type=float, default=20.0, help="around what the first stage finds, mm")
    made.add_argument("--window", type=int, default=96, help="edge of the cubic window")
    return made


def main(arguments: list[str] | None = None) -> None:
    """Measure, print, write."""
    operation.main("two_stages", parser(), sections, arguments, figures)


def figures(found: operation.Found, asked: argparse.Namespace) -> str:
    """The facts of each variant, on a line."""
    facts = {name: result["facts"] for results in found.values() for name, result in results.items()}
    lines = [f"{name}: " + ", ".join(f"{k} {v:g}" for k, v in some.items()) for name, some in facts.items()]
    return "\n".join(lines)


def sections(asked: argparse.Namespace) -> operation.Sections:
    """One scan, twice."""
    size, spacing = ("x".join(map(str, side)) for side in (asked.shape, asked.spacing))
    return {
        f"{size} at {spacing} mm, a ball of {asked.structure:g} mm": {
            "two stages": Variant(partial(predictions, asked, two=True), judge),
            "one stage": Variant(partial(predictions, asked, two=False), judge),
        }
    }


@dataclasses.dataclass
class Result:
    """A mask, and how many windows of how many voxels were computed for it."""

    mask: Volume
    windows: int
    voxels: float


class Untrained(nn.Module):
    """Takes as long as a default network, and answers where its input is bright."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.network = create_model("unet", spatial_dims=3, in_channels=1, out_channels=2)
        self.seen = self.voxels = 0

    def forward(self, x: Tensor) -> Tensor:
        """Logits of nothing and of something bright."""
        self.seen += len(x)
        self.voxels += x.numel()
        bright = x - (_BRIGHT + _ELSEWHERE) / 2
        return 0 * self.network(x) + torch.cat([-bright, bright], 1)


def predictions(asked: argparse.Namespace, *, two: bool) -> Callable[[], Result]:
    """From a scan in memory to its mask."""
    scan, networks = phantom(asked), [Untrained(), Untrained()]
    region = Region(margin_mm=asked.margin, least_mm=(asked.window * asked.fine,) * 3)
    locator = Predictor.of(_described(asked, asked.coarse), networks[1:]) if two else None
    predictor = Predictor.of(_described(asked, asked.fine, region if two else None), networks[:1], locator=locator)

    def run() -> Result:
        for network in networks:
            network.seen = network.voxels = 0
        mask = predictor(scan).mask
        return Result(mask, sum(n.seen for n in networks), sum(n.voxels for n in networks))

    return run


def phantom(asked: argparse.Namespace) -> Volume:
    """A bright ball a third of the way along each axis of an even scan."""
    sides = [mm * (np.arange(n) - n / 3) for n, mm in zip(asked.shape, asked.spacing, strict=True)]
    far = sum(side.reshape([-1 if a == axis else 1 for a in range(3)]) ** 2 for axis, side in enumerate(sides))
    array = np.where(far < (asked.structure / 2) ** 2, _BRIGHT, _ELSEWHERE).astype(np.int16)
    return Volume(array, Geometry(tuple(asked.shape), np.diag([*asked.spacing, 1.0])))


def _described(asked: argparse.Namespace, spacing_mm: float, region: Region | None = None) -> Bundle:
    how: dict[str, Any] = {"intensity": (preprocess.Intensity(kind="none"),), "spacing_mm": (spacing_mm,) * 3}
    return Bundle(
        name="bright",
        model={"name": "unet"},
        spatial_dims=3,
        channels=("any",),
        labels=Labels.of({"bright": 1}),
        preprocess=preprocess.Config(**how),
        inference=windows.Config(window=(asked.window,) * 3),
        locate=region,
    )


def judge(result: Result) -> Mapping[str, float]:
    """Windows, their voxels in millions, and millilitres found."""
    ml = medseg.Prediction(result.mask, Labels.of({"bright": 1})).volumes_ml["bright"]
    return {"windows": result.windows, "million voxels": result.voxels / 1e6, "ml": ml}


if __name__ == "__main__":
    main()
