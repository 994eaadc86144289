"""Which cases a run holds back: as its settings ask, and as the dataset declares."""

from __future__ import annotations

from collections.abc import Sequence

from medseg import progress
from medseg.config import RunConfig
from medseg.data import splits
from medseg.data.cases import Dataset
from medseg.data.splits import Fold
from medseg.errors import ConfigError, DataError
from medseg.wording import counted, few


def divide(dataset: Dataset, config: RunConfig, presence: splits.Presence | None = None) -> tuple[Fold, ...]:
    """The parts that `fold` asks for: one, or several for an ensemble."""
    if declared := splits.declared(dataset.cases):
        progress.say(
            f"the dataset declares {counted(len(declared.test), 'test case; it is', 'test cases; they are')} held back, and `fold` has no effect"
        )
        return (declared,)
    if config.fold == "none":
        return (Fold(tuple(case.id for case in dataset.labelled), ()),)
    index, parts = splits.parse_fold(config.fold)
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
        splits.nnunet_folds(dataset.cases)
        if config.folds == "nnunet"
        else splits.folds(dataset.cases, parts, config.seed, presence)
    )
    return made if index is None else (made[index],)


def check_leaks(dataset: Dataset, folds: Sequence[Fold], inner: Sequence[Fold]) -> None:
    """Patients on both sides of a split that others made; medseg's own keeps them whole.

    Raises:
        DataError: the dataset declares test cases of patients who are learned from.
    """
    held_out, chosen = (
        [name for fold in split for name in splits.shared_groups(dataset.cases, fold)] for split in (folds, inner)
    )
    words = "of patients whose other cases are learned from"
    if held_out and splits.declared(dataset.cases):
        raise DataError(
            f"declared as test cases, but {words}: {few(held_out)}. Declare all cases of a patient alike (medseg check lists them)."
        )
    if held_out:
        progress.warn(
            f"held out, but {words}: {few(held_out)}; their scores are too good. folds=medseg keeps patients whole"
        )
    if chosen:
        progress.warn(
            f"declared for validation, but {words}: {few(chosen)}; the checkpoint is chosen on them all the same"
        )
