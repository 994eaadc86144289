"""Scores of trainings against time: a table, and a drawing."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from statistics import mean
from typing import Any

from medseg import files, tables

MEANS = ("mean_dice", "mean_dice_low", "mean_dice_high")  # over labels, with the ends of its 95 % interval over cases
SCORES = ("dice", "hd95_mm")  # means over cases, by label
Seeds = Mapping[int, Mapping[str, Mapping[str, Any]]]  # by seed, then by the training's name
_COLOURS = {"medseg": "#1b6ca8", "monai": "#c8553d", "nnunetv2": "#6a8d3a"}


def table(seeds: Seeds) -> str:
    """A line a training, then what several seeds say together."""
    labels = list(next(iter(next(iter(seeds.values())).values()))["dice"])
    training = ("steps", "train s", "waiting", "whole s", "peak MB", "others' cores")
    head = ("", "mean Dice [95 % CI]", *labels, "HD95 mm", *training)
    rows = [_row(f"{name}, seed {seed}", item) for seed, found in seeds.items() for name, item in found.items()]
    lines = [tables.aligned([head, *rows])]
    for name in next(iter(seeds.values())):
        dice = [found[name]["mean_dice"] for found in seeds.values() if name in found]
        lines.append(f"mean Dice, {name}, {len(dice)} seed(s): {mean(dice):.4f} ({min(dice):.4f} - {max(dice):.4f})")
    return "\n".join(lines)


def _row(title: str, item: Mapping[str, Any]) -> tuple[str, ...]:
    middle, low, high = (item[name] for name in MEANS)
    interval = f"{middle:.4f}" + (f" [{low:.3f}, {high:.3f}]" if low is not None else "")
    distances = " / ".join("-" if mm is None else f"{mm:.2f}" for mm in item["hd95_mm"].values())
    scores = (interval, *(f"{value:.4f}" for value in item["dice"].values()), distances)
    training = (str(item["steps"]), f"{item['seconds']:.0f}", f"{item['waiting']:.1%}")
    return (title, *scores, *training, f"{item['wall_s']:.0f}", f"{item['peak_mb']:.0f}", f"{item['others']:.1f}")


def draw(seeds: Seeds, path: Path) -> None:
    """Dice against minutes: what is known on the way as lines, held-out cases at the end of each budget as points."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.5, 4), layout="constrained")
    axes, named = figure.subplots(), set[str]()

    def once(label: str) -> str | None:
        fresh = label not in named
        named.add(label)
        return label if fresh else None

    for found in seeds.values():
        for name, item in found.items():
            colour = _COLOURS[library := name.partition(",")[0]]
            middle, low, high = (item[each] for each in MEANS)
            ends = [[0], [0]] if low is None else [[middle - low], [high - middle]]
            label = once(f"{library}, held-out cases")
            axes.errorbar([item["budget_s"] / 60], [middle], ends, fmt="o", capsize=3, color=colour, label=label)
            if on_the_way := item.get("inner_dice"):
                minutes, dice = ([pair[n] for pair in on_the_way] for n in (0, 1))
                label = once(f"{library}, inner split on the way")
                axes.plot([each / 60 for each in minutes], dice, color=colour, alpha=0.5, linewidth=1, label=label)
    axes.set(xlabel="minutes", ylabel="mean Dice", xlim=(0, None))
    axes.grid(alpha=0.3)
    figure.legend(loc="outside upper center", ncols=2, frameon=False)
    with files.atomic(path) as target:
        figure.savefig(target, format="png", dpi=150)
