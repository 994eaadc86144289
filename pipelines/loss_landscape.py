"""What each loss says of a mask that slides off its object: a large one, and a small one.

    python pipelines/loss_landscape.py OUT

Needs:  nothing but medseg; no data and no GPU.
Takes:  half a minute of one core.
Leaves: OUT/losses.png, a panel per loss; OUT/losses_table.md, the table of all losses with formula, paper, equation and options.
Expect: the figure of the review (Taghanaki et al. 2021, fig. 12) for every loss here. Up to a shift of one diameter, fewer and
        fewer voxels are right; beyond it none is. Overlap losses are level there, distances rise on. Losses that look at the
        size or at the prediction alone see no shift at all.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib as mpl
import torch
from torch import Tensor

import medseg

SIZE = 96  # pixels of an edge
OBJECTS = {"large object": (16, "#1f5fa8"), "small object": (3, "#d1702c")}  # radius, colour
OPTIONS = {"cl_dice": {"iterations": 16}}  # else the skeleton of the large object is lost


def main(arguments: list[str] | None = None) -> None:
    """Compute, draw, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="folder for figure and table")
    out = parser.parse_args(arguments).out
    out.mkdir(parents=True, exist_ok=True)
    names = [row.name for row in medseg.list_losses()]
    draw({name: [curve(name, radius) for radius, _ in OBJECTS.values()] for name in names}, out)
    (out / "losses_table.md").write_text(table(), encoding="utf-8")
    print(f"{len(names)} losses: {out / 'losses.png'}, {out / 'losses_table.md'}")


def disc(radius: int, shift: int) -> Tensor:
    """A disc `(SIZE, SIZE)` of 0 and 1, a quarter from the left, moved to the right by so many pixels."""
    i, j = torch.meshgrid(torch.arange(SIZE), torch.arange(SIZE), indexing="ij")
    return ((i - SIZE // 2) ** 2 + (j - SIZE // 4 - shift) ** 2 <= radius**2).long()


def logits(answer: Tensor) -> Tensor:
    """What a network that is sure of a mask gives, `(1, 2, SIZE, SIZE)`."""
    return 10 * torch.stack([0.5 - answer, answer - 0.5])[None]


@torch.no_grad()
def curve(name: str, radius: int) -> dict[float, float]:
    """The loss by the shift in diameters."""
    torch.manual_seed(0)
    truth, diameter = disc(radius, 0), 2 * radius + 1
    image = truth[None, None] + 0.1 * torch.randn(1, 1, SIZE, SIZE)
    context = medseg.LossContext(image=image, extras={"second": logits(truth), "boundary": 0 * image})
    loss = medseg.create_loss(name, **OPTIONS.get(name, {}))
    answers = {shift / diameter: logits(disc(radius, shift)) for shift in range(3 * diameter // 2 + 1)}
    return {shift: float(loss(answer, truth[None], context)) for shift, answer in answers.items()}


def draw(curves: dict[str, list[dict[float, float]]], out: Path) -> None:
    """A panel a loss, each line over its own range, so that shapes can be compared and sizes cannot."""
    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, panels = plt.subplots(-(-len(curves) // 6), 6, figsize=(13, 13), sharex=True, layout="constrained")
    for panel in panels.flat[len(curves) :]:
        panel.axis("off")
    for panel, (name, lines) in zip(panels.flat, curves.items(), strict=False):
        for (size, (_, colour)), line in zip(OBJECTS.items(), lines, strict=True):
            lowest, width = min(line.values()), max(max(line.values()) - min(line.values()), 1e-3)
            panel.plot(line.keys(), [(v - lowest) / width for v in line.values()], color=colour, label=size)
        panel.axvline(1, color="#999999", linewidth=0.6, linestyle=":")
        panel.set_title(name.replace("_cross_entropy", "\ncross_entropy"), fontsize=8.5, loc="left")
        panel.set(ylim=(-0.06, 1.06), yticks=[], xticks=[0, 0.5, 1, 1.5])
        panel.spines[["top", "right"]].set_visible(False)
    for panel in panels.flat[len(curves) - 6 : len(curves)]:  # the last of each column, be the last row full or not
        panel.tick_params(labelbottom=True)
    figure.supxlabel("shift of the mask, in diameters of the object")
    figure.supylabel("loss, from its lowest to its highest value")
    figure.legend(*panels.flat[0].get_legend_handles_labels(), loc="outside upper right", ncols=2, frameon=False)
    figure.savefig(out / "losses.png", dpi=100)


def table() -> str:
    """All losses in Markdown; t is the truth, p the predicted probability."""
    lines = ["| name | formula | paper | equation | options and defaults |", "|---|---|---|---|---|"]
    for row in medseg.list_losses():
        cells = [f"`{row.name}`", f"`{row.formula}`", row.paper, row.equation, row.options]
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
