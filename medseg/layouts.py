"""How datasets lie on disk: MSD and nnU-Net folders, a CSV manifest, images beside labels. Recognised, and named."""

from __future__ import annotations

import csv
import glob
import re
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np

from medseg import progress
from medseg.cases import Case, Dataset, few
from medseg.errors import ConfigError, DataError, MedsegError
from medseg.files import read_json
from medseg.io import SUFFIXES, read
from medseg.labels import Labels

FOLDERS = (("imagesTr", "labelsTr"), ("images", "labels"), ("images", "masks"), ("image", "label"), ("image", "mask"))
SPLITS = {"": None, "train": "train", "val": "validation", "validation": "validation", "test": "test"}
MOST_VALUES = 256  # more distinct values are an instance map or an image, not a mask of named structures
_COLUMNS = ("id", "label", "group", "split")  # of a manifest; any other is a channel
CHANNEL = re.compile(r"_\d{4}$")  # nnU-Net's ending of one file a channel
_THREADS = 4


def find(path: str | Path, modality: str | None = None) -> Dataset:
    """Recognise a dataset.

    Args:
        path: a folder, its `dataset.json`, or a CSV manifest.
        modality: what the images are (`CT`, `MR` ...) in place of what the dataset says; separated by commas where the
            channels differ.

    Returns:
        The dataset; `layout` says what was recognised. `labels` is None where only the masks know (see `discover_labels`).
        Channels that the layout does not name are counted in the first readable case, and named by its DICOM modality.

    Raises:
        DataError: nothing was recognised, files are missing, ids are used twice, or no case has a mask.
        ConfigError: `modality` does not fit the number of channels.
    """
    path = Path(path)
    if not path.exists():
        raise DataError(f"no such dataset: '{path}'")
    dataset = _recognise(path)
    if not dataset.labelled:
        raise DataError(f"no case of '{path}' has a label ({dataset.layout}). To train, put masks beside the images.")
    channels = dataset.channels or _observed(dataset.labelled)
    return dataset.replace(channels=_override(modality, channels) if modality else channels)


def _recognise(path: Path) -> Dataset:
    if path.suffix.lower() == ".csv":
        return _manifest(path)
    root = path.parent if path.name == "dataset.json" else path
    if (root / "dataset.json").is_file():
        return _declared(root)
    if (root / "dataset.csv").is_file():
        return _manifest(root / "dataset.csv")
    for images, labels in FOLDERS:
        if (root / images).is_dir() and (root / labels).is_dir():
            cases = _pairs(root / images, root / labels)
            return Dataset(root.resolve().name, f"{images}/ beside {labels}/", cases, None, (), root)
    raise DataError(
        f"'{path}' is no dataset that medseg knows. Looked for dataset.json (MSD, nnU-Net), a CSV or dataset.csv, and "
        f"{', '.join(f'{a}/ beside {b}/' for a, b in FOLDERS)}. Put scans in images/ and masks of equal name in labels/."
    )


def _declared(root: Path) -> Dataset:
    """A `dataset.json`: with a list of files it is MSD's, without it is nnU-Net's."""
    content = read_json(root / "dataset.json")
    if not isinstance(content, Mapping) or not isinstance(content.get("labels", {}), Mapping):
        raise DataError(f"'{root / 'dataset.json'}' must hold names and values, with 'labels' as a mapping of them")
    labels = Labels.of(content.get("labels", {})) or None  # background alone declares nothing
    named = content.get("channel_names") or content.get("modality") or {}
    if not isinstance(named, Mapping):
        named = {"0": named}
    channels = tuple(str(named[key]) for key in sorted(named, key=lambda key: (len(key), key)))  # "10" after "9"
    listed = content.get("training")
    if isinstance(listed, list):
        # A challenge's test scans have no masks here; where they do, they are the held-out ones.
        test = [entry for entry in content.get("test") or [] if isinstance(entry, Mapping) and entry.get("label")]
        layout, cases = "MSD dataset.json", _listed(root, listed) + _listed(root, test, "test")
    else:
        layout, cases = "nnU-Net raw folder", _nnunet(root, len(channels))
    return Dataset(str(content.get("name") or root.resolve().name), layout, cases, labels, channels, root)


def _listed(root: Path, entries: list[Any], split: str | None = None) -> tuple[Case, ...]:
    cases = []
    for entry in entries:
        if not isinstance(entry, Mapping) or not entry.get("image"):
            raise DataError(f"'{root / 'dataset.json'}': a case must be given as image and label, got {entry!r}")
        names = entry["image"] if isinstance(entry["image"], list) else [entry["image"]]
        images = tuple(path for name in names for path in _resolve(root, str(name)))
        label = _resolve(root, str(entry["label"]))[0] if entry.get("label") else None
        cases.append(Case(_stem(Path(str(names[0]))), images, label, split=split))
    return _present(cases, root)


def _resolve(root: Path, name: str) -> tuple[Path, ...]:
    """The file of an entry; lists are found in the wild without suffixes, or without nnU-Net's channel endings."""
    path = root / name
    for suffix in ("", *SUFFIXES):
        if (whole := path.with_name(path.name + suffix)).exists():
            return (whole,)
    channels = path.parent.glob(glob.escape(_stem(path)) + "_[0-9][0-9][0-9][0-9].*")
    return tuple(sorted(channels)) or (path,)


def _nnunet(root: Path, channels: int) -> tuple[Case, ...]:
    if not ((root / "imagesTr").is_dir() and (root / "labelsTr").is_dir()):
        raise DataError(f"'{root / 'dataset.json'}' has no list 'training', nor lie imagesTr/ and labelsTr/ beside it")
    cases = _pairs(root / "imagesTr", root / "labelsTr")
    if (root / "imagesTs").is_dir() and (root / "labelsTs").is_dir():
        cases += _pairs(root / "imagesTs", root / "labelsTs", "test")
    if channels and (wrong := [case for case in cases if len(case.images) != channels]):
        counts = few(f"{case.id} has {len(case.images)}" for case in wrong)
        raise DataError(f"dataset.json names {channels} channel(s), but {len(wrong)} of {len(cases)} differ: {counts}")
    return cases


def _pairs(images: Path, labels: Path, split: str | None = None) -> tuple[Case, ...]:
    """Images and masks of equal name; or all images end in `_0000`, `_0001` ... for their channels."""
    masks, files = _volumes(labels), _volumes(images)
    suffixed = not any(name in masks for name in files)
    scans: dict[str, list[Path]] = {}
    for name, path in files.items():
        scans.setdefault(CHANNEL.sub("", name) if suffixed else name, []).append(path)
    if alone := sorted(set(masks) - set(scans)):
        raise DataError(
            f"{len(alone)} of {len(masks)} masks in {labels.name}/ have no image of the same name in {images.name}/: "
            f"{few(alone)}; images there: {few(sorted(scans)) or 'none'}. Give both the same name."
        )
    if masks and (bare := sorted(set(scans) - set(masks))):
        progress.warn(f"{len(bare)} of {len(scans)} images in {images.name}/ have no mask: {few(bare)}; not used")
    return tuple(Case(name, tuple(scans[name]), masks.get(name), split=split) for name in sorted(scans))


def _volumes(folder: Path) -> dict[str, Path]:
    """What may be a volume, by name: files of a known ending, and folders of DICOM slices."""
    found: dict[str, Path] = {}
    for path in sorted(p for p in folder.iterdir() if p.is_dir() or p.name.lower().endswith(SUFFIXES)):
        if not path.name.startswith(".") and (other := found.setdefault(_stem(path), path)) != path:
            raise DataError(f"two files in {folder.name}/ share a case's id: {other.name}, {path.name}. Rename one.")
    return found


def _stem(path: Path) -> str:
    """The name that pairs a file or a DICOM folder with its mask (`io.stem` hides those of DICOM behind a hash)."""
    ending = next((suffix for suffix in SUFFIXES if path.name.lower().endswith(suffix)), "")
    return path.name[: len(path.name) - len(ending)]


def _manifest(path: Path) -> Dataset:
    """A table of `id`, `label`, `group`, `split` and one column a channel; paths are relative to it."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"'{path}' is not readable as a table in UTF-8: {error}") from error
    # Spreadsheets write semicolons where the comma is a decimal sign.
    header, *rows = csv.reader(lines or [""], delimiter=max(",;\t", key=(lines or [""])[0].count))
    columns = [name.strip().lower() if name.strip().lower() in _COLUMNS else name.strip() for name in header]
    channels = tuple(name for name in columns if name and name not in _COLUMNS)
    if "id" not in columns or not channels or len(set(channels)) < len(channels):
        raise DataError(f"'{path}' needs a column 'id' and one a channel, such as 'image'; it has: {few(columns, 8)}")
    table = [dict(zip_longest(columns, map(str.strip, row), fillvalue="")) for row in rows]
    cases = [_row(cells, channels, path, n) for n, cells in enumerate(table, 2) if any(cells.values())]
    given = () if channels == ("image",) else channels
    return Dataset(path.stem, "CSV manifest", _present(cases, path.parent), None, given, path.parent)


def _row(cells: Mapping[str, str], channels: tuple[str, ...], path: Path, line: int) -> Case:
    if not all(cells[name] for name in ("id", *channels)) or cells.get(""):
        raise DataError(f"'{path}', line {line}: expected {few(cells, 8)}; got {few(cells.values(), 8)}")
    if (split := cells.get("split", "").lower()) not in SPLITS:
        raise DataError(f"'{path}', line {line}: split must be train, validation, test or empty, got '{split}'")
    label = path.parent / cells["label"] if cells.get("label") else None
    images = tuple(path.parent / cells[name] for name in channels)
    return Case(cells["id"], images, label, cells.get("group", ""), SPLITS[split])


def _present(cases: list[Case], root: Path) -> tuple[Case, ...]:
    wanted = [path for case in cases for path in (*case.images, case.label) if path]
    if missing := [path for path in wanted if not path.exists()]:
        shown = few(path.relative_to(root) if path.is_relative_to(root) else path for path in missing)
        raise DataError(f"{len(missing)} of {len(wanted)} files of '{root}' are missing: {shown}")
    return tuple(cases)


def _observed(cases: Iterable[Case]) -> tuple[str, ...]:
    for case in cases:
        try:
            volumes = [read(path) for path in case.images]
        except MedsegError:
            continue  # `medseg check` names it; here any readable case will do
        return tuple(str(volume.meta.get("modality", "image")) for volume in volumes for _ in range(volume.channels))
    return ("image",)


def _override(modality: str, channels: tuple[str, ...]) -> tuple[str, ...]:
    given = tuple(name.strip() for name in modality.split(","))
    if len(given) not in (1, len(channels)):
        raise ConfigError(
            f"modality names {len(given)} channels, but the images have {len(channels)}: {', '.join(channels)}"
        )
    return given if len(given) == len(channels) else given * len(channels)


def label_values(dataset: Dataset) -> dict[str, tuple[int, ...]]:
    """The values besides 0 in the mask of each labelled case, by id; masks are read in threads.

    Raises:
        DataError: a mask cannot be read, holds fractions, or more than 256 distinct values.
    """
    with ThreadPoolExecutor(_THREADS) as pool:
        found = pool.map(_values, dataset.labelled)
        return dict(progress.track(found, "reading masks", len(dataset.labelled)))


def _values(case: Case) -> tuple[str, tuple[int, ...]]:
    assert case.label is not None  # only labelled cases come here
    values = np.unique(read(case.label, "labels").array)
    if len(values) > MOST_VALUES:
        raise DataError(
            f"{case.id}: the mask holds {len(values)} distinct values; a mask of structures has at most {MOST_VALUES}. "
            "Is it an image, or a map of numbered instances?"
        )
    return case.id, tuple(int(v) for v in values if v)


def discover_labels(dataset: Dataset) -> Labels:
    """The structures of a dataset that declares none: one a value, named after it.

    Raises:
        DataError: as for `label_values`; or all masks are empty; or their values are more than 256 in all.
    """
    values = sorted({v for case in label_values(dataset).values() for v in case})
    if not 1 <= len(values) < MOST_VALUES:
        raise DataError(f"the masks hold {len(values)} distinct values besides 0; 1 to {MOST_VALUES - 1} are expected")
    return Labels.of(values)
