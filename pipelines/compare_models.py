"""Which network is best on a dataset, and what it costs: one model of each, all else the same, judged on the same held-out cases.

    python pipelines/compare_models.py DATA OUT --budget 10m unet pspnet deeplab_v3:resnet50 fc_densenet:67

Needs:  labelled scans, as for pipelines/train.py. Names after OUT are those of `medseg models`; NAME:PRESET takes another preset
        than the first, whatever its size: most need a GPU, or the preset `tiny`.
Takes:  the budget (or --steps) for each; it continues after an interruption, and shares the work, as compare_losses.py does.
Leaves: OUT/NAME or OUT/NAME_PRESET, a run each; OUT/table.md, OUT/table.json and OUT/dice.png as compare_losses.py, with
        parameters, and seconds for a scan of the data's median size; OUT/quality.png, Dice against time: of the cases on which
        choices are made while each learns, and of the held-out ones against those seconds.
Expect: under one clock, light networks to lead: they see more of the data. Seconds follow the load of the machine.
"""

from __future__ import annotations

import csv
import json
import logging
import timeit
from pathlib import Path
from typing import Any

import _comparison
import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.figure import Figure

import medseg


def main(arguments: list[str] | None = None) -> None:
    """Train, judge and compare."""
    given = _comparison.parsed(arguments, __doc__, nargs="+", help="of `medseg models`: NAME or NAME:PRESET")
    models = {name.replace(":", "_"): {"model": described(name)} for name in given.pop("names")}
    _comparison.compare(models, show, **given)


def described(name: str) -> dict[str, str]:
    """The settings that NAME or NAME:PRESET stands for; a misspelt name is refused now, and not after hours."""
    model = dict(zip(("name", "preset"), name.split(":", 1), strict=False))
    with torch.device("meta"):  # the largest have gigabytes of weights
        medseg.create_model(model, spatial_dims=2, in_channels=1, out_channels=2)
    return model


def show(runs: list[Path], out: Path) -> None:
    """Tables and plots of runs."""
    rows = {run: row(run) for run in runs}
    _comparison.show([*rows.values()], out)
    figure = Figure(figsize=(13, 5), layout="constrained")
    learning, reached = figure.subplots(1, 2)
    learning.set(xlabel="minutes of training", ylabel="Dice, mean over structures, of the inner split")
    reached.set(xlabel="seconds a scan", ylabel="Dice, mean over structures, of held-out cases")
    colours = colormaps["turbo"](np.linspace(0.05, 0.95, len(rows)))
    best_first = sorted(rows.items(), key=lambda item: -item[1]["Dice"])
    for place, ((run, each), colour) in enumerate(zip(best_first, colours, strict=True), 1):
        learning.plot(*history(run), color=colour, label=f"{place} {each['name']}")
        reached.plot(each["seconds a scan"], each["Dice"], "o", color=colour)
        reached.annotate(str(place), (each["seconds a scan"], each["Dice"]), (4, 4), textcoords="offset points")
    figure.legend(loc="outside right upper", fontsize="small")
    _comparison.save(out / "quality.png", _comparison.drawn(figure))


def history(run: Path) -> tuple[list[float], list[float]]:
    """Minutes of a run's validations, and their Dice."""
    with (run / "history.csv").open(newline="") as stream:
        judged = [row for row in csv.DictReader(stream) if row["validation_dice"]]
    return [float(row["seconds"]) / 60 for row in judged], [float(row["validation_dice"]) for row in judged]


def row(run: Path) -> dict[str, Any]:
    """What a run reached and cost."""
    reached = _comparison.row(run)
    if not (path := run / "cost.json").exists():
        _comparison.save(path, json.dumps(cost(run)).encode())
    return {"name": reached.pop("name"), **json.loads(path.read_bytes()), **reached}


def cost(run: Path) -> dict[str, Any]:
    """Parameters of a run's network, and seconds for a scan of noise, of the data's median size."""
    predictor = medseg.load(run)
    model, found = predictor.bundle, json.loads((run / "plan.json").read_bytes())["fingerprint"]
    sizes = {"in_channels": len(model.channels), "out_channels": model.labels.channels}
    network = medseg.create_model(model.model, spatial_dims=model.spatial_dims, **sizes)
    noise = np.random.default_rng(0).normal(size=(len(model.channels), *found["shape"])).astype(np.float32)
    scan = medseg.Volume(noise, medseg.Geometry(tuple(found["shape"]), np.diag([*found["spacing_mm"], 1.0])))
    predictor(scan)  # the first call measures how to compute fastest
    seconds = min(timeit.repeat(lambda: predictor(scan), number=1, repeat=3))  # other work only ever adds
    return {"parameters": sum(weight.numel() for weight in network.parameters()), "seconds a scan": seconds}


if __name__ == "__main__":
    logging.basicConfig(format="%(message)s")
    logging.getLogger("medseg").setLevel(logging.INFO)  # say what is being done
    try:
        main()
    except medseg.MedsegError as error:
        raise SystemExit(f"error: {error}") from None
