from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from medseg import io
from medseg.data.layouts import find
from medseg.data.manifest import about_cases
from medseg.errors import DataError
from medseg.volume import Geometry, Volume


def table(root: Path, text: str, encoding: str = "utf-8") -> Path:
    """A manifest beside the images and masks of cases a and b."""
    array = np.zeros((4, 3, 2), np.uint8)
    for name in "ab":
        for folder, kind in (("images", "image"), ("labels", "labels")):
            io.write(Volume(array, Geometry((4, 3, 2), np.eye(4)), kind), root / folder / f"{name}.nii.gz")  # type: ignore[arg-type]
    (root / "dataset.csv").write_bytes(text.encode(encoding))
    return root


def test_csv(tmp_path: Path) -> None:
    rows = "id,image,label,group,split\nx,images/a.nii.gz,labels/a.nii.gz,p1,Train\ny,images/b.nii.gz,labels/b.nii.gz,p1,test\n"
    dataset = find(table(tmp_path, rows) / "dataset.csv")
    assert dataset.layout == "CSV manifest"
    assert dataset == find(tmp_path)
    assert [(case.id, case.group, case.split) for case in dataset.cases] == [("x", "p1", "train"), ("y", "p1", "test")]
    assert dataset.cases[0].label == tmp_path / "labels/a.nii.gz"
    assert dataset.channels == ("image",)


def test_csv_of_spreadsheets_and_channels(tmp_path: Path) -> None:
    rows = "ID ;T1;FLAIR;Label;\nx;images/a.nii.gz;images/b.nii.gz;labels/a.nii.gz;\n;;;;\ny;images/b.nii.gz;images/a.nii.gz;;\n"
    dataset = find(table(tmp_path, rows, "utf-8-sig"))
    assert dataset.channels == ("T1", "FLAIR")
    assert [path.name for path in dataset.cases[0].images] == ["a.nii.gz", "b.nii.gz"]
    assert [case.id for case in dataset.labelled] == ["x"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "column 'id'"),
        ("name,image\na,images/a.nii.gz\n", "column 'id'"),
        ("id,label\na,labels/a.nii.gz\n", "column 'id'"),
        ("id,T1,T1\na,images/a.nii.gz,images/a.nii.gz\n", "column 'id'"),
        ("id,id,image\na,b,images/a.nii.gz\n", "no name twice"),
        ("\n\n", "column 'id'"),
        ('id,image\na,"images/a.nii.gz\n', "not readable as a table.*unexpected end"),
        ("id,image,outline\na,images/a.nii.gz,labels/a.nii.gz\n", "column 'label' of a manifest"),
        ("id,image,mask,seg\na,images/a.nii.gz,labels/a.nii.gz,\n", "no name twice; it has: id, image, mask, seg"),
        ("id,image\na/b,images/a.nii.gz\n", "becomes a file's name"),
        ("id,image\na\n", "line 2"),
        ("id,image\na,images/a.nii.gz,more\n", "line 2"),
        ("id,image,split\na,images/a.nii.gz,\nb,images/b.nii.gz,fold1\n", "line 3: split.*fold1"),
        ("id,image,label\na,images/z.nii.gz,labels/a.nii.gz\n", "missing: images/z.nii.gz"),
        ("id,image,label\na,images/a.nii.gz,labels/a.nii.gz\na,images/b.nii.gz,\n", "used twice: a"),
        ("id,image\na,images/a.nii.gz\n", "has a label"),
        ("id,image\n", "no cases"),
    ],
)
def test_csv_malformed(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        find(table(tmp_path, text))


@pytest.mark.parametrize("name", ["mask", "Seg", "segmentation"])
def test_csv_with_another_word_for_the_label(tmp_path: Path, name: str) -> None:
    dataset = find(table(tmp_path, f"id,image,{name}\na,images/a.nii.gz,labels/a.nii.gz\n"))
    assert dataset.channels == ("image",)
    assert dataset.cases[0].label == tmp_path / "labels/a.nii.gz"


@pytest.mark.parametrize("name", ["Group", "patient", "PatientID", "patient_id", "Subject", "participant id"])
def test_csv_with_another_word_for_the_patient(tmp_path: Path, name: str) -> None:
    """Whose scans would else lie on both sides of a split, and count as those of several people."""
    rows = f"id,image,label,{name}\na,images/a.nii.gz,labels/a.nii.gz,p1\nb,images/b.nii.gz,labels/b.nii.gz,p1\n"
    assert [case.group for case in find(table(tmp_path, rows)).cases] == ["p1", "p1"]


def test_a_group_wins_over_other_words_for_it(tmp_path: Path) -> None:
    rows = "id,image,label,patient,group\na,images/a.nii.gz,labels/a.nii.gz,p1,family 3\n"
    case = find(table(tmp_path, rows)).cases[0]
    assert (case.group, case.about["patient"]) == ("family 3", "p1")


def test_csv_with_a_mask_among_its_channels(tmp_path: Path) -> None:
    dataset = find(table(tmp_path, "id,image,mask,label\na,images/a.nii.gz,images/b.nii.gz,labels/a.nii.gz\n"))
    assert dataset.channels == ("image", "mask")


def test_csv_in_another_encoding(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"is not in UTF-8\. Save it anew"):
        find(table(tmp_path, "id,image\nMüller,images/a.nii.gz\n", "latin-1"))


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_csv_cells_may_hold_lines_and_commas(tmp_path: Path, end: str) -> None:
    """What is no column's business, such as a note, is not asked for; quoted cells may hold anything."""
    rows = [
        "id,image,label,group",
        '"a","images/a.nii.gz",labels/a.nii.gz,"ward 3,',
        'bed 1"',
        "b,images/b.nii.gz,,x,extra",
    ]
    root = table(tmp_path, end.join(rows))
    with pytest.raises(DataError, match=r"line 4 has more cells than there are columns"):
        find(root)
    (root / "dataset.csv").write_bytes(end.join(rows[:3]).encode())
    assert [(case.id, case.group) for case in find(root).cases] == [("a", "ward 3,\nbed 1")]


def test_the_id_of_a_manifest_wins_over_the_hash_of_a_dicom_series(tmp_path: Path, shared_data: Path) -> None:
    root = table(tmp_path, "id,image,label\nhead,images/DOE,labels/a.nii.gz\n")
    series = shared_data / "A_hippo_dicom/Study1_13_HCropVolume"
    (root / "images/DOE").symlink_to(series, target_is_directory=True)
    assert [case.id for case in find(root).cases] == ["head"]


def test_columns_that_name_no_scans_are_about_the_cases(tmp_path: Path) -> None:
    rows = "id,image,label,site,age,field_T\na,images/a.nii.gz,labels/a.nii.gz,north,61,1.5\nb,images/b.nii.gz,labels/b.nii.gz,,58,3.0\n"
    dataset = find(table(tmp_path, rows))
    assert dataset.channels == ("image",)
    assert dataset.cases[0].about == {"site": "north", "age": "61", "field_T": "1.5"}
    assert dataset.cases[1].about["site"] == ""
    folders = "id,image,series,label\na,images/a.nii.gz,images,labels/a.nii.gz\n"
    assert find(table(tmp_path, folders)).channels == (
        "image",
        "series",
    )  # a folder that is there, as of a DICOM series
    missing = "id,image,T2,label\na,images/a.nii.gz,gone/a.nii.gz,labels/a.nii.gz\n"
    with pytest.raises(DataError, match=r"missing: gone/a\.nii\.gz"):
        find(table(tmp_path, missing))


def test_a_table_about_cases_needs_no_scans(tmp_path: Path) -> None:
    (tmp_path / "who.csv").write_text("ID;site\na;north\nb;south\n")
    assert about_cases(tmp_path / "who.csv") == {"a": {"site": "north"}, "b": {"site": "south"}}
    (tmp_path / "who.csv").write_text("case,site\na,north\n")
    with pytest.raises(DataError, match="needs a column 'id'; it has: case, site"):
        about_cases(tmp_path / "who.csv")
    (tmp_path / "who.csv").write_text("id,site\na,north\nb,south\na,north\n")
    assert about_cases(tmp_path / "who.csv")["a"] == {"site": "north"}
    (tmp_path / "who.csv").write_text("id,site\na,north\na,south\n")
    with pytest.raises(DataError, match="line 3: 'a' stood there with other words"):
        about_cases(tmp_path / "who.csv")
