"""Commands that use a model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from medseg.cli._shared import DEVICES
from medseg.errors import MedsegError

if TYPE_CHECKING:
    from medseg.cohort import Outcome

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
            help="Write mean and variance of the probabilities over passes with dropout, or over an ensemble.",
        ),
    ] = False,
    samples: Annotated[
        int | None, typer.Option(help="Passes with dropout, whose mean gives the mask; 20 with --uncertainty.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the dropout.")] = 0,
    crf: Annotated[
        str | None,
        typer.Option(metavar="default|KEY=VALUE,...", help="Refine with a dense CRF, such as theta_alpha=5,w1=2."),
    ] = None,
    stream: Annotated[
        bool, typer.Option("--stream", help="Write to disk as parts come, with less memory: for very large scans.")
    ] = False,
    compile: Annotated[
        bool, typer.Option("--compile", help="Compile the network first: worth it for several minutes of work.")
    ] = False,
    format: Annotated[
        str,
        typer.Option(
            help="Of masks in a folder: nii.gz or nifti, nii, nrrd, mha, png; for DICOM series dicom-seg, rtstruct."
        ),
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
    """Segment scans; masks lie on each scan's own grid."""
    from medseg import api, overrides
    from medseg.data import dicom_objects

    how: dict[str, Any] = {"tta": tta, "compile": compile, "probabilities": probabilities, "stream": stream}
    how |= {"deidentify": deidentify, "remap_uids": remap_uids, "codes": codes}
    how |= {"uncertainty": uncertainty, "samples": samples, "seed": seed}
    how["crf"] = None if crf is None else overrides.options([] if crf == "default" else crf.split(","))
    suffix = {"nifti": ".nii.gz", **dicom_objects.FORMATS}.get(format) or "." + format.lstrip(".")
    _tell(api.predict(model, inputs, out, device=device, suffix=suffix, **how))


def _tell(outcomes: Sequence[Outcome]) -> None:
    """Print the volumes of each scan.

    Raises:
        MedsegError: a scan has no mask.
    """
    for outcome in outcomes:
        if outcome.volumes_ml is not None:
            typer.echo(f"{outcome.id}: {', '.join(f'{name} {ml:.3g} ml' for name, ml in outcome.volumes_ml.items())}")
    if failed := [outcome for outcome in outcomes if outcome.error]:
        first = f"{failed[0].id}: {failed[0].error}"
        several = f"{len(failed)} of {len(outcomes)} scans could not be segmented; " if len(outcomes) > 1 else ""
        raise MedsegError(several + first)


def export(
    model: Model,
    out: Annotated[Path, typer.Option("-o", "--out", help="New folder, which holds all that prediction needs.")],
    to: Annotated[str, typer.Option(help="onnx, openvino (no torch needed), bundle (smaller weights).")] = "onnx",
    int8: Annotated[
        Path | None, typer.Option(metavar="DATA", help="Compute in 8 bits, tuned and tested on these scans.")
    ] = None,
    weights: Annotated[str | None, typer.Option(help="Of a bundle: fp16 or int8.")] = None,
) -> None:
    """Write a model for a PC without torch, or with smaller weights."""
    from medseg import api

    typer.echo(f"model: {api.export(model, out, to=to, int8=int8, weights=weights)}")
