"""Which loss is best on a dataset: one model for each, all else the same, judged on the same held-out cases.

    python pipelines/compare_losses.py DATA OUT --budget 10m

Needs:  labelled scans, as for pipelines/train.py. Names after OUT say which losses are compared; else all of LOSSES are.
Takes:  the budget (or --steps) for each. Started again after an interruption, it continues; started twice at once, the second
        takes losses that the first does not work on (`taskset -c 0 python ...` and `taskset -c 1 ...` share the cores).
Leaves: OUT/NAME, a run each; OUT/table.md, OUT/table.json and OUT/dice.png, made anew after every run.
Expect: many within each other's intervals; `medseg evaluate OUT/dice OUT/combo -o OUT/both` tests two of them case by case.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import _comparison

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
    given = _comparison.parsed(
        arguments, __doc__, nargs="*", default=[*LOSSES], help="of LOSSES, or of `medseg losses`"
    )
    losses = {name: {"loss": LOSSES.get(name, name)} for name in given.pop("names")}
    for own in losses.values():
        medseg.create_loss(own["loss"])  # a misspelt name is refused now, and not after hours
    _comparison.compare(losses, tell, **given)


def tell(runs: list[Path], out: Path) -> None:
    """Show what runs reached."""
    _comparison.show([_comparison.row(run) for run in runs], out)


if __name__ == "__main__":
    logging.basicConfig(format="%(message)s")
    logging.getLogger("medseg").setLevel(logging.INFO)  # say what is being done
    try:
        main()
    except medseg.MedsegError as error:
        raise SystemExit(f"error: {error}") from None
