from __future__ import annotations

from pathlib import Path

import pytest

from medseg import resources
from medseg.errors import MedsegError


@pytest.mark.parametrize(
    "name", ["configs", "configs/fast.yaml", "pipelines/train.py", "sample_data/mr", "docs/models.md"]
)
def test_shipped_files_are_found(name: str) -> None:
    assert resources.shipped(name).exists()


def test_the_wheels_own_files_come_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "site-packages" / "medseg"
    for place in (package / "_shipped", package.parent):
        (place / "configs").mkdir(parents=True)
    monkeypatch.setattr(resources, "_PACKAGE", package)
    assert resources.shipped("configs") == package / "_shipped" / "configs"
    (package / "_shipped" / "configs").rmdir()
    assert resources.shipped("configs") == package.parent / "configs"


def test_what_is_missing_is_said_in_one_line() -> None:
    with pytest.raises(MedsegError, match=r"holds no 'nothing'\. Install it again"):
        resources.shipped("nothing")
