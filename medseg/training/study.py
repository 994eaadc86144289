"""What is settled before anything is prepared: the dataset, its division, and the configuration with its plan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from medseg import config as configs
from medseg import losses, progress, system
from medseg.config import RunConfig
from medseg.data import layouts, reading, splits
from medseg.data.cases import Case, Dataset
from medseg.data.splits import Fold
from medseg.errors import ConfigError, RunError
from medseg.geometry.region import Region
from medseg.labels import Labels
from medseg.planning import fingerprint, limits
from medseg.planning.choices import Choice
from medseg.training import folds, inheritance
from medseg.transfer import lineage
from medseg.transfer.lineage import Ancestor, Setting
from medseg.volume import axes_of
from medseg.wording import counted


@dataclass(frozen=True)
class Study:
    """What is settled before anything is prepared.

    Args:
        dataset: with its labels known.
        labels: of the dataset.
        fold: ids to learn from, and ids held back for the report.
        inner: of the first, ids to learn from, and ids on which choices are made.
        config: complete.
        plan: what `plan.json` holds: the fingerprint, and each choice with its reason.
    """

    dataset: Dataset
    labels: Labels
    fold: Fold
    inner: Fold
    config: RunConfig
    plan: dict[str, Any]

    def cases(self, ids: Sequence[str]) -> list[Case]:
        """Cases by their ids."""
        return _of(self.dataset, ids)

    @property
    def region(self) -> Region | None:
        """What the network sees of a scan; None for all of it."""
        wanted, own = self.config.preprocess, self.plan["fingerprint"]["spacing_mm"]
        order, patch = axes_of(wanted.orientation), self.config.sample.patch
        least = {a: n * (s or own[a]) for a, n, s in zip(order, patch, wanted.spacing_mm, strict=True)}
        return self.config.locate.region((least[0], least[1], least[2]))

    def ancestor(self, setting: Setting) -> Ancestor | None:
        """The stored model that a setting names, if it names one.

        Raises:
            BundleError: it is gone or damaged.
            RunError: it is another one than when the study was settled.
        """
        if not (folder := inheritance.folders(self.config).get(setting)):
            return None
        found = lineage.find(setting, folder)
        if self.plan["ancestors"][setting] != str(found):
            raise RunError(
                f"{setting}: the model there is not the one that the run began with. Put that one back, or name a new folder with -o."
            )
        return found

    def with_batch(self, batch: int) -> Study:
        """The same with so many samples a step as fit this device."""
        if batch == self.config.train.batch:
            return self
        config = self.config.model_copy(update={"train": self.config.train.model_copy(update={"batch": batch})})
        fits = {"value": batch, "reason": f"halved until it fit the memory, from {self.config.train.batch}"}
        choices = [c | fits if c["name"] == "train.batch" else c for c in self.plan["choices"]]
        return replace(self, config=config, plan=self.plan | {"choices": choices})


def settle(data: str | Path, user: Mapping[str, Any], keys: Path | None = None) -> tuple[Study, ...]:
    """Recognise the dataset, divide it, and plan: one study, or one for each part that is held back in turn.

    The plan sees the training cases alone. Several studies share one, made from all cases, for an ensemble needs one grid; no
    score of a held-out case enters it.

    Args:
        data: whatever `layouts.find` recognises.
        user: settings that win over the plan.
        keys: see `layouts.find`.

    Raises:
        MedsegError: the dataset cannot be used, or a setting is wrong.
    """
    asked = configs.check(user)
    ancestors = inheritance.find(asked)
    dataset = layouts.find(data, asked.modality, keys)
    values = reading.label_values(dataset)
    labels = dataset.labels or reading.discover_labels(values)
    progress.say(
        f"{counted(len(dataset.labelled), 'labelled case')} ({dataset.layout}), labels: {', '.join(labels.names)}"
    )
    presence = splits.presence(values, labels)
    if labels.twins:
        progress.warn(labels.twins)
    parts = folds.divide(dataset, asked, presence)
    inner = [splits.inner_split(_of(dataset, fold.train), asked.inner_share, asked.seed, presence) for fold in parts]
    folds.check_leaks(dataset, parts, inner)
    seen = {name for fold in parts for name in fold.train}
    cases = [case for case in dataset.labelled if case.id in seen]
    found = fingerprint.take(cases, labels, dataset.channels, asked.locate.region())
    device: limits.Device = "cpu" if system.pick_device(asked.device).type == "cpu" else "gpu"
    budget_s = asked.train.budget_s and asked.train.budget_s / len(parts)
    afforded = limits.afforded(device, system.cores(), budget_s)
    choices, planned = inheritance.plan(found, labels, afforded, asked, ancestors)
    config = configs.resolve(planned, user)
    config = config.model_copy(update={"loss": _activated(config.loss, labels)})
    if budget_s:
        config = config.model_copy(update={"train": config.train.model_copy(update={"budget_s": budget_s})})
    plan = {"fingerprint": found.model_dump(), "choices": _chosen(choices, config, user)}
    config = configs.complete(config)  # what this adds is nobody's choice
    if ancestors:
        inheritance.check(ancestors, config, labels, [channel.name for channel in found.channels], parts)
        plan["ancestors"] = {setting: str(ancestor) for setting, ancestor in ancestors.items()}
    if config.init.source:
        plan["init"] = str(inheritance.start(config, labels))
    return tuple(Study(dataset, labels, *pair, config, plan) for pair in zip(parts, inner, strict=True))


def _chosen(choices: Sequence[Choice], config: RunConfig, user: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The choices as the configuration has them in the end; those that it has no place for are left out."""
    chosen = []
    for choice in choices:
        value: Any = config.model_dump()
        given: Any = user
        for part in choice.name.split("."):
            value = value.get(part)
            given = given.get(part) if isinstance(given, Mapping) else None
        if value is not None:
            reason = choice.reason if given is None else "set by the user"
            chosen.append({"name": choice.name, "value": value, "reason": reason})
    return chosen


def find(data: str | Path, config: RunConfig, keys: Path | None = None) -> tuple[Dataset, Labels]:
    """A dataset and its labels, declared or discovered in the masks."""
    dataset = layouts.find(data, config.modality, keys)
    return dataset, dataset.labels or reading.discover_labels(reading.label_values(dataset))


def _of(dataset: Dataset, ids: Sequence[str]) -> list[Case]:
    wanted = set(ids)
    return [case for case in dataset.cases if case.id in wanted]


def _activated(loss: Any, labels: Labels) -> Any:
    """A loss that sees the output as prediction will: overlapping labels are channels of their own, others exclude each other.

    A user's own module without the option is left alone. Of a sum, every loss.
    """
    if not isinstance(loss, Mapping):
        return tuple(_activated(part, labels) for part in loss)
    asked, needed = losses.resolve([loss])[0].get("activation"), "softmax" if labels.exclusive else "sigmoid"
    if asked is None:
        return {**loss}
    if "activation" in loss and asked != needed:
        how = "exclude each other" if labels.exclusive else "overlap"
        raise ConfigError(f"loss.activation: labels that {how} need {needed}, got {asked}. Leave it out.")
    return {**loss, "activation": needed}
