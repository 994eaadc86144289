"""What a run must remember to go on as if it had never stopped: one safetensors file, tensors and JSON together."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from medseg import files
from medseg.engine.optim import Average
from medseg.errors import RunError


def save(path: str | Path, facts: Mapping[str, Any], **parts: Mapping[str, Tensor]) -> None:
    """Write named groups of tensors, and facts that JSON can hold, as one file that appears whole."""
    tensors = {
        f"{part}/{name}": tensor.detach().cpu().contiguous()
        for part, group in parts.items()
        for name, tensor in group.items()
    }
    with files.atomic(path) as temporary:
        save_file(tensors, str(temporary), metadata={"facts": json.dumps(dict(facts))})


def load(path: str | Path) -> tuple[dict[str, Any], dict[str, dict[str, Tensor]]]:
    """Facts and groups of tensors of a file that `save` wrote.

    Raises:
        RunError: the file is damaged or something else.
    """
    try:
        with safe_open(str(path), "pt") as stream:
            facts = json.loads((stream.metadata() or {})["facts"])
            parts: dict[str, dict[str, Tensor]] = {}
            for key in stream.keys():  # noqa: SIM118 - it is no mapping
                part, _, name = key.partition("/")
                parts.setdefault(part, {})[name] = stream.get_tensor(key)
            return facts, parts
    except (SafetensorError, KeyError, OSError, ValueError) as error:
        raise RunError(
            f"the checkpoint '{Path(path).name}' cannot be read ({error}). Start the run again without --resume."
        ) from error


def optimiser_tensors(optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """State of every parameter under `number.name`."""
    state = optimiser.state_dict()["state"]
    return {
        f"{number}.{name}": torch.as_tensor(value) for number, values in state.items() for name, value in values.items()
    }


def restore_optimiser(optimiser: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Put back what `optimiser_tensors` gave."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        number, _, name = key.partition(".")
        state.setdefault(int(number), {})[name] = tensor
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})


def restore_module(module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Load weights into a module.

    Raises:
        RunError: they belong to another architecture.
    """
    try:
        module.load_state_dict(dict(tensors))
    except RuntimeError as error:
        raise RunError(
            "the checkpoint belongs to another model. Use the run's own configuration, or another folder."
        ) from error


def restore_average(average: Average, tensors: Mapping[str, Tensor], steps: int) -> None:
    """Put back a running average."""
    average.steps = steps
    for name, tensor in tensors.items():
        average.shadow[name].copy_(tensor)
