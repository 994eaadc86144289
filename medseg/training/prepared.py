"""Prepared cases, made once and kept in a cache.

It holds patient data: arrays of scans without names, each entry under the hash of what it was made from.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from medseg import files, io, preprocess, progress, sample
from medseg.arrays import Array
from medseg.data.cases import Case, named
from medseg.data.reading import each, read_case
from medseg.errors import DataError
from medseg.geometry.region import Place, Region, crop
from medseg.labels import Labels
from medseg.volume import Geometry

_MAKING = ".making-"  # begins the name of an entry that is not finished
_FORMAT = 2  # raised when the meaning of an entry changes, so that old ones are not found
_NOTE = (
    "This folder holds prepared scans of patients. It may be deleted at any time; medseg makes it again when needed.\n"
)


@dataclass(frozen=True)
class Prepared:
    """A case as the network sees it: `image` (C, I, J, K) float32 and `target` (1 or K, I, J, K) int16; from a cache, mapped from disk.

    Args:
        id: of the case.
        geometry: of the prepared grid.
        points: voxels of each class, for sampling.
        missed_ml: of each label, what lies outside of the image; empty where that shows the whole scan.
    """

    id: str
    geometry: Geometry
    image: Array
    target: Array
    points: dict[int, Array]
    missed_ml: tuple[float, ...] = ()


def prepare_cases(
    cases: Sequence[Case],
    config: preprocess.Config,
    labels: Labels,
    cache: str | Path,
    limit_gb: float = 200,
    region: Region | None = None,
    places: Mapping[str, Place] | None = None,
) -> list[Prepared]:
    """Read, prepare and store labelled cases, in threads; what the cache already holds is not made again.

    Args:
        cases: with a label each.
        config: how images are prepared.
        labels: what the masks hold.
        cache: folder of the entries, shared between runs. Written under a lock, entry by entry: an interrupted start loses one.
        limit_gb: above this size the oldest entries of other runs are deleted.
        region: prepare what lies around each case's mask; None prepares whole scans.
        places: the part of a scan that is prepared instead, by the case's id.

    Raises:
        DataError: a case cannot be used; names it.
    """
    cache = Path(cache)
    files.write_text(cache / "README.txt", _NOTE)
    recipe = json.dumps([_FORMAT, config.model_dump(mode="json"), labels.model_dump(mode="json")], sort_keys=True)
    known = places or {}
    with files.lock(cache, wait=True):  # until they are loaded: another process may evict what nobody has open
        for left in cache.glob(f"{_MAKING}*"):  # of a process that was killed
            shutil.rmtree(left, ignore_errors=True)

        def make(case: Case) -> Path:
            return _entry(case, config, labels, cache, recipe, known.get(case.id, region))

        entries = each(make, cases, "preparing", len(config.intensity))
        _evict(cache, limit_gb, keep=set(entries))
        found = [_loaded(case, entry, make) for case, entry in zip(cases, entries, strict=True)]
    return [replace(case, missed_ml=known[case.id].missed_ml) if case.id in known else case for case in found]


def _entry(
    case: Case, config: preprocess.Config, labels: Labels, cache: Path, recipe: str, shown: Region | Place | None
) -> Path:
    with named(case):
        content = [files.sha256(part) for path in case.files for part in io.parts(path)]
        what = repr(shown.box if isinstance(shown, Place) else shown)
        made_from = [recipe, *content, *([what] if shown else [])]
        entry = cache / hashlib.sha256("\n".join(made_from).encode()).hexdigest()[:32]
        if not entry.exists():
            _store(entry, prepare_case(case, config, labels, shown))
        os.utime(entry)
        return entry


def prepare_case(
    case: Case, config: preprocess.Config, labels: Labels, shown: Region | Place | None = None
) -> Prepared:
    """Read and prepare a labelled case, in memory; all of the scan, what lies around its mask, or a place in it."""
    image, mask = read_case(case)
    grid = image.geometry
    if shown:
        box = shown.box if isinstance(shown, Place) else shown.around(labels.anywhere(mask.array), grid, grid)
        image = crop(image, box)
    prepared = preprocess.prepare(image, config)
    target = preprocess.prepare_labels(mask, prepared.geometry, labels)
    return Prepared(case.id, prepared.geometry, prepared.array, target, sample.points_by_class(target))


def _store(entry: Path, prepared: Prepared) -> None:
    try:
        # The rename takes the folder away; what is left of a failure goes with the block.
        with tempfile.TemporaryDirectory(prefix=_MAKING, dir=entry.parent, ignore_cleanup_errors=True) as making:
            folder = Path(making)
            np.save(folder / "image.npy", prepared.image)
            np.save(folder / "target.npy", prepared.target)
            rows = [np.insert(found, 0, name, axis=1) for name, found in prepared.points.items()]
            np.save(folder / "points.npy", np.concatenate(rows) if rows else np.zeros((0, 4), np.int32))
            np.save(folder / "affine.npy", prepared.geometry.affine)
            folder.rename(entry)
    except OSError as error:
        if not entry.exists():  # else another thread was quicker, with the same content
            raise DataError(
                f"cannot write the cache of prepared cases: {error.strerror or error}. Free space, or set cache=FOLDER."
            ) from error


def _loaded(case: Case, entry: Path, make: Callable[[Case], Path]) -> Prepared:
    """An entry, made again where a failing disk or machine damaged it."""
    try:
        return _load(case.id, entry)
    except (ValueError, EOFError, FileNotFoundError):
        progress.warn(f"{case.id}: the cache of prepared cases is damaged; preparing it again")
        shutil.rmtree(entry)
        return _load(case.id, make(case))


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
        RunError: another process is preparing cases in it.
    """
    cache = Path(cache)
    if not cache.is_dir():
        raise DataError(f"no such folder: '{cache}'. Name the cache of prepared cases, medseg_cache beside the runs.")
    with files.lock(cache):
        entries = _entries(cache)
        for entry in (*entries, *cache.glob(f"{_MAKING}*")):
            shutil.rmtree(entry)
    return len(entries)
