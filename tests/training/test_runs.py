from __future__ import annotations

import contextlib
import csv
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import medseg
from medseg import bundle, files, io, overrides
from medseg import config as configs
from medseg.data.layouts import find
from medseg.errors import BundleError, ConfigError, DataError, Interrupted, MedsegError, RunError
from medseg.resources import shipped
from medseg.training import runs
from medseg.volume import Geometry

pytestmark = pytest.mark.usefixtures("one_thread", "no_charts")
Make = Callable[..., Path]


def train(data: Path, folder: Path, quick: dict[str, Any], *, resume: bool = False, **changes: Any) -> Path:
    return runs.train(data, folder, overrides.merge(quick, changes), resume=resume)


def table(path: Path) -> list[dict[str, str]]:
    with path.open() as stream:
        return list(csv.DictReader(stream))


def parts(folder: Path) -> list[dict[str, list[str]]]:
    return json.loads((folder / "splits.json").read_text())


def comes_home(run: Path, data: Path) -> None:
    """Masks of held-out cases lie in the very grids of their images, and hold declared values alone."""
    cases = {case.id: case for case in find(data).cases}
    labels = bundle.read(run / "bundle").labels
    masks = sorted((run / "predictions").glob("*.nii.gz"))
    assert [io.stem(path) for path in masks] == sorted(name for part in parts(run) for name in part["held_out"])
    for path in masks:
        mask, image = io.read(path, "labels"), io.read_geometry(cases[io.stem(path)].images[0])
        assert mask.geometry.shape == image.shape
        assert np.allclose(mask.geometry.affine, image.affine, atol=1e-3)
        assert set(np.unique(mask.array)) <= {0, 1, *labels.values}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, quick: dict[str, Any]) -> Path:
    """A run on phantoms; module-wide, so nobody may change it."""
    folder = tmp_path_factory.mktemp("runs") / "mr"
    return train(shipped("sample_data/mr"), folder, quick, fold="0/8", sample={"patch": (32, 32, 32)})


@pytest.fixture(scope="module")
def ensemble(tmp_path_factory: pytest.TempPathFactory, quick: dict[str, Any], make_dataset: Make) -> Path:
    """A folder with `data` and a `run` of all its folds; nobody may change it."""
    root = tmp_path_factory.mktemp("ensemble")
    return train(make_dataset(root / "data"), root / "run", quick, fold="all/2").parent


@pytest.fixture
def folds(ensemble: Path, tmp_path: Path) -> tuple[Path, Path]:
    """Data, and a run of all folds, which may be changed."""
    root = shutil.copytree(ensemble, tmp_path / "folds")
    return root / "data", root / "run"


# --- what a run leaves


def test_the_folder_is_complete(run: Path) -> None:
    held_out = parts(run)[0]["held_out"]
    expected = {
        ".lock", "config.yaml", "plan.json", "environment.json", "splits.json", "log.txt", "history.csv",
        "metrics.csv", "scans.csv", "metrics.json", "report.html",
        "bundle/config.json", "bundle/model.safetensors", "bundle/README.md",
        "checkpoints/best.safetensors", "checkpoints/last.safetensors", "checkpoints/trial.json",
        "predictions/volumes.csv", "predictions/slicer.ctbl", "predictions/itksnap.txt", "pictures/index.json",
        *(f"predictions/{name}.nii.gz" for name in held_out),
    }  # fmt: skip
    there = {str(path.relative_to(run)) for path in run.rglob("*") if path.is_file()}
    assert expected <= there
    assert all(path.startswith("pictures/") or path == "cases.json" for path in there - expected)
    assert (run.parent / "medseg_cache/README.txt").is_file()


def test_masks_lie_in_their_scans_grids(run: Path) -> None:
    comes_home(run, shipped("sample_data/mr"))


def test_the_division_is_one(run: Path) -> None:
    (part,) = parts(run)
    together = part["held_out"] + part["train"] + part["validation"]
    assert sorted(together) == [case.id for case in sorted(find(shipped("sample_data/mr")).cases, key=lambda c: c.id)]
    assert len(part["held_out"]) == 3
    assert {row["case"] for row in table(run / "metrics.csv")} == set(part["held_out"])


def test_everything_it_stands_on_is_written(run: Path) -> None:
    config = configs.resolve(overrides.read(run / "config.yaml"), {})
    assert config.train.steps == 4
    assert config.augment.mirror_axes == (1, 2)  # the phantoms have a left and a right
    plan = json.loads((run / "plan.json").read_text())
    assert plan["fingerprint"]["cases"] == 21
    assert {"name", "value", "reason"} == set(plan["choices"][0])
    patch = next(choice for choice in plan["choices"] if choice["name"] == "sample.patch")
    assert patch == {"name": "sample.patch", "value": [32, 32, 32], "reason": "set by the user"}
    assert "torch" in json.loads((run / "environment.json").read_text())
    assert "4 steps" in (run / "log.txt").read_text()


def test_scores_are_in_the_bundle_and_its_card(run: Path) -> None:
    mean = json.loads((run / "metrics.json").read_text())["mean_dice"]
    described = bundle.read(run / "bundle")
    assert described.scores["held_out_dice"] == pytest.approx(mean, abs=1e-4)
    assert described.training["held_out_cases"] == 3
    assert "Research use only" in (run / "bundle/README.md").read_text()


def test_the_report_is_one_file_without_the_network(run: Path) -> None:
    page = (run / "report.html").read_text()
    assert 'src="http' not in page
    assert 'href="http' not in page
    assert all(name in page for name in parts(run)[0]["held_out"])


def test_nothing_in_the_run_names_a_path_of_the_data(run: Path) -> None:
    for name in ("config.yaml", "plan.json", "splits.json", "metrics.csv", "metrics.json", "log.txt", "report.html"):
        assert str(shipped("sample_data")) not in (run / name).read_text(), name


def test_the_run_predicts(run: Path, tmp_path: Path) -> None:
    scan = shipped("sample_data/mr") / "imagesTr"
    path = sorted(scan.glob("*.nii.gz"))[0]
    medseg.predict(run, path, tmp_path / "mask.nii.gz")
    assert io.read_geometry(tmp_path / "mask.nii.gz").shape == io.read_geometry(path).shape


# --- folders that are taken, and going on


def test_a_folder_with_a_run_is_refused(run: Path, quick: dict[str, Any]) -> None:
    before = files.sha256(run)
    with pytest.raises(RunError, match=r"already holds a run\. Add --resume"):
        train(shipped("sample_data/mr"), run, quick)
    assert files.sha256(run) == before


def test_a_folder_with_other_files_is_refused(tmp_path: Path, quick: dict[str, Any]) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(RunError, match="other files, but no run"):
        train(shipped("sample_data/mr"), tmp_path, quick)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize("resume", [False, True])
def test_a_file_is_no_folder(tmp_path: Path, quick: dict[str, Any], resume: bool) -> None:
    (tmp_path / "file").write_text("mine")
    for name in ("file", "file/run"):
        with pytest.raises(MedsegError, match="file"):
            train(shipped("sample_data/mr"), tmp_path / name, quick, resume=resume)


@pytest.mark.parametrize(
    ("data", "changes"),
    [
        ("absent", {}),
        ("sample_data/mr", {"modality": "CT,MR"}),
        ("sample_data/mr", {"fold": "0/99"}),
        ("sample_data/mr", {"device": "nonsense"}),
        ("sample_data/mr", {"model": {"preset": None, "name": "unet", "widths": (4,), "strides": (1,)}}),
    ],
)
def test_a_run_that_is_refused_leaves_nothing(
    tmp_path: Path, quick: dict[str, Any], data: str, changes: dict[str, Any]
) -> None:
    path = shipped(data) if data.startswith("sample") else tmp_path / data
    user = {key: value for key, value in quick.items() if key != "model"}
    with pytest.raises(MedsegError):
        train(path, tmp_path / "run", user, **changes)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("fold", "budget_s"), [("0/2", 1.0), ("all/2", 20.0)])
def test_a_budget_without_time_to_train_is_refused(
    tmp_path: Path, quick: dict[str, Any], make_dataset: Make, fold: str, budget_s: float
) -> None:
    data = make_dataset(tmp_path / "data")
    with pytest.raises(ConfigError, match=r"a budget of 10? s per model leaves no time to train.*--budget 20m"):
        train(data, tmp_path / "run", quick, fold=fold, train={"budget_s": budget_s})
    assert not (tmp_path / "run").exists()


def test_a_run_in_use_is_refused(tmp_path: Path, quick: dict[str, Any]) -> None:
    with files.lock(tmp_path / "run"), pytest.raises(RunError, match="in use by another medseg process"):
        train(shipped("sample_data/mr"), tmp_path / "run", quick)
    assert (tmp_path / "run/.lock").exists()


def test_an_interrupted_run_goes_on_to_the_same_model(
    tmp_path: Path, quick: dict[str, Any], make_dataset: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped in training, stopped after it, and resumed: as if nothing had happened."""
    data = make_dataset(tmp_path / "data")
    whole = train(data, tmp_path / "whole", quick)
    from medseg.training.loader import Batches

    call = Batches.__call__

    def stop(self: Batches, step: int) -> Any:
        if step == 2 and not (tmp_path / "parts/checkpoints/last.safetensors").exists():
            os.kill(os.getpid(), signal.SIGTERM)
        return call(self, step)

    with monkeypatch.context() as patched:
        patched.setattr(Batches, "__call__", stop)
        patched.setattr("medseg.training.trials.measure", _no_trial)  # it makes steps of its own, which must not be hit
        with pytest.raises(Interrupted, match="after step 3, saved"):
            train(data, tmp_path / "parts", quick)
    assert not (tmp_path / "parts/bundle").exists()
    with pytest.raises(MedsegError, match="has not finished"):
        medseg.load(tmp_path / "parts")
    with monkeypatch.context() as patched:
        patched.setattr("medseg.training.held_out.predict", _fail)
        with pytest.raises(DataError, match="no luck"):
            train(data, tmp_path / "parts", quick, resume=True)
    train(data, tmp_path / "parts", {}, resume=True)  # settings need not be given again
    for name in ("splits.json", "metrics.csv", "bundle/model.safetensors"):
        assert (tmp_path / "parts" / name).read_bytes() == (whole / name).read_bytes(), name
    rows = [
        [(r["step"], r["loss"], r["validation_dice"]) for r in table(p / "history.csv")]
        for p in (whole, tmp_path / "parts")
    ]
    assert rows[0] == rows[1]


def _no_trial(*arguments: Any, batch: int = 2) -> Any:
    from medseg.engine.trial import Trial

    return Trial("fp32", 0.01, {"fp32": 0.01}, batch, 0.1)


def _fail(*arguments: Any, **named: Any) -> Any:
    raise DataError("no luck")


def test_resuming_with_other_settings_names_them(run: Path, quick: dict[str, Any]) -> None:
    changes = {"seed": 3, "fold": "0/8", "train": {"batch": 5}, "sample": {"patch": (16, 16, 16)}}
    with pytest.raises(ConfigError, match=r"other settings \(seed, sample\.patch, train\.batch, inference\.window\)"):
        train(shipped("sample_data/mr"), run, quick, resume=True, **changes)


def test_a_run_whose_batch_was_halved_goes_on_as_it_was_asked_for(
    tmp_path: Path, quick: dict[str, Any], make_dataset: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`config.yaml` has the batch that was used; the same command resumes all the same."""

    def measure(model: Any, loss: Any, batches: Any, *_: Any) -> Any:
        if batches.size > 1:
            raise MemoryError
        return _no_trial(batch=1)

    data, user = make_dataset(tmp_path / "data"), overrides.merge(quick, {"train": {"batch": 3}})
    monkeypatch.setattr("medseg.training.trials.measure", measure)
    run = train(data, tmp_path / "run", user)
    stored = overrides.read(run / "config.yaml")
    assert stored["train"]["batch"] == bundle.read(run / "bundle").training["batch"] == 1
    assert {"widths", "norm"} <= stored["model"].keys()
    assert "preset" not in stored["model"]
    shutil.rmtree(run / "bundle")
    (run / "report.html").unlink()
    train(data, run, user, resume=True)
    assert bundle.read(run / "bundle").training["batch"] == 1
    with pytest.raises(ConfigError, match=r"other settings \(train\.batch\)"):
        train(data, run, user, train={"batch": 2}, resume=True)


def test_resuming_a_finished_run_changes_nothing(run: Path, quick: dict[str, Any]) -> None:
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file() and path.name != "log.txt"}
    train(shipped("sample_data/mr"), run, quick, resume=True, fold="0/8", sample={"patch": (32, 32, 32)})
    assert all(path.read_bytes() == content for path, content in before.items())


@pytest.mark.parametrize("budget_s", [None, "1200"])
def test_a_budget_is_compared_as_it_is_understood(run: Path, quick: dict[str, Any], budget_s: Any) -> None:
    changes = {"fold": "0/8", "sample": {"patch": (32, 32, 32)}, "train": {"budget_s": budget_s}}
    if budget_s is None:
        train(shipped("sample_data/mr"), run, quick, resume=True, **changes)
    else:
        with pytest.raises(ConfigError, match=r"other settings \(train\.budget_s\)"):
            train(shipped("sample_data/mr"), run, quick, resume=True, **changes)


def test_resuming_with_another_dataset_is_refused(run: Path) -> None:
    with pytest.raises(RunError, match=r"labelled cases that .* does not hold: mr_01"):
        runs.train(shipped("sample_data/ct"), run, {}, resume=True)


# --- divisions


def test_all_folds_make_an_ensemble_and_one_report(folds: tuple[Path, Path], quick: dict[str, Any]) -> None:
    data, run = folds
    first, second = parts(run)
    assert sorted(first["held_out"] + second["held_out"]) == [f"case_{n}" for n in range(4)]
    assert len(bundle.read(run / "bundle").weights) == 2
    assert {row["case"] for row in table(run / "metrics.csv")} == {f"case_{n}" for n in range(4)}
    for number, part in enumerate((first, second)):
        assert {row["case"] for row in table(run / f"fold_{number}/metrics.csv")} == set(part["held_out"])
    assert (run / "report.html").exists()
    described = bundle.read(run / "bundle")
    alone = [bundle.read(run / f"fold_{n}/bundle") for n in range(2)]
    assert described.training["steps"] == 4  # all members' alike
    scores = [member.scores["inner_dice"] for member in alone]
    assert scores[0] != scores[1]
    assert described.scores["inner_dice"] == scores
    assert "(one per member)" in (run / "bundle/README.md").read_text()
    scan = next((data / "images").iterdir())
    members = [medseg.load(run / f"fold_{n}")(scan, probabilities=True) for n in range(2)]
    both = medseg.load(run)(scan, probabilities=True)
    assert both.probabilities is not None
    assert len({member.mask.array.tobytes() for member in (*members, both)}) > 1  # members differ
    written = [path for path in run.rglob("*") if path.is_file() and path.name not in ("log.txt", ".lock")]
    before = {path: path.stat().st_mtime_ns for path in written}
    train(data, run, quick, fold="all/2", resume=True)
    assert {path: path.stat().st_mtime_ns for path in before} == before  # nothing is made again
    (run / "fold_1/report.html").unlink()
    train(data, run, quick, fold="all/2", resume=True)
    assert (run / "report.html").stat().st_mtime_ns > before[run / "report.html"]


def test_a_budget_is_shared_by_the_folds(tmp_path: Path, quick: dict[str, Any], make_dataset: Make) -> None:
    from medseg.training.study import settle

    user = overrides.merge(quick, {"fold": "all/2", "train": {"budget_s": 60.0}})
    assert [study.config.train.budget_s for study in settle(make_dataset(tmp_path), user)] == [30.0, 30.0]


def test_everything_may_be_learned_from(tmp_path: Path, quick: dict[str, Any], make_dataset: Make) -> None:
    """And who wants to go on with nothing begins."""
    run = train(make_dataset(tmp_path / "data"), tmp_path / "run", quick, fold="none", resume=True)
    assert parts(run)[0]["held_out"] == []
    assert not (run / "metrics.csv").exists()
    assert not (run / "predictions").exists()
    assert "held_out_dice" not in bundle.read(run / "bundle").scores
    assert (run / "report.html").exists()


def test_declared_test_cases_are_held_back_and_seen_by_nothing_else(
    tmp_path: Path, quick: dict[str, Any], make_dataset: Make
) -> None:
    data = make_dataset(tmp_path / "data", labels={"background": 0, "big": 1, "small": 2})
    for kind, name in (("images", "case_3_0000.nii.gz"), ("labels", "case_3.nii.gz")):
        (data / f"{kind}Ts").mkdir()
        shutil.move(data / f"{kind}Tr" / name, data / f"{kind}Ts" / name)
    run = train(data, tmp_path / "run", quick)
    assert parts(run)[0]["held_out"] == ["case_3"]
    assert sorted(parts(run)[0]["train"] + parts(run)[0]["validation"]) == ["case_0", "case_1", "case_2"]
    assert json.loads((run / "plan.json").read_text())["fingerprint"]["cases"] == 3


def test_parts_that_are_learned_are_not_learned_again_by_any_process(
    folds: tuple[Path, Path], quick: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped after its first part: all processes go on with the second, for each waits there for the others."""
    data, run = folds
    shutil.rmtree(run / "fold_1/bundle")
    learned: dict[int, list[str]] = {0: [], 1: []}
    for rank, found in learned.items():
        with monkeypatch.context() as patched:
            patched.setenv("RANK", str(rank))
            patched.setattr(
                "medseg.training.learning.learn", lambda study, part, *_, found=found, **__: found.append(part.name)
            )
            with contextlib.suppress(MedsegError):  # nothing was learned, so that there is no ensemble
                train(data, run, quick, fold="all/2", resume=True)
    assert learned == {0: ["fold_1"], 1: ["fold_1"]}
    report = run / "fold_0/report.html"
    report.unlink()  # the first process is still at the first part: the others wait for it before the second
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setattr("medseg.training.runs.time.sleep", lambda _: report.write_text("done"))
    monkeypatch.setattr(
        "medseg.training.learning.learn", lambda study, part, *_, **__: learned[1].append(report.read_text())
    )
    train(data, run, quick, fold="all/2", resume=True)
    assert learned[1] == ["fold_1", "done"]


@pytest.mark.slow
def test_two_processes_go_on_after_the_first_part(
    folds: tuple[Path, Path], tmp_path: Path, quick: dict[str, Any]
) -> None:
    """And learn the second one as a single process does with batches twice as large."""
    data, run = folds
    whole = train(data, tmp_path / "whole", quick, fold="1/2", train={"batch": 4})
    for path in (run / "fold_1", run / "bundle"):
        shutil.rmtree(path)
    first = (run / "fold_0/bundle/config.json").stat().st_mtime_ns
    words = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "medseg", "train"]
    ended = subprocess.run(  # 13 s on a quiet machine, more than two minutes on a busy one
        [sys.executable, *words, str(data), "-o", str(run), "--resume"],
        capture_output=True, text=True, check=False, timeout=600, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    assert len(bundle.read(run / "bundle").weights) == 2
    assert (run / "fold_0/bundle/config.json").stat().st_mtime_ns == first
    assert (run / "fold_1/report.html").exists()
    assert bundle.read(run / "fold_1/bundle").training["processes"] == 2
    ours, theirs = (load_file(path / "checkpoints/last.safetensors") for path in (run / "fold_1", whole))
    for name in (name for name in theirs if name.startswith("model/")):
        torch.testing.assert_close(ours[name], theirs[name], rtol=1e-3, atol=1e-3)  # adamw, rate 0.01


# --- a module of one's own


def test_a_module_of_ones_own(tmp_path: Path, quick: dict[str, Any], make_dataset: Make, own_modules: Path) -> None:
    """The run trusts its own configuration; whoever uses the bundle says that they trust the module."""
    (own_modules / "lab").mkdir()
    (own_modules / "lab/nets.py").write_text(
        "from torch import nn\n"
        "from medseg.settings import Settings\n"
        "class Config(Settings):\n    kernel: int = 3\n"
        "PRESETS = {}\n"
        "def build(config, *, spatial_dims, in_channels, out_channels):\n"
        "    return nn.Conv3d(in_channels, out_channels, config.kernel, padding=config.kernel // 2)\n"
    )
    data = make_dataset(tmp_path / "data")
    user = quick | {"model": {"name": "lab.nets"}}
    run = train(data, tmp_path / "run", user)
    comes_home(run, data)
    assert (run / "report.html").exists()
    assert overrides.read(run / "config.yaml")["model"] == {"name": "lab.nets", "kernel": 3}
    assert 'module="lab.nets"' in (run / "bundle/README.md").read_text()
    scan = next((data / "images").iterdir())
    with pytest.raises(BundleError, match=r"no code from files.*module='lab\.nets'"):
        medseg.predict(run, scan, tmp_path / "mask.nii.gz")
    assert medseg.load(run, module="lab.nets")(scan).mask.geometry.shape == (20, 18, 12)


# --- datasets of every kind


@pytest.mark.parametrize("name", ["ct", "two_channel", "oblique"])
def test_phantoms(tmp_path: Path, quick: dict[str, Any], name: str) -> None:
    data = shipped(f"sample_data/{name}")
    run = train(data, tmp_path / "run", quick, sample={"patch": (24, 24, 16)}, train={"steps": 2})
    comes_home(run, data)
    groups, (part,) = {case.id: case.group for case in find(data).cases}, parts(run)
    sides = [{groups[name] for name in part[side]} for side in ("held_out", "train", "validation")]
    assert sum(map(len, sides)) == len(set(groups.values()))  # none is divided
    kinds = [how.kind for how in bundle.read(run / "bundle").preprocess.intensity]
    assert kinds == {"ct": ["clip"], "two_channel": ["z_score"] * 2, "oblique": ["z_score"]}[name]


@pytest.mark.parametrize("name", ["unet", "pspnet"])
def test_pictures(tmp_path: Path, quick: dict[str, Any], name: str) -> None:
    """Plain images are learned in 2D, and a picture's mask is a picture of its size."""
    data = shipped("sample_data/slices")
    user = {key: value for key, value in quick.items() if key != "sample"}
    run = train(data, tmp_path / "run", user, model={"name": name, "preset": "tiny"})
    assert bundle.read(run / "bundle").spatial_dims == 2
    scan = sorted((data / "images").glob("*.png"))[0]
    medseg.predict(run, scan, tmp_path / "mask.png")
    mask, image = io.read(tmp_path / "mask.png", "labels"), io.read(scan)
    assert mask.geometry.shape == image.geometry.shape
    assert set(np.unique(mask.array)) <= {0, 1, 2}


@pytest.mark.parametrize("name", ["unet", "pspnet"])
def test_volumes_slice_by_slice(tmp_path: Path, quick: dict[str, Any], make_dataset: Make, name: str) -> None:
    """Networks of natural images too; a mask is a volume on the scan's grid, as from a network of volumes."""
    data = make_dataset(tmp_path / "data")
    user = {key: value for key, value in quick.items() if key != "sample"}
    run = train(data, tmp_path / "run", user, dims="2", model={"name": name, "preset": "tiny"})
    described = bundle.read(run / "bundle")
    assert (described.model["name"], described.spatial_dims, described.inference.window[2]) == (name, 2, 1)
    comes_home(run, data)


def test_overlapping_labels(tmp_path: Path, quick: dict[str, Any], make_dataset: Make) -> None:
    """nnU-Net's regions: one channel each, in training, in the mask and in the scores."""
    data = make_dataset(tmp_path / "data", labels={"background": 0, "whole": [1, 2], "core": [2]})
    run = train(data, tmp_path / "run", quick)
    described = bundle.read(run / "bundle")
    assert not described.labels.exclusive
    assert overrides.read(run / "config.yaml")["loss"]["activation"] == "sigmoid"
    name = parts(run)[0]["held_out"][0]
    assert io.read(run / f"predictions/{name}.nii.gz", "labels").array.shape == (2, 20, 18, 12)
    rows = {row["label"]: row for row in table(run / "metrics.csv") if row["case"] == name}
    voxel_ml = 2e-3
    reference = io.read(data / f"labelsTr/{name}.nii.gz", "labels").array
    assert float(rows["whole"]["reference_ml"]) == pytest.approx((reference > 0).sum() * voxel_ml, rel=1e-3)
    assert float(rows["core"]["reference_ml"]) == pytest.approx((reference == 2).sum() * voxel_ml, rel=1e-3)


def test_voxels_that_nobody_annotated(tmp_path: Path, quick: dict[str, Any], make_dataset: Make) -> None:
    """Value 2 is to be ignored: it is no label, and enters neither loss nor scores."""
    data = make_dataset(tmp_path / "data", labels={"background": 0, "big": 1, "ignore": 2})
    run = train(data, tmp_path / "run", quick)
    described = bundle.read(run / "bundle")
    assert (described.labels.names, described.labels.ignore) == (("big",), 2)
    assert {row["label"] for row in table(run / "metrics.csv")} == {"big"}
    comes_home(run, data)


# --- datasets that cannot be used


def test_a_mask_off_its_image_is_named_in_mm(tmp_path: Path, quick: dict[str, Any], make_dataset: Make) -> None:
    data = make_dataset(tmp_path / "data")
    mask = io.read(data / "labels/case_2.nii.gz", "labels")
    affine = mask.geometry.affine.copy()
    affine[2, 3] += 0.8
    io.write(mask.replace(geometry=Geometry(mask.geometry.shape, affine)), data / "labels/case_2.nii.gz")
    with pytest.raises(DataError, match=r"case_2: label .* 0\.8 mm.*medseg check") as caught:
        train(data, tmp_path / "run", quick, fold="none")
    assert "\n" not in str(caught.value)


def test_few_patients_are_divided_into_as_many_parts(
    tmp_path: Path, quick: dict[str, Any], make_dataset: Make, caplog: pytest.LogCaptureFixture
) -> None:
    """Unless more parts were asked for."""
    data = make_dataset(tmp_path / "data", cases=3)
    settings = {name: value for name, value in quick.items() if name != "fold"}
    (part,) = parts(runs.train(data, tmp_path / "run", settings))
    assert len(part["held_out"]) == 1
    assert "3 labelled patients: one of 3 parts is held back" in caplog.text
    with pytest.raises(MedsegError, match="4 folds need at least 4 labelled patients"):
        train(data, tmp_path / "other", quick, fold="0/4")


def test_one_patient_is_too_few(tmp_path: Path, quick: dict[str, Any], make_dataset: Make) -> None:
    data = make_dataset(tmp_path / "data", cases=1)
    with pytest.raises(MedsegError, match="at least 2 labelled patients"):
        train(data, tmp_path / "run", quick)
