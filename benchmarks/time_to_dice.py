"""How good a model is after the same minutes on the same cases: `medseg train` and the usual hand-written MONAI script."""

from __future__ import annotations

import argparse
import math
import re
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from benchmarks import _measure as measure
from medseg import config, files, io, layouts
from medseg.resources import shipped

_PEER = str(measure.PEERS / "monai_train.py")


def main(arguments: list[str] | None = None) -> None:
    """Measure, print, write."""
    parser = measure.parser(__doc__)
    parser.add_argument("--data", type=Path, default=shipped("sample_data/mr"), help="dataset in any layout")
    parser.add_argument("--budget", default="20m", help="wall clock of each training: 90s, 20m")
    parser.add_argument("--fold", type=_one_fold, default="0/5", help="part held out of both, i/n")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="one comparison each")
    parser.add_argument("-o", "--out", type=Path, help="keep runs and masks there; otherwise they are removed")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="settings of medseg train")
    asked = parser.parse_args(arguments)
    results: dict[str, Any] = {"benchmark": "time_to_dice", "budget": asked.budget, "fold": asked.fold, "seeds": {}}
    with tempfile.TemporaryDirectory(prefix="medseg-bench-") as temporary:
        for seed in asked.seeds:
            # a folder each, for the cases that one seed prepared would be a gift to the next
            folder = (asked.out or Path(temporary)) / f"seed_{seed}"
            settings = ("--budget", asked.budget, "--fold", asked.fold, "--seed", str(seed), *asked.set)
            results["seeds"][seed] = _compare(asked.data, folder, seed, settings)
            if asked.json:
                files.write_json(asked.json, results)
    measure.publish(_shown(results["seeds"]), results, asked.json)


def _one_fold(text: str) -> str:
    if not re.fullmatch(r"\d+/\d+", text):
        raise argparse.ArgumentTypeError(f"one fold is compared, such as 0/5; got '{text}'")
    return text


def _compare(data: Path, folder: Path, seed: int, settings: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Both trainings, one after the other; medseg first, for it divides the cases."""
    ours = measure.run((*measure.MEDSEG, "train", str(data), "-o", str(folder / "medseg"), *settings))
    budget_s = _write_cases(data, folder)
    peer = (sys.executable, _PEER, str(folder / "cases.json"), "-o", str(folder / "monai"))
    theirs = measure.run((*peer, "--budget", str(budget_s), "--seed", str(seed)))
    return {"medseg": _ours(folder, ours), "monai": _theirs(folder, theirs)}


def _write_cases(data: Path, folder: Path) -> float:
    """What the peer needs to learn from the cases of a medseg run, and to be judged by those it held out.

    Leaves `cases.json`, and `references/` with links to the masks of the held-out cases. Returns the budget in seconds.
    """
    run = folder / "medseg"
    known = {case.id: case for case in layouts.find(data).cases}
    (split,) = files.read_json(run / "splits.json")
    labels = files.read_json(run / "bundle" / "config.json")["labels"]
    if not labels["exclusive"] or any(item["values"] != [n] for n, item in enumerate(labels["items"], 1)):
        raise SystemExit("the peer learns labels that exclude each other, numbered 1, 2 and so on")
    learned = [known[name] for name in (*split["train"], *split["validation"])]
    cases = {
        "classes": len(labels["items"]) + 1,
        "train": [
            {"image": _absolute(case.images), "label": str(case.label.resolve())} for case in learned if case.label
        ],
        "test": [{"id": name, "image": _absolute(known[name].images)} for name in split["held_out"]],
    }
    files.write_json(folder / "cases.json", cases)
    (folder / "references").mkdir()
    for name in split["held_out"]:
        label = known[name].label
        assert label is not None
        (folder / "references" / f"{name}{label.name[len(io.stem(label)) :]}").symlink_to(label.resolve())
    return float(config.read(run / "config.yaml")["train"]["budget_s"])


def _absolute(paths: Sequence[Path]) -> list[str]:
    return [str(path.resolve()) for path in paths]


def _ours(folder: Path, sample: measure.Sample) -> dict[str, Any]:
    facts = files.read_json(folder / "medseg" / "bundle" / "config.json")["training"]
    training = {"steps": facts["steps"], "seconds": facts["seconds"], "waiting": facts["waiting_for_batches"]}
    return {**_judged(folder, "medseg", folder / "medseg" / "predictions"), **training, **_whole(sample)}


def _theirs(folder: Path, sample: measure.Sample) -> dict[str, Any]:
    facts = measure.last_json(sample.output)
    training = {name: facts[name] for name in ("steps", "seconds", "waiting")}
    return {**_judged(folder, "monai", folder / "monai"), **training, **_whole(sample)}


def _whole(sample: measure.Sample) -> dict[str, float]:
    return {"wall_s": sample.seconds, "peak_mb": sample.peak_mb, "others": sample.others}


def _judged(folder: Path, name: str, masks: Path) -> dict[str, Any]:
    """Dice of masks by `medseg evaluate`, the same for both."""
    out = folder / f"{name}_evaluation"
    command = (*measure.MEDSEG, "evaluate", str(masks), str(folder / "references"), "-o", str(out))
    measure.run((*command, "--model", str(folder / "medseg")))
    found = files.read_json(out / "metrics.json")
    return {
        "mean_dice": found["mean_dice"],
        "dice": {label: item["dice"]["mean"] for label, item in found["labels"].items()},
        "cases": found["cases"],
    }


def _shown(seeds: Mapping[int, Mapping[str, Any]]) -> str:
    """A line a training, then what the seeds say together."""
    labels = list(next(iter(seeds.values()))["medseg"]["dice"])
    head = ("", "mean Dice", *labels, "steps", "train s", "waiting", "whole s", "peak MB", "others' cores")
    rows = [_row(f"{name}, seed {seed}", item) for seed, both in seeds.items() for name, item in both.items()]
    ours, theirs = ([both[name]["mean_dice"] for both in seeds.values()] for name in ("medseg", "monai"))
    means = (
        f"mean Dice over {len(seeds)} seed(s): medseg {mean(ours):.4f} ({min(ours):.4f} - {max(ours):.4f}), "
        f"monai {mean(theirs):.4f} ({min(theirs):.4f} - {max(theirs):.4f}), ratio {_ratio(ours, theirs):.3f}"
    )
    return f"{measure.table(head, rows)}\n{means}"


def _row(title: str, item: Mapping[str, Any]) -> tuple[str, ...]:
    dice = [f"{value:.4f}" for value in (item["mean_dice"], *item["dice"].values())]
    training = (str(item["steps"]), f"{item['seconds']:.0f}", f"{item['waiting']:.1%}")
    return (title, *dice, *training, f"{item['wall_s']:.0f}", f"{item['peak_mb']:.0f}", f"{item['others']:.1f}")


def _ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Of the means; not a number where the peer has learnt nothing."""
    return mean(ours) / mean(theirs) if mean(theirs) else math.nan


if __name__ == "__main__":
    main()
