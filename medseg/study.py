"""What is settled before anything is prepared: the dataset, its division, and the configuration with its plan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from medseg import config as configs
from medseg import descent, division, fingerprint, layouts, limits, lineage, losses, progress, reading, system
from medseg.cases import Case, Dataset, few
from medseg.choices import Choice
from medseg.config import RunConfig
from medseg.division import Fold
from medseg.errors import ConfigError, DataError, RunError
from medseg.labels import Labels
from medseg.lineage import Ancestor, Setting
from medseg.plural import counted
from medseg.region import Region
from medseg.system import pick_device
from medseg.volume import axes_of


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
    def spatial_dims(self) -> Literal[2, 3]:
        """2 where patches are slices."""
        return 2 if self.config.sample.patch[2] == 1 else 3

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
        if not (folder := descent.folders(self.config).get(setting)):
            return None
        found = lineage.find(setting, folder)
        if self.plan["ancestors"][setting] != str(found):
            raise RunError(
                f"{setting}: another model lies there than when the run began. Put the old one back, or name a new folder with -o."
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
    ancestors = descent.find(asked)
    dataset = layouts.find(data, asked.modality, keys)
    values = reading.label_values(dataset)
    labels = dataset.labels or reading.discover_labels(values)
    progress.say(
        f"{counted(len(dataset.labelled), 'labelled case')} ({dataset.layout}), labels: {', '.join(labels.names)}"
    )
    presence = division.presence(values, labels)
    if labels.twins:
        progress.warn(labels.twins)
    folds = divide(dataset, asked, presence)
    inner = [division.inner_split(_of(dataset, fold.train), asked.inner_share, asked.seed, presence) for fold in folds]
    _look_for_leaks(dataset, folds, inner)
    seen = {name for fold in folds for name in fold.train}
    cases = [case for case in dataset.labelled if case.id in seen]
    found = fingerprint.take(cases, labels, dataset.channels, asked.locate.region())
    device: limits.Device = "cpu" if pick_device(asked.device).type == "cpu" else "gpu"
    budget_s = asked.train.budget_s and asked.train.budget_s / len(folds)
    afforded = limits.afforded(device, system.cores(), budget_s)
    choices, planned = descent.plan(found, labels, afforded, asked, ancestors)
    config = configs.resolve(planned, user)
    config = config.model_copy(update={"loss": _activated(config.loss, labels)})
    if budget_s:
        config = config.model_copy(update={"train": config.train.model_copy(update={"budget_s": budget_s})})
    plan = {"fingerprint": found.model_dump(), "choices": _chosen(choices, config, user)}
    config = configs.complete(config)  # what this adds is nobody's choice
    if ancestors:
        descent.check(ancestors, config, labels, [channel.name for channel in found.channels], folds)
        plan["ancestors"] = {setting: str(ancestor) for setting, ancestor in ancestors.items()}
    if config.init.source:
        plan["init"] = str(descent.start(config, labels, 2 if config.sample.patch[2] == 1 else 3))
    return tuple(Study(dataset, labels, *parts, config, plan) for parts in zip(folds, inner, strict=True))


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


def divide(dataset: Dataset, config: RunConfig, presence: division.Presence | None = None) -> tuple[Fold, ...]:
    """The parts that `fold` asks for: one, or several for an ensemble."""
    if declared := division.declared(dataset.cases):
        progress.say(
            f"the dataset declares {counted(len(declared.test), 'test case; it is', 'test cases; they are')} held back, and `fold` has no effect"
        )
        return (declared,)
    if config.fold == "none":
        return (Fold(tuple(case.id for case in dataset.labelled), ()),)
    every = config.fold.startswith("all")
    index, parts = division.parse_fold(
        config.fold.replace("all", "0", 1) if "/" in config.fold else "0/5" if every else config.fold
    )
    if config.fold == RunConfig.model_fields["fold"].default:  # whoever asks for nothing else gets what there is
        patients = len({case.group for case in dataset.labelled})
        if 2 <= patients < parts:
            progress.say(
                f"{patients} labelled patients: one of {patients} parts is held back, instead of one of {parts}"
            )
            parts = patients
    if config.folds == "nnunet" and parts != 5:
        raise ConfigError(f"nnU-Net's folds are five; got fold={config.fold}")
    made = (
        division.nnunet_folds(dataset.cases)
        if config.folds == "nnunet"
        else division.folds(dataset.cases, parts, config.seed, presence)
    )
    return made if every else (made[index],)


def _look_for_leaks(dataset: Dataset, folds: Sequence[Fold], inner: Sequence[Fold]) -> None:
    """Patients on both sides of a split that others made; medseg's own keeps them whole.

    Raises:
        DataError: the dataset declares test cases of patients who are learned from.
    """
    held_out, chosen = (
        [name for fold in split for name in division.shared_groups(dataset.cases, fold)] for split in (folds, inner)
    )
    words = "of patients whose other cases are learned from"
    if held_out and division.declared(dataset.cases):
        raise DataError(
            f"declared as test cases, but {words}: {few(held_out)}. Declare all cases of a patient alike (medseg check lists them)."
        )
    if held_out:
        progress.warn(
            f"held out, but {words}: {few(held_out)}; their scores flatter. folds=medseg keeps patients whole"
        )
    if chosen:
        progress.warn(
            f"declared for validation, but {words}: {few(chosen)}; the checkpoint is chosen on them all the same"
        )


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
