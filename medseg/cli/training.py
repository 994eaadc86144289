"""Commands that train, or say what training would take."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from medseg import system
from medseg.cli._shared import DEVICES, Data, Modality
from medseg.errors import ConfigError
from medseg.registry import did_you_mean

Settings = Annotated[list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Settings, such as train.batch=4.")]
Preset = Annotated[
    str | None, typer.Option("-c", "--config", help="Preset (fast, balanced, accurate, ...) or YAML file.")
]
Budget = Annotated[str | None, typer.Option(help="Wall clock for everything: 90s, 20m, 2h.")]
Device = Annotated[str | None, DEVICES]  # None: as KEY=VALUE or the preset says


def train(
    data: Data,
    settings: Settings = None,
    out: Annotated[Path | None, typer.Option("-o", "--out", help="Folder of the run.")] = None,
    config: Preset = None,
    budget: Budget = None,
    fold: Annotated[str | None, typer.Option(help="Part held back for the report: 0/5 (default), all, none.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of splits, weights, sampling and augmentation.")] = None,
    device: Device = None,
    modality: Modality = None,
    init: Annotated[
        str | None, typer.Option(help="Weights to start from: .safetensors, .pt or .pth, or a model's folder.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue an interrupted run.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Plan, make a few real steps, and say what the run would take.")
    ] = False,
) -> None:
    """Train a model on labelled scans. The run folder then holds the model, masks of held-out cases and a report."""
    from medseg import api

    named = {"fold": fold, "seed": seed, "device": device, "modality": modality}
    options = _options(settings, named | {"init": {"from": init} if init else None})
    if dry_run:
        typer.echo(api.plan(data, preset=config, budget=budget, **options).table())
        return
    if out is None:
        raise typer.BadParameter("a run needs a folder: -o runs/NAME", param_hint="-o")
    run = api.train(data, out, preset=config, budget=budget, resume=resume, **options)
    if system.ranks()[0] == 0:  # the others leave before it is written
        typer.echo(f"report: {run / 'report.html'}")


def plan(
    data: Data,
    settings: Settings = None,
    config: Preset = None,
    budget: Budget = None,
    device: Device = None,
    modality: Modality = None,
) -> None:
    """Show how a dataset would be trained here, and why. It also says what training would take."""
    from medseg import api

    options = _options(settings, {"device": device, "modality": modality})
    typer.echo(api.plan(data, preset=config, budget=budget, **options).table())


def demo(
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder of the run; must be new.")] = Path("medseg_demo"),
) -> None:
    """Train, predict, evaluate and report on synthetic scans. This takes under three minutes."""
    from medseg import api

    run = api.demo(out)
    typer.echo(f"masks:  {run / 'predictions'}\nreport: {run / 'report.html'}\nmodel:  {run / 'bundle'}")


def _options(settings: list[str] | None, named: dict[str, Any]) -> dict[str, Any]:
    from medseg import config as configs
    from medseg import overrides

    given = {key: value for key, value in named.items() if value is not None}
    tree = overrides.merge(overrides.options(settings or []), given)
    if wrong := [name for name in tree if name not in configs.RunConfig.model_fields]:
        hint = _ELSEWHERE.get(wrong[0]) or did_you_mean(wrong[0], configs.RunConfig.model_fields)
        raise ConfigError(f"{wrong[0]}: unknown option. {hint}")
    return tree


_ELSEWHERE = {
    "preset": "A preset of configs/ is chosen with -c NAME, one of a model with model.preset=NAME.",
    "budget": "Write --budget 20m.",
    "resume": "Write --resume.",
}
