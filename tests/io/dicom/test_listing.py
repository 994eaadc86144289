"""Which files a damaged one speaks for, and what a table shows."""

import logging
from pathlib import Path
from typing import Any

import pytest

from medseg import io
from medseg.data import dicom_series
from medseg.errors import DataError
from medseg.io import dicom


def test_a_damaged_file_is_of_the_only_series_beside_it(make: Any, tmp_path: Path) -> None:
    make.series(tmp_path / "a")
    make.series(tmp_path / "b", lambda n: {"SeriesInstanceUID": "1.9"})
    (tmp_path / "a" / "junk.dcm").write_bytes(b"junk")
    listing = dicom.find(tmp_path)
    assert [bool(found.problem) for found in listing.volumes] == [True, False]
    assert listing.damaged == ()
    with pytest.raises(DataError, match="1 of its files missing, damaged or cut off"):
        io.read(tmp_path / "a")
    assert io.read(tmp_path / "b").geometry.shape == (3, 4, 5)


def test_a_damaged_file_among_several_series_is_of_none(make: Any, tmp_path: Path) -> None:
    make.series(tmp_path / "s", lambda n: {"SeriesInstanceUID": f"1.2.{n // 3}"}, count=6)
    (tmp_path / "s" / "junk.dcm").write_bytes(b"junk")
    listing = dicom.find(tmp_path)
    assert not any(found.problem for found in listing.volumes)
    assert [file.problem for file in listing.damaged] == ["is no DICOM file, or its beginning is damaged"]
    assert io.read(listing.volumes[0].path).geometry.shape == (3, 4, 3)
    with pytest.raises(DataError, match="one of 1 damaged files is no DICOM file"):
        io.read(tmp_path / "s")


def test_an_image_without_a_series_harms_none(make: Any, tmp_path: Path) -> None:
    make.series(tmp_path / "s")
    make.image((0, 0, 0), make.slab(0), SeriesInstanceUID=None).save_as(tmp_path / "s" / "none.dcm")
    assert sorted(len(found.stack.planes) for found in dicom.find(tmp_path).volumes) == [1, 5]


def test_the_table_has_a_line_a_volume_and_says_what_is_not_read(make: Any, tmp_path: Path) -> None:
    make.series(tmp_path / "a", lambda n: {"SeriesNumber": 3})
    make.series(
        tmp_path / "b", lambda n: {"SeriesNumber": 2, "SeriesInstanceUID": "1.9", "PhotometricInterpretation": "RGB"}
    )
    make.series(
        tmp_path / "c", lambda n: {"SeriesInstanceUID": "1.8", "ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}
    )
    head, colours, grey, aside = dicom.find(tmp_path).table().splitlines()
    assert head.split()[:4] == ["series", "id", "modality", "voxels"]
    assert colours.startswith("2 ")
    assert "refused: holds colours (RGB)" in colours
    assert grey.split()[0] == "3"
    assert "3x4x5" in grey
    assert aside == "set aside: 5 x localizer"
    assert dicom.find(tmp_path)._repr_html_().startswith("<pre>series")


def test_the_smallest_folder_of_its_own_is_a_volumes_path(make: Any, tmp_path: Path) -> None:
    make.series(tmp_path / "x" / "deep" / "a")
    make.series(tmp_path / "x" / "b", lambda n: {"SeriesInstanceUID": f"1.2.{n // 3}"}, count=6)
    paths = [found.path for found in dicom.find(tmp_path).volumes]
    assert tmp_path / "x" / "deep" / "a" in paths
    assert sum(path.parent == tmp_path / "x" / "b" and path.suffix == ".dicom" for path in paths) == 2
    assert all(io.read(path).geometry for path in paths)


def test_a_librarys_remarks_that_quote_values_reach_no_log(
    make: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """pydicom logs what it holds for invalid, with the value: here a name that stands where it should not."""
    folder = make.series(
        tmp_path / "s",
        lambda n: {
            "SpecificCharacterSet": "ISO_IR 100",
            "StudyInstanceUID": "1.2",
            "FrameOfReferenceUID": "1.2.34.5678",
        },
    )
    for path in folder.iterdir():
        data = path.read_bytes().replace(b"ISO_IR 100", b"Smith^Jane")
        path.write_bytes(data.replace(b"1.2.34.5678", b"Smith^Jane2").replace(b"Doe^John", b"Doe=J=h="))
    (tmp_path / "s" / "DICOMDIR").write_bytes((folder / "001.dcm").read_bytes())
    caplog.set_level(logging.DEBUG)
    level = logging.getLogger("pydicom").level
    with pytest.raises(DataError, match="names no files"):
        dicom.find(folder / "DICOMDIR")
    dicom_series.series_within(folder)
    dicom_series.source(folder)
    assert io.read(folder).geometry == io.read_geometry(folder)
    assert not caplog.records
    assert logging.getLogger("pydicom").level == level
