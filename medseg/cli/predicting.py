"""Commands that use a model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from medseg.cli._words import DEVICES
from medseg.errors import MedsegError

Model = Annotated[Path, typer.Argument(metavar="MODEL", help="Folder of a run, or a bundle.")]


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
    uncertainty: Annotated[
        bool,
        typer.Option(
            "--uncertainty",
            help="Write mean and variance of the probabilities over samples, which dropout makes differ.",
        ),
    ] = False,
    samples: Annotated[
        int | None, typer.Option(help="Passes with dropout; their mean makes the mask. 20 for --uncertainty.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of what dropout drops.")] = 0,
    crf: Annotated[
        str | None,
        typer.Option(metavar="default|KEY=VALUE,...", help="Refine by a dense CRF: theta_alpha=5,w1=2 and the like."),
    ] = None,
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
    device: Annotated[str, DEVICES] = "auto",
) -> None:
    """Segment scans; masks lie in each scan's own grid."""
    from medseg import api, config, objects

    how: dict[str, Any] = {"tta": tta, "compile": compile, "probabilities": probabilities, "stream": stream}
    how |= {"deidentify": deidentify, "remap_uids": remap_uids, "codes": codes}
    how |= {"uncertainty": uncertainty, "samples": samples, "seed": seed}
    how["crf"] = None if crf is None else config.options([] if crf == "default" else crf.split(","))
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
