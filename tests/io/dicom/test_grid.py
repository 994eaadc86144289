from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medseg import io
from medseg.errors import GeometryError
from medseg.io import dicom
from medseg.io.dicom import _grid
from medseg.io.dicom._planes import TRAITS, File, Plane
from medseg.io.dicom._sources import Source


def plane(position: Any, n: int = 0, axes: Any = (1, 0, 0, 0, 1, 0), **changes: Any) -> Plane:
    empty = (None,) * len(TRAITS)
    record = (File(Source(Path("x"))), n, (0, 0), (4, 3), tuple(map(float, position)), tuple(axes), (0.5, 0.75))
    return Plane(*record, None, (1.0, 0.0), "", "", "", empty, (n, 0))


def test_a_tilted_stack_keeps_its_shear(make: Any, tmp_path: Path) -> None:
    images = [make.image((0, 2 * n * np.tan(np.radians(15)), 2 * n), make.slab(n)) for n in range(4)]
    volume = io.read(make.save(tmp_path / "s", images))
    assert volume.geometry.shear_deg == pytest.approx(15, abs=0.01)
    assert np.allclose(volume.geometry.to_world((0, 0, 3)), (0, -6 * np.tan(np.radians(15)), 6))
    assert "leans 15.0 degrees" in volume.meta["notes"][0]


@pytest.mark.parametrize(
    ("changes", "gap", "word"),
    [
        ({"SpacingBetweenSlices": 5}, 5, "SpacingBetweenSlices"),
        ({}, 4, "SliceThickness"),
        ({"SliceThickness": None}, 1, "1 mm"),
    ],
)
def test_one_slice_says_where_its_thickness_comes_from(
    make: Any, tmp_path: Path, changes: dict[str, Any], gap: float, word: str
) -> None:
    volume = io.read(make.series(tmp_path / "s", lambda n: changes, count=1))
    assert volume.geometry.spacing_mm == pytest.approx((0.75, 0.5, gap))
    assert word in volume.meta["notes"][0]


def test_rounded_positions_are_a_stack_from_the_first_to_the_last() -> None:
    stack = _grid.arrange([plane((0, 0, round(0.625 * n, 1))) for n in range(9)])
    assert not stack.uneven
    assert stack.grid is not None
    assert stack.grid.spacing_mm[2] == pytest.approx(5.0 / 8)
    assert np.allclose(stack.grid.to_world((0, 0, 8)), (0, 0, 5))


def test_directions_of_few_digits_do_not_stretch_pixels() -> None:
    stack = _grid.arrange([plane((0, 0, 2 * n), axes=(0.71, 0.71, 0, -0.71, 0.71, 0)) for n in range(3)])
    assert stack.grid is not None
    assert stack.grid.spacing_mm == pytest.approx((0.75, 0.5, 2), abs=1e-12)
    assert stack.grid.shear_deg < 1e-6
    long = _grid.arrange([plane((0, 0, 2 * n), axes=(1.1, 0, 0, 0, 1.1, 0)) for n in range(3)])
    assert "not two axes at right angles" in long.problem


def test_missing_slices_are_named_with_number_and_place() -> None:
    stack = _grid.arrange([plane((0, 0, 0.5 + 2 * n)) for n in range(120) if n != 41])
    assert stack.uneven.startswith("slice 42 of 120 is missing at z = 82.5 mm (gaps of 2.000 to 4.000 mm)")
    assert stack.grid is not None
    assert stack.grid.shape[2] == 120
    two = _grid.arrange([plane((0, 0, n)) for n in range(20) if n not in (4, 7, 8, 9, 15)])
    assert two.uneven.startswith("slices 5, 8, 9 and 2 more of 20 are missing, the first at z = 4.0 mm")


def test_the_place_is_told_along_the_axis_of_the_stack() -> None:
    sagittal = (0, 1, 0, 0, 0, -1)
    stack = _grid.arrange([plane((-3 * n, 5, 7), axes=sagittal) for n in (0, 1, 3, 4)])
    assert stack.uneven.startswith("slice 3 of 5 is missing at x = -6.0 mm")


def test_far_too_few_slices_are_no_stack_at_all() -> None:
    stack = _grid.arrange([plane((0, 0, z)) for z in (0, 1, 2, 202)])
    assert stack.grid is None
    assert "run from 1.000 to 200.000 mm, the widest after slice 3 at z = 2.0 mm" in stack.problem


@given(
    st.lists(st.floats(-1, 1), min_size=6, max_size=6),
    st.integers(2, 12),
    st.floats(0.3, 8),
    st.floats(-0.5, 0.5),
    st.randoms(use_true_random=False),
)
@settings(max_examples=60, deadline=None)
def test_any_even_stack_in_any_order_has_its_planes_where_they_say(
    turn: list[float], count: int, gap: float, lean: float, random: Any
) -> None:
    frame, _ = np.linalg.qr(np.reshape(turn, (3, 2)) + np.eye(3, 2) / 10)
    right, down = frame.T
    step = gap * (np.cross(right, down) + lean * down)
    planes = [plane(np.array((1, 2, 3)) + n * step, n, axes=(*right, *down)) for n in range(count)]
    random.shuffle(planes)
    stack = _grid.arrange(planes)
    assert stack.grid is not None
    assert not stack.uneven
    for k, each in enumerate(stack.planes):
        assert np.allclose(stack.grid.to_world((0, 0, k)) * (-1, -1, 1), each.position, atol=1e-6)


def uneven(make: Any, folder: Path, at: list[float], change: Callable[[int], Any] = lambda n: {}) -> Path:
    images = [make.image((0, 0, z), np.full((4, 3), int(10 * z), np.int16), **change(n)) for n, z in enumerate(at)]
    return make.save(folder, images)


def test_gaps_are_filled_between_true_positions_on_request(make: Any, tmp_path: Path) -> None:
    folder = uneven(make, tmp_path / "s", [0, 2, 4, 8])
    with pytest.raises(GeometryError, match=r"slice 4 of 5 is missing at z = 6.0 mm .*--allow-gaps"):
        io.read(folder)
    with pytest.raises(GeometryError, match="slice 4 of 5"):
        io.read_geometry(folder)
    volume = io.read(folder, allow_gaps=True)
    assert volume.array[0, 0, 0].tolist() == [0, 20, 40, 60, 80]
    assert volume.geometry.spacing_mm[2] == 2
    assert volume.meta["notes"][-1].endswith("1 of 5 slices are interpolated")
    assert io.read(uneven(make, tmp_path / "l", [0, 2, 4, 8]), "labels", allow_gaps=True).array.dtype.kind in "iu"


def test_uneven_slices_are_evened_out_on_request(make: Any, tmp_path: Path) -> None:
    folder = uneven(make, tmp_path / "s", [0, 2, 4, 7, 10])
    with pytest.raises(GeometryError, match=r"gaps between its 5 slices run from 2.000 to 3.000 mm, the widest after"):
        io.read(folder)
    volume = io.read(folder, allow_gaps=True)
    z = volume.geometry.to_world([(0, 0, k) for k in range(volume.geometry.shape[2])])[:, 2]
    assert np.allclose(volume.array[0, 0, 0], 10 * z)


def test_copies_in_one_place_are_merged_on_request_if_they_are_equal(make: Any, tmp_path: Path) -> None:
    twice = uneven(make, tmp_path / "s", [0, 2, 2, 4])
    with pytest.raises(GeometryError, match=r"z = 2.0 mm \(4 images\). If both hold equal values, one is used with"):
        io.read(twice)
    assert io.read(twice, allow_gaps=True).array[0, 0, 0].tolist() == [0, 20, 40]
    folder = uneven(make, tmp_path / "t", [0, 2, 2, 4], lambda n: {"PixelData": np.full(12, n, np.int16).tobytes()})
    with pytest.raises(GeometryError, match="they differ; which of them is right cannot be known"):
        io.read(folder, allow_gaps=True)


@pytest.mark.parametrize(("name", "degrees"), [("tilt14_siemens_ct4", 14.0), ("tilt16_philips_ct8", 16.5)])
def test_real_tilts_keep_every_slice_in_its_place(shared_data: Path, name: str, degrees: float) -> None:
    folder = shared_data / "A_no_truth" / name
    volume = io.read(folder)
    assert volume.geometry.shear_deg == pytest.approx(degrees, abs=0.1)
    assert f"{degrees:.1f} degrees" in volume.meta["notes"][0]
    for file in folder.iterdir():
        header = pydicom.dcmread(file)
        corner = np.array(header.ImagePositionPatient, float) * (-1, -1, 1)
        index = volume.geometry.to_index(corner)
        assert np.allclose(index, np.rint(index), atol=0.05)
        hounsfield = header.pixel_array * float(header.RescaleSlope) + float(header.RescaleIntercept)
        assert np.array_equal(volume.array[0, :, :, round(index[2])], hounsfield.T)


def test_real_gaps_are_refused(shared_data: Path) -> None:
    gap = shared_data / "A_no_truth/uneven_ge_ct4"
    with pytest.raises(GeometryError, match=r"slice 4 of 5 is missing at z = 33.1 mm \(gaps of 5.000 to 10.000 mm\)"):
        io.read(gap)
    with pytest.raises(GeometryError, match=r"from 1.250 to 202.500 mm"):
        io.read(shared_data / "C_seg_highdicom/source_CT2")
    volume = io.read(gap, allow_gaps=True)
    (found,) = dicom.find(gap).volumes
    for at, own in zip(found.stack.at, found.stack.planes, strict=True):
        header = pydicom.dcmread(own.file.source.path)
        stored = header.pixel_array * float(header.RescaleSlope) + float(header.RescaleIntercept)
        assert np.array_equal(volume.array[0, :, :, round(at)], stored.T)
