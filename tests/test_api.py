from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import medseg
from medseg import io
from medseg.errors import ConfigError, DataError

pytestmark = pytest.mark.usefixtures("one_thread", "no_charts")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, make_dataset: Callable[..., Path]) -> Path:
    return make_dataset(tmp_path_factory.mktemp("api") / "data", labels={"background": 0, "big": 1, "small": 2})


@pytest.fixture(scope="module")
def run(data: Path, quick: dict[str, Any]) -> Path:
    return medseg.train(data, data.parent / "run", **quick)


def test_check(data: Path) -> None:
    assert medseg.check(data).ok


def test_plan(data: Path, quick: dict[str, Any]) -> None:
    assert medseg.plan(data, **quick).study.dataset.name == "big, small"


def test_names_stand_for_models_and_losses(data: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="unknown model 'unnet'"):
        medseg.train(data, tmp_path / "run", model="unnet")
    with pytest.raises(ConfigError, match="unknown loss 'dise'"):
        medseg.train(data, tmp_path / "run", loss="dise")
    with pytest.raises(ConfigError, match="20m"):
        medseg.train(data, tmp_path / "run", budget="soon")
    assert list(tmp_path.iterdir()) == []


def test_settings_win_over_a_preset(data: Path, quick: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("seed: 5\ntrain: {batch: 7, steps: 3}\nfold: 0/2\nmodel: {preset: tiny}\n")
    found = medseg.plan(data, preset=str(tmp_path / "mine.yaml"), train={"batch": 2}, sample={"patch": (16, 16, 8)})
    assert (found.study.config.seed, found.study.config.train.batch, found.study.config.train.steps) == (5, 2, 3)


def test_a_scan_by_path_by_volume_and_as_a_notebook_shows_it(run: Path, data: Path) -> None:
    path = data / "imagesTr/case_0_0000.nii.gz"
    predictor = medseg.load(run)
    by_path, by_volume = predictor(path), predictor(medseg.read(path))
    assert np.array_equal(by_path.mask.array, by_volume.mask.array)
    assert by_path.mask.geometry == io.read_geometry(path)
    assert set(by_path.volumes_ml) == {"big", "small"}
    counted = (by_path.mask.array == 1).sum() * by_path.mask.geometry.voxel_ml
    assert by_path.volumes_ml["big"] == pytest.approx(counted)
    assert "<table>" in by_path._repr_html_()


def test_predict_and_evaluate(run: Path, data: Path, tmp_path: Path) -> None:
    outcomes = medseg.predict(run, data / "imagesTr", tmp_path / "masks")
    assert [outcome.id for outcome in outcomes] == [f"case_{n}" for n in range(4)]
    assert not any(outcome.error for outcome in outcomes)
    result = medseg.evaluate(tmp_path / "masks", data / "labelsTr", tmp_path / "eval", model=run)
    assert {row["label"] for row in result.rows} == {"big", "small"}
    written = json.loads((tmp_path / "eval/metrics.json").read_text())
    assert written["mean_dice"] == pytest.approx(result.summary["mean_dice"])
    assert (tmp_path / "eval/report.html").is_file()


def test_a_mask_is_its_own_best_prediction(data: Path) -> None:
    result = medseg.evaluate(data / "labelsTr", data / "labelsTr")
    assert result.summary["mean_dice"] == 1
    assert {row["label"] for row in result.rows} == {"label 1", "label 2"}


def test_inputs_may_be_a_list(run: Path, data: Path, tmp_path: Path) -> None:
    scans = [data / "imagesTr/case_0_0000.nii.gz", data / "imagesTr/case_2_0000.nii.gz"]
    assert [outcome.id for outcome in medseg.predict(run, scans, tmp_path)] == ["case_0", "case_2"]
    with pytest.raises(DataError, match="no such scan"):
        medseg.predict(run, [*scans, "absent.nii.gz"], tmp_path)
