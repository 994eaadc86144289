"""CDs, zips and trees: their names open files and mean nothing else."""

import re
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.fileset import FileSet

from medseg import io
from medseg.errors import DataError
from medseg.io import dicom


def cd(make: Any, root: Path) -> Path:
    """A CD with two series, as pydicom writes one."""
    files = FileSet()
    for series in (1, 2):
        for n in range(3):
            image = make.image((0, 0, 2 * n), make.slab(10 * series + n), SeriesInstanceUID=f"1.2.{series}")
            image.PatientID, image.StudyInstanceUID, image.StudyDate, image.StudyTime = "7", "1.2", "20200101", "120000"
            image.StudyID, image.SeriesNumber, image.InstanceNumber, image.AccessionNumber = "1", series, n, ""
            files.add(image)
    files.write(root)
    files._stage["t"].cleanup()  # where it was put together
    return root


def test_a_dicomdir_is_its_files(make: Any, tmp_path: Path) -> None:
    root = cd(make, tmp_path / "cd")
    listing = dicom.find(root / "DICOMDIR")
    assert [found.stack.grid for found in listing.volumes] == [found.stack.grid for found in dicom.find(root).volumes]
    assert [found.file.number for found in listing.volumes] == [1, 2]
    assert np.array_equal(io.read(listing.volumes[1].path).array[0, :, :, 2], make.slab(22).T)


def test_a_copy_of_a_cd_in_small_letters_is_read(make: Any, tmp_path: Path) -> None:
    root = cd(make, tmp_path / "cd")
    for path in sorted(root.rglob("*"), reverse=True):
        if path.name != "DICOMDIR":
            path.rename(path.with_name(path.name.lower()))
    assert len(dicom.find(root / "DICOMDIR").volumes) == 2


def test_a_file_that_a_dicomdir_names_and_is_not_there_refuses_its_series_alone(make: Any, tmp_path: Path) -> None:
    root = cd(make, tmp_path / "cd")
    next(path for path in sorted(root.rglob("*")) if path.is_file() and path.name != "DICOMDIR").unlink()
    first, second = dicom.find(root / "DICOMDIR").volumes
    assert first.refusal.startswith("1 of its files missing")
    assert not second.refusal


def test_a_series_that_a_dicomdir_names_and_that_was_moved_is_one_line(make: Any, tmp_path: Path) -> None:
    root = cd(make, tmp_path / "cd")
    gone = sorted(path for path in root.rglob("*") if path.is_file() and path.name != "DICOMDIR")[0].parent
    gone.rename(root / "ELSEWHERE")
    listing = dicom.find(root / "DICOMDIR")
    assert [found.refusal for found in listing.volumes] == [""]
    assert listing.table().splitlines()[2:] == ["each of 3 files is not there, though the DICOMDIR names it"]


def test_a_dicomdir_that_is_cut_off_anywhere_says_so(make: Any, tmp_path: Path) -> None:
    names = cd(make, tmp_path / "cd") / "DICOMDIR"
    whole = names.read_bytes()
    for length in (
        360,
        *range(400, len(whole), 97),
        *(found.start() - 4 for found in re.finditer(b"\4\0\0\x14UL", whole)),
    ):
        names.write_bytes(whole[:length])
        with pytest.raises(DataError, match=r"(damaged DICOMDIR|names no files).*Name its folder instead"):
            dicom.find(names)


def test_a_dicomdir_leads_nowhere_else(make: Any, tmp_path: Path) -> None:
    cd(make, tmp_path / "cd")
    shutil.copytree(tmp_path / "cd", tmp_path / "elsewhere")
    names = (tmp_path / "elsewhere" / "DICOMDIR").read_bytes()
    first = pydicom.dcmread(tmp_path / "elsewhere" / "DICOMDIR").DirectoryRecordSequence[3].ReferencedFileID[0]
    (tmp_path / "elsewhere" / "DICOMDIR").write_bytes(
        names.replace(first.encode() + b"\\", b"../cd/..\\"[-len(first) - 1 :])
    )
    with pytest.raises(DataError, match="names 6 files, none of which lies in its folder"):
        dicom.find(tmp_path / "elsewhere" / "DICOMDIR")


def test_a_damaged_dicomdir_says_so(make: Any, tmp_path: Path) -> None:
    (tmp_path / "DICOMDIR").write_bytes(b"nothing of the kind")
    with pytest.raises(DataError, match="damaged DICOMDIR"):
        dicom.find(tmp_path / "DICOMDIR")


def zipped(path: Path, folder: Path, prefix: str = "") -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                archive.write(file, prefix + file.relative_to(folder).as_posix())
    return path


def test_a_zip_is_read_in_place(make: Any, tmp_path: Path) -> None:
    folder = make.series(tmp_path / "s")
    path = zipped(tmp_path / "s.zip", folder, "Doe^John/")
    before = sorted(tmp_path.rglob("*"))
    volume = io.read(path)
    assert np.array_equal(volume.array, io.read(folder).array)
    assert volume.geometry == io.read_geometry(path)
    assert io.stem(path) == io.stem(folder)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("lost", [128, 132, None])
def test_a_preamble_may_be_lost_with_the_magic_word_or_the_whole_meta_information(
    make: Any, tmp_path: Path, lost: int | None
) -> None:
    folder = make.series(tmp_path / "s")
    whole = io.read(folder)
    for path in folder.iterdir():
        data = path.read_bytes()
        path.write_bytes(data[lost or data.index(b"\x08\0\x08\0CS") :])
        path.rename(path.with_suffix(""))
    for path in (folder, zipped(tmp_path / "s.zip", folder)):
        assert np.array_equal(io.read(path).array, whole.array)
        assert io.read_geometry(path) == whole.geometry
    assert io.read(folder / "003").geometry.shape == (3, 4, 1)


def test_a_zip_within_a_folder_or_a_zip_is_said(make: Any, tmp_path: Path) -> None:
    zipped(tmp_path / "in" / "s.zip", make.series(tmp_path / "in" / "s"))
    shutil.rmtree(tmp_path / "in" / "s")
    within = zipped(tmp_path / "out.zip", tmp_path / "in")
    words = {tmp_path / "in": "zip, to be named by itself", within: "zip within a zip, to be unpacked"}
    for path, word in words.items():
        assert dicom.find(path).aside == {word: 1}
        with pytest.raises(DataError, match=f"set aside: 1 x {word}"):
            io.read(path)


def test_volumes_in_a_zip_have_addresses(make: Any, tmp_path: Path) -> None:
    path = zipped(tmp_path / "cd.zip", cd(make, tmp_path / "cd"))
    first, second = dicom.find(path).volumes
    assert first.path == path / f"{first.id}.dicom"
    assert np.array_equal(io.read(second.path).array[0, :, :, 0], make.slab(20).T)


def test_no_path_of_a_zip_is_trusted_and_its_sizes_are_bounded(
    make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "in").mkdir()
    path = zipped(tmp_path / "in" / "s.zip", make.series(tmp_path / "s"), "../../")
    assert io.read(path).geometry.shape == (3, 4, 5)
    assert sorted(item.name for item in tmp_path.iterdir()) == ["in", "s"]
    monkeypatch.setattr("medseg.io.dicom._sources._LARGEST_MEMBER", 100)
    with pytest.raises(DataError, match="at most 1,000,000 of 100 are read from a zip"):
        dicom.find(path)


def test_what_a_zip_unpacks_to_has_to_fit_in_memory(make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = zipped(tmp_path / "s.zip", make.series(tmp_path / "s"))
    monkeypatch.setattr("medseg.memory.free_bytes", lambda: 1000.0)
    with pytest.raises(DataError, match=r"takes 0\.0 GB of memory to unpack from its zip"):
        io.read(path)


def test_a_zip_that_is_none_or_locked_says_so(make: Any, tmp_path: Path) -> None:
    (tmp_path / "x.zip").write_bytes(b"PK but no zip")
    with pytest.raises(DataError, match="is no zip, or it is damaged"):
        io.read(tmp_path / "x.zip")
    path = zipped(tmp_path / "s.zip", make.series(tmp_path / "s"))
    raw = bytearray(path.read_bytes())
    start = raw.index(b"PK\1\2")
    raw[start + 8] |= 1
    path.write_bytes(raw)
    with pytest.raises(DataError, match="locked with a password"):
        io.read(path)


def test_a_zip_cut_within_its_members_says_so(make: Any, tmp_path: Path) -> None:
    path = zipped(tmp_path / "s.zip", make.series(tmp_path / "s"))
    raw = bytearray(path.read_bytes())
    raw[60:200] = bytes(140)
    path.write_bytes(raw)
    with pytest.raises(DataError) as caught:
        io.read(path)
    assert "\n" not in str(caught.value)


def test_links_out_of_the_tree_and_hidden_files_are_left_alone(make: Any, tmp_path: Path) -> None:
    folder = make.series(tmp_path / "s")
    other = make.series(tmp_path / "other", lambda n: {"SeriesInstanceUID": "1.9"})
    (folder / "link").symlink_to(other, target_is_directory=True)
    (folder / "._001.dcm").write_bytes(b"resource fork")
    (folder / "gone.dcm").symlink_to(tmp_path / "nowhere")
    assert io.read(folder).geometry.shape == (3, 4, 5)


def test_a_zip_of_a_packing_that_is_not_read_says_so(make: Any, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.write(next(make.series(tmp_path / "s").iterdir()), "1.dcm")
    packed = bytearray((tmp_path / "a.zip").read_bytes())
    packed[packed.index(b"PK\1\2") + 10] = 9  # Deflate64, as Windows packs what is large
    (tmp_path / "a.zip").write_bytes(packed)
    with pytest.raises(DataError, match=r"a.zip' is packed by a method that is not read"):
        io.read(tmp_path / "a.zip")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_files_of_one_name_in_a_zip_are_not_passed_over(make: Any, tmp_path: Path) -> None:
    files = sorted(make.series(tmp_path / "s").iterdir())
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for n, file in enumerate(files):
            archive.writestr(f"{n // 2}.dcm", file.read_bytes())
    with pytest.raises(DataError, match="holds 2 of 5 files under the name of another one"):
        io.read(tmp_path / "a.zip")
