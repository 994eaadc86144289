"""A stored model that a run builds on, as teacher, first weights or first stage: does it fit, and which cases has it seen?"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from medseg import bundle as bundles
from medseg import files
from medseg.bundle import Bundle
from medseg.bundle.networks import build
from medseg.errors import BundleError, ConfigError, DataError
from medseg.geometry.region import Region
from medseg.labels import Labels
from medseg.predictor import Predictor
from medseg.preprocess import Config as Preprocess
from medseg.settings import differences
from medseg.wording import few

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Setting = Literal["init.from", "distill.from", "prune.from", "locate.from"]


@dataclass(frozen=True, eq=False)
class Ancestor:
    """A stored model that a setting names.

    Args:
        setting: that names it, for messages.
        bundle, members: what lies there: the description, and the weights of each network.
        seen: ids of the cases that each network learned from or was chosen by; None where nobody knows.
    """

    setting: Setting
    bundle: Bundle
    members: Sequence[Mapping[str, Tensor]]
    seen: tuple[frozenset[str], ...] | None

    def __str__(self) -> str:
        """Architecture, name and weights: equal texts mean equal models."""
        weights = ", ".join(digest[:16] for digest in self.bundle.weights.values())
        return f"{self.bundle.model['name']} of {self.bundle.name} (SHA-256 of its weights {weights}...)"

    def check_locates(self, channels: Sequence[str]) -> None:
        """Check that it can be the first of two stages: any structures, grid and dimensions will do.

        Raises:
            ConfigError: other channels, or two stages of its own.
        """
        if self.bundle.locate:
            self._refuse("has two stages", "needs a first one for its own second")
        self._check_channels(channels)

    def check(
        self,
        labels: Labels,
        channels: Sequence[str],
        spatial_dims: Literal[2, 3],
        preprocess: Preprocess,
        region: Region | None = None,
    ) -> None:
        """Check that it knows what a run is about to learn, on the very images that the run makes.

        Values in masks may differ, for names say what is meant.

        Raises:
            ConfigError: other structures, channels, dimensions, grid or intensities, or another part of the scans.
        """
        known = self.bundle.labels
        if (known.exclusive, known.names) != (labels.exclusive, labels.names):
            self._refuse(f"knows the labels {_listed(known)}", f"has {_listed(labels)}")
        self._check_channels(channels)
        if self.bundle.spatial_dims != spatial_dims:
            words = {2: "slices", 3: "volumes"}
            self._refuse(f"takes {words[self.bundle.spatial_dims]}", f"learns {words[spatial_dims]}")
        if changed := differences(self.bundle.preprocess, preprocess):
            names = _few([f"preprocess.{name}" for name in changed])
            hint = f", or leave {names} out: a run prepares its scans as the model does"
            self._refuse("was trained on other images", f"asks for another {names}", hint)
        if (its := _part(self.bundle.locate)) != (own := _part(region)):
            self._refuse(f"looks at {its}", f"at {own}", ", or give both the same locate.from and locate.margin_mm")

    def _check_channels(self, channels: Sequence[str]) -> None:
        if [name.casefold() for name in self.bundle.channels] != [name.casefold() for name in channels]:
            hint = ", or say with modality=... that they are the same"
            self._refuse(f"takes the channels {_few(self.bundle.channels)}", f"has {_few(channels)}", hint)

    def _refuse(self, its: str, runs: str, hint: str = "") -> None:
        raise ConfigError(f"{self.setting}: that model {its}, and this run {runs}. Name another model{hint}.")

    def unseen(self, held_out: Collection[str]) -> list[int]:
        """Numbers of its networks that never saw any of some cases.

        Raises:
            DataError: each has seen some, so that scores on them would be too good.
        """
        seen = self.seen if self.seen is not None else (frozenset(),) * len(self.members)
        if clean := [number for number, ids in enumerate(seen) if ids.isdisjoint(held_out)]:
            return clean
        leaked = sorted(frozenset().union(*seen).intersection(held_out))
        raise DataError(
            f"{self.setting}: that model learned from cases that this run holds out ({few(leaked)}), so that their scores "
            "would be too good. Hold out the same cases (same fold and seed), name a model that did, or hold none out (fold=none)."
        )

    def shown(self, held_out: Collection[str]) -> frozenset[str] | None:
        """Cases that its usable networks (see `unseen`) learned from; None where nobody knows."""
        return None if self.seen is None else frozenset().union(*(self.seen[n] for n in self.unseen(held_out)))

    def predictor(self, held_out: Collection[str], device: torch.device) -> Predictor:
        """Its networks that never saw the cases held out, as they predict.

        Raises:
            DataError: none of them.
        """
        return Predictor.of(self.bundle, build(self.bundle, self._clean(held_out)), device=str(device))

    def save(self, folder: Path, held_out: Collection[str]) -> None:
        """Store the networks that never saw the cases held out, as a bundle of their own.

        Raises:
            DataError: none of them.
        """
        whole = self.bundle.model_copy(update={"stored": "fp32"})  # as they were read
        bundles.save(folder, whole, self._clean(held_out))

    def _clean(self, held_out: Collection[str]) -> list[Mapping[str, Tensor]]:
        return [self.members[number] for number in self.unseen(held_out)]


def find(setting: Setting, folder: str) -> Ancestor:
    """Read the model that a setting names.

    Raises:
        BundleError: no usable model lies there, or it is a user's own module.
    """
    try:
        place = bundles.find(folder)
        bundle, members = bundles.load(place)
    except BundleError as error:
        raise BundleError(f"{setting}: {error}") from error
    if "." in bundle.model["name"]:
        raise BundleError(
            f"{setting}: that model is a user's own module, and medseg runs no code from files. Name a model of a "
            "listed architecture (medseg models)."
        )
    return Ancestor(setting, bundle, members, _seen(place, len(members)))


def _seen(place: Path, members: int) -> tuple[frozenset[str], ...] | None:
    """From the run around a bundle; the networks of an ensemble lie in the order of its parts."""
    splits = place.parent / "splits.json"
    if place.name != "bundle" or not splits.is_file():
        return None
    split = files.read_json(splits)
    if any(part.get("inherited", ()) is None for part in split):
        return None
    parts = [frozenset([*part["train"], *part["validation"], *part.get("inherited", ())]) for part in split]
    return tuple(parts) if len(parts) == members else (frozenset().union(*parts),) * members


def _listed(labels: Labels) -> str:
    return f"{_few(labels.names)}{'' if labels.exclusive else ' (overlapping)'}"


def _part(region: Region | None) -> str:
    return f"what lies around structures, by {region.margin_mm:g} mm" if region else "whole scans"


def _few(names: Sequence[str]) -> str:
    return few(names, 5)
