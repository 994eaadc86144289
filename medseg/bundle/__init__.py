"""A stored model that describes its own use: weights, one JSON, and a card for people. No pickle, no code."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medseg import files
from medseg.bundle.card import card
from medseg.bundle.description import LOCATOR, Bundle
from medseg.errors import BundleError, ConfigError, DataError
from medseg.settings import parse

if TYPE_CHECKING:
    from torch import Tensor

FORMAT = 1


def save(folder: str | Path, bundle: Bundle, members: Sequence[Mapping[str, Tensor]]) -> Bundle:
    """Write a bundle; its `config.json` comes last, so that a half-written one is not taken for whole.

    Args:
        folder: made if needed. Of a model of two stages it holds the first one already.
        bundle: description; `weights`, `versions` and `locator` are filled in.
        members: weights of each model of the ensemble, as `bundle.stored` says.
    """
    from safetensors.torch import save as as_bytes  # its `save_file` hides a full disk from `files`

    def contents() -> Iterator[tuple[str, bytes]]:
        for name, weights in zip(stems(len(members)), members, strict=True):
            tensors = {key: tensor.detach().cpu().contiguous() for key, tensor in weights.items()}
            yield f"{name}.safetensors", as_bytes(tensors)

    return store(folder, bundle, contents(), ("medseg", "torch"))


def store(folder: str | Path, bundle: Bundle, contents: Iterable[tuple[str, bytes]], packages: Sequence[str]) -> Bundle:
    """Write files of weights or networks, and their description last.

    Args:
        folder, bundle: as for `save`.
        contents: name and bytes of each file.
        packages: whose versions are noted.
    """
    folder, hashes = Path(folder), {}
    for name, data in contents:
        files.write_bytes(folder / name, data)
        hashes[name] = files.sha256(folder / name)
    versions = {"python": platform.python_version()} | {name: metadata.version(name) for name in packages}
    first = _saved_checksum(folder / LOCATOR) if bundle.locate else ""
    whole = bundle.model_copy(update={"weights": hashes, "versions": versions, "locator": first})
    describe(folder, whole)
    return whole


def stems(members: int) -> list[str]:
    """Names of the files of members of an ensemble, without ending."""
    return ["model"] if members == 1 else [f"model_{number}" for number in range(members)]


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


def find(folder: str | Path) -> Path:
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
        BundleError: a file is missing or not what was written, or the format is of a later medseg; or the model was
            exported, and has no weights but in its networks.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from medseg.bundle.weights import unpacked

    bundle, members = read(folder), []
    if bundle.runtime != "torch":
        raise BundleError(f"the model was exported to {bundle.runtime}. Give the bundle that it was made from.")
    for path in stored_files(folder, bundle):
        try:
            members.append(unpacked(load_file(path), bundle.stored))
        except SafetensorError as error:
            raise BundleError(f"'{path.name}' holds no readable weights: {error}") from error
    return bundle, members


def stored_files(folder: str | Path, bundle: Bundle) -> list[Path]:
    """The files of weights or networks of a bundle, each the one that was saved.

    Raises:
        BundleError: one is missing, or its SHA-256 differs.
    """
    if not bundle.weights:
        raise BundleError("the model's config.json names no weights. Copy the whole bundle folder.")
    paths = [Path(folder) / name for name in bundle.weights]
    for (name, expected), path in zip(bundle.weights.items(), paths, strict=True):
        if Path(name).name != name or not path.is_file():
            raise BundleError(f"the model lacks '{name}'. Copy the whole bundle folder.")
        if files.sha256(path) != expected:
            raise BundleError(f"'{name}' is not the file that was saved (its SHA-256 differs). Copy the bundle again.")
    return paths


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
