"""Augmented patches a second: cut out of a volume in memory and changed, with every operation on and at default probabilities."""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks import _operation as operation
from benchmarks._operation import Variant

Array = npt.NDArray[Any]
Size = tuple[int, int, int]
_TURN = np.pi / 6  # largest rotation of all pipelines


def parser() -> argparse.ArgumentParser:
    """The arguments."""
    made = operation.parser(__doc__, threads=1)
    made.add_argument("--size", type=int, default=256, help="edge of the cubic volume")
    made.add_argument("--patch", type=int, default=128, help="edge of the cubic patch")
    made.add_argument("--patches", type=int, default=24, help="in a call, an even number")
    return made


def main(arguments: list[str] | None = None) -> None:
    """Measure, print, write."""
    operation.main("loader", parser(), sections, arguments, rates)


def rates(found: operation.Found, asked: argparse.Namespace) -> None:
    """Patches a second, of each variant."""
    for item in itertools.chain.from_iterable(results.values() for results in found.values()):
        item["facts"] = {"patches/s": asked.patches / item["median_s"]}


def sections(asked: argparse.Namespace) -> operation.Sections:
    """Every operation on every patch, and what each library does by default."""
    missing = {"monai": operation.missing("monai"), "nnunetv2": operation.missing("nnunetv2")}
    makes = {"medseg": ours, "nnunetv2": nnunet, "monai": monai}
    return {
        f"{asked.patches} patches of {asked.patch}^3, {title}": {
            name: Variant(
                partial(make, asked.size, (asked.patch,) * 3, asked.patches, always), None, missing.get(name, "")
            )
            for name, make in makes.items()
        }
        for title, always in (("every operation", True), ("default probabilities", False))
    }


def volume(size: int) -> tuple[Array, Array]:
    """Image `(1, size, size, size)` float32 of noise around three balls, and their labels in int16."""
    line = np.linspace(-1, 1, size, dtype=np.float32)
    labels = np.zeros((size,) * 3, np.int16)
    for label, (i, j, k) in enumerate(((0.4, 0.0, -0.3), (-0.4, 0.3, 0.3), (0.0, -0.5, 0.4)), 1):
        labels[((line - i) ** 2)[:, None, None] + ((line - j) ** 2)[:, None] + (line - k) ** 2 < 0.06] = label
    noise = np.random.default_rng(0).standard_normal(labels.shape, dtype=np.float32)
    return (noise + labels)[None], labels[None]


def ours(size: int, patch: Size, count: int, always: bool) -> Callable[[], None]:
    """medseg's batches of two, as training draws them: freed memory is kept."""
    import torch

    from medseg import Geometry, augment, memory, sample
    from medseg.training import loader

    memory.keep_heap()
    image, labels = volume(size)
    case = loader.Prepared("case", Geometry((size,) * 3, np.eye(4)), image, labels, sample.points_by_class(labels))
    certain: dict[str, Any] = {name: 1.0 for name in augment.Config.model_fields if name.endswith("_p")}
    changes = augment.Config(**certain) if always else augment.Config()
    draw = loader.Batches([case], sample.Config(patch=patch), changes, size=2, device=torch.device("cpu"))
    steps = itertools.count()

    def run() -> None:
        for _ in range(count // 2):
            draw(next(steps))

    return run


def nnunet(size: int, patch: Size, count: int, always: bool) -> Callable[[], None]:
    """nnU-Net's default transforms, on the larger patches that it cuts for them."""
    import torch
    from nnunetv2.training.data_augmentation.compute_initial_patch_size import get_patch_size
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    turn = (-_TURN, _TURN)
    transforms = nnUNetTrainer.get_training_transforms(patch, turn, None, (0, 1, 2), False)
    if always:
        _switch_on(transforms)
    larger = np.minimum(get_patch_size(patch, turn, turn, turn, (0.85, 1.25)), size)
    image, labels = map(torch.from_numpy, volume(size))
    rng = np.random.default_rng(0)

    def run() -> None:
        for _ in range(count):
            starts = rng.integers(0, size - larger + 1)
            box = (slice(None), *(slice(s, s + n) for s, n in zip(starts, larger, strict=True)))
            transforms(image=image[box].clone(), segmentation=labels[box].clone())

    return run


def _switch_on(transform: Any) -> None:
    """Every probability of a tree of batchgeneratorsv2's transforms to 1; the mirror's axes stay a coin each."""
    for name in ("p_rotation", "p_scaling", "p_per_channel", "apply_probability"):
        if hasattr(transform, name):
            setattr(transform, name, 1)
    for part in (*getattr(transform, "transforms", ()), getattr(transform, "transform", None)):
        if part is not None:
            _switch_on(part)


def monai(size: int, patch: Size, count: int, always: bool) -> Callable[[], None]:
    """MONAI's transforms of the same kinds, strengths and probabilities, on patches of the final size."""
    import torch
    from monai import transforms as mt
    from monai.utils import set_determinism

    both, modes = ("image", "label"), ("bilinear", "nearest")

    def p(default: float) -> float:
        return 1.0 if always else default

    span: dict[str, Any] = {
        "rotate_range": (_TURN,) * 3,
        "scale_range": ((-0.3, 0.4),) * 3,
        "shear_range": 0.1,
        "translate_range": 0.1 * patch[0],
        "mode": modes,
        "padding_mode": "zeros",
    }
    bent = {"sigma_range": (5, 8), "magnitude_range": (50, 150), **(span if always else {"mode": modes})}
    # The elastic transform holds an affine one: with both on, a patch is interpolated once, as elsewhere.
    space = [mt.Rand3DElasticd(both, prob=p(0.1), **bent)] + (
        [] if always else [mt.RandAffined(both, prob=0.48, **span)]
    )
    steps = mt.Compose(
        [
            mt.RandSpatialCropd(both, patch, random_size=False),
            *space,
            *(mt.RandFlipd(both, prob=0.5, spatial_axis=axis) for axis in range(3)),
            mt.RandBiasFieldd("image", prob=p(0.1)),
            mt.RandGaussianNoised("image", prob=p(0.1), std=0.3),
            mt.RandGaussianSmoothd("image", *((0.5, 1),) * 3, prob=p(0.1)),
            mt.RandScaleIntensityd("image", 0.25, prob=p(0.15)),
            mt.RandScaleIntensityFixedMeand("image", factors=0.25, preserve_range=True, prob=p(0.15)),
            mt.RandSimulateLowResolutiond("image", prob=p(0.125)),
            mt.RandAdjustContrastd("image", prob=p(0.35), gamma=(0.7, 1.5), retain_stats=True),
        ]
    )
    set_determinism(0)
    image, labels = map(torch.from_numpy, volume(size))

    def run() -> None:
        for _ in range(count):
            steps({"image": image, "label": labels})

    return run


if __name__ == "__main__":
    main()
