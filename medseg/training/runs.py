"""Whole runs: a dataset in, a run folder out; one division, or all of them and their ensemble."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from medseg import bundle as bundles
from medseg import config as configs
from medseg import files, progress, system
from medseg.bundle import merging
from medseg.data import layouts
from medseg.errors import ConfigError, MedsegError, RunError
from medseg.evaluation import Evaluation, reporting
from medseg.training import held_out, learning, records
from medseg.training.study import Study, settle

_BEGINNING = (".lock", "log.txt", "plan.json", "splits.json", "environment.json")  # before config.yaml there is no run


def train(data: str | Path, folder: str | Path, user: Mapping[str, Any], *, resume: bool = False) -> Path:
    """Everything from raw scans to bundle and report.

    Args:
        data: a dataset in any known layout.
        folder: of the run; new, or with `resume` one that was interrupted.
        user: settings that win over the plan, nested as in `RunConfig`.
        resume: continue where the run stopped.

    Returns:
        The run folder.

    Raises:
        MedsegError: the dataset, a setting or the folder cannot be used.
        Interrupted: a signal came; what was done is saved.
    """
    started, folder = time.monotonic(), Path(folder)
    configs.check(user)
    if system.ranks()[0] > 0:
        _follow(data, folder, user, resume)
        return folder
    try:
        _open(folder, resume)
    except RunError:
        layouts.find(data, user.get("modality"))  # what is wrong with the data is said first
        raise
    if resume and not (folder / "config.yaml").exists():
        progress.warn("there is no run to continue in that folder: a new one begins")
    with files.lock(folder), _all_or_nothing(folder, resume), progress.log_to(folder / "log.txt"):
        studies = _studies(data, folder, user, resume)
        records.write(studies, folder)
        left = [(study, part) for study, part in _parts(studies, folder) if not _finished(part)]
        for study, part in left:
            _train_one(study, part, records.cache(study.config.cache, folder), started, resume)
            started = time.monotonic()
        if len(studies) > 1 and (left or not _finished(folder)):
            _merge(studies, folder)
    return folder


def held_out_cases(folder: str | Path) -> set[str]:
    """Ids of the cases that a run held back, over all its parts.

    Raises:
        RunError: no run there, or it held none back.
    """
    path = Path(folder) / "splits.json"
    if not path.is_file():
        raise RunError(f"'{folder}' is not a run, so the cases that it held out are unknown. Name the folder of a run.")
    if not (names := {name for part in files.read_json(path) for name in part["held_out"]}):
        raise RunError(f"the run '{folder}' held no cases out.")
    return names


def _open(folder: Path, resume: bool) -> None:
    """Check that a folder can take a run.

    Raises:
        RunError: it holds another run, or other files.
    """
    if folder.exists() and not folder.is_dir():
        raise RunError(f"'{folder}' is a file. Name a folder with -o.")
    has_run = (folder / "config.yaml").exists()
    if has_run and not resume:
        raise RunError(f"'{folder}' already holds a run. Add --resume to continue it, or name another folder with -o.")
    if not has_run and folder.exists() and any(path.name not in _BEGINNING for path in folder.iterdir()):
        raise RunError(f"'{folder}' holds other files, but no run. Name a new folder with -o.")


@contextlib.contextmanager
def _all_or_nothing(folder: Path, resume: bool) -> Iterator[None]:
    """Remove the traces of a run that was refused before its first step."""
    try:
        yield
    except MedsegError:
        if not resume and not any(folder.rglob("checkpoints")):
            begun = [path for path in folder.rglob("*") if path.name in (*_BEGINNING, "config.yaml")]
            for path in begun:
                path.unlink()
            for path in sorted({folder, *(path.parent for path in begun)}, reverse=True):
                with contextlib.suppress(OSError):  # it may hold what somebody else has put there
                    path.rmdir()
        raise


def _follow(data: str | Path, folder: Path, user: Mapping[str, Any], resume: bool) -> None:
    """What the other processes of a distributed training do: the same steps, without writing files.

    All processes find the same parts learned, because the first one stores a model only after all have trained it. They wait for
    its report to appear, and not for a message, because waiting for messages times out.
    """
    for number, (study, part) in enumerate(parts := _parts(_studies(data, folder, user, resume), folder)):
        while number and not _finished(parts[number - 1][1]):
            time.sleep(1)
        if not _learned(part):
            learning.learn(
                study, part, records.cache(study.config.cache, folder), started=time.monotonic(), resume=resume
            )


def _learned(part: Path) -> bool:
    return (part / "bundle" / "config.json").exists()


def _finished(part: Path) -> bool:
    return _learned(part) and (part / "report.html").exists()


def _studies(data: str | Path, folder: Path, user: Mapping[str, Any], resume: bool) -> tuple[Study, ...]:
    """What is to be trained; for a resumed run, as it began.

    Raises:
        ConfigError: there would be no time to train.
    """
    if resume and (folder / "config.yaml").exists():
        return records.read(data, folder, user)
    studies = settle(data, user, records.cache(user.get("cache"), folder))
    budget_s = studies[0].config.train.budget_s
    if budget_s is not None and budget_s <= learning.REPORT_S:
        raise ConfigError(
            f"a budget of {budget_s:g} s per model leaves no time to train: its report alone takes {learning.REPORT_S:g} s. "
            "Give some minutes, such as --budget 20m."
        )
    return studies


def _parts(studies: Sequence[Study], folder: Path) -> list[tuple[Study, Path]]:
    """Each study with its folder: the run's own, or one per fold."""
    return [(s, folder / f"fold_{n}" if len(studies) > 1 else folder) for n, s in enumerate(studies)]


def _train_one(study: Study, folder: Path, cache: Path, started: float, resume: bool) -> None:
    records.write([study], folder)
    if not _learned(folder):
        learning.learn(study, folder, cache, started=started, resume=resume)
    held_back = study.cases(study.fold.test)
    if held_back:
        masks = _predict(study, folder)
        _show(held_out.measure(held_back, masks, study.labels, study.config.tolerance_mm, folder), folder)
    reporting.report(folder)


def _predict(study: Study, folder: Path) -> dict[str, Path]:
    """Masks of the held-out cases; a run trusts the module that its own configuration names."""
    cases, config = study.cases(study.fold.test), study.config
    return held_out.predict(cases, folder, config.device, module=config.model["name"])


def _show(result: Evaluation, folder: Path) -> None:
    held_out.rescore(folder / "bundle", result)
    progress.say(f"held-out cases, predicted once:\n{result.table()}")


def _merge(studies: Sequence[Study], folder: Path) -> None:
    """The members as one ensemble, and one report over all held-out cases, each predicted by the member that never saw it."""
    first, parts = studies[0], _parts(studies, folder)
    loaded = [bundles.load(part / "bundle") for _, part in parts]
    described = merging.merged([bundle for bundle, _ in loaded], first.config.inference)
    if locator := first.ancestor("locate.from"):
        locator.save(folder / "bundle" / bundles.LOCATOR, ())
    bundles.save(folder / "bundle", described, [weights for _, members in loaded for weights in members])
    held_back = [case for study in studies for case in study.cases(study.fold.test)]
    masks: dict[str, Path] = {}
    for study, part in parts:  # they lie there: each fold predicted its own
        masks |= _predict(study, part)
    _show(held_out.measure(held_back, masks, first.labels, first.config.tolerance_mm, folder), folder)
    reporting.report(folder)
