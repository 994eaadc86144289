from __future__ import annotations

import os
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from PIL import Image

from medseg import io
from medseg.data.scans import Scan, find
from medseg.errors import DataError
from medseg.resources import shipped
from medseg.volume import Geometry, Volume

SERIES = shipped("sample_data") / "dicom" / "series"


def write(folder: Path, *names: str) -> list[Path]:
    for name in names:
        io.write(Volume(np.zeros((3, 3, 2), np.int16), Geometry((3, 3, 2), np.eye(4))), folder / name)
    return [folder / name for name in names]


def found(*inputs: str | Path) -> dict[str, list[str]]:
    return {item.id: [path.name for path in item.images] for item in find(inputs)}


def test_files_are_scans_under_their_own_names(tmp_path: Path) -> None:
    write(tmp_path, "a.nii.gz", "b.v2.nrrd")
    assert found(tmp_path / "a.nii.gz", tmp_path / "b.v2.nrrd") == {"a": ["a.nii.gz"], "b.v2": ["b.v2.nrrd"]}


def test_a_folder_of_scans_and_whatever_else_lies_there(tmp_path: Path) -> None:
    write(tmp_path, "b.nii.gz", "a.mha")
    for name in ("notes.txt", "._b.nii.gz", ".DS_Store"):
        (tmp_path / name).write_text("x")
    (tmp_path / "sub").mkdir()
    assert found(tmp_path) == {"a": ["a.mha"], "b": ["b.nii.gz"]}


def test_probabilities_beside_masks_are_no_scans(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(tmp_path, "a.nii.gz", "a_probabilities.nii.gz", "b_probabilities.nii.gz")
    assert found(tmp_path).keys() == {"a", "b_probabilities"}
    assert "set aside: 1 file of probabilities beside a mask" in caplog.text


def test_channels_as_nnunet_names_them(tmp_path: Path) -> None:
    write(tmp_path, "x_0001.nii.gz", "x_0000.nii.gz", "y_0000.nii.gz", "y_0001.nii.gz")
    assert found(tmp_path) == {n: [f"{n}_0000.nii.gz", f"{n}_0001.nii.gz"] for n in "xy"}
    assert found(tmp_path / "x_0000.nii.gz") == {"x": ["x_0000.nii.gz"]}


@pytest.mark.parametrize("names", [["amos_0004", "amos_0007"], ["p_0001", "p_0002"], ["scan_2020", "scan_2021"]])
def test_numbers_that_count_scans_are_part_of_their_names(tmp_path: Path, names: list[str]) -> None:
    write(tmp_path, *(f"{name}.nii.gz" for name in names))
    assert found(tmp_path) == {name: [f"{name}.nii.gz"] for name in names}
    assert found(*(tmp_path / f"{name}.nii.gz" for name in names)) == found(tmp_path)


def test_a_list_with_commas_is_one_scan(tmp_path: Path) -> None:
    a, b, c = write(tmp_path, "t1.nii.gz", "t2.nii.gz", "odd,name.nii.gz")
    assert found(f"{a},{b}") == {"t1": ["t1.nii.gz", "t2.nii.gz"]}
    assert found(f"{b},{a}") == {"t2": ["t2.nii.gz", "t1.nii.gz"]}
    assert found(c) == {"odd,name": ["odd,name.nii.gz"]}
    write(tmp_path, "p_0000.nii.gz", "p_0001.nii.gz")
    assert found(f"{tmp_path}/p_0000.nii.gz,{tmp_path}/p_0001.nii.gz") == {"p": ["p_0000.nii.gz", "p_0001.nii.gz"]}


@pytest.mark.parametrize("suffix", [".dcm", ""])
def test_a_dicom_folder_is_one_scan_without_a_patients_name(tmp_path: Path, suffix: str) -> None:
    folder = tmp_path / "Doe^Jane"
    folder.mkdir()
    for path in SERIES.iterdir():
        shutil.copy(path, folder / f"{path.stem}{suffix}")
    (only,) = find([folder])
    assert only.images == (folder,)
    assert len(only.id) == 12
    assert "Doe" not in only.id
    assert find([SERIES])[0].id == only.id, "the same series has the same name wherever it lies"
    assert find([tmp_path]) == [only]


def picture(path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(np.full((9, 10), 7, np.uint8)).save(path)


@pytest.mark.parametrize("name", ["thumbnail.jpg", "series/thumbnail.png"])
def test_a_picture_beside_dicom_slices_is_no_scan(tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture) -> None:
    export = tmp_path / "Doe^Jane"
    shutil.copytree(SERIES, export / "series")
    picture(export / name)
    (only,) = find([(export / name).parent])
    assert only == Scan(only.id, (export / "series",))
    assert f"set aside: 1 picture in the folder of the DICOM series {only.id}" in caplog.text
    assert "Doe" not in caplog.text


def test_a_volume_beside_dicom_slices_is_the_scan_and_pictures_alone_are_scans(tmp_path: Path) -> None:
    shutil.copytree(SERIES, tmp_path / "series")
    write(tmp_path / "series", "a.nii.gz")
    assert found(tmp_path / "series") == {"a": ["a.nii.gz"]}
    picture(tmp_path / "cells" / "one.png")
    picture(tmp_path / "cells" / "two.jpg")
    assert found(tmp_path / "cells") == {"one": ["one.png"], "two": ["two.jpg"]}


def test_series_below_a_folder_of_volumes_are_not_passed_over_in_silence(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(SERIES, tmp_path / "study" / "Doe^Jane")
    write(tmp_path / "study", "a.nii.gz")
    assert found(tmp_path / "study") == {"a": ["a.nii.gz"]}
    assert "set aside: 1 DICOM series below a folder of scans" in caplog.text
    assert "Doe" not in caplog.text


def test_scans_in_folders_below_are_told_and_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(tmp_path / "study", "a.nii.gz", "Doe^Jane/b.nii.gz", "Doe^Jane/later/c.nrrd", ".medseg-x/half.nii.gz")
    assert found(tmp_path / "study") == {"a": ["a.nii.gz"]}
    assert "left out: 2 scans in subfolders" in caplog.text
    assert "Doe" not in caplog.text
    (tmp_path / "export").mkdir()
    write(tmp_path / "export", "Doe^Jane/b.nii.gz")
    with pytest.raises(DataError, match=r"holds no scans\. 1 lie in its subfolders: name those"):
        find([tmp_path / "export"])


def test_one_mask_never_replaces_another(tmp_path: Path) -> None:
    write(tmp_path, "1/a.nii.gz", "2/a.nii.gz", "3/b.nii.gz", "3/b.nrrd")
    with pytest.raises(DataError, match="two scans share the name 'a'"):
        find([tmp_path / "1", tmp_path / "2"])
    with pytest.raises(DataError, match="two scans share the name 'b'"):
        find([tmp_path / "3"])


def test_nothing_to_segment(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no such scan: '.*missing\.nii\.gz'"):
        find([tmp_path / "missing.nii.gz"])
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(DataError, match=r"holds no scans\. Known files"):
        find([tmp_path])


def test_a_folder_that_may_not_be_read_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "locked").mkdir()
    scandir = os.scandir

    def refuse(folder: Any) -> Any:
        if Path(folder).name == "locked":
            raise PermissionError(13, "Permission denied", str(folder))
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(DataError, match=r"locked' cannot be read \(Permission denied\)"):
        find([tmp_path])


def test_each_volume_of_a_study_is_a_scan_and_the_rest_is_set_aside(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Two series in one folder, one of them a localizer; the third in a zip."""
    caplog.set_level("INFO", "medseg")
    study = tmp_path / "Doe^Jane"
    study.mkdir()
    for series in ("1.2.1", "1.2.2", "1.2.3"):
        for path in SERIES.iterdir():
            data = pydicom.dcmread(path)
            data.SeriesInstanceUID = series
            if series == "1.2.3":
                data.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
            data.save_as(study / f"{series}.{path.stem}")
    with zipfile.ZipFile(study / "more.zip", "w") as archive:
        for path in SERIES.iterdir():
            archive.write(path, path.name)
    scans = find([study])
    assert len(scans) == 3
    assert [image.parent for scan in scans[:2] for image in scan.images] == [study, study]
    assert {io.read(scan.images[0]).geometry for scan in scans} == {io.read_geometry(SERIES)}
    assert find([scans[0].images[0]]) == [scans[0]]
    assert f"set aside: {len(list(SERIES.iterdir()))} x localizer" in caplog.text
    assert "Doe" not in caplog.text
