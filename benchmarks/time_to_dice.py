"""How good a model is after the same minutes on the same cases: `medseg train`, the usual hand-written MONAI script, and nnU-Net."""

from __future__ import annotations

import argparse
import csv
import re
import sys
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import _curve as curve
from benchmarks import _measure as measure
from benchmarks import _operation as operation
from medseg import config, files, io, overrides
from medseg.data import layouts
from medseg.resources import shipped

Results = dict[str, dict[str, Any]]
_PEERS = {
    "monai": (sys.executable, str(measure.PEERS / "monai_train.py")),
    "nnunetv2": (sys.executable, "-m", "benchmarks.peers.nnunet_train"),
}


def parser() -> argparse.ArgumentParser:
    """The arguments."""
    made = measure.parser(__doc__)
    made.add_argument("--data", type=Path, default=shipped("sample_data/mr"), help="dataset in any layout")
    made.add_argument("--budgets", nargs="+", default=["20m"], help="wall clock of medseg's trainings: 90s 20m")
    made.add_argument(
        "--peers", nargs="*", choices=list(_PEERS), default=["monai"], help="trained once each, for the longest budget"
    )
    made.add_argument("--fold", type=_one_fold, default="0/5", help="part held out of all, i/n")
    made.add_argument("--seeds", type=int, nargs="+", default=[0], help="one comparison each")
    made.add_argument("-o", "--out", type=Path, help="keep runs and masks there; otherwise they are removed")
    made.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="settings of medseg train")
    made.add_argument("--plot", type=Path, metavar="FILE", help="draw Dice against time into a PNG")
    return made


def main(arguments: list[str] | None = None) -> None:
    """Measure, print, write."""
    asked = parser().parse_args(arguments)
    asked.budgets.sort(key=config.duration_s)
    results: dict[str, Any] = {"benchmark": "time_to_dice", "fold": asked.fold, "seeds": {}}
    with tempfile.TemporaryDirectory(prefix="medseg-bench-") as temporary:
        for turn, seed in enumerate(asked.seeds):
            found = results["seeds"][seed] = {}
            for name, train in _trainings(asked, (asked.out or Path(temporary)) / f"seed_{seed}", seed, turn):
                found[name] = train()
                if asked.json:
                    files.write_json(asked.json, results)
    text = [curve.table(results["seeds"]), *(f"{name}: left out, {why}" for name, why in _left_out(asked).items())]
    measure.publish("\n".join(text), results, asked.json)
    if asked.plot:
        curve.draw(results["seeds"], asked.plot)


def _one_fold(text: str) -> str:
    if not re.fullmatch(r"\d+/\d+", text):
        raise argparse.ArgumentTypeError(f"one fold is compared, such as 0/5; got '{text}'")
    return text


def _left_out(asked: argparse.Namespace) -> dict[str, str]:
    return {name: why for name in asked.peers if (why := operation.missing(name))}


def _trainings(
    asked: argparse.Namespace, folder: Path, seed: int, turn: int
) -> list[tuple[str, Callable[[], dict[str, Any]]]]:
    """All trainings of a seed by name; medseg's shortest first, for it divides the cases, the others turned round every other time."""
    first, *longer = asked.budgets
    peers = [name for name in asked.peers if name not in _left_out(asked)]
    rest: list[tuple[str, Callable[[], dict[str, Any]]]] = [
        *((f"medseg, {each}", partial(_medseg, asked, folder, seed, each)) for each in longer),
        *((f"{name}, {asked.budgets[-1]}", partial(_peer, asked, folder, seed, name)) for name in peers),
    ]
    return [(f"medseg, {first}", partial(_divided, asked, folder, seed, first)), *rest[:: -1 if turn % 2 else 1]]


def _divided(asked: argparse.Namespace, folder: Path, seed: int, budget: str) -> dict[str, Any]:
    """The training whose division of the cases holds for all."""
    sample = _train(asked, folder, seed, budget)
    _write_cases(asked.data, folder / f"medseg_{budget}" / "run", folder)
    return _ours(folder, budget, sample)


def _medseg(asked: argparse.Namespace, folder: Path, seed: int, budget: str) -> dict[str, Any]:
    return _ours(folder, budget, _train(asked, folder, seed, budget))


def _train(asked: argparse.Namespace, folder: Path, seed: int, budget: str) -> measure.Sample:
    # a folder each, for the cases that one training prepared would be a gift to the next
    run = folder / f"medseg_{budget}" / "run"
    settings = ("--budget", budget, "--fold", asked.fold, "--seed", str(seed), *asked.set)
    return measure.run((*measure.MEDSEG, "train", str(asked.data), "-o", str(run), *settings))


def _write_cases(data: Path, run: Path, folder: Path) -> None:
    """What a peer needs to learn from the cases of a medseg run, and to be judged by those it held out.

    Leaves `cases.json`, and `references/` with links to the masks of the held-out cases.
    """
    known = {case.id: case for case in layouts.find(data).cases}
    (split,) = files.read_json(run / "splits.json")
    described = files.read_json(run / "bundle" / "config.json")
    labels = described["labels"]
    if not labels["exclusive"] or any(item["values"] != [n] for n, item in enumerate(labels["items"], 1)):
        raise SystemExit("the peers learn labels that exclude each other, numbered 1, 2 and so on")
    learned = [known[name] for name in (*split["train"], *split["validation"])]
    cases = {
        "classes": len(labels["items"]) + 1,
        "channels": described["channels"],
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
        (folder / "references" / f"{name}{io.ending(label)}").symlink_to(label.resolve())


def _absolute(paths: Sequence[Path]) -> list[str]:
    return [str(path.resolve()) for path in paths]


def _ours(folder: Path, budget: str, sample: measure.Sample) -> dict[str, Any]:
    run = folder / f"medseg_{budget}" / "run"
    facts = files.read_json(run / "bundle" / "config.json")["training"]
    training = {"steps": facts["steps"], "seconds": facts["seconds"], "waiting": facts["waiting_for_batches"]}
    judged = _judged(folder, run / "predictions", f"medseg_{budget}")
    return {**judged, **training, **_whole(budget, sample), "inner_dice": _validations(run)}


def _peer(asked: argparse.Namespace, folder: Path, seed: int, name: str) -> dict[str, Any]:
    budget, masks = asked.budgets[-1], folder / name
    command = (*_PEERS[name], str(folder / "cases.json"), "-o", str(masks))
    sample = measure.run((*command, "--budget", str(overrides.duration_s(budget)), "--seed", str(seed)))
    facts = measure.last_json(sample.output)
    training = {name: facts[name] for name in ("steps", "seconds", "waiting")}
    return {**_judged(folder, masks, name), **training, **_whole(budget, sample)}


def _whole(budget: str, sample: measure.Sample) -> dict[str, float]:
    sizes = {"wall_s": sample.seconds, "peak_mb": sample.peak_mb, "others": sample.others}
    return {"budget_s": overrides.duration_s(budget), **sizes}


def _validations(run: Path) -> list[tuple[float, float]]:
    """Seconds since the beginning, and Dice on the inner split then."""
    with (run / "history.csv").open(newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if row["validation_dice"]]
    return [(float(row["seconds"]), float(row["validation_dice"])) for row in rows]


def _judged(folder: Path, masks: Path, name: str) -> dict[str, Any]:
    """Scores of masks by `medseg evaluate`, the same for all."""
    out, model = folder / f"{name}_evaluation", next(folder.glob("medseg_*/run"))
    command = (*measure.MEDSEG, "evaluate", str(masks), str(folder / "references"), "-o", str(out))
    measure.run((*command, "--model", str(model)))
    found = files.read_json(out / "metrics.json")
    scores = {name: {label: item[name]["mean"] for label, item in found["labels"].items()} for name in curve.SCORES}
    return {**{name: found[name] for name in curve.MEANS}, "cases": found["cases"], **scores}


if __name__ == "__main__":
    main()
