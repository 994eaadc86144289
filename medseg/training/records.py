"""Plan, division, configuration and environment of a run as files in its folder, from which an interrupted run continues."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from medseg import config as configs
from medseg import files, overrides, system
from medseg.data.splits import Fold
from medseg.errors import ConfigError, RunError
from medseg.settings import differences
from medseg.training import inheritance
from medseg.training.study import Study, find
from medseg.wording import few

_ROLES = ("held_out", "train", "validation")  # of cases, in splits.json


def cache(asked: str | None, folder: Path) -> Path:
    """Where prepared cases lie: beside the run, so that runs and folds share them."""
    return Path(asked) if asked else folder.parent / "medseg_cache"


def write(studies: Sequence[Study], folder: Path) -> None:
    """Write `plan.json`, `splits.json`, `environment.json`, and `config.yaml` last."""
    if (folder / "config.yaml").exists():
        return
    files.write_json(folder / "plan.json", studies[0].plan)
    files.write_json(folder / "splits.json", [_split(study) for study in studies])
    files.write_json(folder / "environment.json", {"command": system.command(), **system.facts()})
    files.write_text(folder / "config.yaml", configs.dump(studies[0].config))


def _split(study: Study) -> dict[str, Any]:
    """The cases of a study by their roles; `inherited` are those that the models it builds on learned from, null where unknown."""
    ancestors = [study.ancestor(setting) for setting in inheritance.folders(study.config)]
    seen = [ancestor.shown(study.fold.test) for ancestor in ancestors if ancestor]
    known = [cases for cases in seen if cases is not None]
    inherited = sorted(frozenset[str]().union(*known)) if len(known) == len(seen) else None
    roles = dict(zip(_ROLES, (study.fold.test, study.inner.train, study.inner.test), strict=True))
    return {**roles, "inherited": inherited}


def read(data: str | Path, folder: Path, user: Mapping[str, Any]) -> tuple[Study, ...]:
    """The studies of an interrupted run.

    Raises:
        ConfigError: `user` wants something else than the run was started with.
        RunError: cases of the run are gone.
    """
    plan, parts = files.read_json(folder / "plan.json"), files.read_json(folder / "splits.json")
    asked = next(choice["value"] for choice in plan["choices"] if choice["name"] == "train.batch")
    # config.yaml has the batch that fitted, where fewer samples than were asked for did
    stored = overrides.merge(overrides.read(folder / "config.yaml"), {"train": {"batch": asked}})
    share = {}
    if "budget_s" in user.get("train", {}):
        budget_s = configs.check(user).train.budget_s
        share = {"train": {"budget_s": budget_s and budget_s / len(parts)}}
    wanted = configs.complete(configs.resolve(stored, overrides.merge(user, share)))
    config = configs.complete(configs.resolve(stored, {}))
    if changed := differences(config, wanted):
        raise ConfigError(
            f"the run was started with other settings ({few(changed, 5)}). Give the same, or a new folder with -o."
        )
    dataset, labels = find(data, config, cache(config.cache, folder))
    known = {case.id for case in dataset.labelled}
    if gone := sorted({name for part in parts for role in _ROLES for name in part[role]} - known):
        raise RunError(
            f"the run was started with labelled cases that '{data}' does not hold: {few(gone)}. Give the run's dataset, or a new folder with -o."
        )
    folds = [Fold((*part["train"], *part["validation"]), tuple(part["held_out"])) for part in parts]
    inner = [Fold(tuple(part["train"]), tuple(part["validation"])) for part in parts]
    return tuple(Study(dataset, labels, fold, split, config, plan) for fold, split in zip(folds, inner, strict=True))
