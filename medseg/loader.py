"""Prepared cases, made once and kept, and the batches that training draws from them.

The cache holds patient data: arrays of scans without names, each entry under the hash of what it was made from.
"""

from __future__ import annotations

import glob
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from medseg import augment, files, io, preprocess, progress, sample
from medseg import geometry as geo
from medseg.cases import Case
from medseg.errors import DataError, GeometryError, MedsegError
from medseg.labels import Labels
from medseg.volume import Geometry

Array = npt.NDArray[Any]
_DETACHED = (".hdr", ".img", ".mhd", ".nhdr")
_MAKING = ".making-"  # begins the name of an entry that is not finished
_FORMAT = 1  # raised when the meaning of an entry changes, so that old ones are not found
_NOTE = (
    "This folder holds prepared scans of patients. It may be deleted at any time; medseg makes it again when needed.\n"
)


@dataclass(frozen=True)
class Prepared:
    """A case as the network sees it: `image` (C, I, J, K) float32 and `target` (1 or K, I, J, K) int16, mapped from disk.

    Args:
        id: of the case.
        geometry: of the prepared grid.
        points: voxels of each class, for sampling.
    """

    id: str
    geometry: Geometry
    image: Array
    target: Array
    points: dict[int, Array]


def prepare_cases(
    cases: Sequence[Case], config: preprocess.Config, labels: Labels, cache: str | Path, limit_gb: float = 200
) -> list[Prepared]:
    """Read, prepare and store labelled cases, in threads; what the cache already holds is not made again.

    Args:
        cases: with a label each.
        config: how images are prepared.
        labels: what the masks hold.
        cache: folder of the entries; shared between runs. Written under a lock, entry by entry: an interrupted start loses one.
        limit_gb: oldest entries of other runs go when the cache grows beyond it.

    Raises:
        DataError: a case cannot be used; names it.
    """
    cache = Path(cache)
    files.write_text(cache / "README.txt", _NOTE)
    recipe = json.dumps([_FORMAT, config.model_dump(mode="json"), labels.model_dump(mode="json")], sort_keys=True)
    with files.lock(cache, wait=True), ThreadPoolExecutor(os.cpu_count()) as pool:
        for left in cache.glob(f"{_MAKING}*"):  # of a process that was killed
            shutil.rmtree(left, ignore_errors=True)
        found = pool.map(lambda case: _entry(case, config, labels, cache, recipe), cases)
        entries = list(progress.track(found, "preparing", len(cases)))
    _evict(cache, limit_gb, keep=set(entries))
    return [_load(case.id, entry) for case, entry in zip(cases, entries, strict=True)]


def _entry(case: Case, config: preprocess.Config, labels: Labels, cache: Path, recipe: str) -> Path:
    try:
        assert case.label is not None
        content = [files.sha256(part) for path in (*case.images, case.label) for part in _parts(path)]
        entry = cache / hashlib.sha256("\n".join([recipe, *content]).encode()).hexdigest()[:32]
        if not entry.exists():
            _store(entry, case, config, labels)
        os.utime(entry)
        return entry
    except MedsegError as error:
        raise type(error)(f"{case.id}: {error}") from error


def _parts(path: Path) -> list[Path]:
    """The files of a scan: with a header whose voxels lie beside it, all files of its name."""
    return sorted(path.parent.glob(f"{glob.escape(path.stem)}.*")) if path.suffix.lower() in _DETACHED else [path]


def _store(entry: Path, case: Case, config: preprocess.Config, labels: Labels) -> None:
    assert case.label is not None
    image, mask = preprocess.read_image(case.images), io.read(case.label, "labels")
    if not geo.same_space(image.geometry, mask.geometry):
        found = geo.difference(image.geometry, mask.geometry)
        raise GeometryError(
            f"label does not lie on its image: {found}. Run 'medseg check' on the dataset for all of them."
        )
    prepared = preprocess.prepare(image, config)
    target = preprocess.prepare_labels(mask.replace(geometry=image.geometry), prepared.geometry, labels)
    points = sample.points_by_class(target)
    try:
        # The rename takes the folder away; what is left of a failure goes with the block.
        with tempfile.TemporaryDirectory(prefix=_MAKING, dir=entry.parent, ignore_cleanup_errors=True) as making:
            folder = Path(making)
            np.save(folder / "image.npy", prepared.array)
            np.save(folder / "target.npy", target)
            rows = [np.insert(found, 0, name, axis=1) for name, found in points.items()]
            np.save(folder / "points.npy", np.concatenate(rows) if rows else np.zeros((0, 4), np.int32))
            np.save(folder / "affine.npy", prepared.geometry.affine)
            folder.rename(entry)
    except OSError as error:
        if not entry.exists():  # else another thread was quicker, with the same content
            raise DataError(
                f"cannot write the cache of prepared cases: {error.strerror or error}. Free space, or set cache=FOLDER."
            ) from error


def _load(name: str, entry: Path) -> Prepared:
    image = np.load(entry / "image.npy", mmap_mode="r")
    rows = np.load(entry / "points.npy")
    points = {int(name): rows[rows[:, 0] == name, 1:] for name in np.unique(rows[:, 0])}
    geometry = Geometry(image.shape[1:], np.load(entry / "affine.npy"))
    return Prepared(name, geometry, image, np.load(entry / "target.npy", mmap_mode="r"), points)


def _evict(cache: Path, limit_gb: float, keep: set[Path]) -> None:
    entries = sorted(_entries(cache), key=lambda e: e.stat().st_mtime)
    sizes = {e: sum(f.stat().st_size for f in e.iterdir()) for e in entries}
    excess = sum(sizes.values()) - limit_gb * 1e9
    for entry in entries:
        if excess > 0 and entry not in keep:
            shutil.rmtree(entry, ignore_errors=True)
            excess -= sizes[entry]


def _entries(cache: Path) -> list[Path]:
    """The finished entries, and nothing that others put there: they may be deleted."""
    return [e for e in cache.iterdir() if len(e.name) == 32 and (e / "target.npy").is_file()]


def empty(cache: str | Path) -> int:
    """Delete all entries of a cache; returns how many there were. Nothing else in the folder is touched.

    Raises:
        DataError: no such folder.
    """
    cache = Path(cache)
    if not cache.is_dir():
        raise DataError(f"no such folder: '{cache}'. Name the cache of prepared cases, medseg_cache beside the runs.")
    entries = _entries(cache)
    for entry in (*entries, *cache.glob(f"{_MAKING}*")):
        shutil.rmtree(entry)
    return len(entries)


class Batches:
    """The batch of each step, as tensors on a device: `batches(step) -> (image, target)`.

    A pure function of the step, so that a resumed run sees what an uninterrupted one would have seen.

    Args:
        cases: prepared cases; kept in memory where all of them fit in a quarter of what is free.
        sampling: where to cut.
        augmentation: what to change; None changes nothing.
        size: samples in a batch.
        device: of the tensors; augmentation runs there.
        seed: of the run.
        rank, ranks: this process among those that train together; each draws its own part of the samples.
    """

    def __init__(
        self,
        cases: Sequence[Prepared],
        sampling: sample.Config,
        augmentation: augment.Config | None,
        *,
        size: int,
        device: torch.device,
        seed: int = 0,
        rank: int = 0,
        ranks: int = 1,
    ) -> None:
        self.sampling, self.augmentation, self.size, self.device, self.seed = sampling, augmentation, size, device, seed
        self.first, self.stride = rank * size, ranks * size
        self.spacing_mm = cases[0].geometry.spacing_mm
        resident = sum(case.image.nbytes + case.target.nbytes for case in cases) < _free_memory() / 4
        self.arrays = [(np.array(c.image), np.array(c.target)) if resident else (c.image, c.target) for c in cases]
        self.sampler = sample.Sampler([c.geometry.shape for c in cases], [c.points for c in cases], sampling, seed)

    def __call__(self, step: int) -> tuple[Tensor, Tensor]:
        """Image `(B, C, *patch)` float32 and target `(B, *patch)` int64, or `(B, K, *patch)` where labels overlap.

        The last axis is left out where the patch's is 1: slices for a 2D model.
        """
        patch, changes = self.sampling.patch, self.augmentation
        size = augment.margin(patch, changes) if changes else patch
        numbers = [(step * self.stride + self.first + n) for n in range(self.size)]
        cuts = [self.sampler.draw(step, n) for n in numbers]
        parts = [[sample.cut(a, _around(c.start_ijk, patch, size), size) for a in self.arrays[c.case]] for c in cuts]
        image, target = (torch.from_numpy(np.stack(side)).to(self.device) for side in zip(*parts, strict=True))
        if patch[2] == 1:
            image, target = image[..., 0], target[..., 0]
        if changes:
            seeds = [(self.seed, step, n) for n in numbers]
            drawn = augment.draw(changes, seeds, patch=patch, spacing_mm=self.spacing_mm, channels=image.shape[1])
            image, target = augment.apply(image, target, drawn, patch)
        return image, (target[:, 0] if target.shape[1] == 1 else target).long()


def _around(start_ijk: sample.Size, patch: sample.Size, size: sample.Size) -> sample.Size:
    """Where a box of another size with the patch's centre begins."""
    i, j, k = (s - (n - p) // 2 for s, p, n in zip(start_ijk, patch, size, strict=True))
    return i, j, k


def _free_memory() -> float:
    try:
        return float(os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    except (AttributeError, ValueError, OSError):  # not Linux
        return 8e9
