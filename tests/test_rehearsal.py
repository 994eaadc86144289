from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from medseg import config as configs
from medseg.rehearsal import rehearse

pytestmark = pytest.mark.usefixtures("one_thread")


def test_a_plan_with_what_it_takes(tmp_path: Path, quick: dict[str, Any], make_dataset: Callable[..., Path]) -> None:
    found = rehearse(make_dataset(tmp_path / "data"), quick)
    assert found.steps == 4
    assert found.trial.step_s > 0
    assert found.run_s == pytest.approx(found.prepare_s + 4 * found.trial.step_s)
    assert 0 < found.disk_gb < 0.1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data"]  # nothing is kept
    lines = found.yaml().splitlines()
    assert all(comment.startswith("# ") for comment in lines[::2])
    settings = yaml.safe_load(found.yaml())
    assert settings["sample.patch"] == [16, 16, 8]
    assert settings["preprocess.spacing_mm"] == [1.0, 1.0, 2.0]
    for part in ("a step", "memory", "disk", "preparing", "4 steps on 1 cases"):
        assert part in found.table()


def test_a_plan_can_be_given_back_as_settings(
    tmp_path: Path, quick: dict[str, Any], make_dataset: Callable[..., Path]
) -> None:
    found = rehearse(make_dataset(tmp_path / "data"), quick)
    words = [f"{name}={value}" for name, value in yaml.safe_load(found.yaml()).items() if not name.startswith("model.")]
    given = configs.check(configs.options(words))
    assert given.preprocess == found.study.config.preprocess
    assert given.sample == found.study.config.sample


def test_a_budget_counts_steps(tmp_path: Path, quick: dict[str, Any], make_dataset: Callable[..., Path]) -> None:
    found = rehearse(make_dataset(tmp_path / "data"), configs.merge(quick, {"train": {"budget_s": 60.0}}))
    assert found.run_s == 60
    assert found.steps == pytest.approx((60 - found.prepare_s) / found.trial.step_s, rel=0.01)
