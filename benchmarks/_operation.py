"""Variants of an operation side by side: each in fresh processes, in turn, its memory counted from before the operation."""

from __future__ import annotations

import argparse
import importlib.util
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from benchmarks import _measure as measure

if TYPE_CHECKING:
    import torch

# What the libraries ask for their number of threads; SimpleITK has a name of its own.
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS")


class Variant(NamedTuple):
    """One way to do it.

    Args:
        make: prepares all that is not measured, and returns the operation.
        judge: figures of what the operation returned; made after the measurement.
        left_out: why it cannot be run here; empty where it can.
        warm_up: one call goes before those that count. Where one takes minutes, `make` warms up on something small.
    """

    make: Callable[[], Callable[[], Any]]
    judge: Callable[[Any], Mapping[str, Any]] | None = None
    left_out: str = ""
    warm_up: bool = True


Sections = Mapping[str, Mapping[str, Variant]]  # by title, then by name; the first of a section is what ratios refer to
Found = dict[str, dict[str, dict[str, Any]]]


def parser(
    description: str | None, *, repeats: int = 5, times: int = 1, threads: int | None = None
) -> argparse.ArgumentParser:
    """What all comparisons take."""
    made = measure.parser(description)
    made.add_argument(
        "--repeats", type=int, default=repeats, help="rounds, in each of which every variant has a fresh process"
    )
    made.add_argument("--times", type=int, default=times, help="calls in a process that count; one goes before them")
    made.add_argument("--threads", type=int, default=threads, help="of every variant; torch's number if not given")
    made.add_argument(
        "--only", nargs="+", default=[""], metavar="WORD", help="sections whose title has one of the words"
    )
    return made


def missing(*packages: str) -> str:
    """Which of some packages is not installed, in words; empty where all are."""
    absent = [name for name in packages if importlib.util.find_spec(name) is None]
    return f"{' and '.join(absent)} not installed" if absent else ""


def device() -> torch.device:
    """A GPU where there is one."""
    import torch

    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def main(
    name: str,
    parser: argparse.ArgumentParser,
    sections: Callable[[argparse.Namespace], Sections],
    arguments: Sequence[str] | None,
    finish: Callable[[Found, argparse.Namespace], str | None] = lambda found, asked: None,
) -> Found:
    """Measure, print, write: all that a benchmark of operations does.

    Args:
        name: of the benchmark's module.
        parser: of its arguments.
        sections: what is compared, from the arguments.
        arguments: as given; None for those of this process.
        finish: may change what was found, and give a note below the tables.
    """
    asked = parser.parse_args(arguments)
    chosen = sections(asked)
    found = compare(name, chosen, asked, arguments)
    publish(name, chosen, found, asked, finish(found, asked) or "")
    return found


def compare(name: str, sections: Sections, asked: argparse.Namespace, arguments: Sequence[str] | None) -> Found:
    """Measure every variant that can be run.

    Args:
        name: of the benchmark's module, which each process imports for itself.
        sections: of these arguments.
        asked: the arguments, parsed.
        arguments: as given; None for those of this process.
    """
    passed = sys.argv[1:] if arguments is None else arguments
    limits = [f"{variable}={_threads(asked)}" for variable in _THREADS]
    start = ("/usr/bin/env", *limits, sys.executable, "-m", "benchmarks._child", name)
    found: Found = {}
    for title, variants in sections.items():
        if any(word in title for word in asked.only):
            print(title, file=sys.stderr)
            commands = {each: (*start, title, each, *passed) for each, made in variants.items() if not made.left_out}
            samples = measure.alternate(commands, asked.repeats)
            found[title] = {each: _summary(some) for each, some in samples.items()}
    return found


def publish(name: str, sections: Sections, found: Found, asked: argparse.Namespace, note: str = "") -> None:
    """Print a table per section, with what was left out, and write all as JSON where wanted."""
    parts = [f"threads of every variant: {_threads(asked)}"]
    for title, results in found.items():
        absent = [
            f"{each}: left out, {made.left_out or measure.FAILED}"
            for each, made in sections[title].items()
            if each not in results
        ]
        table = [measure.times(results, next(iter(results)))] if results else []
        parts.append("\n".join([title, *table, *absent]))
    whole = {"benchmark": name, "operation_threads": _threads(asked), "results": found}
    measure.publish("\n\n".join([*parts, *([note] if note else [])]), whole, asked.json)


def _threads(asked: argparse.Namespace) -> int:
    if asked.threads:
        return int(asked.threads)
    import torch

    return torch.get_num_threads()


def _summary(samples: Sequence[measure.Sample]) -> dict[str, Any]:
    """Median and spread of all calls in all processes, the highest peak, the figures of the last process."""
    notes = [measure.last_json(sample.output) for sample in samples]
    return {
        **measure.spread([seconds for note in notes for seconds in note["seconds"]]),
        "peak_mb": max(note["peak_mb"] for note in notes),
        "others": max(sample.others for sample in samples),
        "facts": notes[-1]["facts"],
        "runs": notes,
    }
