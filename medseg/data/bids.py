"""BIDS trees (https://bids-specification.readthedocs.io): images under `sub-*`, masks of equal name under `derivatives/`.

Masks are found by either of two habits: the image's whole name and what the mask shows (`sub-01_T1w_lesion-manual.nii.gz`),
or the specification's (`sub-01_desc-manual_dseg.nii.gz`), which leaves the image's suffix out.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

from medseg import io, progress, tables
from medseg.data.cases import Case, Dataset
from medseg.errors import DataError
from medseg.files import read_json
from medseg.labels import Labels
from medseg.registry import did_you_mean
from medseg.wording import counted, few

_MODALITIES = {"anat": "MR", "dwi": "MR", "func": "MR", "perf": "MR", "fmap": "MR", "pet": "PET", "ct": "CT"}
_SUFFIXES = ("dseg", "mask")  # of the specification's masks; a probseg holds no labels
_OF_MASKS = ("space", "desc", "label", "seg", "atlas", "res", "den", "hemi")  # entities that an image does not have
_OWN_SPACES = ("", "orig", "individual")

LAYOUT = "BIDS tree"
Masks = Mapping[str, dict[Path, Path]]  # by what they show (`labels/lesion-manual`): image -> mask


def matches(root: Path) -> bool:
    """Whether a folder is a tree with derivatives."""
    return (root / "derivatives").is_dir() and any(root.glob("sub-*/"))


def split(data: Path) -> tuple[Path, str]:
    """The tree and the kind of masks of `TREE#KIND`."""
    name, mark, kind = str(data).rpartition("#")
    return (Path(name), kind) if mark and not data.exists() else (data, "")


def read(root: Path, kind: str = "") -> Dataset:
    """The images for which there is a mask of one kind; each is a case, and each subject a patient.

    Args:
        root: of the tree.
        kind: what the masks show, such as `lesion-manual`, with the folder below `derivatives/` where several have it; the kind
            that most images have otherwise, of equally many one with `seg` in its name, and a warning names the others.

    Raises:
        DataError: no mask belongs to any image, or none is of this kind.
    """
    images = [path for path in sorted(root.glob("sub-*/**/*")) if _is_image(path)]
    masks = _masks(root / "derivatives", images)
    if not masks:
        raise DataError(
            f"'{root}' is a BIDS tree of {counted(len(images), 'image')}, but no mask under derivatives/ belongs to one. Expected "
            "sub-01_T1w_NAME.nii.gz or sub-01_dseg.nii.gz under derivatives/PIPELINE/sub-01/anat/."
        )
    chosen = _chosen(masks, kind)
    labelled = masks[chosen]
    wanted = {_suffix(path) for path in labelled}
    bare = [path for path in images if path not in labelled and _suffix(path) in wanted]
    if bare:
        progress.warn(
            f"{counted(len(bare), 'image has', 'images have')} no mask '{chosen}': {few(map(io.stem, bare))}; not used"
        )
    cases = tuple(_case(path, labelled.get(path)) for path in sorted([*labelled, *bare]))
    channels = {_MODALITIES.get(path.parent.name, "") for path in labelled}
    known = (channels.pop(),) if len(channels) == 1 and "" not in channels else ()
    labels = _labels(root / "derivatives", chosen)
    return Dataset(_name(root), f"{LAYOUT}, masks {chosen}", cases, labels, known, root)


def _case(image: Path, mask: Path | None) -> Case:
    return Case(io.stem(image), (image,), mask, _subject(image))


def _masks(derivatives: Path, images: list[Path]) -> Masks:
    """Every mask that belongs to an image, by its kind."""
    found: defaultdict[str, dict[Path, Path]] = defaultdict(dict)
    of_subject: defaultdict[str, list[Path]] = defaultdict(list)
    for image in images:
        of_subject[_subject(image)].append(image)
    lost = 0
    for mask in sorted(derivatives.rglob("sub-*")):
        if not _is_image(mask):
            continue
        pipeline = mask.relative_to(derivatives).parts[0]
        pipeline = "" if pipeline.startswith("sub-") else f"{pipeline}/"
        owners = {image: kind for image in of_subject[_subject(mask)] if (kind := _kind(image, mask))}
        longest = max((len(io.stem(image)) for image in owners), default=0)
        owners = {image: kind for image, kind in owners.items() if len(io.stem(image)) == longest}
        if len(owners) == 1:
            [(image, kind)] = owners.items()
            found[pipeline + kind][image] = mask
        lost += len(owners) > 1
    if lost:
        progress.warn(f"{counted(lost, 'mask')} may belong to several images: not used: name the image in 'space-T1w'")
    return found


def _kind(image: Path, mask: Path) -> str:
    """What a mask shows of an image; empty where it belongs to another one."""
    name, whole = io.stem(image), io.stem(mask)
    if whole.startswith(f"{name}_"):
        return whole.removeprefix(f"{name}_")
    if _suffix(mask) not in _SUFFIXES:
        return ""
    parts = dict(part.partition("-")[::2] for part in whole.split("_")[:-1])
    if parts.get("space", "") not in (*_OWN_SPACES, _suffix(image)):
        return ""
    own = {key: value for key, value in parts.items() if key not in _OF_MASKS}
    if own != dict(part.partition("-")[::2] for part in name.split("_")[:-1]):
        return ""
    said = [f"{key}-{parts[key]}" for key in _OF_MASKS[1:] if key in parts]
    return "_".join([*said, _suffix(mask)])


def _chosen(masks: Masks, kind: str) -> str:
    fitting = [name for name in masks if kind in (name, name.partition("/")[2])]
    if kind and len(fitting) != 1:
        hint = did_you_mean(kind, masks) if not fitting else f"Name one in full: {few(fitting, 8)}."
        raise DataError(f"{len(fitting)} kinds of masks are called '{kind}'; the tree has {few(masks, 8)}. {hint}")
    if kind:
        return fitting[0]
    best = max(sorted(masks), key=lambda name: (len(masks[name]), "seg" in name))
    if others := [f"{name} ({len(found)})" for name, found in masks.items() if name != best]:
        progress.warn(
            f"masks '{best}' ({len(masks[best])}) are used; there are also {few(others, 8)}: ask for them as DATA#NAME"
        )
    return best


def _labels(derivatives: Path, kind: str) -> Labels | None:
    """The names in a `*_dseg.tsv` of the same pipeline, where the specification puts them."""
    found = sorted((derivatives / kind.partition("/")[0]).rglob("*dseg.tsv")) if kind.endswith("dseg") else []
    if not found:
        return None
    rows = tables.read(found[0])
    return Labels.of({row["name"]: row["index"] for row in rows if row.get("name") and row.get("index")}) or None


def _name(root: Path) -> str:
    description = root / "dataset_description.json"
    told = read_json(description) if description.is_file() else None
    return str(told["Name"]) if isinstance(told, dict) and told.get("Name") else "dataset"


def _is_image(path: Path) -> bool:
    return path.name.endswith((".nii", ".nii.gz")) and path.is_file()


def _subject(path: Path) -> str:
    return path.name.partition("_")[0]


def _suffix(path: Path) -> str:
    return io.bare_name(path).rpartition("_")[2]
