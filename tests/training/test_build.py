from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from medseg import overrides
from medseg.errors import ConfigError
from medseg.training import build
from medseg.training.study import Study, settle

pytestmark = pytest.mark.usefixtures("one_thread")
Make = Callable[..., Path]


def test_batches_are_the_studys(study: Study, tmp_path: Path) -> None:
    drawn = build.batches(study, build.cases(study, study.inner.train, tmp_path / "cache"), torch.device("cpu"))
    image, target = drawn(0)
    assert image.shape == (2, 1, 16, 16, 8)
    assert target.shape == (2, 16, 16, 8)
    assert set(target.unique().tolist()) <= {0, 1, 2}


def test_overlapping_labels_have_a_channel_each(tmp_path: Path, quick: dict[str, Any], make_dataset: Make) -> None:
    data = make_dataset(tmp_path / "data", labels={"background": 0, "whole": [1, 2], "core": [2]})
    (study,) = settle(data, overrides.merge(quick, {}))
    cases = build.cases(study, study.inner.train, tmp_path / "cache")
    assert build.batches(study, cases, torch.device("cpu"))(0)[1].shape == (2, 2, 16, 16, 8)
    assert build.network(study).eval()(torch.zeros(1, 1, 16, 16, 8)).shape == (1, 2, 16, 16, 8)


def test_what_cannot_be_divided_is_said(study: Study) -> None:
    model = {"name": "icnet", "preset": "tiny"}
    divided = study.config.model_copy(
        update={"model": model, "train": study.config.train.model_copy(update={"strategy": "fsdp"})}
    )
    with pytest.raises(ConfigError, match=r"model 'icnet' is without strategy=fsdp .* Use train.strategy=ddp"):
        build.network(dataclasses.replace(study, config=divided))
