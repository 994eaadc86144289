from __future__ import annotations

import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from medseg import __version__, bundle, io, system
from medseg.cli import main
from medseg.resources import shipped
from medseg.volume import Geometry, Volume

pytestmark = pytest.mark.usefixtures("one_thread")
Make = Callable[..., Path]
MR = str(shipped("sample_data/mr"))
QUICK = (
    "model.preset=tiny", "train.steps=2", "train.validations=1", "train.batch=2", "train.precision=fp32",
    "sample.patch=[16,16,8]",
)  # fmt: skip


class Ended(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Callable[..., Ended]:
    """Run the command line in this process."""

    def call(*words: object) -> Ended:
        capsys.readouterr()
        with pytest.raises(SystemExit) as caught:
            main([str(word) for word in words])
        out, err = capsys.readouterr()
        code = caught.value.code
        assert isinstance(code, int)
        return Ended(code, out, err)

    return call


@pytest.fixture
def refused(cli: Callable[..., Ended]) -> Callable[..., str]:
    """Run what must be refused: code 2 and one line, which is returned."""

    def call(*words: object) -> str:
        ended = cli(*words)
        lines = [line for line in ended.err.splitlines() if line.startswith("error: ")]
        assert ended.code == 2
        assert len(lines) == 1, ended.err
        assert ended.err.splitlines()[-1] == lines[0]
        assert "Traceback" not in ended.err
        return lines[0]

    return call


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, make_dataset: Make, quick: dict[str, Any]) -> Path:
    """A run of two channels, whose data lie beside it; nobody may change it."""
    from medseg import api

    root = tmp_path_factory.mktemp("model")
    data = make_dataset(root / "data", channels=2, labels={"background": 0, "big": 1, "small": 2})
    return api.train(data, root / "run", **quick)


# --- words on the command line

COMMANDS = ["train", "predict", "export", "evaluate", "check", "plan", "demo", "report", "models", "losses", "doctor"]


@pytest.mark.parametrize("words", [[], ["--help"]])
def test_help_lists_the_commands(cli: Callable[..., Ended], words: list[str]) -> None:
    ended = cli(*words)
    assert ended.code == 0
    for command in COMMANDS:
        assert f"  {command} " in ended.out
    assert "..." not in ended.out.partition("Commands:")[2]  # each is said in whole


def test_the_version_is_told(cli: Callable[..., Ended]) -> None:
    assert cli("--version")[:2] == (0, f"medseg {__version__}\n")


@pytest.mark.parametrize("command", [*COMMANDS, "cache"])
def test_every_command_has_help(cli: Callable[..., Ended], command: str) -> None:
    ended = cli(command, "--help")
    assert ended.code == 0
    assert f"Usage: medseg {command}" in ended.out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["frobnicate"], "error: No such command 'frobnicate'. See 'medseg --help'."),
        (["train"], "error: Missing argument 'DATA'. See 'medseg train --help'."),
        (["train", "x", "--budgte", "3m"], "error: No such option: --budgte"),
        (["train", "x", "--seed", "y", "-o", "z"], "error: Invalid value for '--seed'"),
        (["train", MR], "error: Invalid value for -o: a run needs a folder: -o runs/NAME."),
        (["predict", "x"], "error: Missing argument"),
        (["predict", "x", "y"], "error: Missing option '-o'"),
        (["export", "x"], "error: Missing option '-o'"),
    ],
)
def test_misused_words_are_one_line(refused: Callable[..., str], words: list[str], message: str) -> None:
    assert refused(*words).startswith(message)


def test_debug_shows_where_it_happened() -> None:
    from medseg.errors import ConfigError

    with pytest.raises(ConfigError, match="unnet"):
        main(["--debug", "train", MR, "-o", "nowhere", "model=unnet"])
    with pytest.raises(ConfigError, match="unnet"):
        main(["train", MR, "-o", "nowhere", "model=unnet", "--debug"])


def test_the_command_line_as_it_is_installed() -> None:
    """No traceback reaches a user's terminal, and with --debug one does."""
    words = [sys.executable, "-m", "medseg"]
    ended = subprocess.run([*words, "check", "absent"], capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert ended.stderr.startswith("error: no such dataset: 'absent'")
    assert ended.stderr.count("\n") == 1
    ended = subprocess.run([*words, "frobnicate", "--debug"], capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert "Traceback" in ended.stderr


# --- bad input: training


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("train.bach=3", "train.bach: unknown option. Did you mean 'batch'?"),
        ("model=unnet", "unknown model 'unnet'. Did you mean 'unet'?"),
        ("model=zzz", "unknown model 'zzz'. Known: "),
        ("loss=zzz", "unknown loss 'zzz'. Known: "),
        ("seed=x", "seed: expected a whole number, got 'x'"),
        ("--budget=soon", "a budget is written 90s, 20m or 2h"),
        ("--config=fats", "no preset or file 'fats'"),
        ("--fold=9/5", "fold: expected i/n"),
        ("--device=tpu", "device 'tpu' cannot be used here"),
        ("--modality=CT,MR", "modality names 2 channels, but the images have 1"),
        ("model.widths=[4]", "model: widths, strides, kernels and blocks need one item a stage"),
    ],
)
@pytest.mark.parametrize("command", ["train", "plan"])
def test_wrong_settings(refused: Callable[..., str], tmp_path: Path, command: str, word: str, message: str) -> None:
    if command == "plan" and word.startswith("--fold"):
        word = word.removeprefix("--")
    out = ["-o", tmp_path / "run"] if command == "train" else []
    assert refused(command, MR, *out, word).startswith(f"error: {message}")
    assert list(tmp_path.iterdir()) == []


def test_no_dataset(refused: Callable[..., str], tmp_path: Path) -> None:
    assert refused("train", tmp_path / "absent", "-o", tmp_path / "run").startswith("error: no such dataset: ")
    (tmp_path / "empty").mkdir()
    assert "no dataset that medseg knows" in refused("train", tmp_path / "empty", "-o", tmp_path / "run")
    for name in ("images", "labels"):
        (tmp_path / "empty" / name).mkdir()
    assert "holds no cases" in refused("train", tmp_path / "empty", "-o", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_dataset_without_labels(refused: Callable[..., str], tmp_path: Path, make_dataset: Make) -> None:
    data = make_dataset(tmp_path / "data")
    shutil.rmtree(data / "labels")
    (data / "labels").mkdir()
    assert "has a label" in refused("train", data, "-o", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_two_cases_of_one_id(refused: Callable[..., str], tmp_path: Path, make_dataset: Make) -> None:
    data = make_dataset(tmp_path / "data")
    shutil.copy(data / "images/case_0.nii.gz", data / "images/case_0.nii")
    message = refused("train", data, "-o", tmp_path / "run")
    assert "share a case's id" in message
    assert "Rename one" in message


def damage(data: Path, how: str) -> str:
    """Spoil case_1 in one way; returns what the message must say."""
    image, label = data / "imagesTr/case_1_0000.nii.gz", data / "labelsTr/case_1.nii.gz"
    if how == "truncated":
        image.write_bytes(image.read_bytes()[:500])
        return "case_1: "
    if how == "text":
        image.write_text("not a scan\n")
        return "case_1: "
    if how == "empty":
        label.write_bytes(b"")
        return "case_1"
    if how == "shape":
        io.write(Volume(np.ones((4, 4, 4), np.uint8), Geometry((4, 4, 4), np.eye(4)), "labels"), label)
        return "case_1: label has 4x4x4 voxels instead of 20x18x12"
    if how == "shifted":
        mask = io.read(label, "labels")
        affine = np.array(mask.geometry.affine)
        affine[0, 3] += 3
        io.write(mask.replace(geometry=Geometry(mask.geometry.shape, affine)), label)
        return "case_1: label is 3 mm off (origin differs along i)"
    if how == "value":
        mask = io.read(label, "labels")
        io.write(mask.replace(array=mask.array * 7), label)
        return "case_1: label values [7, 14] are not declared; declared are [0, 1, 2]"
    if how == "nan":
        array = np.full((20, 18, 12), 5, np.float32)
        array[3, 4, 5] = np.nan
        io.write(Volume(array, io.read_geometry(image)), image)
        return "case_1: the scan holds NaN or infinite values in 1 of its 4320 voxels"
    raise AssertionError(how)


@pytest.mark.parametrize("how", ["truncated", "text", "empty", "shape", "shifted", "value", "nan"])
def test_a_bad_case_is_named(refused: Callable[..., str], tmp_path: Path, make_dataset: Make, how: str) -> None:
    data = make_dataset(tmp_path / "data", labels={"background": 0, "big": 1, "small": 2})
    message = damage(data, how)
    assert message in refused("train", data, "-o", tmp_path / "run", "fold=none", *QUICK)
    left = [path for path in tmp_path.rglob("*") if ".medseg-" in path.name or ".making-" in path.name]
    assert left == []
    assert not (tmp_path / "run/bundle").exists()


def test_a_full_disk(
    refused: Callable[..., str], tmp_path: Path, make_dataset: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever it fills up: at the first file, in the cache, at the weights."""

    def full(*arguments: object, **named: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    data = make_dataset(tmp_path / "data")
    for target in ("pathlib.Path.write_text", "medseg.training.loader.np.save", "pathlib.Path.write_bytes"):
        with monkeypatch.context() as patched:
            patched.setattr(target, full)
            message = refused("train", data, "-o", tmp_path / target / "run", "fold=0/2", *QUICK)
        assert "space" in message.lower()
        assert not (tmp_path / target / "run/bundle").exists()
        left = [path for path in (tmp_path / target).rglob("*") if path.name.startswith((".medseg-", ".making-"))]
        assert left == []


def test_missing_data_are_told_before_a_folder_with_another_run(refused: Callable[..., str], model: Path) -> None:
    assert refused("train", "nowhere", "-o", model).startswith("error: no such dataset: 'nowhere'")


def test_a_folder_with_another_run(refused: Callable[..., str], model: Path) -> None:
    message = refused("train", MR, "-o", model)
    assert (
        message == f"error: '{model}' already holds a run. Add --resume to continue it, or name another folder with -o."
    )


# --- bad input: predicting and evaluating


def test_no_model(refused: Callable[..., str], tmp_path: Path) -> None:
    message = refused("predict", tmp_path, f"{MR}/imagesTr", "-o", tmp_path / "out")
    assert "holds no bundle" in message
    assert "Give a run folder or its bundle/" in message
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_a_model_with_a_changed_byte(refused: Callable[..., str], tmp_path: Path, model: Path, name: str) -> None:
    copy = shutil.copytree(model / "bundle", tmp_path / "bundle")
    content = bytearray((copy / name).read_bytes())
    content[len(content) // 2] ^= 0xFF
    (copy / name).write_bytes(content)
    scan = model.parent / "data/imagesTr/case_0_0000.nii.gz"
    message = refused("predict", copy, scan, "-o", tmp_path / "out")
    assert "Copy the bundle again" in message or "not a usable model" in message
    assert not (tmp_path / "out").exists()


def test_a_scan_of_other_channels(refused: Callable[..., str], tmp_path: Path, model: Path) -> None:
    assert bundle.read(model / "bundle").channels == ("sequence 0", "sequence 1")
    scan = model.parent / "data/imagesTr/case_0_0000.nii.gz"
    message = refused("predict", model, scan, "-o", tmp_path / "mask.nii.gz")
    assert "the model expects 2 channels, the scan has 1" in message
    assert not (tmp_path / "mask.nii.gz").exists()


@pytest.mark.parametrize("content", [None, b"", b"not a scan\n"])
def test_a_scan_that_is_none(refused: Callable[..., str], tmp_path: Path, model: Path, content: bytes | None) -> None:
    scan = tmp_path / "scan.nii.gz"
    if content is not None:
        scan.write_bytes(content)
    assert "scan" in refused("predict", model, f"{scan},{scan}", "-o", tmp_path / "out/mask.nii.gz")
    assert not (tmp_path / "out/mask.nii.gz").exists()


def test_one_bad_scan_of_many(cli: Callable[..., Ended], tmp_path: Path, model: Path) -> None:
    """The good ones are done, the bad one is named, and the code says that something failed."""
    scans = shutil.copytree(model.parent / "data/imagesTr", tmp_path / "scans")
    (scans / "case_1_0001.nii.gz").write_text("not a scan\n")
    ended = cli("predict", model, scans, "-o", tmp_path / "out")
    assert ended.code == 2
    assert (
        sum(line.startswith("error: 1 of 4 scans could not be segmented; case_1: ") for line in ended.err.splitlines())
        == 1
    )
    assert sorted(path.name for path in (tmp_path / "out").glob("*.nii.gz")) == [f"case_{n}.nii.gz" for n in (0, 2, 3)]


def test_one_file_for_many_scans(refused: Callable[..., str], tmp_path: Path, model: Path) -> None:
    scans = model.parent / "data/imagesTr"
    message = refused("predict", model, scans, "-o", tmp_path / "mask.nii.gz")
    assert message == "error: -o names one file, but there are 4 scans. Name a folder."


def test_nifti_by_the_name_that_convert_has_for_it(cli: Callable[..., Ended], tmp_path: Path, model: Path) -> None:
    assert cli("predict", model, model.parent / "data/imagesTr", "-o", tmp_path, "--format", "nifti").code == 0
    assert len(list(tmp_path.glob("*.nii.gz"))) == 4


@pytest.mark.parametrize(("name", "ending"), [("dicom-seg", "seg.dcm"), ("rtstruct", "rtstruct.dcm")])
def test_masks_in_dicom_for_dicom(
    cli: Callable[..., Ended], refused: Callable[..., str], tmp_path: Path, model: Path, name: str, ending: str
) -> None:
    series = shipped("sample_data") / "dicom" / "series"
    out, channels = tmp_path / "out", f"{series},{series}"  # the mask belongs to the first
    ended = cli("predict", model, channels, "-o", out, "--format", name, "--deidentify", "--remap-uids")
    assert ended.code == 0, ended.err
    assert "no longer refer to their scans" in ended.err
    (mask,) = out.glob(f"*.{ending}")
    assert mask.name == f"{io.stem(series)}.{ending}"
    assert io.read(mask, on=io.read_geometry(series)).array.ndim == 4
    scans = model.parent / "data/imagesTr"
    assert "is no DICOM series" in refused("predict", model, scans, "-o", out, "--format", name)
    assert "add --format dicom-seg or" in refused("predict", model, channels, "-o", tmp_path / "plain", "--deidentify")


@pytest.fixture(scope="module")
def doubting(tmp_path_factory: pytest.TempPathFactory, make_bundle: Make, make_dataset: Make) -> Path:
    """A model with dropout beside its data."""
    root = tmp_path_factory.mktemp("doubting")
    make_dataset(root / "data", cases=1)
    return make_bundle(root / "model", model={"name": "unet", "preset": "tiny", "dropout": 0.5})


def test_mean_and_variance_of_samples(
    cli: Callable[..., Ended], refused: Callable[..., str], tmp_path: Path, doubting: Path, model: Path
) -> None:
    words = ["predict", doubting, doubting.parent / "data/images", "-o"]
    assert cli(*words, tmp_path / "one", "--uncertainty", "--samples", 3).code == 0
    names = sorted(path.name for path in (tmp_path / "one").glob("*.nii.gz"))
    assert names == ["case_0.nii.gz", "case_0_probabilities.nii.gz", "case_0_variances.nii.gz"]
    assert io.read(tmp_path / "one/case_0_variances.nii.gz").array.max() > 0
    for name, more in (("again", ["--samples", 3]), ("seed", ["--samples", 3, "--seed", 1]), ("usual", [])):
        assert cli(*words, tmp_path / name, "--uncertainty", *more).code == 0
        arrays = [io.read(tmp_path / folder / names[2]).array for folder in ("one", name)]
        assert np.array_equal(*arrays) == (name == "again")
    assert cli(*words, tmp_path / "mask", "--samples", 2).code == 0
    assert [path.name for path in (tmp_path / "mask").glob("*.nii.gz")] == ["case_0.nii.gz"]
    assert "uncertainty.samples: expected" in refused(*words, tmp_path / "no", "--uncertainty", "--samples", 1)
    message = refused("predict", model, doubting.parent / "data/images", "-o", tmp_path / "no", "--uncertainty")
    assert "expected a model with dropout" in message
    assert not (tmp_path / "no").exists()


def test_an_exported_model_has_no_dropout_left(refused: Callable[..., str], tmp_path: Path, doubting: Path) -> None:
    from medseg import api

    pytest.importorskip("onnxruntime")
    api.export(doubting, tmp_path / "onnx")
    words = ["predict", tmp_path / "onnx", doubting.parent / "data/images", "-o", tmp_path / "out"]
    assert "lost it in an export" in refused(*words, "--uncertainty")


def test_a_dense_crf(
    cli: Callable[..., Ended], refused: Callable[..., str], tmp_path: Path, doubting: Path, make_bundle: Make
) -> None:
    scans, found = doubting.parent / "data/images", {}
    for name, words in (
        ("off", []),
        ("default", ["--crf", "default"]),
        ("wide", ["--crf", "theta_alpha=20,theta_beta=2"]),
    ):
        assert cli("predict", doubting, scans, "-o", tmp_path / name, "--probabilities", *words).code == 0
        found[name] = io.read(tmp_path / name / "case_0_probabilities.nii.gz").array
    assert np.abs(found["default"] - found["off"]).max() > 0.01
    assert np.abs(found["default"] - found["wide"]).max() > 1e-4
    words = ["predict", doubting, scans, "-o", tmp_path / "no", "--crf"]
    assert "Did you mean 'theta_alpha'" in refused(*words, "theta_alfa=3")
    assert "crf.w1: expected a number" in refused(*words, "w1=-1")
    assert "written key=value" in refused(*words, "strong")
    regions = {"items": [{"name": n, "values": v, "colour": (9, 9, 9)} for n, v in (("all", (1, 2)), ("core", (2,)))]}
    words[1] = make_bundle(tmp_path / "regions", labels=regions | {"exclusive": False})
    assert "labels exclude each other" in refused(*words, "default")
    assert not (tmp_path / "no").exists()


def test_an_unknown_format(refused: Callable[..., str], tmp_path: Path, model: Path) -> None:
    scans = model.parent / "data/imagesTr"
    message = refused("predict", model, scans, "-o", tmp_path / "out", "--format", "docx")
    assert "docx" in message
    assert not list(tmp_path.rglob("*docx*"))


def test_the_cases_that_a_run_held_out_alone(
    cli: Callable[..., Ended], refused: Callable[..., str], tmp_path: Path, model: Path
) -> None:
    """All references lie in one folder; those of the training cases are not missed."""
    words = ["evaluate", model / "predictions", model.parent / "data/labelsTr", "-o", tmp_path / "eval"]
    assert "have no prediction" in refused(*words, "--model", model)
    assert cli(*words, "--model", model, "--held-out").code == 0
    assert (tmp_path / "eval/metrics.csv").read_text() == (model / "metrics.csv").read_text()
    assert "name the run that held cases out" in refused(*words, "--held-out")
    assert "is not a run" in refused(*words, "--model", model / "bundle", "--held-out")
    copy = shutil.copytree(model / "predictions", tmp_path / "fewer")
    sorted(copy.glob("*.nii.gz"))[0].unlink()
    words[1] = copy
    assert "1 of 2 references have no prediction" in refused(*words, "--model", model, "--held-out")


def test_two_runs_and_two_sets_of_masks(
    cli: Callable[..., Ended], refused: Callable[..., str], tmp_path: Path, model: Path
) -> None:
    data, masks = model.parent / "data", model / "predictions"
    ended = cli("evaluate", model, model, "-o", tmp_path / "runs", "--metrics", "dice, assd_mm")
    assert ended.code == 0
    assert "B - A [95 % CI]" in ended.out
    assert (tmp_path / "runs/report.html").is_file()
    ended = cli("evaluate", masks, model, data, "-o", tmp_path / "masks")
    assert ended.code == 0
    assert " big " in ended.out or "big  " in ended.out  # the run knows the labels' names
    assert (tmp_path / "masks/comparison.csv").is_file()
    assert "Did you mean 'hd95_mm'" in refused("evaluate", model, model, "--metrics", "hd95")
    assert "not for two runs" in refused("evaluate", model, model, "--by", "site")
    assert "Name the references too" in refused("evaluate", model, model, "--tolerance-mm", "2")
    assert "Name the references too" in refused("evaluate", model, model, "--model", model)


def test_masks_that_do_not_go_together(refused: Callable[..., str], tmp_path: Path, model: Path) -> None:
    references = model.parent / "data/labelsTr"
    assert "no folder of masks" in refused("evaluate", tmp_path / "absent", references)
    (tmp_path / "masks").mkdir()
    assert refused("evaluate", tmp_path / "masks", references, "-o", tmp_path / "eval")
    assert not (tmp_path / "eval").exists()


def test_a_folder_that_may_not_be_read(
    refused: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def closed(*arguments: object, **named: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", "data/closed")

    monkeypatch.setattr("medseg.data.layouts.find", closed)
    assert refused("check", tmp_path) == (
        "error: 'data/closed' cannot be used: Permission denied. Check that it exists and that you may read and write it."
    )


def test_reports_of_nothing(refused: Callable[..., str], tmp_path: Path) -> None:
    assert "Give the folder of a run or evaluation" in refused("report", tmp_path)
    assert "no such folder" in refused("cache", tmp_path / "absent")


# --- bad input: exporting


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory, model: Path) -> Path:
    """The run as ONNX; nobody may change it."""
    from medseg import api

    for package in ("onnx", "onnxruntime", "onnxscript"):
        pytest.importorskip(package, reason="the extra `onnx` is not installed")
    return api.export(model, tmp_path_factory.mktemp("exported") / "onnx")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--to", "onxx"], "error: export.to: expected 'onnx', 'openvino' or 'bundle', got 'onxx'"),
        (["--to", "bundle"], "error: export: a bundle is written anew for smaller weights: add --weights fp16"),
        (["--to", "bundle", "--weights", "int4"], "error: export.weights: expected 'fp16' or 'int8', got 'int4'"),
        (["--to", "bundle", "--int8", "x"], "error: export: a bundle computes in float32"),
        (["--weights", "int8"], "error: export: weights are those of a bundle"),
        (["--int8", "absent"], "error: no such dataset: 'absent'"),
    ],
)
def test_exports_that_make_no_sense(
    refused: Callable[..., str], tmp_path: Path, model: Path, words: list[str], message: str
) -> None:
    assert refused("export", model, "-o", tmp_path / "out", *words).startswith(message)
    assert list(tmp_path.iterdir()) == []


def test_exports_of_and_into_the_wrong_folder(
    refused: Callable[..., str], tmp_path: Path, model: Path, exported: Path
) -> None:
    assert "holds files already" in refused("export", model, "-o", model)
    assert "no model there" in refused("export", tmp_path / "absent", "-o", tmp_path / "out")
    assert "was exported to onnx already" in refused("export", exported, "-o", tmp_path / "out")
    assert "computes on the CPU" in refused("predict", exported, model, "-o", tmp_path / "out", "--device", "cuda")


def test_eight_bits_need_masks(refused: Callable[..., str], tmp_path: Path, model: Path, make_dataset: Make) -> None:
    data = make_dataset(tmp_path / "data", channels=2, labels={"background": 0, "big": 1, "small": 2})
    for path in (data / "labelsTr").iterdir():
        path.unlink()
    assert "has a label" in refused("export", model, "-o", tmp_path / "out", "--int8", data)
    other = make_dataset(tmp_path / "other")
    assert "the model expects 2 channels, the scan has 1" in refused(
        "export", model, "-o", tmp_path / "out", "--int8", other
    )
    assert not (tmp_path / "out").exists()


def test_an_exported_network_with_a_changed_byte(refused: Callable[..., str], tmp_path: Path, exported: Path) -> None:
    folder = Path(shutil.copytree(exported, tmp_path / "model"))
    data = bytearray((folder / "model.onnx").read_bytes())
    data[1000] ^= 1
    (folder / "model.onnx").write_bytes(data)
    assert "'model.onnx' is not the file that was saved" in refused("predict", folder, MR, "-o", tmp_path / "out")


# --- what goes well


def test_from_training_to_evaluation(cli: Callable[..., Ended], tmp_path: Path, make_dataset: Make) -> None:
    data = make_dataset(tmp_path / "data", labels={"background": 0, "big": 1, "small": 2})
    run, masks = tmp_path / "run", tmp_path / "masks"
    assert cli("train", data, "-o", run, "--fold", "0/2", "--seed", 3, *QUICK).code == 0
    assert "seed: 3" in (run / "config.yaml").read_text()
    ended = cli("predict", run, data / "imagesTr", "-o", masks, "--tta")
    assert ended.code == 0
    assert ended.out.splitlines()[0].startswith("case_0: big ")
    ended = cli("evaluate", masks, data / "labelsTr", "-o", tmp_path / "eval", "--model", run)
    assert ended.code == 0
    assert all(name in ended.out for name in ("big", "small", "mean", "Dice"))
    assert (tmp_path / "eval/report.html").is_file()
    assert cli("report", run).out.strip() == str(run / "report.html")
    assert "removed 2 prepared cases" in cli("cache", tmp_path / "medseg_cache").out


def test_one_scan_of_two_channels(cli: Callable[..., Ended], tmp_path: Path, model: Path) -> None:
    scans = model.parent / "data/imagesTr"
    files = f"{scans / 'case_0_0000.nii.gz'},{scans / 'case_0_0001.nii.gz'}"
    assert cli("predict", model, files, "-o", tmp_path / "mask.nii.gz", "--probabilities").code == 0
    likely = io.read(tmp_path / "mask_probabilities.nii.gz").array
    assert likely.shape == (3, 20, 18, 12)
    assert np.allclose(likely.sum(0), 1, atol=1e-3)


@pytest.mark.parametrize("suffix", ["nrrd", "mha", "nii"])
def test_formats(cli: Callable[..., Ended], tmp_path: Path, model: Path, suffix: str) -> None:
    scans = model.parent / "data/imagesTr"
    assert cli("predict", model, scans, "-o", tmp_path, "--format", suffix).code == 0
    assert np.allclose(
        io.read_geometry(tmp_path / f"case_0.{suffix}").affine, io.read_geometry(scans / "case_0_0000.nii.gz").affine
    )


def test_an_exported_model(cli: Callable[..., Ended], tmp_path: Path, model: Path, make_dataset: Make) -> None:
    for package in ("onnx", "onnxruntime", "onnxscript"):
        pytest.importorskip(package, reason="the extra `onnx` is not installed")
    data, out = model.parent / "data", tmp_path / "int8"
    ended = cli("export", model, "-o", out, "--int8", data)
    assert ended.code == 0, ended.err
    assert ended.out == f"model: {out}\n"
    assert re.search(r"Dice on \d cases?: 0\.\d{4} in fp32, 0\.\d{4} in int8", ended.err)
    assert cli("predict", out, data / "imagesTr", "-o", tmp_path / "masks").code == 0
    assert len(list((tmp_path / "masks").glob("*.nii.gz"))) == 4


def test_check(cli: Callable[..., Ended], tmp_path: Path, make_dataset: Make) -> None:
    data = make_dataset(tmp_path / "data", labels={"background": 0, "big": 1, "small": 2})
    ended = cli("check", data)
    assert ended.code == 0
    assert "training can start" in ended.out
    damage(data, "value")
    ended = cli("check", data, "--json")
    found = json.loads(ended.out)
    assert (ended.code, found["ok"]) == (2, False)
    assert any(f["case"] == "case_1" and f["code"] == "undeclared" for f in found["findings"])
    assert "Traceback" not in ended.err


def test_check_writes_a_repaired_copy(
    cli: Callable[..., Ended], refused: Callable[..., str], tmp_path: Path, make_dataset: Make
) -> None:
    data = make_dataset(tmp_path / "data")
    path = data / "labels/case_1.nii.gz"
    mask = io.read(path, "labels")
    io.write(mask.replace(array=mask.array * 0.5 + mask.array * 0.5, kind="image"), path)
    ended = cli("check", data, "--fix", tmp_path / "mended")
    assert ended.code == 0
    assert "repaired  case_1: stored as float32" in ended.out
    assert "1 repair, 0 of 4 cases left out" in ended.out
    assert "--fix OUT" in refused("check", data, "--spacing", 1, 1, 2)
    assert "not empty" in refused("check", data, "--fix", tmp_path / "mended")


@pytest.mark.parametrize("words", [["plan"], ["train", "--dry-run"]])
def test_plans(cli: Callable[..., Ended], tmp_path: Path, make_dataset: Make, words: list[str]) -> None:
    data = make_dataset(tmp_path / "data")
    ended = cli(words[0], data, *words[1:], "fold=0/2", *QUICK)
    assert ended.code == 0
    for part in (
        "preprocess.spacing_mm: [1.0, 1.0, 2.0]",
        "# set by the user",
        "a step",
        "memory",
        "disk",
        "whole run",
    ):
        assert part in ended.out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data"]


@pytest.mark.parametrize("words", [["plan"], ["train", "--dry-run"]])
def test_a_plan_is_for_the_device_that_is_asked_for(refused: Callable[..., str], words: list[str]) -> None:
    """As a setting, and as an option, which wins."""
    assert "device 'tpu' cannot be used here" in refused(words[0], MR, *words[1:], "device=tpu")
    assert "device 'npu' cannot be used here" in refused(words[0], MR, *words[1:], "device=tpu", "--device", "npu")


def test_catalogues(cli: Callable[..., Ended]) -> None:
    assert "unet" in cli("models").out
    losses = cli("losses").out
    assert "\ndice_ce: Soft Dice plus cross entropy" in losses
    assert "    options   alpha=0.25, gamma=2" in losses
    assert all(name in cli("doctor").out for name in system.facts())


def test_the_page_of_models_is_of_all(refused: Callable[..., str]) -> None:
    assert "--page: the page is of all models, got 'unet' too" in refused("models", "unet", "--page")


@pytest.mark.slow
def test_a_signal_ends_with_its_own_code_and_resume_completes(tmp_path: Path, make_dataset: Make) -> None:
    """A real process, a real signal: 75 asks the queue of a cluster to start it again."""
    data, run = make_dataset(tmp_path / "data"), tmp_path / "run"
    long = [word for word in QUICK if "steps" not in word] + ["train.steps=100000", "train.save_every_s=0.01"]
    words = [sys.executable, "-m", "medseg", "train", str(data), "-o", str(run), "fold=0/2", *long]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(words, stderr=subprocess.PIPE, text=True, env=environment)
    patience = time.monotonic() + 60
    while not (run / "checkpoints/last.safetensors").exists() and time.monotonic() < patience:
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 75
    assert err.splitlines()[-1].startswith("stopped by a signal after step ")
    assert "--resume" in err
    assert "Traceback" not in err
    assert not (run / "bundle").exists()
    config = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(config.replace("steps: 100000", "steps: 5"))  # so that it ends soon
    ended = subprocess.run([*words[:7], "--resume"], capture_output=True, text=True, env=environment, check=False)
    assert ended.returncode == 0, ended.stderr
    assert (run / "report.html").is_file()
