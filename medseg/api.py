"""The verbs behind the command line, notebooks and recipes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from medseg import cohort, files, overrides, progress
from medseg.crf.dense_crf import Config as Crf
from medseg.data import conversion, doctor, layouts, repairing, scans
from medseg.data.dicom_objects import DicomOptions
from medseg.data.findings import Report
from medseg.data.repairing import Repaired
from medseg.inference.uncertainty import Config as Sampling
from medseg.io import dicom
from medseg.io.dicom import Listing
from medseg.judging import compare as compare
from medseg.judging import evaluate as evaluate
from medseg.predictor import Predictor
from medseg.resources import shipped
from medseg.settings import parse
from medseg.training import runs
from medseg.training.dry_run import DryRun, dry_run

_DEMO_DICE = 0.7


def check(data: str | Path, *, modality: str | None = None) -> Report:
    """Find what is wrong with a dataset, before it is trained on."""
    return doctor.check(layouts.find(data, modality, whole=False))


def repair(
    data: str | Path, out: str | Path, *, spacing_mm: Sequence[float] | None = None, modality: str | None = None
) -> Repaired:
    """Write a repaired copy of a dataset.

    Masks that drifted or have no usable header take their image's grid, colours become label numbers, floats become integers. What
    cannot be repaired without guessing is named and left out; the original stays as it is.

    Args:
        data: a dataset in any known layout.
        out: a new folder for the copy.
        spacing_mm: voxel size along columns, rows and pages of plain images (PNG, TIFF, JPEG), whose files hold none.
        modality: as for `check`.
    """
    return repairing.repair(layouts.find(data, modality, whole=False), out, spacing_mm)


def plan(data: str | Path, *, preset: str | None = None, budget: str | None = None, **settings: Any) -> DryRun:
    """Plan how a dataset would be trained on this machine, and measure a few real steps; nothing is kept."""
    return dry_run(data, _user(preset, budget, settings))


def train(
    data: str | Path,
    folder: str | Path,
    *,
    preset: str | None = None,
    budget: str | None = None,
    resume: bool = False,
    **settings: Any,
) -> Path:
    """Train a model on labelled scans; the run folder then holds the model, masks of held-out cases and a report.

    Args:
        data: a dataset in any known layout.
        folder: of the run.
        preset: a name from `configs/`, or a YAML file.
        budget: wall-clock time for everything, such as "20m"; without it `train.steps` counts.
        resume: continue an interrupted run.
        settings: of `RunConfig`, nested: `model="vnet"`, `train={"batch": 2}`, `fold="1/5"`.

    Returns:
        The run folder, for `load`.

    Example:
        >>> run = medseg.train("Task04_Hippocampus", "runs/hippo", budget="20m")  # doctest: +SKIP
    """
    return runs.train(data, folder, _user(preset, budget, settings), resume=resume)


def demo(folder: str | Path) -> Path:
    """Train, predict, evaluate and report on synthetic scans, in under three minutes on two quiet cores."""
    run = train(shipped("sample_data/mr"), folder, budget="150s")
    if (dice := files.read_json(run / "metrics.json")["mean_dice"]) < _DEMO_DICE:
        progress.warn(
            f"Dice {dice:.2f} is lower than the demo usually reaches: this machine is slow, or busy with something else"
        )
    return run


def _user(preset: str | None, budget: str | None, settings: Mapping[str, Any]) -> dict[str, Any]:
    tree = overrides.preset(preset) if preset else {}
    if budget:
        tree = overrides.merge(tree, {"train": {"budget_s": overrides.duration_s(budget)}})
    return overrides.merge(tree, overrides.named(settings))


def load(
    model: str | Path,
    *,
    device: str = "auto",
    tta: bool = False,
    compile: bool = False,
    module: str | None = None,
    samples: int | None = None,
    seed: int = 0,
    crf: Mapping[str, Any] | None = None,
) -> Predictor:
    """The predictor of a run folder or a bundle; `predictor(scan)` gives a `Prediction`.

    Args:
        model: folder.
        device: "auto", "cpu", "cuda", "mps".
        tta: average over mirrored scans (test-time augmentation).
        compile: compile the network before the first scan. It takes ten seconds or more and a C++ compiler, and makes windows a
            fifth faster.
        module: import path of your own module, if the model is one: medseg runs no code from files, so you have to name it.
        samples: predict by the mean of this many passes with dropout on (Monte Carlo dropout), or of the members of an ensemble
            without dropout. `predictor(scan, probabilities=True)` then has `variances` too.
        seed: of the dropout.
        crf: refine the probabilities with a dense CRF; `{}`, or what differs from `medseg.crf.dense_crf.Config`.
    """
    asked = None if samples is None else parse(Sampling, {"samples": samples, "seed": seed}, "uncertainty")
    follows = None if crf is None else parse(Crf, crf, "crf")
    return Predictor(model, device=device, mirrors=tta, compile=compile, module=module, sampling=asked, crf=follows)


def export(
    model: str | Path,
    out: str | Path,
    *,
    to: str = "onnx",
    int8: str | Path | None = None,
    weights: str | None = None,
    module: str | None = None,
) -> Path:
    """Write a model for machines without torch, or one with smaller weights; `load` and `predict` take it like any model.

    Args:
        model: folder of a run, or a bundle.
        out: a new or empty folder.
        to: "onnx" or "openvino" write networks, their description, and `runner.py`, which segments without torch and medseg;
            "bundle" writes an ordinary bundle with smaller weights.
        int8: a labelled dataset: convolutions in 8 bits are calibrated on some of its cases, the loss of Dice is measured on others.
        weights: "fp16" or "int8", for a bundle; it still computes in float32.
        module: import path of your own module, if the model is one. An exported network no longer needs it.

    Returns:
        The folder.

    Raises:
        ConfigError: options that exclude each other, or an architecture that has no ONNX form.
        DataError: the folder is not empty, or the dataset cannot be used.
        BundleError: the model cannot be exported, or gives other results once it is.
    """
    from medseg import exporting

    config = parse(exporting.Config, {"to": to, "int8": int8, "weights": weights}, "export")
    return exporting.export(model, out, config, module)


def predict(
    model: str | Path,
    inputs: str | Path | Sequence[str | Path],
    out: str | Path,
    *,
    device: str = "auto",
    tta: bool = False,
    compile: bool = False,
    probabilities: bool = False,
    stream: bool = False,
    suffix: str = ".nii.gz",
    deidentify: bool = False,
    remap_uids: bool = False,
    codes: str | Path | None = None,
    uncertainty: bool = False,
    samples: int | None = None,
    seed: int = 0,
    crf: Mapping[str, Any] | None = None,
) -> list[cohort.Outcome]:
    """Segment scans, folders of scans, or DICOM series.

    Args:
        model: folder of a run, or a bundle.
        inputs: see `medseg.data.scans.find`.
        out: folder for the masks, or for a single scan the file of its mask.
        device, tta, compile, samples, seed, crf: see `load`.
        probabilities, stream, suffix: see `medseg.cohort.predict`.
        deidentify, remap_uids, codes: of masks in DICOM, see `medseg.data.dicom_objects.DicomOptions`.
        uncertainty: write mean and variance of the probabilities over `samples`, 20 unless you say otherwise.

    Returns:
        What became of each scan, in order; an error in one does not stop the others.
    """
    options = DicomOptions(deidentify, remap_uids, Path(codes) if codes else None)
    if uncertainty and samples is None:
        samples = Sampling().samples
    predictor = load(model, device=device, tta=tta, compile=compile, samples=samples, seed=seed, crf=crf)
    found = scans.find([inputs] if isinstance(inputs, str | Path) else inputs, len(predictor.bundle.channels))
    how: dict[str, Any] = {"suffix": suffix, "probabilities": probabilities or uncertainty, "stream": stream}
    return cohort.predict(predictor, found, out, dicom=options, **how)


def list_series(source: str | Path) -> Listing:
    """List the DICOM volumes in a file, a folder, a DICOMDIR or a zip, from headers alone; see `medseg.io.dicom.Listing`.

    Example:
        >>> found = medseg.list_series("study")  # doctest: +SKIP
        >>> volume = medseg.read(found.volumes[0].path)  # doctest: +SKIP
    """
    return dicom.find(source)


def convert(
    source: str | Path,
    target: str | Path,
    *,
    format: str = "nifti",
    series: str | None = None,
    channels: bool = False,
    upright: bool = False,
    allow_gaps: bool = False,
    units: str = "stored",
) -> list[conversion.Outcome]:
    """Convert DICOM to NIfTI or NRRD, one file per volume, with its facts in JSON; options: `medseg.data.conversion.Config`.

    Raises:
        ConfigError: an option has a wrong value.
        DataError: there is nothing to convert.
    """
    given = {"format": format, "series": series, "channels": channels, "upright": upright}
    config = parse(conversion.Config, {**given, "allow_gaps": allow_gaps, "units": units}, "convert")
    return conversion.convert(source, target, config)
