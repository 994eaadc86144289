"""Whole runs: a dataset in, a run folder out; one division, or all of them and their ensemble."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from medseg import bundle as bundles
from medseg import config as configs
from medseg import descent, files, held_out, layouts, postprocess, progress, reporting, system, training, windows
from medseg.cases import few
from medseg.division import Fold
from medseg.errors import ConfigError, MedsegError, RunError
from medseg.evaluation import Evaluation
from medseg.settings import differences
from medseg.study import Study, find, settle

_ROLES = ("held_out", "train", "validation")  # of cases, in splits.json
_BEGINNING = (".lock", "log.txt", "plan.json", "splits.json", "environment.json")  # before config.yaml there is no run


def _open(folder: Path, resume: bool) -> None:
    """See that a folder can take a run.

    Raises:
        RunError: it holds another run, or other files.
    """
    if folder.exists() and not folder.is_dir():
        raise RunError(f"'{folder}' is a file. Name a folder with -o.")
    has_run = (folder / "config.yaml").exists()
    if has_run and not resume:
        raise RunError(
            f"'{folder}' already holds a run. Add --resume to go on with it, or name another folder with -o."
        )
    if not has_run and folder.exists() and any(path.name not in _BEGINNING for path in folder.iterdir()):
        raise RunError(f"'{folder}' holds other files and no run. Name a new folder with -o.")


@contextlib.contextmanager
def _all_or_nothing(folder: Path, resume: bool) -> Iterator[None]:
    """Take away the traces of a run that was refused before its first step."""
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


def train(data: str | Path, folder: str | Path, user: Mapping[str, Any], *, resume: bool = False) -> Path:
    """Everything from raw scans to bundle and report.

    Args:
        data: a dataset in any known layout.
        folder: of the run; new, or with `resume` one that was interrupted.
        user: settings that win over the plan, nested as in `RunConfig`.
        resume: go on where the run stopped.

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
        progress.warn("there is no run to go on with in that folder: a new one begins")
    with files.lock(folder), _all_or_nothing(folder, resume), progress.log_to(folder / "log.txt"):
        studies = _studies(data, folder, user, resume)
        _write(studies, folder)
        left = [(study, part) for study, part in _parts(studies, folder) if not _finished(part)]
        for study, part in left:
            _train_one(study, part, _cache(study.config.cache, folder), started, resume)
            started = time.monotonic()
        if len(studies) > 1 and (left or not _finished(folder)):
            _pool(studies, folder)
    return folder


def held_out_cases(folder: str | Path) -> set[str]:
    """Ids of the cases that a run held back, over all its parts.

    Raises:
        RunError: no run there, or it held none back.
    """
    path = Path(folder) / "splits.json"
    if not path.is_file():
        raise RunError(f"'{folder}' is no run, so that nobody knows which cases it held out. Name the folder of a run.")
    if not (names := {name for part in files.read_json(path) for name in part["held_out"]}):
        raise RunError(f"the run '{folder}' held no cases out.")
    return names


def _follow(data: str | Path, folder: Path, user: Mapping[str, Any], resume: bool) -> None:
    """What the other processes of a distributed training do: the same steps, and no files.

    They find the same parts learned as the first process, which stores no model before they have trained it with it. They wait
    for its reports, and not for its word: that wait has an end.
    """
    for number, (study, part) in enumerate(parts := _parts(_studies(data, folder, user, resume), folder)):
        while number and not _finished(parts[number - 1][1]):
            time.sleep(1)
        if not _learned(part):
            training.learn(study, part, _cache(study.config.cache, folder), started=time.monotonic(), resume=resume)


def _learned(part: Path) -> bool:
    return (part / "bundle" / "config.json").exists()


def _finished(part: Path) -> bool:
    return _learned(part) and (part / "report.html").exists()


def _studies(data: str | Path, folder: Path, user: Mapping[str, Any], resume: bool) -> tuple[Study, ...]:
    if resume and (folder / "config.yaml").exists():
        return _read(data, folder, user)
    return settle(data, user, _cache(user.get("cache"), folder))


def _cache(asked: str | None, folder: Path) -> Path:
    """Beside the run, so that runs and folds share it."""
    return Path(asked) if asked else folder.parent / "medseg_cache"


def _parts(studies: Sequence[Study], folder: Path) -> list[tuple[Study, Path]]:
    """Each study with its folder: the run's own, or one a fold."""
    return [(s, folder / f"fold_{n}" if len(studies) > 1 else folder) for n, s in enumerate(studies)]


def _train_one(study: Study, folder: Path, cache: Path, started: float, resume: bool) -> None:
    _write([study], folder)
    if not _learned(folder):
        training.learn(study, folder, cache, started=started, resume=resume)
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


def _pool(studies: Sequence[Study], folder: Path) -> None:
    """The members as one ensemble, and one report over all held-out cases, each predicted by the member that never saw it."""
    parts = _parts(studies, folder)
    loaded = [bundles.load(part / "bundle") for _, part in parts]
    described = loaded[0][0].model_copy(
        update={
            "inference": _common([bundle.inference for bundle, _ in loaded], studies[0].config.inference),
            "postprocess": _agreed([bundle.postprocess for bundle, _ in loaded]),
            "precision": "bf16" if all(bundle.precision == "bf16" for bundle, _ in loaded) else "fp32",
            "scores": _of_each([bundle.scores for bundle, _ in loaded]),
            "training": _of_each([bundle.training for bundle, _ in loaded]),
        }
    )
    if locator := studies[0].ancestor("locate.from"):
        locator.save(folder / "bundle" / bundles.LOCATOR, ())
    bundles.save(folder / "bundle", described, [weights for _, members in loaded for weights in members])
    held_back = [case for study in studies for case in study.cases(study.fold.test)]
    masks: dict[str, Path] = {}
    for study, part in parts:  # they lie there: each fold predicted its own
        masks |= _predict(study, part)
    first = studies[0]
    result = held_out.measure(held_back, masks, first.labels, first.config.tolerance_mm, folder)
    _show(result, folder)
    reporting.report(folder)


def _of_each(members: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Facts about several members: what all share once, what differs as a list."""
    columns = {name: [facts.get(name) for facts in members] for name in members[0]}
    return {name: found[0] if all(f == found[0] for f in found) else found for name, found in columns.items()}


def _common(configs: Sequence[windows.Config], planned: windows.Config) -> windows.Config:
    """The windows that all members chose, or the planned ones; of air is what each of them knows as air."""
    (first, *others), airs = ({c.model_copy(update={"air": None}) for c in configs}), [c.air for c in configs]
    if others:
        return planned
    return first.model_copy(update={"air": None if None in airs else min(a for a in airs if a is not None)})


def _agreed(configs: Sequence[postprocess.Config]) -> postprocess.Config:
    """What more than half of the members want removed; of their minima the median."""
    names = dict.fromkeys(name for config in configs for name in (*config.largest_component, *config.minimum_ml))
    minima = {name: [c.minimum_ml[name] for c in configs if name in c.minimum_ml] for name in names}
    return postprocess.Config(
        largest_component=tuple(n for n in names if sum(n in c.largest_component for c in configs) > len(configs) / 2),
        minimum_ml={name: median(found) for name, found in minima.items() if len(found) > len(configs) / 2},
    )


def _write(studies: Sequence[Study], folder: Path) -> None:
    """What a run stands on, as files: `plan.json`, `splits.json`, `environment.json`, and `config.yaml` last."""
    if (folder / "config.yaml").exists():
        return
    files.write_json(folder / "plan.json", studies[0].plan)
    files.write_json(folder / "splits.json", [_split(study) for study in studies])
    files.write_json(folder / "environment.json", {"command": system.command(), **system.facts()})
    files.write_text(folder / "config.yaml", configs.dump(studies[0].config))


def _split(study: Study) -> dict[str, Any]:
    """Who is who in a study; `inherited` are cases that the models learned from on which it stands, null where nobody knows."""
    inherited: set[str] | None = set()
    for setting in descent.folders(study.config):
        ancestor = study.ancestor(setting)
        seen = ancestor.shown(study.fold.test) if ancestor else frozenset()
        inherited = None if inherited is None or seen is None else inherited | seen
    roles = dict(zip(_ROLES, (study.fold.test, study.inner.train, study.inner.test), strict=True))
    return {**roles, "inherited": None if inherited is None else sorted(inherited)}


def _read(data: str | Path, folder: Path, user: Mapping[str, Any]) -> tuple[Study, ...]:
    """The studies of an interrupted run.

    Raises:
        ConfigError: `user` wants something else than the run was started with.
        RunError: cases of the run are gone.
    """
    plan, parts = files.read_json(folder / "plan.json"), files.read_json(folder / "splits.json")
    asked = next(choice["value"] for choice in plan["choices"] if choice["name"] == "train.batch")
    # config.yaml has the batch that fitted, where fewer samples than were asked for did
    stored = configs.merge(configs.read(folder / "config.yaml"), {"train": {"batch": asked}})
    share = {}
    if "budget_s" in user.get("train", {}):
        budget_s = configs.check(user).train.budget_s
        share = {"train": {"budget_s": budget_s and budget_s / len(parts)}}
    wanted = configs.complete(configs.resolve(stored, configs.merge(user, share)))
    config = configs.complete(configs.resolve(stored, {}))
    if changed := differences(config, wanted):
        raise ConfigError(
            f"the run was started with other settings ({few(changed, 5)}). Give the same, or a new folder with -o."
        )
    dataset, labels = find(data, config, _cache(config.cache, folder))
    known = {case.id for case in dataset.labelled}
    if gone := sorted({name for part in parts for role in _ROLES for name in part[role]} - known):
        raise RunError(
            f"the run was started with labelled cases that '{data}' does not hold: {few(gone)}. Give the run's dataset, or a new folder with -o."
        )
    folds = [Fold((*part["train"], *part["validation"]), tuple(part["held_out"])) for part in parts]
    inner = [Fold(tuple(part["train"]), tuple(part["validation"])) for part in parts]
    return tuple(Study(dataset, labels, fold, split, config, plan) for fold, split in zip(folds, inner, strict=True))
