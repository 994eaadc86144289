"""What a smaller model loses and saves: a teacher, and one narrower network trained alone, distilled, pruned, and both.

All are trained by `medseg train` on the same cases for the same time, and judged on the same held-out cases.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import medseg
from benchmarks import _measure as measure
from benchmarks import _operation as operation
from benchmarks._operation import Variant
from medseg import bundle as bundles
from medseg import files, tables
from medseg.data import layouts
from medseg.resources import shipped
from medseg.transfer import prune

NAMES = ("teacher", "alone", "distilled", "pruned", "pruned and distilled")
_PREDICTION = "file to mask in memory, model loaded"


def parser() -> argparse.ArgumentParser:
    """The arguments."""
    made = operation.parser(__doc__)
    made.add_argument("--data", type=Path, default=shipped("sample_data/mr"), help="dataset in any layout")
    made.add_argument("--budget", default="20m", help="wall clock of each training: 90s, 20m")
    made.add_argument("--fold", default="0/5", help="part held out, i/n")
    made.add_argument("--seed", type=int, default=0)
    made.add_argument("--keep", type=float, default=0.5, help="share of the teacher's channels that the others have")
    made.add_argument("--scans", type=int, default=10, help="held-out scans that are predicted for the seconds")
    made.add_argument("-o", "--out", type=Path, help="keep the runs there; otherwise they are removed")
    made.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="settings of every training")
    return made


def main(arguments: list[str] | None = None) -> None:
    """Train, measure, print, write."""
    words = sys.argv[1:] if arguments is None else arguments
    asked = parser().parse_args(words)
    with tempfile.TemporaryDirectory(prefix="medseg-bench-") as temporary:
        asked.out = asked.out or Path(temporary)
        facts = {name: _trained(name, asked) for name in NAMES}
        found = operation.compare("small_models", sections(asked), asked, [*words, "--out", str(asked.out)])
    results = {name: {**facts[name], **found[_PREDICTION][name]} for name in NAMES}
    whole = {"budget": asked.budget, "fold": asked.fold, "seed": asked.seed, "keep": asked.keep}
    measure.publish(shown(results), {"benchmark": "small_models", **whole, "results": results}, asked.json)


def sections(asked: argparse.Namespace) -> operation.Sections:
    """Predictions of the trained models; they must lie in the folder that is asked for."""
    return {_PREDICTION: {name: Variant(partial(predictions, name, asked), scans) for name in NAMES}}


def predictions(name: str, asked: argparse.Namespace) -> Callable[[], int]:
    """The first held-out scans, from files to masks in memory; says how many."""
    predictor = medseg.load(_run(name, asked))
    (split,) = files.read_json(_run(name, asked) / "splits.json")
    images = {case.id: list(case.images) for case in layouts.find(asked.data).cases}
    held_out = [images[case] for case in split["held_out"][: asked.scans]]

    def run() -> int:
        for scan in held_out:
            predictor(scan)
        return len(held_out)

    return run


def scans(count: int) -> dict[str, int]:
    """What `predictions` said, as a figure."""
    return {"scans": count}


def settings(name: str, teacher: Path, keep: float) -> list[str]:
    """What sets a training apart from the teacher's."""
    wide = bundles.read(bundles.find(teacher)).model if name != "teacher" else {}
    words = {
        "model": f"model={json.dumps(prune.narrowed(wide, keep))}" if wide else "",
        "distill": f"distill.from={teacher}",
        "prune": f"prune.from={teacher}",
        "keep": f"prune.keep={keep}",
    }
    chosen = {
        "teacher": (),
        "alone": ("model",),
        "distilled": ("model", "distill"),
        "pruned": ("prune", "keep"),
        "pruned and distilled": ("prune", "keep", "distill"),
    }
    return [words[each] for each in chosen[name]]


def _run(name: str, asked: argparse.Namespace) -> Path:
    # a folder each, for the cases that one training prepared would be a gift to the next
    return Path(asked.out) / name.replace(" ", "_") / "run"


def _trained(name: str, asked: argparse.Namespace) -> dict[str, Any]:
    """Train one of them; what it came to."""
    run, words = _run(name, asked), settings(name, _run("teacher", asked), asked.keep)
    same = ("--budget", asked.budget, "--fold", asked.fold, "--seed", str(asked.seed), *asked.set)
    sample = measure.run((*measure.MEDSEG, "train", str(asked.data), "-o", str(run), *same, *words))
    scores, (described, (weights,)) = files.read_json(run / "metrics.json"), bundles.load(run / "bundle")
    print(f"{name}: Dice {scores['mean_dice']:.4f} after {sample.seconds:.0f} s", file=sys.stderr)
    return {
        "mean_dice": scores["mean_dice"],
        "dice": {label: item["dice"]["mean"] for label, item in scores["labels"].items()},
        "parameters": sum(tensor.numel() for tensor in weights.values()),
        "file_mb": (run / "bundle" / "model.safetensors").stat().st_size / 1e6,
        "steps": described.training["steps"],
        "train_s": described.training["seconds"],
        "train_others": sample.others,
    }


def shown(results: Mapping[str, Mapping[str, Any]]) -> str:
    """A line a model: quality, seconds, size."""
    teacher = results["teacher"]
    head = (
        "",
        "mean Dice",
        *teacher["dice"],
        "ms a scan",
        "ratio",
        "peak MB",
        "parameters",
        "file MB",
        "steps",
        "train s",
        "others' cores",
    )
    rows = [
        (
            name,
            *(f"{value:.4f}" for value in (item["mean_dice"], *item["dice"].values())),
            f"{1000 * item['median_s'] / item['facts']['scans']:.0f}",
            f"{item['median_s'] / teacher['median_s']:.2f}",
            f"{item['peak_mb']:.0f}",
            f"{item['parameters'] / 1e6:.3f} M",
            f"{item['file_mb']:.2f}",
            str(item["steps"]),
            f"{item['train_s']:.0f}",
            f"{item['train_others']:.1f}",
        )
        for name, item in results.items()
    ]
    return tables.aligned([head, *rows])


if __name__ == "__main__":
    main()
