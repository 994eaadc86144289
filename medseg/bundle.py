"""A stored model that describes its own use: weights, one JSON, and a card for people. No pickle, no code."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from medseg import files
from medseg.errors import BundleError, ConfigError, DataError
from medseg.labels import Labels
from medseg.postprocess import Config as Postprocess
from medseg.preprocess import Config as Preprocess
from medseg.region import Region
from medseg.settings import Settings, parse
from medseg.windows import Config as Inference

if TYPE_CHECKING:
    from torch import Tensor

FORMAT = 1
LOCATOR = "locate"  # folder of the first of two stages, in that of the second


class Bundle(Settings):
    """Everything that prediction needs besides weights; the content of `config.json`, where a checksum is added.

    Args:
        format: version of this layout.
        name: of the dataset it was trained on.
        model: name and every option of the architecture.
        spatial_dims: 2 (slice by slice) or 3.
        channels: what each channel of a scan must be, in order.
        labels, preprocess, inference, postprocess: as trained and chosen.
        locate: of a model of two stages, how far around what the first one finds this one looks; None looks at whole scans.
        locator: checksum of the first stage, a whole bundle in the folder `locate`.
        precision: the arithmetic that was measured to be right and quick where it was trained.
        scores: Dice on the inner split, and on held-out cases where there were any.
        training: facts for the card: cases, steps, seconds, seed, loss.
        versions: of medseg, torch and Python that wrote it.
        weights: SHA-256 of each file of weights; several make an ensemble.
    """

    format: Literal[1] = 1
    name: str
    model: dict[str, Any]
    spatial_dims: Literal[2, 3]
    channels: tuple[str, ...]
    labels: Labels
    preprocess: Preprocess
    inference: Inference
    postprocess: Postprocess = Postprocess()
    locate: Region | None = None
    locator: str = ""
    precision: Literal["fp32", "bf16"] = "fp32"
    scores: dict[str, Any] = Field(default_factory=dict)
    training: dict[str, Any] = Field(default_factory=dict)
    versions: dict[str, str] = Field(default_factory=dict)
    weights: dict[str, str] = Field(default_factory=dict)


def save(folder: str | Path, bundle: Bundle, members: Sequence[Mapping[str, Tensor]]) -> Bundle:
    """Write a bundle; its `config.json` comes last, so that a half-written one is not taken for whole.

    Args:
        folder: made if needed. Of a model of two stages it holds the first one already.
        bundle: description; `weights`, `versions` and `locator` are filled in.
        members: weights of each model of the ensemble.
    """
    from safetensors.torch import save as as_bytes  # its `save_file` hides a full disk from `files`

    folder, hashes = Path(folder), {}
    for number, weights in enumerate(members):
        name = "model.safetensors" if len(members) == 1 else f"model_{number}.safetensors"
        tensors = {key: tensor.detach().cpu().contiguous() for key, tensor in weights.items()}
        files.write_bytes(folder / name, as_bytes(tensors))
        hashes[name] = files.sha256(folder / name)
    versions = {"python": platform.python_version()} | {name: metadata.version(name) for name in ("medseg", "torch")}
    first = _saved_checksum(folder / LOCATOR) if bundle.locate else ""
    whole = bundle.model_copy(update={"weights": hashes, "versions": versions, "locator": first})
    describe(folder, whole)
    return whole


def describe(folder: str | Path, bundle: Bundle) -> None:
    """Write the card and the description, and leave the weights."""
    files.write_text(Path(folder) / "README.md", card(bundle))
    content = bundle.model_dump(mode="json")
    files.write_json(Path(folder) / "config.json", content | {"checksum": _checksum(content)})


def _checksum(content: Mapping[str, Any]) -> str:
    """SHA-256 of a description, however its JSON is spaced and ordered."""
    text = json.dumps(files.finite(dict(content)), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _saved_checksum(folder: Path) -> str:
    content = files.read_json(folder / "config.json")
    return str(content.get("checksum")) if isinstance(content, dict) else ""


def locate(folder: str | Path) -> Path:
    """The bundle of a folder: the folder itself, or the one a run holds.

    Raises:
        BundleError: neither, or no folder's name; a run that has not finished has none.
    """
    if not isinstance(folder, str | Path):
        raise BundleError(f"a model is named by its folder, a run's or a bundle's; got {type(folder).__name__}.")
    folder = Path(folder)
    for place in (folder, folder / "bundle"):
        if (place / "config.json").is_file():
            return place
    state = (
        "this run has not finished (finish it with --resume)"
        if (folder / "config.yaml").is_file()
        else "no model there"
    )
    raise BundleError(f"'{folder}' holds no bundle: {state}. Give a run folder or its bundle/.")


def load(folder: str | Path) -> tuple[Bundle, list[dict[str, Tensor]]]:
    """Read a bundle and the weights of its members.

    Raises:
        BundleError: a file is missing or not what was written, or the format is of a later medseg.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    folder = Path(folder)
    bundle, members = read(folder), []
    if not bundle.weights:
        raise BundleError("the model's config.json names no weights. Copy the whole bundle folder.")
    for name, expected in bundle.weights.items():
        path = folder / name
        if Path(name).name != name or not path.is_file():
            raise BundleError(f"the model lacks '{name}'. Copy the whole bundle folder.")
        if files.sha256(path) != expected:
            raise BundleError(f"'{name}' is not the file that was saved (its SHA-256 differs). Copy the bundle again.")
        try:
            members.append(load_file(path))
        except SafetensorError as error:
            raise BundleError(f"'{name}' holds no readable weights: {error}") from error
    return bundle, members


def locator(folder: str | Path, bundle: Bundle) -> Path | None:
    """The bundle of the first of two stages; None where there is one stage.

    Raises:
        BundleError: it is missing, or another one lies there.
    """
    if bundle.locate is None:
        return None
    first = Path(folder) / LOCATOR
    if not (first / "config.json").is_file():
        raise BundleError(f"the model lacks its first stage, the folder '{LOCATOR}'. Copy the whole bundle folder.")
    if _saved_checksum(first) != bundle.locator:
        raise BundleError(
            f"'{LOCATOR}' is not the first stage that was saved (its checksum differs). Copy the bundle again."
        )
    return first


def read(folder: str | Path) -> Bundle:
    """The description alone.

    Raises:
        BundleError: as for `load`.
    """
    try:
        content = files.read_json(Path(folder) / "config.json")
        if not isinstance(content, dict):
            raise BundleError("the model's config.json holds no names and values. Copy the bundle again.")
        if content.get("format") != FORMAT:
            raise BundleError(
                f"the model has format {content.get('format')}, this medseg reads {FORMAT}. Update medseg."
            )
        if content.pop("checksum", None) not in (None, _checksum(content)):  # the first bundles had none
            raise BundleError(
                "the model's config.json is not what was saved (its checksum differs). Copy the bundle again."
            )
        return parse(Bundle, content, "config.json")
    except (DataError, ConfigError) as error:
        raise BundleError(f"not a usable model: {error}") from error


def card(bundle: Bundle) -> str:
    """The model card, in Markdown."""
    spacing = " x ".join("own" if s is None else f"{s:.3g}" for s in bundle.preprocess.spacing_mm)
    scores = "\n".join(f"- {name.replace('_', ' ')}: {_text(value)}" for name, value in bundle.scores.items())
    facts = "\n".join(f"- {name.replace('_', ' ')}: {_text(value)}" for name, value in bundle.training.items())
    labels = "\n".join(f"- {', '.join(map(str, item.values))}: {item.name}" for item in bundle.labels)
    own = bundle.model["name"] if "." in bundle.model["name"] else ""
    stages = (
        f"\n\nTwo stages: the model in `{LOCATOR}/`, which has a card of its own, finds where to look in the scan, and this one looks "
        f"at that part of it alone, with {bundle.locate}. Where the first finds nothing, this one looks at the whole scan."
        if bundle.locate
        else ""
    )
    use = (
        f"""The architecture is the user's own module `{own}`. It is not in this folder, and medseg takes no code from files. Where
Python can import it, name it yourself:

    medseg.load("THIS_FOLDER", module="{own}")("scan.nii.gz")"""
        if own
        else "    medseg predict THIS_FOLDER scan.nii.gz -o mask.nii.gz"
    )
    return f"""# {bundle.name}: segmentation model

**Research use only.** Not a medical device; not for diagnosis or treatment. Check every mask that you rely on.

## Input

One scan with the channel(s) {", ".join(bundle.channels)}, in any orientation and spacing (computed at {spacing} mm).{stages}

## Labels

{labels}

## Scores

{scores or "- none"}

## Training

- architecture: {bundle.model["name"]}, {bundle.spatial_dims}D, {max(1, len(bundle.weights))} member(s)
{facts}
- versions: {", ".join(f"{name} {version}" for name, version in bundle.versions.items())}

## Use

{use}

It computes {bundle.inference}, in {bundle.precision}.
"""


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_text(item)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return f"{', '.join(map(_text, value))} (one a member)"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
