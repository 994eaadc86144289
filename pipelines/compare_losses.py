"""Which loss is best on a dataset: a model for each, all else the same, judged on the same held-out cases.

    python pipelines/compare_losses.py DATA OUT --budget 10m

Needs:  labelled scans, as for pipelines/train.py. Names after OUT say which losses are compared; else all of LOSSES are.
Takes:  the budget (or --steps) for each. Killed and started again, it goes on where it was; started a second time beside the
        first, it takes the losses that nobody works on (`taskset -c 0 python ...` and `taskset -c 1 ...` share the cores).
Leaves: OUT/NAME, a run each; OUT/table.md, OUT/table.json and OUT/dice.png, made anew after every run.
Expect: many within each other's intervals; `medseg evaluate OUT/dice OUT/combo -o OUT/both` tests two of them case by case.
"""

from __future__ import annotations

import argparse
import io
import json
import logging
import os
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

import medseg

ALONE = """dice_ce cross_entropy balanced_cross_entropy focal top_k distance_weighted dice jaccard generalised_dice tversky
    focal_tversky lovasz log_cosh_dice exponential_logarithmic combo unified_focal active_contour multi_task"""
LOSSES: dict[str, Any] = {name: name for name in ALONE.split()} | {
    "dice_boundary": ["dice", {"name": "boundary", "weight": {"from": 0.01, "to": 1, "over": 0.8}}],
    "dice_hausdorff_dt": ["dice", {"name": "hausdorff_dt", "weight": {"from": 0, "to": 0.1}}],
    "dice_cl_dice": ["dice", {"name": "cl_dice", "weight": 0.5}],
}


def main(arguments: list[str] | None = None) -> None:
    """Train, judge and compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder of a dataset")
    parser.add_argument("out", type=Path, help="folder for runs, tables and plot")
    parser.add_argument("names", nargs="*", default=[*LOSSES], help="of LOSSES, or of `medseg losses`")
    parser.add_argument("--config", dest="preset", help="preset or YAML file of what all have in common")
    parser.add_argument("--budget", help="wall clock of each: 90s, 10m, 2h")
    parser.add_argument("--steps", dest="train", type=lambda n: {"steps": int(n)}, default={}, help="not a budget")
    parser.add_argument("--seed", type=int, default=0)
    given = vars(parser.parse_args(arguments))
    losses = {name: {"loss": LOSSES.get(name, name)} for name in given.pop("names")}
    for own in losses.values():
        medseg.create_loss(own["loss"])  # what is misspelt is told before hours have gone by
    compare(losses, **given)


def compare(candidates: dict[str, dict[str, Any]], data: Path, out: Path, **same: Any) -> None:
    """Train each candidate, a name with the settings that are its own, and show all that are done."""
    for name, own in candidates.items():
        try:
            medseg.train(data, out / name, resume=(out / name / "config.yaml").exists(), **same, **own)
        except medseg.MedsegError as error:
            if isinstance(error, medseg.Interrupted) or not (out / name).exists():  # nor would the others begin
                raise
            print(f"{name}: {error}")  # another process works on it, or this one alone cannot be trained
        if rows := [row(out / other) for other in candidates if (out / other / "report.html").exists()]:
            show(sorted(rows, key=lambda row: -row["Dice"]), out)


def row(run: Path) -> dict[str, Any]:
    """What a run reached: over all structures, then each; None where a structure is in no case."""
    scores, model = (json.loads((run / name).read_bytes()) for name in ("metrics.json", "bundle/config.json"))
    facts = {"name": run.name, "steps": model["training"]["steps"], "Dice": scores["mean_dice"]}
    facts |= {"low": scores["mean_dice_low"], "high": scores["mean_dice_high"]}
    for name, title in {"hd95_mm": "HD95, mm", "nsd": "NSD", "dice": "Dice"}.items():
        each = {f"{title} {label}": found[name]["mean"] for label, found in scores["labels"].items()}
        known = [value for value in each.values() if value is not None]
        facts |= {title: sum(known) / len(known)} | each
    return facts


def show(rows: list[dict[str, Any]], out: Path) -> None:
    """Tables and plot of runs, best first; each file whole or not at all."""
    figure, png = Figure(figsize=(8, 1 + 0.3 * len(rows)), layout="constrained"), io.BytesIO()
    axes = figure.add_subplot(xlabel="Dice, mean over structures, with its 95 % interval over patients")
    names, dice, low, high = ([row[fact] for row in rows[::-1]] for fact in ("name", "Dice", "low", "high"))
    axes.hlines(names, low, high, color="#1f5fa8")
    axes.plot(dice, names, "o", color="#1f5fa8")
    figure.savefig(png, format="png", dpi=120)
    cells = [[f"{v:.3f}" if isinstance(v, float) else str(v) for v in row.values()] for row in rows]
    table = "".join(f"| {' | '.join(line)} |\n" for line in [[*rows[0]], ["---"] * len(rows[0]), *cells])
    print(table)
    files = {"table.md": table.encode(), "table.json": json.dumps(rows, indent=2).encode(), "dice.png": png.getvalue()}
    for name, content in files.items():
        (new := out / f".{os.getpid()}_{name}").write_bytes(content)
        os.replace(new, out / name)


if __name__ == "__main__":
    logging.basicConfig(format="%(message)s")
    logging.getLogger("medseg").setLevel(logging.INFO)  # say what is being done
    try:
        main()
    except medseg.MedsegError as error:
        raise SystemExit(f"error: {error}") from None
