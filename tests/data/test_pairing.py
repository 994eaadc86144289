from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from medseg import io
from medseg.data.pairing import Pair, labels_in, pair_folders
from medseg.errors import DataError
from medseg.volume import Geometry, Volume


def mask(value: int) -> Volume:
    array = np.zeros((6, 5, 4), np.int16)
    array[2:4] = value
    return Volume(array, Geometry(array.shape, np.diag([-1.0, 1.5, 2, 1])), "labels")


def test_undeclared_labels_are_found() -> None:
    assert labels_in([Pair("x", mask(2), mask(5)), Pair("y", mask(2), mask(7))]).values == (2, 5, 7)
    with pytest.raises(DataError, match=r"negative values \(-1\) in x;"):
        labels_in([Pair("x", mask(2), mask(-1))])


def write_folder(folder: Path, *names: str) -> Path:
    for name in names:
        io.write(mask(1), folder / name)
    return folder


def test_folders_are_paired_by_name(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    predictions = write_folder(tmp_path / "p", "b.nii.gz", "a.nii.gz", "extra.nii.gz")
    references = write_folder(tmp_path / "r", "a.nii", "b.nrrd")
    (predictions / "volumes.csv").write_text("not a mask")
    (predictions / "._a.nii.gz").write_text("left by macOS")
    pairs = pair_folders(predictions, references)
    assert [pair.case for pair in pairs] == ["a", "b"]
    assert "extra" in caplog.text
    assert pair_folders(predictions / "b.nii.gz", references / "a.nii")[0].case == "a"


def test_references_may_be_a_whole_dataset(tmp_path: Path) -> None:
    """Its masks go by the ids of their cases, whatever their files are called, and its patients are known."""
    predictions = write_folder(tmp_path / "p", "a.nii.gz", "b.nii.gz")
    write_folder(tmp_path / "data", "scan_1.nii", "scan_2.nii", "mask_1.nii", "mask_2.nii")
    lines = ["id,image,label,group", "a,scan_1.nii,mask_1.nii,P1", "b,scan_2.nii,mask_2.nii,P1"]
    manifest = tmp_path / "data/cases.csv"
    manifest.write_text("\n".join(lines))
    pairs = pair_folders(predictions, manifest)
    assert [(pair.case, Path(str(pair.reference)).name, pair.group) for pair in pairs] == [
        ("a", "mask_1.nii", "P1"), ("b", "mask_2.nii", "P1"),
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["group", "Patient"])
def test_a_table_about_the_cases_knows_their_patients(tmp_path: Path, name: str) -> None:
    """Of masks alone, and of a dataset that knows none itself."""
    predictions = write_folder(tmp_path / "p", "a.nii.gz", "b.nii.gz")
    (tmp_path / "data").mkdir()
    references = write_folder(tmp_path / "data/labels", "a.nii.gz", "b.nii.gz")
    write_folder(tmp_path / "data/images", "a.nii.gz", "b.nii.gz")
    (tmp_path / "who.csv").write_text(f"id,{name}\na,P1\nb,P1\n")
    for where in (references, tmp_path / "data"):
        pairs = pair_folders(predictions, where, table=tmp_path / "who.csv")
        assert [pair.group for pair in pairs] == ["P1", "P1"]


def test_a_reference_without_prediction_is_refused(tmp_path: Path) -> None:
    predictions = write_folder(tmp_path / "p", "a.nii.gz", "bb.nii.gz")
    references = write_folder(tmp_path / "r", "a.nii.gz", "b.nii.gz")
    with pytest.raises(DataError, match=r"1 of 2 references .*: b; predictions without reference: bb"):
        pair_folders(predictions, references)
    write_folder(references, "a.nii")
    with pytest.raises(DataError, match="differ only in their ending"):
        pair_folders(references, references)
    with pytest.raises(DataError, match="no folder of masks: it is not there"):
        pair_folders(tmp_path / "nothing", references)


def test_some_cases_alone(tmp_path: Path) -> None:
    predictions = write_folder(tmp_path / "p", "a.nii.gz", "c.nii.gz")
    references = write_folder(tmp_path / "r", "a.nii.gz", "b.nii.gz", "c.nii.gz", "d.nii.gz")
    assert [pair.case for pair in pair_folders(predictions, references, {"a", "c"})] == ["a", "c"]
    with pytest.raises(DataError, match=r"1 of 2 references have no prediction of the same name: b"):
        pair_folders(predictions, references, {"a", "b"})
    with pytest.raises(DataError, match=r"lacks references of cases that count: e$"):
        pair_folders(predictions, references, {"a", "e"})
