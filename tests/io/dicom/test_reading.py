"""What `medseg.read` makes of a DICOM path."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.uid import BasicTextSRStorage

from medseg import io
from medseg.errors import ConfigError, DataError, GeometryError
from medseg.io import dicom


def test_slices_are_sorted_along_the_normal_and_lie_in_ras(make: Any, tmp_path: Path) -> None:
    volume = io.read(make.series(tmp_path / "s"))
    assert volume.array.shape == (1, 3, 4, 5)
    assert all(np.array_equal(volume.array[0, :, :, n], make.slab(n).T) for n in range(5))
    # Columns are 0.75 mm apart, rows 0.5 mm; the first voxel lies 10 mm to the left and 20 mm to the front.
    expected = [[-0.75, 0, 0, -10], [0, -0.5, 0, 20], [0, 0, 2, 30], [0, 0, 0, 1]]
    assert np.allclose(volume.geometry.affine, expected)
    assert volume.meta["modality"] == "CT"
    assert volume.meta["unit"] == "HU"
    assert volume.meta["notes"] == ()
    assert io.read_geometry(tmp_path / "s") == volume.geometry


def test_the_name_tells_nothing_about_the_patient(make: Any, tmp_path: Path) -> None:
    folder = make.series(tmp_path / "Doe_John")
    assert io.stem(folder) == io.read(folder).meta["series"] == io.stem(folder / "001.dcm")
    assert len(io.stem(folder)) == 12
    assert "Doe" not in str(dict(io.read(folder).meta)) + io.stem(folder)


def test_a_folder_that_cannot_be_read_has_a_name_of_its_own_that_tells_nothing(tmp_path: Path) -> None:
    for name in ("Doe_John", "Doe_Jane"):
        (tmp_path / name).mkdir()
    names = {io.stem(tmp_path / name) for name in ("Doe_John", "Doe_Jane")}
    assert len(names) == 2
    assert all(len(name) == 12 and "Doe" not in name for name in names)


def test_other_files_in_the_folder_do_no_harm(make: Any, tmp_path: Path) -> None:
    folder = make.series(tmp_path / "s")
    (folder / "notes.txt").write_text("nothing")
    report = make.image(
        (0, 0, 0), make.slab(0), Rows=None, Columns=None, PixelData=None, Modality="SR", SeriesInstanceUID="1.9"
    )
    report.file_meta.MediaStorageSOPClassUID = report.SOPClassUID = BasicTextSRStorage
    report.save_as(folder / "report.dcm")
    assert io.read(folder).geometry.shape == (3, 4, 5)
    assert dicom.find(folder).aside == {"report": 1}


@pytest.mark.parametrize("size", [400, 500, 600])
def test_a_slice_that_is_cut_off_is_not_passed_over(make: Any, tmp_path: Path, size: int) -> None:
    """The outermost one leaves no gap."""
    last = sorted(make.series(tmp_path / "s").iterdir())[-1]
    last.write_bytes(last.read_bytes()[:size])
    with pytest.raises(DataError, match=r"1 of its files missing, damaged or cut off|others were cut off"):
        io.read(tmp_path / "s")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda n: {"SeriesInstanceUID": f"1.2.{n // 3}"}, r"2 volumes: \w+ \(CT, 3x4x3\); \w+ \(CT, 3x4x2\)"),
        (lambda n: {"ImagePositionPatient": [0, 0, 2 * n + 2 * (n > 2)]}, "slice 4 of 6 is missing at z = 6.0 mm"),
        (lambda n: {"ImagePositionPatient": [0, 0, n // 2]}, "two images in one place, z = 0.0 mm and 1 more"),
        (lambda n: {"ImagePositionPatient": [0, 0, 0]}, "5 images in one place, z = 0.0 mm"),
        (lambda n: {"ImagePositionPatient": [n % 2, 0, 2 * n]}, "up to 1.00 mm beside the line of the stack"),
        (lambda n: {"ImageOrientationPatient": [1, 0, 0, 1, 0, 0]}, "not two axes at right angles"),
        (lambda n: {"ImageOrientationPatient": [0] * 6}, "not two axes at right angles"),
        (lambda n: {"PixelSpacing": [0.5, 0.75 + n / 100]}, "5 volumes"),
        (lambda n: {"ImagePositionPatient": None}, "without position"),
        (lambda n: {"PixelSpacing": None}, "has images without pixel size: no volume"),
        (lambda n: {"PixelSpacing": [0, 0]}, "pixels of 0 x 0 mm"),
        (lambda n: {"NumberOfFrames": 2}, "2 frames"),
        (lambda n: {"PhotometricInterpretation": "RGB"}, r"colours \(RGB\), a picture for the eye"),
        (lambda n: {"ImageType": ["ORIGINAL", "PRIMARY", "M", "MOSAIC"]}, "mosaic"),
        (lambda n: {"PixelData": None}, "cut off: 0 of 24 bytes of voxels"),
        (lambda n: {"PixelData": bytes(10)}, "cut off: 10 of 24 bytes of voxels"),
        (lambda n: {"BitsStored": 20}, "20 of 16 bits"),
        (lambda n: {"PixelSpacing": [-1, 1]}, "pixels of -1 x 1 mm"),
        (lambda n: {"RescaleSlope": 0}, "RescaleSlope of 0"),
        (lambda n: {"RescaleSlope": "1e400"}, "RescaleSlope or RescaleIntercept that is not a number"),
        (
            lambda n: {"RescaleSlope": None, "RescaleIntercept": None} if n == 2 else {},
            "has slope and intercept in 4 of 5 images alone",
        ),
    ],
)
def test_what_is_no_single_volume_is_refused_with_the_reason(
    make: Any, tmp_path: Path, change: Callable[[int], dict[str, Any]], message: str
) -> None:
    with pytest.raises(DataError, match=message) as caught:
        io.read(make.series(tmp_path / "s", change))
    assert "\n" not in str(caught.value)
    assert "Doe" not in str(caught.value)


def test_a_folder_without_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no DICOM images"):
        io.read(tmp_path)
    with pytest.raises(DataError, match="no such file"):
        dicom.find(tmp_path / "nowhere")


def test_a_slice_that_lost_its_preamble_is_read_all_the_same(make: Any, tmp_path: Path) -> None:
    folder = make.series(tmp_path / "s")
    (folder / "001.dcm").write_bytes((folder / "001.dcm").read_bytes()[132:])
    assert io.read(folder).geometry.shape == (3, 4, 5)


def test_files_are_known_by_name_or_by_their_first_bytes(make: Any, tmp_path: Path) -> None:
    folder = make.series(tmp_path / "s")
    bare = (folder / "001.dcm").rename(folder / "IM1")
    assert dicom.matches(bare)
    assert io.read(bare).geometry.shape == (3, 4, 1)
    (tmp_path / "short").write_bytes(b"DICM")
    assert not dicom.matches(tmp_path / "short")
    (tmp_path / "empty.dcm").touch()
    with pytest.raises(DataError, match=r"empty.dcm': is no DICOM file"):
        io.read(tmp_path / "empty.dcm")


def echoes(make: Any, n: int) -> Any:
    return make.image((0, 0, 2 * (n // 2)), make.slab(n), EchoTime=4.5 + n % 2, Modality="MR", InstanceNumber=n)


def test_volumes_of_one_grid_come_as_channels_on_request(make: Any, tmp_path: Path) -> None:
    folder = make.save(tmp_path / "s", [echoes(make, n) for n in range(6)])
    with pytest.raises(DataError, match=r"holds 2 volumes: .* \(MR, 3x4x3, 1 of 2, echo time 4.5 ms\)"):
        io.read(folder)
    both = io.read(folder, channels=True)
    assert both.channels == 2
    assert both.meta["labels"] == ("1 of 2, echo time 4.5 ms", "2 of 2, echo time 5.5 ms")
    assert np.array_equal(both.array[1, :, :, 1], make.slab(3).T)


def test_volumes_of_different_grids_are_no_channels(make: Any, tmp_path: Path) -> None:
    folder = make.series(tmp_path / "s", lambda n: {"SeriesInstanceUID": f"1.2.{n // 3}"})
    with pytest.raises(GeometryError, match="volume 2 of 2 lies on another grid"):
        io.read(folder, channels=True)


def test_an_address_names_one_volume_of_several(make: Any, tmp_path: Path) -> None:
    folder = make.save(tmp_path / "s", [echoes(make, n) for n in range(6)])
    first, second = dicom.find(folder).volumes
    assert second.path == folder / f"{second.id}.dicom"
    assert io.stem(second.path) == second.id == f"{first.id}-2"
    assert np.array_equal(io.read(second.path).array[0, :, :, 1], make.slab(3).T)
    assert io.read_geometry(first.path) == io.read_geometry(second.path)
    with pytest.raises(DataError, match="no DICOM images"):
        io.read(folder / "0123456789ab.dicom")


def test_options_of_dicom_are_refused_elsewhere(make: Any, tmp_path: Path) -> None:
    volume = io.read(make.series(tmp_path / "s"))
    io.write(volume, tmp_path / "scan.nii.gz")
    with pytest.raises(ConfigError, match="cannot be read with allow_gaps"):
        io.read(tmp_path / "scan.nii.gz", allow_gaps=True)


def test_a_number_where_a_word_belongs_is_no_fact(make: Any, tmp_path: Path) -> None:
    path = tmp_path / "s.dcm"
    make.image((0, 0, 0), make.slab(0), ScanningSequence="SE").save_as(path)
    path.write_bytes(path.read_bytes().replace(b"\x18\0\x20\0CS", b"\x18\0\x20\0US"))
    assert "ScanningSequence" not in io.read(path).meta["acquisition"]


@pytest.mark.parametrize("tag", [b"\x18\0\x20\0", b"\x20\0\x32\0", b"\x28\0\x10\0", b"\x28\0\0\x01"])
def test_a_lying_type_anywhere_is_one_line(make: Any, tmp_path: Path, tag: bytes) -> None:
    path = tmp_path / "s.dcm"
    make.image((0, 0, 0), make.slab(0), ScanningSequence="SE").save_as(path)
    raw = path.read_bytes()
    at = raw.index(tag, 132) + 4
    path.write_bytes(raw[:at] + b"\x43\xf1" + raw[at + 2 :])
    with pytest.raises(DataError, match=r"s.dcm'") as caught:
        io.read(path)
    assert "\n" not in str(caught.value)
