"""How a model is computed quickest on this machine: its precision and the order of its channels in memory.

Which way is quickest depends on processor, network and version of torch. It is measured on first use and remembered.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from medseg import files, memory, system
from medseg.errors import MedsegError
from medseg.settings import Settings, parse

_KEPT = 200  # models that are remembered
_GAIN = 0.95  # of the first way's seconds: a smaller gain is noise
_HOPELESS = 1.5  # times the best: a way whose first call takes longer is not measured further
_LONG_S = 0.5  # what warming up takes is little beside a call of so many seconds
_NO_HOME = (MedsegError, OSError, RuntimeError)  # it cannot be read or written, or nobody knows where it is
_CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}


class Way(Settings):
    """How a network is computed.

    Args:
        precision: of its layers; logits are float32 always.
        channels: of each voxel side by side in memory ("last"), or one map after the other ("first").
    """

    precision: Literal["fp32", "bf16"] = "fp32"
    channels: Literal["first", "last"] = "first"

    def __str__(self) -> str:
        return f"{self.precision}, channels {self.channels}"

    def lay(self, network: nn.Module) -> nn.Module:
        """A network whose weights lie as its maps will."""
        for parameter in network.parameters():
            if parameter.ndim in _CHANNELS_LAST:
                parameter.data = parameter.data.contiguous(memory_format=self._format(parameter))
        return network

    def compute(self, network: nn.Module, windows: Tensor) -> Tensor:
        """Logits of windows, in float32."""
        with torch.no_grad(), torch.autocast(windows.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            logits: Tensor = network(windows.contiguous(memory_format=self._format(windows)))
        return logits.float()

    def _format(self, tensor: Tensor) -> torch.memory_format:
        return _CHANNELS_LAST[tensor.ndim] if self.channels == "last" else torch.contiguous_format


PLAIN = Way()


class Record(Settings):
    """What was measured of a model: seconds of a batch of windows in each way, and the way that was chosen."""

    model: str
    window: tuple[int, ...]
    way: Way
    seconds: dict[str, float]

    def __str__(self) -> str:
        batch, _, *size = self.window
        seconds = ", ".join(f"{way} {s:.3g} s" for way, s in self.seconds.items())
        return f"{self.model}, {batch} windows of {'x'.join(map(str, size))}: {self.way} ({seconds})"


def choose(network: nn.Module, windows: Tensor, name: str, weights: Sequence[str], precisions: Sequence[str]) -> Way:
    """The quickest way to compute a model, measured unless this machine remembers it.

    Args:
        network: one of the model's, on its device.
        windows: a batch of the size that it will see, there too.
        name: of the model, for people.
        weights: their checksums.
        precisions: that may be used, the preferred one first.
    """
    machine = (*system.facts().values(), str(windows.device))
    asked = json.dumps([*weights, *windows.shape, *precisions, *map(str, machine)])
    key, known = hashlib.sha256(asked.encode()).hexdigest()[:16], remembered()
    if key in known:
        return known[key].way
    ways = [Way(precision=p, channels=c) for c in ("first", "last") for p in precisions]  # type: ignore[arg-type]
    if not (seconds := measure(network, windows, ways)):
        return ways[0]
    best = min(seconds, key=lambda way: seconds[way] * (_GAIN if way == ways[0] else 1))
    shown = {str(way): round(s, 4) for way, s in seconds.items()}
    known[key] = Record(model=name, window=tuple(windows.shape), way=best, seconds=shown)
    with contextlib.suppress(*_NO_HOME):  # that costs a second each time, no more
        files.write_json(_store(), {key: record.model_dump() for key, record in [*known.items()][-_KEPT:]})
    return best


def measure(network: nn.Module, windows: Tensor, ways: Sequence[Way]) -> dict[Way, float]:
    """Seconds of one batch in each way that fits in memory: the quickest of two calls after one to warm up, or of calls that
    take long the first.

    A way whose first call takes much longer than the best so far is left out.
    """
    found: dict[Way, float] = {}
    for way in ways:
        try:
            first = _seconds(way, network, windows)
            if not found or first < _HOPELESS * min(found.values()):
                found[way] = min(_seconds(way, network, windows) for _ in range(2)) if first < _LONG_S else first
        except (MemoryError, RuntimeError) as error:
            if not memory.is_out_of_memory(error):
                raise
    return found


def _seconds(way: Way, network: nn.Module, windows: Tensor) -> float:
    way.lay(network)
    began = time.perf_counter()
    way.compute(network, windows)
    if windows.device.type == "cuda":
        torch.cuda.synchronize(windows.device)
    return time.perf_counter() - began


def remembered() -> dict[str, Record]:
    """What was measured on this machine, oldest first; a file that is not what was written holds nothing."""
    try:
        return {key: parse(Record, record, key) for key, record in files.read_json(_store()).items()}
    except (*_NO_HOME, AttributeError, TypeError):
        return {}


def _store() -> Path:
    """Where programs of a user keep what can be found out again."""
    if sys.platform == "win32":
        home = os.environ.get("LOCALAPPDATA")
    else:
        home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "medseg" / "arithmetic.json"
