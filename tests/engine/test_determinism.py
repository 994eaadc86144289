from __future__ import annotations

import os
from typing import Any

import pytest
import torch

from medseg.engine.determinism import deterministic


def switches() -> list[Any]:
    cudnn = torch.backends.cudnn
    filled = torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    return [torch.are_deterministic_algorithms_enabled(), cudnn.deterministic, cudnn.benchmark, filled]


@pytest.fixture
def workspace(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not set, and put back as it was."""
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "")
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")


def test_the_switches_are_set_and_put_back(workspace: None) -> None:
    before = switches()
    with deterministic(True):
        assert switches() == [True, True, False, False]
        assert torch.is_deterministic_algorithms_warn_only_enabled()
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    assert switches() == before
    assert not torch.is_deterministic_algorithms_warn_only_enabled()


def test_they_are_put_back_after_an_error(workspace: None) -> None:
    before = switches()
    with pytest.raises(SystemError), deterministic(True):
        raise SystemError
    assert switches() == before


def test_what_a_user_has_set_for_cublas_stays(workspace: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")
    with deterministic(True):
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":16:8"


def test_nothing_changes_where_it_is_not_wanted(workspace: None) -> None:
    before = switches()
    with deterministic(False):
        assert switches() == before
        assert "CUBLAS_WORKSPACE_CONFIG" not in os.environ
