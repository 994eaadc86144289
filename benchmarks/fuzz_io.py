"""Broken files into every reader: what ends in a volume or in one line, and what in a traceback, a hang or too much memory.

Each input is read in a process of its own kind, which is killed when it takes too long and started anew when it dies.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import select
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil

from benchmarks import _measure as measure
from benchmarks._mutations import mutated
from benchmarks._seeds import FAMILIES, Files, seeds
from medseg import tables
from medseg.resources import shipped

_ASLEEP = 60  # times the limit, after which a process that computes nothing hangs
FAILURES = ("traceback", "several lines", "hang", "memory", "crash")


def parser() -> argparse.ArgumentParser:
    """The arguments."""
    made = measure.parser(__doc__)
    made.add_argument("--seconds", type=float, default=60, help="in all")
    made.add_argument("--only", nargs="+", default=list(FAMILIES), choices=list(FAMILIES), help="families of formats")
    real = [Path("../shared/data")]
    made.add_argument("--data", type=Path, nargs="*", default=real, help="folders of real scans, besides the samples")
    made.add_argument("--seed", type=int, default=0, help="of the mutations")
    made.add_argument("--limit-s", type=float, default=10, help="seconds of the processor after which a reader hangs")
    made.add_argument("--limit-mb", type=float, default=300, help="memory above what one may take")
    made.add_argument("--keep", type=Path, help="folder for inputs that ended badly")
    return made


def main(arguments: list[str] | None = None) -> None:
    """Break, read, count, print."""
    asked = parser().parse_args(arguments)
    known = seeds([shipped("sample_data"), *asked.data])
    found = {name: fuzz(known[name], asked, asked.seconds / len(asked.only)) for name in asked.only}
    measure.publish(table(found), {"found": found}, asked.json)
    raise SystemExit(int(any(item["failures"] for item in found.values())))


def fuzz(known: Sequence[tuple[str, Files]], asked: argparse.Namespace, seconds: float) -> dict[str, Any]:
    """Break one family's files for some seconds.

    Returns:
        `inputs`, how often each end was met (`ends`), most seconds and megabytes of a look, and `failures` with their places.
    """
    rng, ends, failures = random.Random(asked.seed), Counter[str](), Counter[str]()
    worst_s, worst_mb, inputs, reader = 0.0, 0.0, 0, Reader(asked.limit_s)
    stop = time.monotonic() + seconds
    while time.monotonic() < stop:
        name, files = rng.choice(known)
        broken = dict(files)
        for _ in range(rng.choice((1, 1, 1, 2))):
            chosen = rng.choice(sorted(files))
            broken[chosen] = mutated(broken[chosen], rng)
        answers = reader.look(name, broken)
        inputs += 1
        for answer in answers:
            if answer["kind"] not in FAILURES and answer["peak_mb"] > asked.limit_mb:
                answer |= {"kind": "memory", "where": f"{answer['peak_mb']:.0f} MB"}
            ends[answer["kind"]] += 1
            worst_s, worst_mb = max(worst_s, answer["seconds"]), max(worst_mb, answer["peak_mb"])
            if answer["kind"] in FAILURES:
                failures[f"{answer['kind']}: {answer['where']}"] += 1
                _keep(asked.keep, f"{inputs}_{answer['kind']}", broken, answer)
    reader.close()
    return {"inputs": inputs, "ends": dict(ends), "s": worst_s, "mb": worst_mb, "failures": dict(failures)}


class Reader:
    """A process that reads, and its next one when it has died or hangs."""

    def __init__(self, limit_s: float) -> None:
        self.limit_s, self.process = limit_s, self._start()

    def look(self, name: str, files: Files) -> list[dict[str, Any]]:
        """What became of a file, read three times: the grid, as an image, as labels."""
        with tempfile.TemporaryDirectory(prefix="medseg-fuzz-") as folder:
            for other, data in files.items():
                (Path(folder) / other).write_bytes(data)
            with contextlib.suppress(BrokenPipeError):
                self.process.stdin.write(f"{Path(folder) / name}\n")
                self.process.stdin.flush()
            if not self._answered():
                return self._end("hang", f"over {self.limit_s:g} s")
            line = self.process.stdout.readline()
        if not line:
            return self._end("crash", f"signal {-self.process.wait()}")
        return json.loads(line)

    def _answered(self) -> bool:
        """Wait for an answer as long as the process may compute; where others compute too, that takes longer."""
        worker = psutil.Process(self.process.pid)
        computed, awake = sum(worker.cpu_times()[:2]) + self.limit_s, time.monotonic() + _ASLEEP * self.limit_s
        while not select.select([self.process.stdout], [], [], 1)[0]:
            if sum(worker.cpu_times()[:2]) > computed or time.monotonic() > awake:
                return False
        return True

    def _end(self, kind: str, where: str) -> list[dict[str, Any]]:
        self.close()
        self.process = self._start()
        return [{"kind": kind, "where": where, "seconds": 0.0, "peak_mb": 0.0}]

    def _start(self) -> Any:
        command = (sys.executable, "-m", "benchmarks._reader", "4000")
        pipe = subprocess.PIPE
        return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True)

    def close(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.communicate()


def _keep(folder: Path | None, name: str, files: Files, answer: dict[str, Any]) -> None:
    if folder:
        (folder / name).mkdir(parents=True, exist_ok=True)
        for other, data in files.items():
            (folder / name / other).write_bytes(data)
        (folder / f"{name}.json").write_text(json.dumps(answer))


def table(found: dict[str, dict[str, Any]]) -> str:
    """Inputs and ends by family, and every place that failed."""
    kinds = sorted({kind for item in found.values() for kind in item["ends"]} | set(FAILURES))
    rows = [
        (
            name,
            str(item["inputs"]),
            f"{item['s']:.2f}",
            f"{item['mb']:.0f}",
            *(str(item["ends"].get(k, 0)) for k in kinds),
        )
        for name, item in found.items()
    ]
    lines = [f"{name}: {count} x {where}" for name, item in found.items() for where, count in item["failures"].items()]
    return "\n".join([tables.aligned([("", "inputs", "most s", "most MB", *kinds), *rows]), *lines])


if __name__ == "__main__":
    main()
