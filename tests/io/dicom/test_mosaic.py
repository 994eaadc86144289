from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from medseg import io
from medseg.errors import DataError
from medseg.io import dicom


@pytest.mark.parametrize("way", [1, -1])
def test_tiles_are_slices_along_the_private_normal(make: Any, tmp_path: Path, way: int) -> None:
    tiles = np.stack([make.slab(n) for n in range(5)])
    path = tmp_path / "m.dcm"
    make.mosaic(tiles, (0, 0, way)).save_as(path)
    volume = io.read(path)
    assert volume.geometry.shape == (3, 4, 5)
    assert volume.geometry.spacing_mm == pytest.approx((0.75, 0.5, 3))
    for n in range(5):
        index = volume.geometry.to_index((0, 0, 3 * n * way))
        assert np.array_equal(volume.array[0, :, :, round(index[2])], tiles[n].T)
        assert np.allclose(index[:2], 0, atol=1e-6)


def test_mosaics_of_one_series_are_volumes_by_acquisition(make: Any, tmp_path: Path) -> None:
    images = [
        make.mosaic(
            np.stack([make.slab(10 * t + n) for n in range(4)]), (0, 0, 1), AcquisitionNumber=t, InstanceNumber=t
        )
        for t in (2, 1)
    ]
    both = io.read(make.save(tmp_path / "s", images), channels=True)
    assert both.meta["labels"] == ("1 of 2, acquisition 1", "2 of 2, acquisition 2")
    assert np.array_equal(both.array[1, :, :, 3], make.slab(23).T)


def test_a_mosaic_is_a_volume_wherever_the_scanner_followed_the_head_to(make: Any, tmp_path: Path) -> None:
    tiles = np.stack([make.slab(n) for n in range(4)])
    images = [
        make.mosaic(tiles + 50 * t, (0, 0, 1), ImagePositionPatient=[-1.125, -1, 0.03 * t], InstanceNumber=t)
        for t in range(3)
    ]
    found = dicom.find(make.save(tmp_path / "s", images)).volumes
    assert not any(item.refusal for item in found)
    for t, item in enumerate(found):
        volume = dicom.load(item)
        assert np.allclose(volume.geometry.to_world((0, 0, 3)), (0, 0, 9 + 0.03 * t))
        assert np.array_equal(volume.array[0, :, :, 3], tiles[3].T + 50 * t)


def test_a_mosaic_that_does_not_say_how_far_apart_its_slices_are_is_refused(make: Any, tmp_path: Path) -> None:
    """Their thickness is not it: there are often gaps between slices."""
    data = make.mosaic(np.stack([make.slab(n) for n in range(4)]), (0, 0, 1))
    del data.SpacingBetweenSlices
    data.save_as(tmp_path / "m.dcm")
    with pytest.raises(DataError, match=r"mosaic .* without SpacingBetweenSlices"):
        io.read(tmp_path / "m.dcm")


@pytest.mark.parametrize(
    ("matrix", "shape"), [([4, 0, 0, 3], (3, 4, 5)), ([2, 0, 0, 1], None), ([0, 0, 0, 0], None), (None, None)]
)
def test_slices_of_a_mosaic_that_was_taken_apart_are_slices(
    make: Any, tmp_path: Path, matrix: list[int] | None, shape: tuple[int, ...] | None
) -> None:
    """Numaris X leaves the word MOSAIC in their ImageType."""
    kind = {"ImageType": ["ORIGINAL", "PRIMARY", "M", "ND", "MOSAIC"], "Modality": "MR"}
    matrix_of = {"AcquisitionMatrix": matrix} if matrix else {}
    (found,) = dicom.find(make.series(tmp_path / "s", lambda n: kind | matrix_of)).volumes
    if shape:
        assert np.array_equal(dicom.load(found).array[0], np.stack([make.slab(n).T for n in range(5)], -1))
    else:
        assert "is a mosaic" in found.refusal


def test_a_mosaic_whose_private_header_lies_is_refused(make: Any, tmp_path: Path) -> None:
    tiles = np.stack([make.slab(n) for n in range(5)])
    said = {"100000": "was removed or cannot be read", "500": "tells of 500 slices, which cannot fill 12 x 9 pixels"}
    for count, reason in said.items():
        wrong = {"NumberOfImagesInMosaic": [count]}
        data = make.mosaic(tiles, (0, 0, 1))
        data[0x0029, 0x1010].value = make.csa(wrong | {"SliceNormalVector": ["0", "0", "1"]})
        data.save_as(tmp_path / "m.dcm")
        with pytest.raises(DataError, match=rf"mosaic .* whose private header.* {reason}"):
            io.read(tmp_path / "m.dcm")


def uih(make: Any, tiles: np.ndarray, places: list[list[float]], count: int) -> Any:
    """A grid as United Imaging writes it."""
    data = make.mosaic(tiles, (0, 0, 1), ImageType=["ORIGINAL", "PRIMARY", "M", "VFRAME"])
    del data[0x0029, 0x1010]
    block = data.private_block(0x0065, "Image Private Header", create=True)
    block.add_new(0x50, "DS", str(count))
    block.add_new(0x51, "SQ", [make.item(ImagePositionPatient=place)[0] for place in places])
    return data


def test_tiles_of_united_imaging_lie_where_each_says(make: Any, tmp_path: Path) -> None:
    tiles = np.stack([make.slab(n) for n in range(5)])
    uih(make, tiles, [[1, 2, 10 - 2.5 * n] for n in range(5)], 5).save_as(tmp_path / "m.dcm")
    volume = io.read(tmp_path / "m.dcm")
    for n in range(5):
        index = np.rint(volume.geometry.to_index((-1, -2, 10 - 2.5 * n))).astype(int)
        assert index[:2].tolist() == [0, 0]
        assert np.array_equal(volume.array[0, :, :, index[2]], tiles[n].T)


@pytest.mark.parametrize(("apart", "implicit"), [(False, False), (True, False), (False, True)])
def test_numaris_x_says_count_and_normal_in_tags_of_their_own(
    make: Any, tmp_path: Path, apart: bool, implicit: bool
) -> None:
    tiles = np.stack([make.slab(n) for n in range(5)])
    data = make.mosaic(tiles, (0, 0, 1))
    del data[0x0029, 0x1010]
    own = make.item()[0] if apart else data
    block = own.private_block(0x0021, "SIEMENS MR SDI 02", create=True)
    block.add_new(0x01, "US", 5)
    block.add_new(0x02, "FD", [0, 0, -1])
    if apart:
        data.private_block(0x0021, "SIEMENS MR SDI 02", create=True).add_new(0xFE, "SQ", [own])
    data.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian
    data.save_as(tmp_path / "m.dcm", implicit_vr=implicit, little_endian=True)
    volume = io.read(tmp_path / "m.dcm")
    for n in range(5):
        index = np.rint(volume.geometry.to_index((0, 0, -3 * n))).astype(int)
        assert index[:2].tolist() == [0, 0]
        assert np.array_equal(volume.array[0, :, :, index[2]], tiles[n].T)


@pytest.mark.parametrize(("places", "count"), [([[0, 0, 1]] * 4, 5), ([[0, 0]] * 5, 5), ([], 0)])
def test_a_grid_whose_private_header_lies_is_refused(
    make: Any, tmp_path: Path, places: list[list[float]], count: int
) -> None:
    uih(make, np.stack([make.slab(n) for n in range(5)]), places, count).save_as(tmp_path / "m.dcm")
    with pytest.raises(DataError, match="mosaic"):
        io.read(tmp_path / "m.dcm")


@pytest.mark.parametrize("cut", [4, 20, 90, 200])
def test_a_private_header_that_is_cut_off_is_refused(make: Any, tmp_path: Path, cut: int) -> None:
    data = make.mosaic(np.stack([make.slab(n) for n in range(5)]), (0, 0, 1))
    data[0x0029, 0x1010].value = data[0x0029, 0x1010].value[:cut]
    data.save_as(tmp_path / "m.dcm")
    with pytest.raises(DataError, match="mosaic"):
        io.read(tmp_path / "m.dcm")
