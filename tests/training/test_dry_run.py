from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from medseg import config as configs
from medseg import overrides
from medseg.engine.trial import Trial
from medseg.training import trials
from medseg.training.dry_run import dry_run

pytestmark = pytest.mark.usefixtures("one_thread")


def test_a_plan_with_what_it_takes(tmp_path: Path, quick: dict[str, Any], make_dataset: Callable[..., Path]) -> None:
    found = dry_run(make_dataset(tmp_path / "data"), quick)
    assert found.steps == 4
    assert found.trial.step_s > 0
    assert found.run_s == pytest.approx(found.around_s + 4 * found.trial.step_s)
    assert 0 < found.disk_gb < 0.1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data"]  # nothing is kept
    lines = found.yaml().splitlines()
    assert all(comment.startswith("# ") for comment in lines[::2])
    settings = yaml.safe_load(found.yaml())
    assert settings["sample.patch"] == [16, 16, 8]
    assert settings["preprocess.spacing_mm"] == [1.0, 1.0, 2.0]
    for part in ("a step", "memory", "disk", "besides", "4 steps on 1 case"):
        assert part in found.table()


def test_a_plan_can_be_given_back_as_settings(
    tmp_path: Path, quick: dict[str, Any], make_dataset: Callable[..., Path]
) -> None:
    found = dry_run(make_dataset(tmp_path / "data"), quick)
    words = [f"{name}={value}" for name, value in yaml.safe_load(found.yaml()).items() if not name.startswith("model.")]
    given = configs.check(overrides.options(words))
    assert given.preprocess == found.study.config.preprocess
    assert given.sample == found.study.config.sample


def test_a_budget_counts_steps(tmp_path: Path, quick: dict[str, Any], make_dataset: Callable[..., Path]) -> None:
    found = dry_run(make_dataset(tmp_path / "data"), overrides.merge(quick, {"train": {"budget_s": 60.0}}))
    assert found.run_s == 60
    assert found.steps == pytest.approx((60 - found.around_s) / found.trial.step_s, rel=0.01)


@pytest.mark.parametrize("train", [{}, {"budget_s": 60.0}])
def test_all_folds_are_counted(
    tmp_path: Path, quick: dict[str, Any], make_dataset: Callable[..., Path], train: dict[str, Any]
) -> None:
    found = dry_run(make_dataset(tmp_path / "data"), overrides.merge(quick, {"fold": "all/2", "train": train}))
    assert found.models == 2
    whole = found.around_s + found.steps * found.trial.step_s
    if train:
        assert found.run_s == 60
        assert whole == pytest.approx(60, rel=0.01)
    else:
        assert found.steps == 2 * 4
        assert found.run_s == pytest.approx(whole)
    assert "on 1 case, for 2 models together" in found.table()


def test_a_budget_that_preparing_outlasts(
    tmp_path: Path, quick: dict[str, Any], make_dataset: Callable[..., Path]
) -> None:
    found = dry_run(make_dataset(tmp_path / "data"), overrides.merge(quick, {"train": {"budget_s": 1e-3}}))
    assert found.steps == 1  # as a run would make
    assert found.run_s >= found.around_s


def test_the_batch_is_halved_until_it_fits_as_in_a_run(
    tmp_path: Path, quick: dict[str, Any], make_dataset: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def measure(model: Any, loss: Any, batches: Any, *_: Any) -> Trial:
        if batches.size > 1:
            raise MemoryError
        return Trial("fp32", 0.01, {"fp32": 0.01}, batches.size, 0.1)

    monkeypatch.setattr(trials, "measure", measure)
    found = dry_run(make_dataset(tmp_path / "data"), quick)
    assert found.trial.batch == found.study.config.train.batch == 1
    assert "train.batch: 1" in found.yaml()
