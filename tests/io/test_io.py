import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from medseg import io
from medseg.errors import DataError
from medseg.volume import Geometry, Volume

MASK = Volume(np.ones((3, 4, 1), np.uint8), Geometry((3, 4, 1), np.eye(4)), "labels")


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("case_1.nii.gz", "case_1"),
        ("CASE.NII.GZ", "CASE"),
        ("a.b.nrrd", "a.b"),
        ("folder/x.png", "x"),
        ("scan_1.5T", "scan_1.5T"),
    ],
)
def test_a_stem_is_the_name_without_its_ending(name: str, stem: str) -> None:
    assert io.stem(name) == stem


def test_the_parts_of_a_scan(tmp_path: Path) -> None:
    import nibabel as nib
    import SimpleITK as sitk

    io.write(MASK, tmp_path / "a.nii.gz")
    assert io.parts(tmp_path / "a.nii.gz") == [tmp_path / "a.nii.gz"]
    nib.save(nib.Nifti1Pair(MASK.array[0], np.eye(4)), tmp_path / "b[1].hdr")  # type: ignore[no-untyped-call]
    assert io.parts(tmp_path / "b[1].hdr") == [tmp_path / "b[1].hdr", tmp_path / "b[1].img"]
    sitk.WriteImage(sitk.GetImageFromArray(MASK.array[0]), str(tmp_path / "c.mhd"))
    assert io.parts(tmp_path / "c.mhd") == [tmp_path / "c.mhd", tmp_path / "c.raw"]
    (tmp_path / "series").mkdir()
    assert io.parts(tmp_path / "series") == [tmp_path / "series"]
    with pytest.raises(DataError, match="no such file"):
        io.parts(tmp_path / "d.mha")


def test_missing_unknown_and_unwritable_files_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file or folder"):
        io.read(tmp_path / "a.nii.gz")
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(DataError, match=r"no known format.*\.nii\.gz.*DICOM"):
        io.read_geometry(tmp_path / "a.txt")
    assert set(io.WRITTEN) == {".nii", ".nii.gz", ".nrrd", ".mha", ".png"}
    for name in ("a.txt", "a.dcm", "a", "a.mhd", "a.hdr", "a.jpg"):
        with pytest.raises(DataError, match=r"Use \.nii\.gz"):
            io.write(MASK, tmp_path / name)


@pytest.mark.skipif(
    os.name == "nt" or not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything"
)
def test_a_forbidden_file_says_so(tmp_path: Path) -> None:
    path = tmp_path / "a.nii"
    path.write_bytes(b"")
    path.chmod(0)
    with pytest.raises(DataError, match="may not be read"):
        io.read(path)


@pytest.mark.parametrize("name", [f"m{suffix}" for suffix in io.WRITTEN])
def test_every_written_format_comes_back_and_leaves_nothing_beside(tmp_path: Path, name: str) -> None:
    io.write(MASK, str(tmp_path / "new" / name))
    assert [path.name for path in (tmp_path / "new").iterdir()] == [name]
    back = io.read(str(tmp_path / "new" / name), "labels")
    assert back.kind == "labels"
    assert back.array.dtype == np.uint8
    assert np.array_equal(back.array, MASK.array)


@pytest.mark.parametrize("name", ["m.nii.gz", "m.nrrd", "m.png"])
def test_a_failed_write_leaves_the_old_file(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    io.write(MASK, tmp_path / name)
    before = (tmp_path / name).read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(DataError, match="no space left"):
        io.write(MASK.replace(array=MASK.array * 2), tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_bytes() == before


def test_a_folder_is_dicom_whatever_its_name(tmp_path: Path) -> None:
    (tmp_path / "a.nii.gz").mkdir()
    with pytest.raises(DataError, match="no DICOM images"):
        io.read(tmp_path / "a.nii.gz")


def test_importing_loads_neither_torch_nor_simpleitk() -> None:
    code = "import sys, medseg.io; print([m for m in ('torch', 'SimpleITK', 'matplotlib') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_folders_are_not_made_for_a_mistyped_name(tmp_path: Path) -> None:
    volume = Volume(np.zeros((2, 2, 2), np.uint8), Geometry((2, 2, 2), np.eye(4)), "labels")
    io.write(volume, tmp_path / "new" / "a.nii.gz")
    with pytest.raises(
        DataError, match=r"^cannot write '.*b\.nii\.gz': there is no folder '.*nowhere'\. Correct the name"
    ):
        io.write(volume, tmp_path / "nowhere" / "x" / "b.nii.gz")
    assert not (tmp_path / "nowhere").exists()
    io.write(volume, tmp_path / "nowhere" / "x" / "b.nii.gz", parents=True)
    assert (tmp_path / "nowhere" / "x" / "b.nii.gz").exists()
