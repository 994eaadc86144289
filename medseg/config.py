"""The configuration of a run: the stages' own settings side by side, and how plan and user fill them in.

Later wins: the defaults in the code, the plan, a preset (`-c`), the command line's `key=value`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import yaml
from pydantic import Field, field_validator

from medseg import losses, models
from medseg.augment import Config as Augment
from medseg.data.splits import parse_fold
from medseg.engine.fit import Config as Train
from medseg.engine.optim import Config as Optim
from medseg.errors import ConfigError
from medseg.inference.windows import Config as Inference
from medseg.locating import Config as Locate
from medseg.overrides import Tree, merge
from medseg.preprocess import Config as Preprocess
from medseg.sample import Config as Sample
from medseg.settings import Settings, parse
from medseg.transfer import Config as Init
from medseg.transfer.distill import Config as Distill
from medseg.transfer.prune import Config as Prune


class RunConfig(Settings):
    """Everything a run depends on; stored with it, so that nothing depends on later defaults.

    Args:
        seed: of splits, weights, sampling and augmentation.
        device: "auto", "cpu", "cuda", "cuda:1", "mps".
        fold: "i/n" holds back part i of n and reports on it; "all" or "all/n" does so for each part in turn and makes an
            ensemble; "none" trains on everything. Test cases that the dataset declares are held back instead.
        folds: how parts are made: "medseg" (whole patients, labels spread evenly) or "nnunet" (nnU-Net's five, for comparison).
        dims: learn volumes ("3"), slices ("2"), or whatever the scans are ("auto").
        modality: what the channels show, instead of what the dataset says; separated by commas.
        cache: folder of prepared cases; None is `medseg_cache` beside the run.
        cache_gb: size above which the cache loses its oldest entries, except those that the run needs.
        inner_share: share of the training cases on which choices are made.
        tolerance_mm: of the surface Dice (NSD).
        windows: "measured" predicts with larger windows and less overlap where the inner split shows that nothing is lost;
            "planned" predicts as `inference` says, and is the default where you set its window or overlap.
        model, loss: `name` and options of the architecture and of the loss; of a sum, a list of losses, each with a `weight`.
        init: start from the weights of a file or of a stored model, as far as they fit.
        distill, prune, locate: also learn from a stored model, start from one made narrower, or look only where one finds something.
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

    @property
    def spatial_dims(self) -> Literal[2, 3]:
        """2 where patches are slices."""
        return 2 if self.sample.patch[2] == 1 else 3

    @field_validator("fold", "dims", mode="before")
    @classmethod
    def _as_text(cls, value: Any) -> Any:
        return str(value) if isinstance(value, int) else value  # YAML takes dims=2 for a number

    @field_validator("fold")
    @classmethod
    def _check_fold(cls, fold: str) -> str:
        try:
            if fold != "none":
                parse_fold(fold)
        except ConfigError as error:
            raise ValueError(str(error)) from None
        return fold


# What `resolve` looks into, before the whole is validated.
_GROUPS = {
    "sample": "sample.foreground=0.5",
    "augment": "augment.noise_p=0.1",
    "inference": "inference.overlap=0.5",
    "model": "model.name=unet",
    "loss": "loss.name=dice_ce",
}
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

    The plan's model options hold for the default architecture only. Unless the user sets them, the window is the patch, and
    test-time augmentation flips what training flipped.
    """
    _check_groups(user)
    model, inference = user.get("model", {}), user.get("inference", {})
    planned = dict(planned)
    if model.get("name", "unet") != "unet" or "preset" in model:
        planned.pop("model", None)
    tree = merge(planned, user)
    tree["model"] = {"name": "unet", **tree.get("model", {})}
    if isinstance(loss := tree.get("loss", {}), Mapping):
        tree["loss"] = {"name": "dice_ce", **loss}
    if "window" in inference or "overlap" in inference:
        tree.setdefault("windows", "planned")
    config = parse(RunConfig, tree)
    followed: Tree = {}
    if "patch" in user.get("sample", {}) and "window" not in inference:
        followed["window"] = config.sample.patch
    if "mirror_axes" in user.get("augment", {}) and "mirror_axes" not in inference:
        followed["mirror_axes"] = config.augment.mirror_axes
    return config.model_copy(update={"inference": config.inference.model_copy(update=followed)})


def _check_groups(user: Mapping[str, Any]) -> None:
    for name, example in _GROUPS.items():
        value = user.get(name, {})
        parts = value if name == "loss" and isinstance(value, list | tuple) else [value]
        if not all(isinstance(part, Mapping) for part in parts):
            raise ConfigError(f"{name}: expected names and values, such as {example}; got {value!r}")


def complete(config: RunConfig) -> RunConfig:
    """The same with every option of model and loss written out, as it is stored.

    Raises:
        ConfigError: one of these options is unknown or has a wrong value, or slices are learned and volumes predicted.
    """
    patch, window = config.sample.patch, config.inference.window
    if (patch[2] == 1) != (window[2] == 1):
        raise ConfigError(
            f"sample.patch={list(patch)} and inference.window={list(window)}: both have 1 voxel along k (slices), or neither. Set both."
        )
    model, loss = models.resolve(config.model, dotted=True), losses.resolve(config.loss)
    return config.model_copy(update={"model": model, "loss": loss})


def dump(config: RunConfig) -> str:
    """A configuration as YAML."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, default_flow_style=None)
