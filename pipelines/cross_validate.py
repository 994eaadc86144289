"""Cross-validate a dataset: every case is predicted once by a model that never saw it, and all models become an ensemble.

    python pipelines/cross_validate.py DATA RUN --folds 5 --budget 100m

Needs:  labelled scans of at least as many patients as folds (better ten times as many); a patient's cases stay together.
Takes:  the budget, which the folds share: 100m gives 20 minutes to each of five.
Leaves: RUN/fold_0 ... one run per fold; RUN/report.html and RUN/metrics.csv over all cases; RUN/bundle, the ensemble.
Expect: the pooled Dice with its confidence interval over patients is the number for a paper. Folds differ by chance;
        where one lies far below the others, look at the worst cases, which are printed, in the report.
"""

from __future__ import annotations

import argparse
import csv
import json
import logging
from pathlib import Path

import medseg


def main(arguments: list[str] | None = None) -> None:
    """Train all folds, then show them beside each other."""
    given = parse(arguments)
    run = medseg.train(
        given.data, given.run, preset=given.config, budget=given.budget, fold=f"all/{given.folds}", resume=given.resume
    )
    for fold in range(given.folds):
        scores = json.loads((run / f"fold_{fold}" / "metrics.json").read_text(encoding="utf-8"))
        print(f"fold {fold}: mean Dice {scores['mean_dice']:.3f} on {scores['cases']} cases")
    pooled = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
    low, high = pooled["mean_dice_low"], pooled["mean_dice_high"]
    print(f"all: mean Dice {pooled['mean_dice']:.3f} [{low:.3f}, {high:.3f}] on {pooled['patients']} patients")
    for dice, case, label in worst(run / "metrics.csv"):
        print(f"worst: {case}, {label}: Dice {dice:.3f}")
    members = len(medseg.load(run, device="cpu").networks)
    print(f"report: {run / 'report.html'}\nensemble of {members}: medseg predict {run} SCANS -o MASKS")


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder of a dataset")
    parser.add_argument("run", type=Path, help="folder to make")
    parser.add_argument("--folds", type=int, default=5, help="2 or more")
    parser.add_argument("--config", help="preset or YAML file")
    parser.add_argument("--budget", help="wall clock of all folds together: 90s, 100m, 10h")
    parser.add_argument("--resume", action="store_true", help="continue an interrupted run")
    return parser.parse_args(arguments)


def worst(table: Path, rows: int = 5) -> list[tuple[float, str, str]]:
    """Lowest Dice, with case and label; structures that are absent in both masks have none."""
    with table.open(newline="", encoding="utf-8") as stream:
        scores = [(float(row["dice"]), row["case"], row["label"]) for row in csv.DictReader(stream) if row["dice"]]
    return sorted(scores)[:rows]


if __name__ == "__main__":
    logging.basicConfig(format="%(message)s")
    logging.getLogger("medseg").setLevel(logging.INFO)  # say what is being done
    try:
        main()
    except medseg.MedsegError as error:
        raise SystemExit(f"error: {error}") from None
