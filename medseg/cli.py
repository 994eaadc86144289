"""The command line: read arguments, call one public function, print."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from medseg import progress, system
from medseg.errors import ConfigError, Interrupted, MedsegError
from medseg.mistakes import UsageError, one_line
from medseg.registry import did_you_mean

app = typer.Typer(
    help="Labelled scans in; a trained model, masks in each scan's own space and a readable report out.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
Data = Annotated[Path, typer.Argument(metavar="DATA", help="Folder of a dataset, its dataset.json, or a CSV manifest.")]
Model = Annotated[Path, typer.Argument(metavar="MODEL", help="Folder of a run, or a bundle.")]
Settings = Annotated[list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Settings, such as train.batch=4.")]
Preset = Annotated[
    str | None, typer.Option("-c", "--config", help="Preset (fast, balanced, accurate, ...) or YAML file.")
]
Budget = Annotated[str | None, typer.Option(help="Wall clock for everything: 90s, 20m, 2h.")]
_DEVICES = typer.Option(help="auto, cpu, cuda, cuda:1, mps.")
Device = Annotated[str, _DEVICES]
AskedDevice = Annotated[str | None, _DEVICES]  # unless KEY=VALUE or the preset says
Modality = Annotated[str | None, typer.Option(help="What the images are (CT, MR, ...), if the dataset does not say.")]


@app.command()
def train(
    data: Data,
    settings: Settings = None,
    out: Annotated[Path | None, typer.Option("-o", "--out", help="Folder of the run.")] = None,
    config: Preset = None,
    budget: Budget = None,
    fold: Annotated[str | None, typer.Option(help="Part held back for the report: 0/5 (default), all, none.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of splits, weights, sampling and augmentation.")] = None,
    device: AskedDevice = None,
    modality: Modality = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an interrupted run.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Plan, make a few real steps, and say what the run would take.")
    ] = False,
) -> None:
    """Train a model; leaves bundle, masks of held-out cases and report in a run folder."""
    from medseg import api

    named = {"fold": fold, "seed": seed, "device": device, "modality": modality}
    options = _options(settings, named)
    if dry_run:
        typer.echo(api.plan(data, preset=config, budget=budget, **options).table())
        return
    if out is None:
        raise typer.BadParameter("a run needs a folder: -o runs/NAME", param_hint="-o")
    run = api.train(data, out, preset=config, budget=budget, resume=resume, **options)
    if system.ranks()[0] == 0:  # the others leave before it is written
        typer.echo(f"report: {run / 'report.html'}")


@app.command()
def predict(
    model: Model,
    inputs: Annotated[
        list[str],
        typer.Argument(metavar="INPUT", help="Scans, folders of scans, DICOM series; a.nii.gz,b.nii.gz for channels."),
    ],
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder for masks, or for a single scan its mask's file.")],
    tta: Annotated[bool, typer.Option("--tta", help="Average over mirrored scans: slower.")] = False,
    probabilities: Annotated[
        bool, typer.Option("--probabilities", help="Write them beside each mask, as NIfTI.")
    ] = False,
    stream: Annotated[
        bool, typer.Option("--stream", help="Write to disk as parts come, with less memory: for very large scans.")
    ] = False,
    compile: Annotated[
        bool, typer.Option("--compile", help="Compile the network first: pays from some minutes of work on.")
    ] = False,
    format: Annotated[
        str,
        typer.Option(help="Of masks in a folder: nii.gz, nii, nrrd, mha, png; for DICOM series dicom-seg, rtstruct."),
    ] = "nii.gz",
    deidentify: Annotated[
        bool, typer.Option("--deidentify", help="Empty patient and study text in DICOM masks; UIDs stay.")
    ] = False,
    remap_uids: Annotated[
        bool, typer.Option("--remap-uids", help="Replace UIDs in DICOM masks: they no longer refer to the scan.")
    ] = False,
    codes: Annotated[Path | None, typer.Option(help="CSV of your own coded names for DICOM masks.")] = None,
    device: Device = "auto",
) -> None:
    """Segment scans; masks lie in each scan's own grid."""
    from medseg import api, objects

    how: dict[str, Any] = {"tta": tta, "compile": compile, "probabilities": probabilities, "stream": stream}
    how |= {"deidentify": deidentify, "remap_uids": remap_uids, "codes": codes}
    suffix = objects.FORMATS.get(format) or "." + format.lstrip(".")
    outcomes = api.predict(model, inputs, out, device=device, suffix=suffix, **how)
    failed = [outcome for outcome in outcomes if outcome.error]
    for outcome in outcomes:
        if outcome.volumes_ml is not None:
            typer.echo(f"{outcome.id}: {', '.join(f'{name} {ml:.3g} ml' for name, ml in outcome.volumes_ml.items())}")
    if failed and len(outcomes) == 1:
        raise MedsegError(f"{failed[0].id}: {failed[0].error}")
    if failed:
        first = f"{failed[0].id}: {failed[0].error}"
        raise MedsegError(f"{len(failed)} of {len(outcomes)} scans could not be segmented; {first}")


@app.command()
def convert(
    source: Annotated[Path, typer.Argument(metavar="SRC", help="DICOM: a file, folder, DICOMDIR or zip.")],
    target: Annotated[
        Path | None, typer.Argument(metavar="DST", help="Folder; or the file, where there is one volume.")
    ] = None,
    listed: Annotated[bool, typer.Option("--list", help="Show what is there; pixels are not read.")] = False,
    series: Annotated[
        str | None, typer.Option(help="Only this one: number, UID, id, or a part of its description.")
    ] = None,
    format: Annotated[str, typer.Option(help="nifti, nrrd.")] = "nifti",
    channels: Annotated[
        bool, typer.Option("--channels", help="Echoes, times, directions of one grid in one file (4D).")
    ] = False,
    upright: Annotated[bool, typer.Option("--upright", help="Resample tilted stacks to right angles.")] = False,
    allow_gaps: Annotated[bool, typer.Option("--allow-gaps", help="Fill gaps between slices.")] = False,
    units: Annotated[str, typer.Option(help="stored, or suv: PET by body weight.")] = "stored",
) -> None:
    """Convert DICOM to NIfTI or NRRD, one file a volume, without anything of the patient."""
    from medseg import api

    if listed:
        typer.echo(api.list_series(source).table())
        return
    if target is None:
        raise typer.BadParameter("name a folder for the files, or say --list", param_hint="DST")
    how: dict[str, Any] = {"channels": channels, "upright": upright, "allow_gaps": allow_gaps, "units": units}
    outcomes = api.convert(source, target, format=format, series=series, **how)
    for outcome in outcomes:
        words = [outcome.volume, *outcome.notes] if outcome.file else [f"not converted: {outcome.error}"]
        typer.echo(f"{outcome.file.name if outcome.file else outcome.id}: {'; '.join(words)}")
    if failed := [outcome for outcome in outcomes if outcome.error]:
        raise MedsegError(f"{len(failed)} of {len(outcomes)} volumes could not be converted; {failed[0].error}")


@app.command()
def export(
    model: Model,
    out: Annotated[Path, typer.Option("-o", "--out", help="New folder, which holds all that prediction needs.")],
    to: Annotated[str, typer.Option(help="onnx, openvino (no torch needed), bundle (smaller weights).")] = "onnx",
    int8: Annotated[Path | None, typer.Option(metavar="DATA", help="Labelled scans: 8 bits, and their cost.")] = None,
    weights: Annotated[str | None, typer.Option(help="Of a bundle: fp16 or int8.")] = None,
) -> None:
    """Write a model for a PC without torch (ONNX, OpenVINO), or with smaller weights."""
    from medseg import api

    typer.echo(f"model: {api.export(model, out, to=to, int8=int8, weights=weights)}")


@app.command()
def evaluate(
    a: Annotated[Path, typer.Argument(metavar="A", help="Folder of masks, a run, or one mask.")],
    b: Annotated[
        Path, typer.Argument(metavar="B", help="References: folder of masks, dataset, or one mask. Or a second run.")
    ],
    references: Annotated[
        Path | None, typer.Argument(metavar="[REF]", help="References, where A and B are two sets of masks.")
    ] = None,
    out: Annotated[Path | None, typer.Option("-o", "--out", help="Folder for tables and report.")] = None,
    metrics: Annotated[
        str, typer.Option(help="Which, with commas: dice,nsd,hd95_mm; all; usual. See docs/metrics.md.")
    ] = "",
    tolerance_mm: Annotated[float, typer.Option(help="Of the surface Dice (NSD).")] = 1.0,
    model: Annotated[Path | None, typer.Option(help="Run or bundle that knows the labels' names.")] = None,
    held_out: Annotated[bool, typer.Option("--held-out", help="Only the cases that the run --model held out.")] = False,
    by: Annotated[str | None, typer.Option(metavar="COLUMN", help="Also apart by a column of the manifest.")] = None,
    manifest: Annotated[Path | None, typer.Option(help="CSV with id and COLUMN, where B is no manifest.")] = None,
) -> None:
    """Measure masks A against references B; or compare two runs A and B; or masks A and B against REF."""
    from medseg import api, judging

    asked: dict[str, Any] = {"metrics": metrics.split(",")} if metrics else {}
    if references is None and not judging.measured(a, b):
        judge: dict[str, Any] = {"held_out": held_out, "by": by, "manifest": manifest, "model": model}
        typer.echo(api.evaluate(a, b, out, tolerance_mm=tolerance_mm, **judge, **asked).table())
        return
    if held_out or by or manifest:
        raise typer.BadParameter("--held-out, --by and --manifest are for masks against references, not for two runs")
    typer.echo(api.compare(a, b, references, out, tolerance_mm=tolerance_mm, model=model, **asked).table())


@app.command()
def check(
    data: Data,
    modality: Modality = None,
    fix: Annotated[Path | None, typer.Option(metavar="OUT", help="Write a repaired copy of the dataset there.")] = None,
    spacing: Annotated[
        tuple[float, float, float] | None,
        typer.Option(metavar="I J K", help="With --fix: voxel size of PNG, TIFF, JPEG in mm: columns, rows, pages."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Find what is wrong with a dataset before training; exit code 2 when training would fail."""
    from medseg import api

    if spacing and fix is None:
        raise typer.BadParameter("a size of voxels goes into a repaired copy: add --fix OUT", param_hint="--spacing")
    found: Any = (
        api.check(data, modality=modality)
        if fix is None
        else api.repair(data, fix, spacing_mm=spacing, modality=modality)
    )
    typer.echo(json.dumps(found.to_json(), indent=2) if as_json else found.table())
    raise typer.Exit(0 if found.ok else 2)


@app.command()
def plan(
    data: Data,
    settings: Settings = None,
    config: Preset = None,
    budget: Budget = None,
    device: AskedDevice = None,
    modality: Modality = None,
) -> None:
    """Show how a dataset would be trained here, with reasons, and what it would take."""
    from medseg import api

    options = _options(settings, {"device": device, "modality": modality})
    typer.echo(api.plan(data, preset=config, budget=budget, **options).table())


@app.command()
def demo(
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder of the run; must be new.")] = Path("medseg_demo"),
) -> None:
    """Train, predict, evaluate and report on synthetic scans, in under three minutes."""
    from medseg import api

    run = api.demo(out)
    typer.echo(f"masks:  {run / 'predictions'}\nreport: {run / 'report.html'}\nmodel:  {run / 'bundle'}")


@app.command()
def report(folder: Annotated[Path, typer.Argument(help="Folder of a run or an evaluation.")]) -> None:
    """Write the report of a run or an evaluation again."""
    from medseg import reporting

    typer.echo(reporting.report(folder))


@app.command()
def models(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="One of them: all its presets.")] = None,
    dims: Annotated[int, typer.Option(help="2 or 3: count for images or for volumes.")] = 3,
    page: Annotated[bool, typer.Option("--page", help="Print docs/models.md.")] = False,
) -> None:
    """List architectures with paper, family and parameters; of one, presets with operations and memory."""
    from medseg.models import _table

    typer.echo(_table.page() if page else _table.presets(name, dims) if name else _table.overview(dims), nl=not page)


@app.command()
def losses() -> None:
    """List losses with formula, paper, equation and options."""
    from medseg import losses as zoo

    typer.echo("\n\n".join(map(str, zoo.list_losses())))


@app.command()
def doctor() -> None:
    """Say what this machine is, for a question or a paper, and how it computes the models it has seen."""
    from medseg import arithmetic

    for name, value in system.facts().items():
        typer.echo(f"{name:18s} {value}")
    for record in arithmetic.remembered().values():
        typer.echo(record)


@app.command()
def cache(
    folder: Annotated[Path, typer.Argument(help="Folder of prepared cases (medseg_cache beside the runs).")],
) -> None:
    """Empty a cache of prepared cases; they are patient data."""
    from medseg import prepared

    typer.echo(f"removed {prepared.empty(folder)} prepared cases")


def _options(settings: list[str] | None, named: dict[str, Any]) -> dict[str, Any]:
    from medseg import config as configs

    given = {key: value for key, value in named.items() if value is not None}
    tree = configs.merge(configs.options(settings or []), given)
    if wrong := [name for name in tree if name not in configs.RunConfig.model_fields]:
        hint = _ELSEWHERE.get(wrong[0]) or did_you_mean(wrong[0], configs.RunConfig.model_fields)
        raise ConfigError(f"{wrong[0]}: unknown option. {hint}")
    return tree


_ELSEWHERE = {
    "preset": "A preset of configs/ is chosen with -c NAME, one of a model with model.preset=NAME.",
    "budget": "Write --budget 20m.",
    "resume": "Write --resume.",
}


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; a user's mistake, or a file that cannot be used, is one line and exit code 2, a signal during
    training exit code 75."""
    arguments = sys.argv[1:] if arguments is None else arguments
    words = [word for word in arguments if word != "--debug"]
    system.spin_briefly()
    if system.ranks()[0] == 0:  # of processes that train together one speaks
        progress.talk()
    try:
        raise SystemExit(app(words or ["--help"], prog_name="medseg", standalone_mode=False) or 0)
    except (MedsegError, UsageError, OSError) as error:
        if len(words) < len(arguments):
            raise
        stopped = isinstance(error, Interrupted)
        print(one_line(error) if stopped else f"error: {one_line(error)}", file=sys.stderr)
        raise SystemExit(75 if stopped else 2) from None
    except (KeyboardInterrupt, typer.Abort):
        print("stopped", file=sys.stderr)
        raise SystemExit(130) from None
