"""Commands in fresh processes, in turn, with their seconds and peak memory; and what becomes of the figures."""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import shlex
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import psutil

from medseg import files, system, tables

_START = str(Path(__file__).with_name("_start.py"))
PEERS = Path(__file__).parent / "peers"
MEDSEG = (sys.executable, "-m", "medseg")
FAILED = "it failed; its words stand above"
_EVERY_S = 0.25  # between looks at the memory of a process and its children
_PEERS = ("monai", "nnunetv2", "batchgeneratorsv2", "scipy", "surface-distance")
_LOAD = psutil.getloadavg()[0]  # of the machine, when the benchmark began


class Failed(SystemExit):
    """A command ended with an error, or was killed, as it is when memory does not suffice."""


class Sample(NamedTuple):
    """One run of a command.

    Args:
        seconds: wall clock, from its start to its end.
        cpu_s: seconds of all cores, children included.
        peak_mb: most resident memory (10^6 bytes). Of a process alone it is exact; with children it is their sum, looked at
            four times a second, shared pages counted once where the system can say (Linux).
        others: cores that were busy with something else meanwhile: above a few tenths, measure again. It says nothing of runs
            shorter than a second.
        output: what it printed.
    """

    seconds: float
    cpu_s: float
    peak_mb: float
    others: float
    output: str


def run(command: Sequence[str]) -> Sample:
    """Run a command in a fresh process.

    Raises:
        Failed: with the end of what it printed.
    """
    with tempfile.TemporaryDirectory(prefix="medseg-bench-") as folder:
        note, printed = Path(folder) / "note.json", Path(folder) / "printed.txt"
        busy, began = _busy_s(), time.perf_counter()
        with printed.open("w") as stream:
            starter = (sys.executable, "-S", "-E", _START, str(note))
            process = subprocess.Popen((*starter, *command), stdin=subprocess.DEVNULL, stdout=stream, stderr=stream)
            with _watched(process.pid) as peaks:
                process.wait()
        whole, busy = time.perf_counter() - began, _busy_s() - busy
        output = printed.read_text(encoding="utf-8", errors="replace")
        code, seconds, cpu_s, alone = files.read_json(note)
    if code:
        raise Failed(f"{shlex.join(command)} ended with code {code}:\n{output[-2000:]}")
    return Sample(seconds, cpu_s, max(alone, *peaks) / 1e6, max(0.0, (busy - cpu_s) / whole), output)


def alternate(commands: Mapping[str, Sequence[str]], repeats: int, *, warm_up: bool = False) -> dict[str, list[Sample]]:
    """Run commands in turn, every second round backwards, so that a machine that grows slower harms all alike.

    Args:
        commands: by name.
        repeats: rounds.
        warm_up: one more round first, not counted, that fills the disk cache.

    Returns:
        The samples of each. One that has failed is missing, and its words were printed: others may have more memory.

    Raises:
        Failed: the first of the commands.
    """
    samples: dict[str, list[Sample]] = {name: [] for name in commands}
    for number in range(-warm_up, repeats):
        for name in list(samples)[:: -1 if number % 2 else 1]:
            try:
                sample = run(commands[name])
            except Failed as failed:
                if name == next(iter(commands)):
                    raise
                print(f"{name}: {failed}", file=sys.stderr)
                del samples[name]
                continue
            print(f"{name}: {sample.seconds:.3f} s{' (not counted)' if number < 0 else ''}", file=sys.stderr)
            if number >= 0:
                samples[name].append(sample)
    return samples


def spread(seconds: Sequence[float]) -> dict[str, float]:
    """Median and extremes of some times."""
    return {"median_s": median(seconds), "low_s": min(seconds), "high_s": max(seconds)}


def summary(samples: Sequence[Sample]) -> dict[str, Any]:
    """Median and spread of some runs, and each of them."""
    return {
        **spread([sample.seconds for sample in samples]),
        "peak_mb": max(sample.peak_mb for sample in samples),
        "others": max(sample.others for sample in samples),
        "runs": [{name: value for name, value in s._asdict().items() if name != "output"} for s in samples],
    }


def last_json(output: str) -> Any:
    """The JSON in the last line that a peer printed."""
    return json.loads(output.strip().splitlines()[-1])


def times(results: Mapping[str, Mapping[str, Any]], base: str) -> str:
    """A table of summaries: median, spread, memory, ratios of both to `base`, and what `facts` say besides."""
    facts = list(dict.fromkeys(name for item in results.values() for name in item.get("facts", {})))
    rows = [
        (
            name,
            f"{item['median_s']:.3f}",
            f"{item['low_s']:.3f} - {item['high_s']:.3f}",
            f"{item['median_s'] / results[base]['median_s']:.2f}",
            *_memory(item.get("peak_mb"), results[base].get("peak_mb")),
            f"{item['others']:.1f}" if "others" in item else "",
            *(_fact(item.get("facts", {}).get(fact, "")) for fact in facts),
        )
        for name, item in results.items()
    ]
    return tables.aligned([("", "median s", "spread", "ratio", "peak MB", "ratio", "others' cores", *facts), *rows])


def _fact(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:.4g}"


def _memory(peak_mb: float | None, base_mb: float | None) -> tuple[str, str]:
    if peak_mb is None:
        return "", ""
    return f"{peak_mb:.0f}", f"{peak_mb / base_mb:.2f}" if base_mb else ""


def parser(description: str | None) -> argparse.ArgumentParser:
    """What all benchmarks take."""
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    made.add_argument("--json", type=Path, metavar="FILE", help="write every figure there")
    return made


def machine() -> dict[str, Any]:
    """What the figures belong to: the machine, what else it had to do, and the versions of all that is compared."""
    return {**system.facts(), "bf16_in_hardware": _bf16(), "load_before": round(_LOAD, 2), "peers": _versions()}


def publish(text: str, results: Mapping[str, Any], path: Path | None) -> None:
    """Print a table under the machine's description, and write both as JSON where wanted."""
    print("\n".join([*(f"{name}: {value}" for name, value in machine().items()), "", text]))
    if path:
        files.write_json(path, {"machine": machine(), **results})


def _bf16() -> str:
    """How a processor computes in bf16, as Linux lists it: with AMX it is many times quicker than in fp32."""
    with contextlib.suppress(OSError):
        return ", ".join(sorted(set(re.findall(r"\b\w*bf16\b", Path("/proc/cpuinfo").read_text())))) or "none"
    return "unknown"


def _versions() -> str:
    known = {name: system.version(name) for name in _PEERS}
    return ", ".join(f"{name} {version}" for name, version in known.items())


def _busy_s() -> float:
    """Seconds that all cores of the machine have worked so far, for anybody."""
    now = psutil.cpu_times()
    return float(sum(now) - now.idle - getattr(now, "iowait", 0.0))


@contextlib.contextmanager
def _watched(pid: int) -> Iterator[list[float]]:
    """A list that collects the memory in bytes of what a starter has started."""
    peaks, over = [0.0], threading.Event()

    def look() -> None:
        while not over.wait(_EVERY_S):
            peaks.append(_tree_bytes(pid))

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield peaks
    finally:
        over.set()
        thread.join()


def _tree_bytes(starter: int) -> float:
    """0 for a command without children, whose peak the system knows better."""
    try:
        family = psutil.Process(starter).children(recursive=True)
    except psutil.Error:
        return 0.0
    return sum(map(_bytes, family)) if len(family) > 1 else 0.0


def _bytes(process: psutil.Process) -> float:
    try:
        held = process.memory_full_info()
    except psutil.Error:  # it has ended
        return 0.0
    return float(getattr(held, "pss", held.rss))
