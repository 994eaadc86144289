"""A CT-like volume to a coarser spacing, as image and as label map: seconds, memory, and how far off the values are.

The image is a smooth function of the place in mm and the labels are ellipsoids, so that the right value is known at every voxel
of every result, wherever a library puts its grid.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

import medseg
from benchmarks import _operation as operation
from benchmarks._operation import Variant
from benchmarks._phantom import LABELS, Array, Result, Scan
from medseg import geometry

Make = Callable[[], Array]


def parser() -> argparse.ArgumentParser:
    """The arguments."""
    made = operation.parser(__doc__)
    made.add_argument("--shape", type=int, nargs=3, default=(512, 512, 200), help="of the volume")
    made.add_argument("--spacing", type=float, nargs=3, default=(0.8, 0.8, 2.5), help="of the volume, in mm")
    made.add_argument("--to", type=float, default=1.5, help="spacing of the result, in mm")
    return made


def main(arguments: list[str] | None = None) -> None:
    """Measure, print, write."""
    operation.main("resample", parser(), sections, arguments)


def sections(asked: argparse.Namespace) -> operation.Sections:
    """The image and the label map."""
    affine = np.diag([*asked.spacing, 1.0])
    scan = Scan(medseg.Geometry(tuple(asked.shape), affine), asked.to)
    size = f"{'x'.join(map(str, asked.shape))} to {asked.to:g} mm"
    image, mask = (partial(Variant, judge=judge) for judge in (scan.image_error, scan.labels_error))
    no_monai, no_nnunet = operation.missing("monai"), operation.missing("nnunetv2")
    return {
        f"image, {size}": {
            "medseg, linear": image(partial(ours, scan, scan.image, "image", "linear")),
            "SimpleITK, linear": image(partial(simpleitk, scan, scan.image, "sitkLinear")),
            "monai, bilinear": image(partial(monai, scan, scan.image, 1), left_out=no_monai),
            "nnunetv2, its default": image(partial(nnunet, scan, scan.image, 3), left_out=no_nnunet),
            "scipy, order 3": image(partial(scipy, scan, scan.image)),
        },
        f"labels, {size}": {
            "medseg, one-hot": mask(partial(ours, scan, scan.labels, "labels", "one_hot")),
            "medseg, nearest": mask(partial(ours, scan, scan.labels, "labels", "nearest")),
            "SimpleITK, label Gaussian": mask(partial(simpleitk, scan, scan.labels, "sitkLabelGaussian")),
            "SimpleITK, label linear": mask(partial(simpleitk, scan, scan.labels, "sitkLabelLinear")),
            "monai, one-hot bilinear": mask(partial(monai, scan, scan.labels, len(LABELS) + 1), left_out=no_monai),
            "monai, nearest": mask(partial(monai, scan, scan.labels, 1, "nearest"), left_out=no_monai),
            "nnunetv2, its default": mask(partial(nnunet, scan, scan.labels, 1), left_out=no_nnunet),
        },
    }


def ours(scan: Scan, make: Make, kind: Any, mode: Any) -> Callable[[], Result]:
    """medseg's resampling to a spacing."""
    volume = medseg.Volume(make(), scan.grid, kind)

    def run() -> Result:
        found = geometry.resample(volume, (scan.to_mm,) * 3, mode)
        return found.array[0], found.geometry.affine

    return run


def simpleitk(scan: Scan, make: Make, interpolator: str) -> Callable[[], Result]:
    """SimpleITK's filter onto medseg's grid."""
    import SimpleITK as sitk

    image, target = sitk.GetImageFromArray(make().transpose(2, 1, 0)), scan.target
    image.SetSpacing(scan.grid.spacing_mm)
    kind = sitk.sitkFloat32 if interpolator == "sitkLinear" else sitk.sitkUInt8
    method, origin = getattr(sitk, interpolator), tuple(target.affine[:3, 3])
    place = (target.shape, sitk.Transform(), method, origin, target.spacing_mm, image.GetDirection(), 0.0, kind)

    def run() -> Result:
        return sitk.GetArrayFromImage(sitk.Resample(image, *place)).transpose(2, 1, 0), target.affine

    return run


def monai(scan: Scan, make: Make, channels: int, mode: str = "bilinear") -> Callable[[], Result]:
    """MONAI's Spacing, of the values or of one-hot channels."""
    import torch
    from monai.data import MetaTensor
    from monai.transforms import AsDiscrete, Compose, Spacing

    image = MetaTensor(torch.from_numpy(make())[None], affine=torch.tensor(scan.grid.affine))
    steps: list[Any] = [Spacing((scan.to_mm,) * 3, mode=mode)]
    if channels > 1:
        steps = [AsDiscrete(to_onehot=channels), *steps, AsDiscrete(argmax=True)]
    whole = Compose(steps)

    def run() -> Result:
        found = whole(image)
        return found.numpy()[0], found.affine.numpy()

    return run


def nnunet(scan: Scan, make: Make, order: int) -> Callable[[], Result]:
    """nnU-Net's default: slices by themselves, and the nearest of them, where a volume is anisotropic."""
    from nnunetv2.preprocessing.resampling.default_resampling import resample_data_or_seg_to_shape

    array, labels = make(), order == 1
    array = array[None] if labels else array.astype(np.float32)[None]  # as its preprocessing has them
    shape, affine = _edge_to_edge(scan)
    options: dict[str, Any] = {"is_seg": labels, "order": order, "order_z": 0, "force_separate_z": None}

    def run() -> Result:
        new = (scan.to_mm,) * 3
        return resample_data_or_seg_to_shape(array, shape, scan.grid.spacing_mm, new, **options)[0], affine

    return run


def scipy(scan: Scan, make: Make) -> Callable[[], Result]:
    """scipy's cubic splines."""
    from scipy import ndimage

    array = make().astype(np.float32)
    shape, affine = _edge_to_edge(scan)
    factors = [new / old for new, old in zip(shape, array.shape, strict=True)]
    return lambda: (ndimage.zoom(array, factors, order=3, mode="nearest", grid_mode=True), affine)


def _edge_to_edge(scan: Scan) -> tuple[tuple[int, ...], Array]:
    """The grid of those who stretch a whole number of voxels over the extent of the scan."""
    old = np.array(scan.grid.spacing_mm)
    shape = np.round(np.array(scan.grid.shape) * old / scan.to_mm).astype(int)
    affine = np.diag([*(np.array(scan.grid.shape) * old / shape), 1.0])
    affine[:3, 3] = (np.diag(affine)[:3] - old) / 2
    return tuple(map(int, shape)), affine


if __name__ == "__main__":
    main()
