"""The configuration of a run: the stages' own settings side by side, and where their values come from.

Later wins: the defaults in the code, the plan, a preset (`-c`), the command line's `key=value`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, field_validator

from medseg import losses, models, resources
from medseg.augment import Config as Augment
from medseg.distill import Config as Distill
from medseg.division import parse_fold
from medseg.engine.fit import Config as Train
from medseg.engine.optim import Config as Optim
from medseg.errors import ConfigError
from medseg.locating import Config as Locate
from medseg.preprocess import Config as Preprocess
from medseg.prune import Config as Prune
from medseg.registry import did_you_mean
from medseg.sample import Config as Sample
from medseg.settings import Settings, parse
from medseg.transfer import Config as Init
from medseg.windows import Config as Inference

Tree = dict[str, Any]


class RunConfig(Settings):
    """Everything a run depends on; stored with it, so that nothing depends on later defaults.

    Args:
        seed: of splits, weights, sampling and augmentation.
        device: "auto", "cpu", "cuda", "cuda:1", "mps".
        fold: "i/n" holds part i of n back and reports on it, "all" or "all/n" does so for each part in turn and makes an
            ensemble, "none" trains on everything. Where the dataset declares test cases, those are held back instead.
        folds: how parts are made: "medseg" (whole patients, labels spread evenly) or "nnunet" (its five, for comparison).
        dims: learn volumes ("3"), slices ("2"), or what the scans are ("auto").
        modality: what the channels are, in place of what the dataset says; separated by commas.
        cache: folder of prepared cases; None is `medseg_cache` beside the run.
        cache_gb: size beyond which the cache loses its oldest entries, but none that the run needs.
        inner_share: share of the training cases on which choices are made.
        tolerance_mm: of the surface Dice (NSD).
        windows: predict with larger windows and less overlap where the inner split shows that nothing is lost ("measured"), or
            as `inference` says ("planned"; so it is where you set its window or overlap).
        model, loss: `name` and options of the architecture and of the loss, or of each loss in a sum, with its `weight`.
        init: begin with the weights of a file or of a stored model, as far as they fit.
        distill, prune, locate: learn from a stored model too, set out from one made narrower, or look only where one finds something.
    """

    seed: int = Field(default=0, ge=0)
    device: str = "auto"
    fold: str = "0/5"
    folds: Literal["medseg", "nnunet"] = "medseg"
    dims: Literal["auto", "2", "3"] = "auto"
    modality: str | None = None
    cache: str | None = None
    cache_gb: float = Field(default=200, gt=0)
    inner_share: float = Field(default=0.1, gt=0, lt=0.5)
    tolerance_mm: float = Field(default=1.0, gt=0)
    windows: Literal["measured", "planned"] = "measured"
    preprocess: Preprocess = Preprocess()
    sample: Sample
    augment: Augment = Augment()
    model: Tree = Field(default_factory=lambda: {"name": "unet"})
    loss: Tree | tuple[Tree, ...] = Field(default_factory=lambda: {"name": "dice_ce"})
    init: Init = Init()
    distill: Distill = Distill()
    prune: Prune = Prune()
    locate: Locate = Locate()
    optim: Optim = Optim()
    train: Train = Train()
    inference: Inference

    @field_validator("fold", "dims", mode="before")
    @classmethod
    def _as_text(cls, value: Any) -> Any:
        return str(value) if isinstance(value, int) else value  # YAML takes dims=2 for a number

    @field_validator("fold")
    @classmethod
    def _check_fold(cls, fold: str) -> str:
        if fold not in ("all", "none"):
            try:
                parse_fold(fold.replace("all/", "0/", 1))
            except ConfigError:
                expected = "i/n with i from 0 to n-1, such as 0/5, or all, all/n, none"
                raise ValueError(f"expected {expected}; got '{fold}'") from None
        return fold


# What `resolve` looks into, before the whole is validated.
_GROUPS = {
    "sample": "sample.foreground=0.5",
    "augment": "augment.noise_p=0.1",
    "inference": "inference.overlap=0.5",
    "model": "model.name=unet",
    "loss": "loss.name=dice_ce",
}
# What prediction takes from training, where a user sets the one and not the other.
_FOLLOWED = (("sample", "patch", "window"), ("augment", "mirror_axes", "mirror_axes"))
# Groups that may be written as one word, and what that word then is.
_SHORT = {"model": "name", "loss": "name", "init": "from"}
# What only a plan can know, filled with anything valid, so that the rest can be checked before one is made.
_UNPLANNED: Tree = {"sample": {"patch": (8, 8, 8)}, "inference": {"window": (8, 8, 8)}}


def check(user: Mapping[str, Any]) -> RunConfig:
    """Validate what a user set, before anything is read.

    Raises:
        ConfigError: a wrong name or value anywhere, models' and losses' options included.
    """
    config = resolve(_UNPLANNED, user)
    models.check_names(config.model, dotted=True)
    losses.create_loss(config.loss)
    return config


def resolve(planned: Mapping[str, Any], user: Mapping[str, Any]) -> RunConfig:
    """A whole configuration from a plan and what the user set.

    The plan's options of the model hold for the default architecture only; the window follows the patch, and the flips of
    test-time augmentation follow those of training.
    """
    for name, example in _GROUPS.items():
        several = isinstance(user.get(name), list | tuple) and all(isinstance(part, Mapping) for part in user[name])
        if not isinstance(user.get(name, {}), Mapping) and not (name == "loss" and several):
            raise ConfigError(f"{name}: expected names and values, such as {example}; got {user[name]!r}")
    model = user.get("model", {})
    planned = dict(planned)
    if model.get("name", "unet") != "unet" or "preset" in model:
        planned.pop("model", None)
    tree = merge(planned, user)
    loss = tree.get("loss", {})
    tree |= {"model": {"name": "unet", **tree.get("model", {})}}
    tree |= {"loss": {"name": "dice_ce", **loss} if isinstance(loss, Mapping) else loss}
    if {"window", "overlap"} & {*user.get("inference", {})}:
        tree.setdefault("windows", "planned")
    config = parse(RunConfig, tree)
    followed = {
        to: getattr(getattr(config, stage), name)
        for stage, name, to in _FOLLOWED
        if name in user.get(stage, {}) and to not in user.get("inference", {})
    }
    return config.model_copy(update={"inference": config.inference.model_copy(update=followed)})


def complete(config: RunConfig) -> RunConfig:
    """The same with every option of model and loss written out, as it is stored.

    Raises:
        ConfigError: an option of theirs is unknown, or its value is not allowed; or slices are learned, and volumes predicted.
    """
    patch, window = config.sample.patch, config.inference.window
    if (patch[2] == 1) != (window[2] == 1):
        raise ConfigError(
            f"sample.patch={list(patch)} and inference.window={list(window)}: both have 1 voxel along k (slices), or neither. Set both."
        )
    model, loss = models.resolve(config.model, dotted=True), losses.resolve(config.loss)
    return config.model_copy(update={"model": model, "loss": loss})


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> Tree:
    """Nested mappings joined; the second wins. A model or loss of another name drops the first's options."""
    result = dict(base)
    for key, value in over.items():
        old = result.get(key)
        if isinstance(old, Mapping) and isinstance(value, Mapping) and _same_component(old, value):
            result[key] = merge(old, value)
        else:
            result[key] = value
    return result


def _same_component(old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    return "name" not in old or bool(new.get("name", old["name"]) == old["name"])


def options(words: Iterable[str]) -> Tree:
    """`["train.batch=4", "model=vnet"]` as nested mappings; values are YAML.

    Raises:
        ConfigError: a word without `=`, or a value that is not YAML.
    """
    tree: Tree = {}
    for word in words:
        key, equals, text = word.partition("=")
        if not equals or not key:
            raise ConfigError(f"an option is written key=value, for instance train.batch=4; got '{word}'")
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ConfigError(f"the value of '{key}' is not YAML: '{text}'") from error
        for part in reversed(key.split(".")):
            value = {part: value}
        tree = merge(tree, named(value))
    return tree


def preset(name: str) -> Tree:
    """A preset by its name, or a YAML file by its path.

    Raises:
        ConfigError: no such preset or file, or no mapping in it.
    """
    folder = resources.shipped("configs")
    known = {path.relative_to(folder).with_suffix("").as_posix(): path for path in folder.rglob("*.yaml")}
    path = known.get(name, Path(name))
    if path.suffix not in (".yaml", ".yml") or not path.is_file():
        raise ConfigError(f"no preset or file '{name}'. {did_you_mean(name, known)}")
    return read(path)


def read(path: Path) -> Tree:
    """A YAML file of settings.

    Raises:
        ConfigError: it cannot be read or is no mapping.
    """
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ConfigError(f"'{path.name}' is not readable YAML: {error}".replace("\n", " ")) from error
    if not isinstance(tree, dict):
        raise ConfigError(f"'{path.name}' must hold names and values, such as 'train: {{batch: 4}}'")
    return named(tree)


def named(tree: Mapping[str, Any]) -> Tree:
    """`model: vnet` written out as `model: {name: vnet}`; likewise for the loss, each loss in a sum, and `init: FILE`."""
    return {key: _named(value, _SHORT[key]) if key in _SHORT else value for key, value in tree.items()}


def _named(value: Any, name: str) -> Any:
    if isinstance(value, list | tuple):
        return [_named(part, name) for part in value]
    return {name: str(value)} if isinstance(value, str | Path) else value


def dump(config: RunConfig) -> str:
    """A configuration as YAML."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, default_flow_style=None)


def duration_s(text: str) -> float:
    """`90s`, `20m`, `1.5h` in seconds.

    Raises:
        ConfigError: none of them, or not positive.
    """
    units = {"s": 1, "m": 60, "h": 3600, "d": 86400}
    try:
        seconds = float(text[:-1]) * units[text[-1:]]
    except (ValueError, KeyError):
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise ConfigError(f"a budget is written 90s, 20m or 2h, and is more than nothing; got '{text}'")
    return seconds
