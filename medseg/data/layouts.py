"""How datasets lie on disk: MSD, nnU-Net, CSV manifests, BIDS, images beside labels, DICOM studies. Recognised, and named."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from medseg import io, progress
from medseg.data import bids, completeness, dicom_studies, manifest
from medseg.data.cases import Case, Dataset
from medseg.errors import ConfigError, DataError, MedsegError
from medseg.files import read_json
from medseg.labels import Labels
from medseg.wording import counted, few

FOLDERS = (("imagesTr", "labelsTr"), ("images", "labels"), ("images", "masks"), ("image", "label"), ("image", "mask"))
NNUNET = "nnU-Net raw folder"
UNNAMED = "dataset"  # its folder's name may be a patient's, and would become the model's
CHANNEL = re.compile(r"_\d{4}$")  # nnU-Net's ending of one file per channel


def find(path: str | Path, modality: str | None = None, keys: Path | None = None, *, whole: bool = True) -> Dataset:
    """Recognise a dataset.

    Args:
        path: a folder, its `dataset.json`, or a CSV manifest; `TREE#KIND` for one kind of masks of a BIDS tree, or for
            the objects of DICOM studies that are called so; refused where a dataset has one kind alone.
        modality: what the images are (`CT`, `MR` ...) in place of what the dataset says; separated by commas where the
            channels differ. Of a tree of DICOM studies, the series to take.
        keys: folder beside which the key of patients' groups is kept; None for one that dies with the process.
        whole: refuse a dataset that lacks files; False sets their cases aside instead, see `Dataset.incomplete`.

    Returns:
        The dataset; `layout` says what was recognised. `labels` is None where only the masks know (see
        `reading.discover_labels`). Channels that the layout does not name are counted in the first readable case, and
        named by its DICOM modality. The id of a DICOM image is a hash of its SeriesInstanceUID unless a manifest gives one.

    Raises:
        DataError: nothing was recognised, files are missing, ids are used twice, or no case has a mask.
        ConfigError: `modality` does not fit the number of channels.
    """
    path, masks = bids.split(Path(path))
    try:
        if not path.exists():
            raise DataError(f"no such dataset: '{path}'. Give a folder, its dataset.json, or a CSV.")
        dataset = _recognise(path, masks, modality, keys)
        if masks and not dataset.layout.startswith((bids.LAYOUT, dicom_studies.LAYOUT)):
            raise DataError(
                f"'#{masks}' chooses among the masks of a BIDS tree or of DICOM studies; '{path}' is of another layout "
                f"({dataset.layout}), and has one kind. Leave it out."
            )
        dataset = completeness.check(dataset, whole, len(dataset.channels) if dataset.layout == NNUNET else 0)
        dataset = dicom_studies.by_name(dataset) if dataset.layout != dicom_studies.LAYOUT else dataset
    except OSError as error:  # a folder that may not be listed, a name longer than the system allows
        where = error.filename or path
        raise DataError(f"cannot read '{where}': {error.strerror or type(error).__name__}") from error
    if not dataset.labelled:
        raise DataError(
            f"no case of '{path}' has a label ({dataset.layout}). To train, put masks beside the images, "
            "or name them in the column 'label' of a manifest."
        )
    channels = dataset.channels or _observed(dataset.labelled)
    return dataset.replace(channels=_override(modality, channels) if modality else channels)


def _recognise(path: Path, masks: str, modality: str | None, keys: Path | None) -> Dataset:
    if path.suffix.lower() == ".csv":
        return manifest.read(path)
    root = path.parent if path.name == "dataset.json" else path
    if (root / "dataset.json").is_file():
        return _declared(root)
    if (root / "dataset.csv").is_file():
        return manifest.read(root / "dataset.csv")
    if bids.matches(root):
        return bids.read(root, masks)
    for images, labels in FOLDERS:
        if (root / images).is_dir() and (root / labels).is_dir():
            cases = _pairs(root / images, root / labels)
            return Dataset(UNNAMED, f"{images}/ beside {labels}/", cases, None, (), root)
    if root.is_dir() and (found := dicom_studies.find(root, modality, keys, masks)):
        return found
    raise DataError(
        f"'{path}' is no dataset that medseg knows. Looked for dataset.json (MSD, nnU-Net), a CSV or dataset.csv, sub-*/ beside "
        f"derivatives/ (BIDS), {', '.join(f'{a}/ beside {b}/' for a, b in FOLDERS)}, DICOM series with SEG or RTSTRUCT. Put scans in images/ and masks of "
        "equal name in labels/, or write a CSV with the columns id,image,label and a row for each scan."
    )


# --- dataset.json


def _declared(root: Path) -> Dataset:
    """A `dataset.json`: with a list of files it is MSD's, without it is nnU-Net's."""
    content = read_json(root / "dataset.json")
    if not isinstance(content, Mapping) or not isinstance(content.get("labels", {}), Mapping):
        raise DataError(f"'{root / 'dataset.json'}' must hold names and values, with 'labels' as a mapping of them")
    order = content.get("regions_class_order")
    labels = Labels.of(content.get("labels", {}), order) or None  # background alone declares nothing
    channels = _channel_names(content.get("channel_names") or content.get("modality") or {})
    listed, test = _entries(root, content, "training"), _entries(root, content, "test")
    if "training" in content:
        # A challenge's test scans have no masks here; where they do, they are the held-out ones.
        test = [entry for entry in test if isinstance(entry, Mapping) and entry.get("label")]
        layout, cases = "MSD dataset.json", _listed(root, listed) + _listed(root, test, "test")
    else:
        layout, cases = NNUNET, _nnunet(root)
    return Dataset(
        str(content.get("name") or (few(labels.names) if labels else UNNAMED)), layout, cases, labels, channels, root
    )


def _channel_names(given: Any) -> tuple[str, ...]:
    """Names by number ("10" after "9"), in a list, or the only one."""
    if isinstance(given, Mapping):
        given = [given[key] for key in sorted(given, key=lambda key: (len(key), key))]
    return tuple(map(str, given if isinstance(given, list) else [given]))


def _entries(root: Path, content: Mapping[str, Any], key: str) -> list[Any]:
    if not isinstance(entries := content.get(key) or [], list):
        raise DataError(f"'{root / 'dataset.json'}': '{key}' must be a list of cases, got {str(entries)[:40]!r}")
    return entries


def _listed(root: Path, entries: list[Any], split: str | None = None) -> tuple[Case, ...]:
    cases = []
    for entry in entries:
        if not isinstance(entry, Mapping) or not entry.get("image"):
            raise DataError(f"'{root / 'dataset.json'}': a case must be given as image and label, got {entry!r}")
        names = entry["image"] if isinstance(entry["image"], list) else [entry["image"]]
        images = tuple(path for name in names for path in _resolve(root / str(name)))
        label = _resolve(root / str(entry["label"]))[0] if entry.get("label") else None
        one_a_channel = _is_channel(images[0], io.bare_name(Path(str(names[0]))))
        part = manifest.SPLITS.get(str(entry.get("split") or ""), split) or split
        cases.append(Case(_id(images[0], one_a_channel), images, label, str(entry.get("group") or ""), part))
    return tuple(cases)


def _resolve(path: Path) -> tuple[Path, ...]:
    """The file of an entry; lists are found in the wild without endings, in other letters, or without nnU-Net's channels."""
    if path.exists():
        return (path,)
    name = io.bare_name(path)
    near = (p for p in sorted(path.parent.glob("*")) if io.bare_name(p).startswith(name))
    beside = [p for p in near if p.name.lower().endswith(io.SUFFIXES)]
    whole = [p for p in beside if io.bare_name(p) == name]
    return tuple(whole if len(whole) == 1 else [p for p in beside if _is_channel(p, name)]) or (path,)


def _is_channel(path: Path, name: str) -> bool:
    return io.bare_name(path) != name == CHANNEL.sub("", io.bare_name(path))


def _nnunet(root: Path) -> tuple[Case, ...]:
    if not ((root / "imagesTr").is_dir() and (root / "labelsTr").is_dir()):
        raise DataError(f"'{root / 'dataset.json'}' has no list 'training', nor lie imagesTr/ and labelsTr/ beside it")
    cases = _pairs(root / "imagesTr", root / "labelsTr")
    if (root / "imagesTs").is_dir() and (root / "labelsTs").is_dir():
        cases += _pairs(root / "imagesTs", root / "labelsTs", "test")
    return cases


# --- folders


def _pairs(images: Path, labels: Path, split: str | None = None) -> tuple[Case, ...]:
    """Images and masks of equal name; or all images end in `_0000`, `_0001` ... for their channels."""
    masks, files = _volumes(labels), _volumes(images)
    suffixed = not any(name in masks for name in files)
    scans: dict[str, list[Path]] = {}
    for name, path in files.items():
        scans.setdefault(CHANNEL.sub("", name) if suffixed else name, []).append(path)
    ids = {name: _id(scans[name][0], suffixed) for name in sorted(scans)}
    alone = (Case(name, (), masks[name], split=split) for name in sorted(set(masks) - set(scans)))
    if masks and (bare := [ids[name] for name in ids if name not in masks]):
        progress.warn(f"{len(bare)} of {len(scans)} images in {images.name}/ have no mask: {few(bare)}; not used")
    paired = (Case(ids[name], tuple(scans[name]), masks.get(name), split=split) for name in ids)
    return (*paired, *alone)  # which `find` refuses, or sets aside


def _volumes(folder: Path) -> dict[str, Path]:
    """What may be a volume, by the name that pairs it with its mask: files of a known ending, and folders of DICOM slices."""
    found: dict[str, Path] = {}
    for path in sorted(p for p in folder.iterdir() if p.is_dir() or p.name.lower().endswith(io.SUFFIXES)):
        if not path.name.startswith(".") and (other := found.setdefault(io.bare_name(path), path)) != path:
            raise DataError(f"two files in {folder.name}/ share a case's id: {other.name}, {path.name}. Rename one.")
    return found


def _id(image: Path, one_a_channel: bool) -> str:
    return CHANNEL.sub("", io.stem(image)) if one_a_channel else io.stem(image)


# --- channels


def _observed(cases: Iterable[Case]) -> tuple[str, ...]:
    for case in cases:
        try:
            volumes = [io.read(path) for path in case.images]
        except MedsegError:
            continue  # `medseg check` names it; here any readable case will do
        return tuple(str(volume.meta.get("modality", "image")) for volume in volumes for _ in range(volume.channels))
    return ("image",)


def _override(modality: str, channels: tuple[str, ...]) -> tuple[str, ...]:
    given = tuple(name.strip() for name in modality.split(","))
    if len(given) not in (1, len(channels)):
        raise ConfigError(
            f"modality names {counted(len(given), 'channel')}, but the images have {len(channels)}: {', '.join(channels)}"
        )
    return given if len(given) == len(channels) else given * len(channels)
