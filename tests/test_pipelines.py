"""The recipes run on small scans, stay short, and use public names only."""

from __future__ import annotations

import ast
import csv
import json
import os
import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

import medseg

pytestmark = pytest.mark.usefixtures("no_charts")
FOLDER = Path(__file__).parents[1] / "pipelines"
RECIPES = sorted(FOLDER.glob("[!_]*.py"))  # the others are what several have in common


@pytest.fixture(autouse=True)
def beside_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """Recipes import what they have in common, as they do when one is started."""
    monkeypatch.syspath_prepend(str(FOLDER))


def load(name: str) -> ModuleType:
    """A recipe as a module, without running it."""
    module = ModuleType(name)
    exec(compile((FOLDER / f"{name}.py").read_text(encoding="utf-8"), f"{name}.py", "exec"), module.__dict__)
    return module


@pytest.fixture
def preset(tmp_path: Path, quick: dict[str, Any]) -> Path:
    """A few steps of a tiny network, as a YAML file."""
    path = tmp_path / "quick.yaml"
    path.write_text(
        yaml.safe_dump(
            {k: v for k, v in quick.items() if k != "sample"} | {"sample": {"patch": list(quick["sample"]["patch"])}}
        )
    )
    return path


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_it_is_short_and_over_public_names(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert 40 <= len(text.splitlines()) <= 100
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom):
            assert not str(node.module).startswith("medseg")
        if isinstance(node, ast.Import):
            assert not any(name.name.startswith("medseg.") for name in node.names)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "medseg":
            assert node.attr in medseg.__all__


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_its_head_says_what_it_needs_takes_leaves_and_gives(path: Path) -> None:
    head = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    assert all(f"\n{word}" in head for word in ("Needs:", "Takes:", "Leaves:", "Expect:"))
    assert f"python pipelines/{path.name}" in head


def test_train_and_predict_folder(
    tmp_path: Path, preset: Path, make_dataset: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    data, run, masks = make_dataset(tmp_path / "data"), tmp_path / "run", tmp_path / "masks"
    load("train").main([str(data), str(run), "--config", str(preset), "--fold", "0/2"])
    told = capsys.readouterr().out
    assert "training can start" in told
    assert "sample.patch: [16, 16, 8]" in told
    assert "mean Dice" in told
    assert (run / "report.html").is_file()

    scans = tmp_path / "scans"
    scans.mkdir()
    for scan in (data / "images").iterdir():
        (scans / scan.name).symlink_to(scan)
    (scans / "broken.nii.gz").write_text("no scan")
    with pytest.raises(SystemExit) as end:
        load("predict_folder").main([str(run), str(scans), str(masks)])
    assert end.value.code == 2  # of the broken one alone
    told = capsys.readouterr().out
    assert "broken: no mask: " in told
    assert {path.name for path in masks.glob("*.nii.gz")} == {path.name for path in (data / "images").iterdir()}
    for path in masks.glob("*.nii.gz"):
        assert medseg.read(path, "labels").geometry == medseg.read(scans / path.name).geometry
    with (masks / "volumes.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["case"] for row in rows] == [f"case_{n}" for n in range(4)]

    (scans / "broken.nii.gz").unlink()
    before = {path: path.stat().st_mtime_ns for path in masks.glob("*.nii.gz")}
    load("predict_folder").main([str(run), str(scans), str(masks)])
    assert {path: path.stat().st_mtime_ns for path in masks.glob("*.nii.gz")} == before


def test_loss_landscape(tmp_path: Path) -> None:
    recipe = load("loss_landscape")
    recipe.SIZE, recipe.OBJECTS = 32, {"large object": (5, "blue"), "small object": (1, "red")}
    recipe.main([str(tmp_path)])
    assert (tmp_path / "losses.png").stat().st_size > 10_000
    assert (tmp_path / "losses_table.md").read_text(encoding="utf-8").count("\n") == len(medseg.list_losses()) + 2
    costs = list(recipe.curve("dice", 5).values())
    assert costs == sorted(costs)
    assert costs[0] < 0.01 < 0.99 < costs[-1]


def test_compare_losses(
    tmp_path: Path,
    preset: Path,
    make_dataset: Callable[..., Path],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data, out, recipe = make_dataset(tmp_path / "data"), tmp_path / "out", load("compare_losses")
    for loss in recipe.LOSSES.values():
        medseg.create_loss(loss)
    words = [str(data), str(out), "tversky", "dice_boundary", "--config", str(preset), "--steps", "3"]
    with pytest.raises(medseg.MedsegError, match="Did you mean 'dice'"):
        recipe.main([str(data), str(out), "tversky", "dcie"])
    assert not out.exists()  # said before anything is trained
    recipe.main(words)
    rows = {row["name"]: row for row in json.loads((out / "table.json").read_text(encoding="utf-8"))}
    assert rows.keys() == {"tversky", "dice_boundary"}
    for name, row in rows.items():
        scores = json.loads((out / name / "metrics.json").read_text(encoding="utf-8"))
        assert row["Dice"] == pytest.approx(scores["mean_dice"])
        assert row["steps"] == 3
        assert {f"{title} {label}" for title in ("Dice", "HD95, mm", "NSD") for label in scores["labels"]} <= row.keys()
    assert (out / "dice.png").stat().st_size > 5_000
    table = (out / "table.md").read_text(encoding="utf-8")
    assert table in capsys.readouterr().out
    assert [line.split(" | ")[0] for line in table.splitlines()[2:]] == [f"| {name}" for name in rows]
    assert not list(out.glob(".*"))

    before = {name: (out / name / "bundle" / "config.json").stat().st_mtime_ns for name in rows}
    recipe.main(words)  # what has been done is not done again
    assert {name: (out / name / "bundle" / "config.json").stat().st_mtime_ns for name in rows} == before

    def stopped(*_: Any, **__: Any) -> None:
        raise medseg.Interrupted("stopped")

    monkeypatch.setattr(medseg, "train", stopped)
    with pytest.raises(medseg.Interrupted):  # and not the next loss
        recipe.main(words)


def test_predict_folder_names_the_odd_ones() -> None:
    outliers = load("predict_folder").outliers
    rows = {f"case_{n}": {"liver": 1500.0 + n, "cyst": 0.0} for n in range(5)}
    assert outliers({}) == []
    assert outliers(rows) == []
    rows |= {"shrunken": {"liver": 700.0, "cyst": 0.0}, "missed": {"liver": 0.0, "cyst": 4.0}}
    assert {(case, label, ml) for case, label, ml, _ in outliers(rows)} == {
        ("shrunken", "liver", 700.0),
        ("missed", "liver", 0.0),
        ("missed", "cyst", 4.0),
    }


@pytest.mark.slow
def test_cross_validate_as_a_program(
    tmp_path: Path, preset: Path, make_dataset: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    data, run = make_dataset(tmp_path / "data"), tmp_path / "run"
    words = [str(FOLDER / "cross_validate.py"), str(data), str(run), "--folds", "2", "--config", str(preset)]
    made = subprocess.run([sys.executable, *words], capture_output=True, text=True, env=os.environ, check=False)
    assert made.returncode == 0, made.stderr
    assert "fold 0: mean Dice" in made.stdout
    assert "fold 1: mean Dice" in made.stdout
    assert "ensemble of 2" in made.stdout
    assert "held-out cases, predicted once" in made.stderr  # a program says what it does
    assert (run / "report.html").is_file()
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit, match=r"\Aerror: .* already holds a run.*\Z"):
        runpy.run_path(words[0], run_name="__main__")


def test_compare_models(tmp_path: Path, preset: Path, make_dataset: Callable[..., Path]) -> None:
    data, out, recipe = make_dataset(tmp_path / "data"), tmp_path / "out", load("compare_models")
    words = ["--config", str(preset), "--steps", "3"]
    with pytest.raises(medseg.MedsegError, match="Did you mean 'vnet'"):
        recipe.main([str(data), str(out), "unet:tiny", "vnett", *words])
    with pytest.raises(medseg.MedsegError, match="unknown preset 'tiny:4'"):
        recipe.main([str(data), str(out), "unet:tiny:4", *words])
    assert not out.exists()
    recipe.main([str(data), str(out), "unet:tiny", "vnet:tiny", *words])
    rows = {row["name"]: row for row in json.loads((out / "table.json").read_text(encoding="utf-8"))}
    assert rows.keys() == {"unet_tiny", "vnet_tiny"}
    for name, row in rows.items():
        network = medseg.create_model(name[:4], preset="tiny", spatial_dims=3, in_channels=1, out_channels=3)
        assert row["parameters"] == sum(weight.numel() for weight in network.parameters())
        assert row["seconds a scan"] > 0
        assert row["steps"] == 3
        assert {"Dice", "HD95, mm", "NSD"} <= row.keys()
    assert (out / "quality.png").stat().st_size > 5_000
    assert (out / "dice.png").stat().st_size > 5_000
