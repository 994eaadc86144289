"""The optimiser, its rate over the run, and the running average of the weights."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from medseg.engine.muon import Muon
from medseg.engine.shards import divided_like, own, whole
from medseg.settings import Settings

_FEW = 8  # rows or columns: fewer are no matrix


class Config(Settings):
    """The optimiser, its learning rate, and the average of the weights.

    Args:
        name: "muon" (with AdamW for parameters that are not matrices), "adamw", "sgd" or "rmsprop".
        learning_rate: highest rate.
        weight_decay: of weights; biases and normalisation have none.
        momentum: of "sgd", "muon" and "rmsprop"; None takes 0.99, 0.95 and 0.
        nesterov: "sgd" looks ahead along its momentum; most papers before 2017 do not.
        schedule: "cosine" or "poly" (power 0.9) from the highest rate to 0; "constant"; or divided by ten `drops` times, "step" at
            once after equal parts of the run, "exponential" gradually.
        drops: of "step" and "exponential".
        warm_up: share of the run in which the rate rises from 0.
        clip_norm: largest norm of the gradient; None does not clip.
        ema: decay per step of the moving average of the weights, which is what is judged and stored; 0 for none. None fits it to
            the length of the run: the average reaches back over 3 % of it.
    """

    name: Literal["muon", "adamw", "sgd", "rmsprop"] = "muon"
    learning_rate: float = Field(default=1e-2, gt=0)
    weight_decay: float = Field(default=1e-2, ge=0)
    momentum: float | None = Field(default=None, ge=0, lt=1)
    nesterov: bool = True
    schedule: Literal["cosine", "poly", "constant", "step", "exponential"] = "cosine"
    drops: float = Field(default=2, ge=0)
    warm_up: float = Field(default=0.02, ge=0, lt=1)
    clip_norm: float | None = Field(default=12.0, gt=0)
    ema: float | None = Field(default=None, ge=0, lt=1)


def build(modules: Iterable[nn.Module], config: Config) -> torch.optim.Optimizer:
    """An optimiser over the parameters of all modules (a loss may have some of its own)."""
    parameters = [p for module in modules for p in module.parameters() if p.requires_grad]
    matrices = [p for p in parameters if _is_matrix(p)]
    rest = [p for p in parameters if not _is_matrix(p)]
    groups = [
        {"params": matrices, "weight_decay": config.weight_decay, "matrix": True},
        {"params": [p for p in rest if p.ndim > 1], "weight_decay": config.weight_decay, "matrix": False},
        {"params": [p for p in rest if p.ndim <= 1], "weight_decay": 0.0, "matrix": False},
    ]
    groups = [group for group in groups if group["params"]]
    if config.name == "muon":
        return Muon(groups, config.learning_rate, 0.95 if config.momentum is None else config.momentum)
    if config.name == "adamw":
        return torch.optim.AdamW(groups, lr=config.learning_rate, fused=True)
    if config.name == "rmsprop":
        return torch.optim.RMSprop(groups, config.learning_rate, momentum=config.momentum or 0)
    momentum = 0.99 if config.momentum is None else config.momentum
    fused = not any(map(_is_divided, parameters))  # torch 2.13 has no fused SGD for them
    ahead = config.nesterov and momentum > 0
    return torch.optim.SGD(groups, lr=config.learning_rate, momentum=momentum, nesterov=ahead, fused=fused)


def _is_matrix(parameter: Tensor) -> bool:
    """Whether a parameter has directions to speak of, and lies here whole. What makes logits, or sees a single value, has few."""
    return parameter.ndim > 1 and not _is_divided(parameter) and min(parameter.flatten(1).shape) >= _FEW


def _is_divided(parameter: Tensor) -> bool:
    """Whether several processes hold a part of it each."""
    return hasattr(parameter, "placements")


def learning_rate(config: Config, progress: float) -> float:
    """Rate at a share of the run, 0 to 1, whether that share is of steps or of time."""
    if progress < config.warm_up:
        return config.learning_rate * max(progress / config.warm_up, 1e-2)
    done = min(1.0, (progress - config.warm_up) / (1 - config.warm_up))
    left = 1 - done
    match config.schedule:
        case "cosine":
            share = (1 - math.cos(math.pi * left)) / 2
        case "poly":
            share = left**0.9
        case "step":
            share = 0.1 ** min(math.floor(done * (config.drops + 1)), config.drops)
        case "exponential":
            share = 0.1 ** (done * config.drops)
        case "constant":
            share = 1.0
    return config.learning_rate * share


def set_rate(optimiser: torch.optim.Optimizer, config: Config, progress: float) -> float:
    """Give an optimiser the rate at a share of the run, and say which it is."""
    rate = learning_rate(config, progress)
    for group in optimiser.param_groups:
        group["lr"] = rate
    return rate


def ema_decay(steps: float) -> float:
    """Decay of an average that reaches back over 3 % of a run of so many steps, within 10 and 1000 steps."""
    return 1 - 1 / min(max(0.03 * steps, 10), 1000)


class Average:
    """Exponential moving average of a module's floating tensors; young averages forget faster.

    Args:
        module: whose weights are followed.
        decay: a step; see `Config.ema`.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay, self.steps = decay, 0
        self.live = dict(module.state_dict(keep_vars=True))
        self.shadow = {name: tensor.detach().clone() for name, tensor in self.live.items()}

    @torch.no_grad()
    def update(self) -> None:
        """Take one step towards the module's present weights."""
        self.steps += 1
        weight = 1 - min(self.decay, (1 + self.steps) / (10 + self.steps))
        moving = [name for name, tensor in self.shadow.items() if tensor.is_floating_point()]
        torch._foreach_lerp_([own(self.shadow[n]) for n in moving], [own(self.live[n]) for n in moving], weight)
        for name in self.shadow.keys() - set(moving):
            self.shadow[name].copy_(self.live[name])

    def weights(self) -> dict[str, Tensor]:
        """The average as it stands; processes that have divided it must all ask."""
        return {name: whole(tensor) for name, tensor in self.shadow.items()}

    def restore(self, tensors: Mapping[str, Tensor], steps: int) -> None:
        """Put back an average that was stored."""
        self.steps = steps
        for name, tensor in tensors.items():
            self.shadow[name].copy_(divided_like(tensor, self.shadow[name]))
