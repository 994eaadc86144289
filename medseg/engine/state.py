"""What a run must remember to go on as if it had never stopped: one safetensors file, tensors and JSON together."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as as_bytes  # its `save_file` hides a full disk from `files`
from torch import Tensor, nn

from medseg import files
from medseg.engine.optim import Average
from medseg.engine.shards import divided_like, whole
from medseg.errors import RunError

COLUMNS = ("step", "seconds", "loss", "learning_rate", "wait_share", "validation_dice")


@dataclass
class Run:
    """The progress of a run.

    Args:
        step: steps made.
        seconds: of wall clock since the budget began, over all starts.
        waited_s: of them, waiting for batches.
        best: highest Dice of a validation, at `best_step`; -1 before the first.
        validations: made, or skipped for want of time; `stale` of those made since the best one.
        validation_s: seconds of the last one.
        rows: of history.csv.
    """

    step: int = 0
    seconds: float = 0.0
    waited_s: float = 0.0
    best: float = -1.0
    best_step: int = 0
    validations: int = 0
    stale: int = 0
    validation_s: float = 0.0
    rows: list[list[Any]] = field(default_factory=list)


class Checkpointer:
    """Writes and reads checkpoints: everything that a run needs to go on, and the best weights.

    Args:
        folder: of the checkpoints; `history.csv` lies beside it.
        model, loss, optimiser, average: what training changes.
        every_s: seconds between two savings.
        writes: whether this process writes; of several that train together one does. The others save with it all the same,
            for each may have a part of the tensors.
    """

    def __init__(
        self,
        folder: Path,
        model: nn.Module,
        loss: nn.Module,
        optimiser: torch.optim.Optimizer,
        average: Average,
        *,
        every_s: float,
        writes: bool = True,
    ) -> None:
        self.folder, self.model, self.loss, self.optimiser, self.average = folder, model, loss, optimiser, average
        self.every_s, self.writes, self.saved = every_s, writes, time.monotonic()
        self.device = next(model.parameters()).device

    def due(self) -> bool:
        """Whether it is time to save."""
        return time.monotonic() - self.saved > self.every_s

    def save(self, run: Run) -> None:
        """Write `last.safetensors` and the history."""
        self.saved = time.monotonic()
        parts = {
            "model": self.model.state_dict(),
            "loss": self.loss.state_dict(),
            "ema": self.average.shadow,
            "optimiser": _tensors(self.optimiser),
            "random": _random(self.device),
        }
        self._write("last.safetensors", {"run": asdict(run), "ema_steps": self.average.steps}, **parts)
        self.history(run)

    def best(self, run: Run) -> None:
        """Write the averaged weights as `best.safetensors`."""
        self._write("best.safetensors", {"step": run.step, "dice": run.best}, model=self.average.shadow)

    def history(self, run: Run) -> None:
        """Write `history.csv`."""
        if self.writes:
            lines = [",".join(map(str, row)) for row in [COLUMNS, *run.rows]]
            files.write_text(self.folder.parent / "history.csv", "\n".join(lines) + "\n")

    def restore(self) -> Run:
        """Put everything back; a new run where nothing was saved.

        Raises:
            RunError: the checkpoint is damaged, or belongs to another model.
        """
        path = self.folder / "last.safetensors"
        if not path.exists():
            return Run()
        facts, parts = _read(path)
        live = self.model.state_dict()
        stored = {name: divided_like(tensor, live.get(name, tensor)) for name, tensor in parts["model"].items()}
        try:
            self.model.load_state_dict(stored)
            self.loss.load_state_dict(parts.get("loss", {}))
        except RuntimeError as error:
            raise RunError("the checkpoint belongs to another model. Name a new folder with -o.") from error
        self.average.restore(parts["ema"], facts["ema_steps"])
        _restore(self.optimiser, parts.get("optimiser", {}))
        _restore_random(self.device, parts["random"])
        return Run(**facts["run"])

    def _write(self, name: str, facts: Mapping[str, Any], **parts: Mapping[str, Tensor]) -> None:
        """A file of tensors, gathered one by one from all processes."""
        tensors = {f"{part}/{key}": tensor for part, group in parts.items() for key, tensor in group.items()}
        gathered = ((key, whole(tensor.detach())) for key, tensor in tensors.items())
        found = {key: tensor.cpu().contiguous() for key, tensor in gathered if self.writes}
        if self.writes:
            files.write_bytes(self.folder / name, as_bytes(found, metadata={"facts": json.dumps(dict(facts))}))


def weights(path: Path) -> dict[str, Tensor]:
    """The model's tensors in a file that a `Checkpointer` wrote.

    Raises:
        RunError: the file is damaged or something else.
    """
    return _read(path)[1]["model"]


def _read(path: Path) -> tuple[dict[str, Any], dict[str, dict[str, Tensor]]]:
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
            f"the checkpoint '{path.name}' cannot be read ({error}). Start again in a new folder."
        ) from error


def _tensors(optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The state of every parameter, under `number.name`."""
    state = optimiser.state_dict()["state"]
    return {f"{number}.{name}": torch.as_tensor(v) for number, values in state.items() for name, v in values.items()}


def _restore(optimiser: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    parameters = [parameter for group in optimiser.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        number, _, name = key.partition(".")
        state.setdefault(int(number), {})[name] = divided_like(tensor, parameters[int(number)])
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})


def _random(device: torch.device) -> dict[str, Tensor]:
    """Chance of the processor, and of the GPU where the model lies on one."""
    states = {"torch": torch.get_rng_state()}
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    return states


def _restore_random(device: torch.device, states: Mapping[str, Tensor]) -> None:
    torch.set_rng_state(states["torch"])
    if device.type == "cuda" and "cuda" in states:  # a run may go on with another device
        torch.cuda.set_rng_state(states["cuda"], device)
