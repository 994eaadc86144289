"""Distance of every voxel to the boundary of its mask, both sides, for a batch of masks on voxels of unequal edges."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks import _operation as operation
from benchmarks._operation import Variant
from medseg import distance

SPACING = (1.0, 0.8, 2.5)


def parser() -> argparse.ArgumentParser:
    """The arguments."""
    made = operation.parser(__doc__, times=3)
    made.add_argument("--masks", type=int, default=6, help="of a batch, all classes counted")
    made.add_argument("--size", type=int, default=96, help="edge of a cubic mask")
    return made


def main(arguments: list[str] | None = None) -> None:
    """Measure, print, write."""
    operation.main("distance", parser(), sections, arguments)


def sections(asked: argparse.Namespace) -> operation.Sections:
    """One section: medseg on this device, its tensor operations on a processor too, and its peers."""
    ways: dict[str, Callable[[Tensor], Any]] = {
        "medseg": partial(distance.to_boundary_batch, spacing_mm=SPACING),
        "medseg, tensor operations": partial(distance._to_boundary_tensor, spacing=SPACING),
        "scipy": _scipy,
        "edt, one side after the other": _edt,
        "monai": _monai,
    }
    judge = partial(_error, asked.masks, asked.size)
    left_out = {"monai": operation.missing("monai")}
    return {
        f"{asked.masks} masks of {asked.size}^3": {
            name: Variant(partial(_prepared, way, asked.masks, asked.size), judge, left_out.get(name, ""))
            for name, way in ways.items()
        }
    }


def _prepared(way: Callable[[Tensor], Any], masks: int, size: int) -> Callable[[], Any]:
    batch = _balls(masks, size).to(operation.device())
    return lambda: way(batch)


def _balls(masks: int, size: int) -> Tensor:
    """Balls of several sizes, `(1, masks, size, size, size)`."""
    line = torch.linspace(-1, 1, size)
    away = (line[:, None, None] ** 2 + line[:, None] ** 2 + line**2).sqrt()
    return torch.stack([away < (k + 1) / (masks + 1) for k in range(masks)])[None]


def _both_sides(measure: Callable[[Any], Any], batch: Tensor) -> Any:
    each = [np.asarray(measure(side)) for one in batch[0].cpu().numpy() for side in (one, ~one)]
    return np.stack(each).reshape(-1, 2, *batch.shape[2:]).sum(1)


def _scipy(batch: Tensor) -> Any:
    from scipy import ndimage

    return _both_sides(partial(ndimage.distance_transform_edt, sampling=SPACING), batch)


def _edt(batch: Tensor) -> Any:
    import edt

    return _both_sides(partial(edt.edt, anisotropy=SPACING), batch)


def _monai(batch: Tensor) -> Any:
    from monai.transforms.utils import distance_transform_edt as measure

    return measure(batch[0], sampling=list(SPACING)) + measure(~batch[0], sampling=list(SPACING))


def _error(masks: int, size: int, found: Any) -> dict[str, float]:
    values = found.cpu().numpy() if isinstance(found, Tensor) else found
    expected = _scipy(_balls(masks, size))
    return {"largest_error_mm": float(np.abs(values.reshape(expected.shape) - expected).max())}


if __name__ == "__main__":
    main()
