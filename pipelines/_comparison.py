"""What the recipes that compare have in common: their words, the runs one after the other, tables and plots."""

from __future__ import annotations

import argparse
import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

import medseg


def parsed(arguments: list[str] | None, text: str | None, **names: Any) -> dict[str, Any]:
    """What the command line says."""
    parser = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder of a dataset")
    parser.add_argument("out", type=Path, help="folder for runs, tables and plot")
    parser.add_argument("names", **names)
    parser.add_argument("--config", dest="preset", help="preset or YAML file of what all have in common")
    parser.add_argument("--budget", help="wall clock of each: 90s, 10m, 2h")
    parser.add_argument("--steps", dest="train", type=lambda n: {"steps": int(n)}, default={}, help="not a budget")
    parser.add_argument("--seed", type=int, default=0)
    return vars(parser.parse_args(arguments))


def compare(
    candidates: dict[str, Any], tell: Callable[[list[Path], Path], None], data: Path, out: Path, **same: Any
) -> None:
    """Train each candidate, a name with the settings that are its own, and tell of all that are done."""
    for number, (name, own) in enumerate(candidates.items(), 1):
        print(f"{name} ({number} of {len(candidates)})", flush=True)
        try:
            medseg.train(data, out / name, resume=(out / name / "config.yaml").exists(), **same, **own)
        except medseg.MedsegError as error:
            if isinstance(error, medseg.Interrupted) or not (out / name).exists():  # nor would the others begin
                raise
            print(f"{name}: {error}")  # another process works on it, or this one alone cannot be trained
        if done := [out / other for other in candidates if (out / other / "report.html").exists()]:
            tell(done, out)


def row(run: Path) -> dict[str, Any]:
    """What a run reached: over all structures, then each; None where a structure is in no case."""
    scores, model = (json.loads((run / name).read_bytes()) for name in ("metrics.json", "bundle/config.json"))
    facts = {"name": run.name, "steps": model["training"]["steps"], "Dice": scores["mean_dice"]}
    facts |= {"low": scores["mean_dice_low"], "high": scores["mean_dice_high"]}
    for name, title in {"hd95_mm": "HD95, mm", "nsd": "NSD", "dice": "Dice"}.items():
        each = {f"{title} {label}": found[name]["mean"] for label, found in scores["labels"].items()}
        known = [value for value in each.values() if value is not None]
        facts |= {title: sum(known) / len(known) if known else None} | each
    return facts


def show(rows: list[dict[str, Any]], out: Path) -> None:
    """Tables and plot of runs, best first."""
    rows = sorted(rows, key=lambda row: -row["Dice"])
    figure = Figure(figsize=(8, 1 + 0.3 * len(rows)), layout="constrained")
    axes = figure.add_subplot(xlabel="Dice, mean over structures, with its 95 % interval over patients")
    names, dice, low, high = ([row[fact] for row in rows[::-1]] for fact in ("name", "Dice", "low", "high"))
    axes.hlines(names, low, high, color="#1f5fa8")
    axes.plot(dice, names, "o", color="#1f5fa8")
    facts = [fact for fact in rows[0] if not fact.startswith(("HD95, mm ", "NSD "))]  # of each structure: in the JSON
    cells = [[f"{row[f]:.3f}" if isinstance(row[f], float) else str(row[f]) for f in facts] for row in rows]
    table = "".join(f"| {' | '.join(line)} |\n" for line in [facts, ["---"] * len(facts), *cells])
    print(table)
    save(out / "table.md", table.encode())
    save(out / "table.json", json.dumps(rows, indent=2).encode())
    save(out / "dice.png", drawn(figure))


def drawn(figure: Figure) -> bytes:
    """A figure as PNG."""
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=120)
    return png.getvalue()


def save(path: Path, content: bytes) -> None:
    """Write a file whole or not at all."""
    new = path.with_name(f".{os.getpid()}_{path.name}")
    new.write_bytes(content)
    os.replace(new, path)
