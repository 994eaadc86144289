"""From a folder of labelled scans to a model and a report, with a look at everything on the way.

    python pipelines/train.py DATA RUN --budget 20m

Needs:  scans with masks in any layout that `medseg check` knows, of ten patients or more; two CPU cores, or a GPU.
Takes:  the budget; the plan's trial steps take half a minute before it, unless --no-plan.
Leaves: RUN/report.html, RUN/bundle (the model), RUN/predictions (masks of the held-out cases).
Expect: a Dice that also holds for new scans of the same kind, for nothing was learned or chosen on the cases that it is measured
        on. README.md says what was reached on public scans. If it is below 0.5, look at the worst case in the report first.
"""

from __future__ import annotations

import argparse
import json
import logging
from pathlib import Path

import medseg


def main(arguments: list[str] | None = None) -> None:
    """Check, plan, train, and say how good it is."""
    given = parse(arguments)
    checked = medseg.check(given.data)
    print(checked.table(), end="\n\n")
    if not checked.ok:
        raise SystemExit(2)
    settings = {"preset": given.config, "budget": given.budget, "fold": given.fold, "seed": given.seed}
    if given.plan:
        print(medseg.plan(given.data, **settings).table(), end="\n\n")
    run = medseg.train(given.data, given.run, resume=given.resume, **settings)
    show(run)
    print(f"new scans: medseg predict {run} SCANS -o MASKS")


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder of a dataset")
    parser.add_argument("run", type=Path, help="folder to make")
    parser.add_argument("--config", help="preset or YAML file")
    parser.add_argument("--budget", help="wall clock for everything: 90s, 20m, 2h")
    parser.add_argument("--fold", default="0/5", help="part that is held back for the report: 0/5, 1/5 ...")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-plan", dest="plan", action="store_false", help="do not show the plan first")
    parser.add_argument("--resume", action="store_true", help="continue an interrupted run")
    return parser.parse_args(arguments)


def show(run: Path) -> None:
    """Print what the model reached on the cases that were held back."""
    metrics = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
    for name, label in metrics["labels"].items():
        dice, missed = label["dice"], label["missed"]
        print(f"{name}: Dice {dice['mean']:.3f} [{dice['low']:.3f}, {dice['high']:.3f}], missed in {missed} cases")
    print(f"mean Dice {metrics['mean_dice']:.3f} on {metrics['cases']} held-out cases\nreport: {run / 'report.html'}")


if __name__ == "__main__":
    logging.basicConfig(format="%(message)s")
    logging.getLogger("medseg").setLevel(logging.INFO)  # say what is being done
    try:
        main()
    except medseg.MedsegError as error:
        raise SystemExit(f"error: {error}") from None
