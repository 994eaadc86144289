"""The verbs behind the command line, notebooks and recipes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from medseg import cohort, conversion, dense_crf, doctor, files, layouts, objects, progress, repairing, runs, scans
from medseg import config as configs
from medseg.findings import Report
from medseg.io import dicom
from medseg.io.dicom import Listing
from medseg.judging import compare as compare
from medseg.judging import evaluate as evaluate
from medseg.predictor import Predictor
from medseg.rehearsal import Rehearsal, rehearse
from medseg.repairing import Repaired
from medseg.resources import shipped
from medseg.settings import parse
from medseg.uncertainty import Config as Sampling

_DEMO_DICE = 0.7


def check(data: str | Path, *, modality: str | None = None) -> Report:
    """What is wrong with a dataset; see `medseg.findings.Report`."""
    return doctor.check(layouts.find(data, modality, whole=False))


def repair(
    data: str | Path, out: str | Path, *, spacing_mm: Sequence[float] | None = None, modality: str | None = None
) -> Repaired:
    """Write a repaired copy of a dataset; see `medseg.repairing.Repaired`.

    Masks that drifted or have no header take their image's grid, pictures of masks become numbers, floats become integers. What
    cannot be mended without guessing is named and left out; the original stays as it is.

    Args:
        data: a dataset in any known layout.
        out: a new folder for the copy.
        spacing_mm: of plain images (PNG, TIFF, JPEG), which hold none: of columns, rows and pages.
        modality: as for `check`.
    """
    return repairing.repair(layouts.find(data, modality, whole=False), out, spacing_mm)


def plan(data: str | Path, *, preset: str | None = None, budget: str | None = None, **settings: Any) -> Rehearsal:
    """How a dataset would be trained on this machine, with a few real steps measured; nothing is kept."""
    return rehearse(data, _user(preset, budget, settings))


def train(
    data: str | Path,
    folder: str | Path,
    *,
    preset: str | None = None,
    budget: str | None = None,
    resume: bool = False,
    **settings: Any,
) -> Path:
    """Train a model on a folder of labelled scans; leaves bundle, predictions of held-out cases and report.

    Args:
        data: a dataset in any known layout.
        folder: of the run.
        preset: a name out of `configs/`, or a YAML file.
        budget: wall clock for everything, such as "20m"; otherwise `train.steps` counts.
        resume: go on with an interrupted run.
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
            f"Dice {dice:.2f} is not what the demo is worth: this machine is slow, or busy with something else"
        )
    return run


def _user(preset: str | None, budget: str | None, settings: Mapping[str, Any]) -> dict[str, Any]:
    tree = configs.preset(preset) if preset else {}
    if budget:
        tree = configs.merge(tree, {"train": {"budget_s": configs.duration_s(budget)}})
    return configs.merge(tree, configs.named(settings))


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
        tta: average over mirrored scans.
        compile: compile the network before the first scan: some ten seconds and more, for windows that are a fifth quicker. It
            needs a C++ compiler.
        module: import path of your own module, where the model is one: no code comes from files, so that you must name it.
        samples: predict by the mean of so many answers that dropout makes differ (Monte Carlo dropout); of an ensemble without dropout
            by its members. `predictor(scan, probabilities=True)` then holds their `variances` too.
        seed: of what is dropped.
        crf: refine by a dense CRF; `{}`, or what differs from `medseg.dense_crf.Config`.
    """
    asked = None if samples is None else parse(Sampling, {"samples": samples, "seed": seed}, "uncertainty")
    follows = None if crf is None else parse(dense_crf.Config, crf, "crf")
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
    """Write a model for machines without torch, or with smaller weights; `load` and `predict` take the folder like any model.

    Args:
        model: folder of a run, or a bundle.
        out: a new or empty folder.
        to: "onnx" or "openvino": networks, their description, and `runner.py`, which segments without torch and medseg; or
            "bundle": an ordinary one of smaller weights.
        int8: a labelled dataset, for convolutions in 8 bits: calibrated on some of its cases, the loss of Dice measured on others.
        weights: "fp16" or "int8", of a bundle; it computes in float32 all the same.
        module: import path of your own module, where the model is one. An exported network needs it no more.

    Returns:
        The folder.

    Raises:
        ConfigError: options that do not go together, or an architecture without ONNX.
        DataError: the folder holds files, or the dataset cannot be used.
        BundleError: the model cannot be exported, or computes something else once it is.
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
    """Segment scans, folders of scans, or DICOM series; see `load`, `medseg.cohort.predict` and, for masks in DICOM,
    `medseg.objects.Manner`.

    `uncertainty` writes mean and variance of the probabilities over samples, as many as `samples` says.
    """
    manner = objects.Manner(deidentify, remap_uids, Path(codes) if codes else None)
    if uncertainty and samples is None:
        samples = Sampling().samples
    predictor = load(model, device=device, tta=tta, compile=compile, samples=samples, seed=seed, crf=crf)
    found = scans.find([inputs] if isinstance(inputs, str | Path) else inputs, len(predictor.bundle.channels))
    how: dict[str, Any] = {"suffix": suffix, "probabilities": probabilities or uncertainty, "stream": stream}
    return cohort.predict(predictor, found, out, manner=manner, **how)


def list_series(source: str | Path) -> Listing:
    """The DICOM volumes in a file, a folder, a DICOMDIR or a zip, from headers alone; see `medseg.io.dicom.Listing`.

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
    """DICOM to NIfTI or NRRD, one file a volume, each with its facts in JSON; see `medseg.conversion.Config` for the options.

    Raises:
        ConfigError: an option of another value.
        DataError: nothing to convert.
    """
    given = {"format": format, "series": series, "channels": channels, "upright": upright}
    config = parse(conversion.Config, {**given, "allow_gaps": allow_gaps, "units": units}, "convert")
    return conversion.convert(source, target, config)
