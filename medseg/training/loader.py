"""The batches that training draws from prepared cases."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from medseg import augment, memory, sample
from medseg.training.prepared import Array, Prepared


class Batches:
    """The batches of a run, as tensors on a device: `batches(number) -> (image, target)`.

    A pure function of the number, so that a resumed run sees what an uninterrupted one would have seen. The samples of a step
    are the same ones in whatever batches and by whatever processes they are drawn.

    Args:
        cases: prepared cases; kept on the device, or else in memory, where all of them fit in a quarter of what is free.
        sampling: where to cut.
        augmentation: what to change; None changes nothing.
        size: samples in a batch.
        parts: batches in a step.
        device: of the tensors; augmentation runs there.
        seed: of the run.
        rank, ranks: this process among those that train together; each draws its own samples of a step.
    """

    def __init__(
        self,
        cases: Sequence[Prepared],
        sampling: sample.Config,
        augmentation: augment.Config | None,
        *,
        size: int,
        parts: int = 1,
        device: torch.device,
        seed: int = 0,
        rank: int = 0,
        ranks: int = 1,
    ) -> None:
        self.sampling, self.augmentation, self.size, self.device, self.seed = sampling, augmentation, size, device, seed
        self.parts, self.rank, self.ranks = parts, rank, ranks
        self.spacing_mm = cases[0].geometry.spacing_mm
        home = _home(cases, device)
        self.arrays = [
            [torch.from_numpy(np.array(side)).to(home) if home else side for side in (case.image, case.target)]
            for case in cases
        ]
        self.sampler = sample.Sampler([c.geometry.shape for c in cases], [c.points for c in cases], sampling, seed)

    def __call__(self, number: int) -> tuple[Tensor, Tensor]:
        """Image `(B, C, *patch)` float32 and target `(B, *patch)` int64, or `(B, K, *patch)` where labels overlap.

        The last axis is left out where the patch's is 1: slices for a 2D model.
        """
        patch, changes = self.sampling.patch, self.augmentation
        size = augment.margin(patch, changes) if changes else patch
        step, part = divmod(number, self.parts)
        first = ((step * self.ranks + self.rank) * self.parts + part) * self.size
        numbers = range(first, first + self.size)
        cuts = [self.sampler.draw(step, n) for n in numbers]
        starts = [_around(c.start_ijk, patch, size) for c in cuts]
        image, target = (
            self._boxes([self.arrays[c.case][side] for c in cuts], starts, size, kind)
            for side, kind in enumerate((torch.float32, torch.int16))
        )
        if patch[2] == 1:
            image, target = image[..., 0], target[..., 0]
        if changes:
            seeds = [(self.seed, step, n) for n in numbers]
            drawn = augment.draw(changes, seeds, patch=patch, spacing_mm=self.spacing_mm, channels=image.shape[1])
            image, target = augment.apply(image, target, drawn, patch)
        return image, (target[:, 0] if target.shape[1] == 1 else target).long()

    def _boxes(
        self, arrays: Sequence[Tensor | Array], starts: Sequence[sample.Size], size: sample.Size, kind: torch.dtype
    ) -> Tensor:
        """Boxes `(B, C, *size)`, cut where the arrays lie; from memory, a GPU fetches them without being waited for."""
        home = arrays[0].device if isinstance(arrays[0], Tensor) else torch.device("cpu")
        pinned = home.type == "cpu" and self.device.type == "cuda"
        boxes = torch.empty(len(arrays), len(arrays[0]), *size, dtype=kind, device=home, pin_memory=pinned)
        for array, start, box in zip(arrays, starts, boxes, strict=True):
            sample.cut(array, start, box if isinstance(array, Tensor) else box.numpy())
        return boxes.to(self.device, non_blocking=True)


def _home(cases: Sequence[Prepared], device: torch.device) -> torch.device | None:
    """Where all cases take at most a quarter of what is free: the device, else memory; None if they stay on disk."""
    needed = 4 * sum(case.image.nbytes + case.target.nbytes for case in cases)
    if device.type == "cuda" and needed < torch.cuda.mem_get_info(device)[0]:
        return device
    return torch.device("cpu") if needed < memory.free_bytes() else None


def _around(start_ijk: sample.Size, patch: sample.Size, size: sample.Size) -> sample.Size:
    """Where a box of another size with the patch's centre begins."""
    i, j, k = (s - (n - p) // 2 for s, p, n in zip(start_ijk, patch, size, strict=True))
    return i, j, k
