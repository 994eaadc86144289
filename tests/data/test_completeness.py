from collections.abc import Callable
from pathlib import Path

import pytest

import medseg
from medseg import io
from medseg.data import completeness, layouts
from medseg.data.cases import Case, Dataset
from medseg.errors import DataError


def test_cases_without_all_channels_are_left_out_and_the_others_go_on(
    tmp_path: Path, make_dataset: Callable[..., Path]
) -> None:
    root = make_dataset(tmp_path / "raw", channels=2, labels={"background": 0, "box": 1, "other": 2})
    (root / "imagesTr/case_1_0001.nii.gz").unlink()
    with pytest.raises(DataError, match=r"names 2 channels, but 1 of 4 differ: case_1 has 1. Complete them, or run"):
        layouts.find(root)
    assert [f.message for f in medseg.check(root).findings if f.code == "incomplete"] == [
        "2 channels are named, and it has 1"
    ]
    found = medseg.repair(root, tmp_path / "mended")
    assert "left_out  case_1: 2 channels are named, and it has 1" in found.table()
    assert [case.id for case in layouts.find(tmp_path / "mended").cases] == ["case_0", "case_2", "case_3"]


def test_each_file_is_looked_for_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[Path] = []
    monkeypatch.setattr(io, "exists", lambda path: looked.append(path))
    images = [tmp_path / f"{n}.nii" for n in range(3)]
    cases = tuple(Case(path.stem, (path,), path.with_suffix(".nrrd")) for path in images)
    with pytest.raises(DataError, match=r"6 of 6 files of .* are missing: 0.nii, 0.nrrd, 1.nii and 3 more"):
        completeness.check(Dataset("a", "a list", cases, None, (), tmp_path), whole=True, files=0)
    assert len(looked) == 6
