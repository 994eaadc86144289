import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medseg import io
from medseg.data import dicom_objects
from medseg.data.dicom_series import source as source_of
from medseg.errors import DataError, GeometryError, MedsegError
from medseg.io._source import Source
from medseg.io.rtstruct._fill import fill, slices
from medseg.io.rtstruct._outline import outlines
from medseg.labels import Labels
from medseg.volume import Geometry, Volume

SQUARE = np.array([(1, 1), (5, 1), (5, 5), (1, 5)], float)
SLANTED = np.column_stack([SQUARE, [1.0, 1, 3, 3]])
GRID = Geometry((9, 8, 6), np.diag([-1.0, -1, 2, 1]))


def structure_set(path: Path, rois: dict[str, list[np.ndarray]], kind: str = "CLOSED_PLANAR", **changes: Any) -> Path:
    """Contours given in voxels of GRID; an RTSTRUCT with nothing beside them."""
    data = pydicom.Dataset()
    data.file_meta = pydicom.dataset.FileMetaDataset()
    data.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    data.SOPClassUID, data.SOPInstanceUID = pydicom.uid.RTStructureSetStorage, "1.2.3"
    data.SeriesInstanceUID, data.Modality, data.PatientName = "1.2.4", "RTSTRUCT", "Doe^John"
    data.StructureSetROISequence, data.ROIContourSequence = [], []
    for number, (name, contours) in enumerate(rois.items(), 1):
        roi, drawn = pydicom.Dataset(), pydicom.Dataset()
        roi.ROINumber, roi.ROIName = number, name
        drawn.ReferencedROINumber, drawn.ROIDisplayColor, drawn.ContourSequence = number, [10, 20, 30], []
        for points in contours:
            contour = pydicom.Dataset()
            contour.ContourGeometricType, contour.NumberOfContourPoints = kind, len(points)
            contour.ContourData = (GRID.to_world(points) * (-1, -1, 1)).ravel().tolist()
            drawn.ContourSequence.append(contour)
        data.StructureSetROISequence.append(roi)
        data.ROIContourSequence.append(drawn)
    for name, value in changes.items():
        setattr(data, name, value)
    data.save_as(path, enforce_file_format=True)
    return path


def at(k: float, corners: np.ndarray = SQUARE) -> np.ndarray:
    return np.column_stack([corners, np.full(len(corners), float(k))])


def filled(path: Path, **rois: list[np.ndarray]) -> Volume:
    return io.read(structure_set(path / "rs.dcm", rois), "labels", on=GRID)


# --- filling


def test_a_square_takes_the_centres_in_it_and_those_on_its_left_and_upper_edge() -> None:
    expected = np.zeros((8, 9), bool)
    expected[1:5, 1:5] = True
    assert np.array_equal(fill([SQUARE], (8, 9)), expected)
    assert np.array_equal(fill([SQUARE[::-1]], (8, 9)), expected)
    assert fill([SQUARE + 0.5], (8, 9))[2:6, 2:6].sum() == 16


def test_two_squares_that_share_an_edge_share_no_voxel() -> None:
    beside = SQUARE + np.array((4, 0))
    both = fill([SQUARE], (8, 12)).astype(int) + fill([beside], (8, 12))
    assert both.max() == 1
    assert both.sum() == 32


def test_a_contour_in_a_contour_is_a_hole_and_a_third_one_an_island() -> None:
    nested = [np.array([(a, a), (b, a), (b, b), (a, b)]) - 0.5 for a, b in ((0, 9), (2, 7), (4, 5))]
    assert fill(nested, (9, 9)).sum() == 81 - 25 + 1


def test_a_keyhole_equals_a_hole() -> None:
    outer, inner = [(0, 0), (9, 0), (9, 9), (0, 9)], [(3, 3), (3, 6), (6, 6), (6, 3)]
    keyhole = np.array([*outer, (0, 0), *inner, (3, 3), (0, 0)], float) - 0.4
    apart = [np.array(outer) - 0.4, np.array(inner) - 0.4]
    assert np.array_equal(fill([keyhole], (9, 9)), fill(apart, (9, 9)))


def test_what_lies_outside_of_the_image_is_cut_off() -> None:
    assert fill([SQUARE - 3], (8, 9)).sum() == 4
    assert fill([SQUARE * 100 - 200], (8, 9)).all()
    assert not fill([SQUARE + 20], (8, 9)).any()


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32 - 1), st.integers(3, 9))
def test_filling_equals_the_winding_of_each_centre_around_a_star(seed: int, corners: int) -> None:
    """Oracle: matplotlib's own test of points in a polygon."""
    from matplotlib.path import Path as Polygon

    rng = np.random.default_rng(seed)
    angles = np.sort(rng.uniform(0, 2 * np.pi, corners))
    star = 10 + rng.uniform(2, 9, corners)[:, None] * np.column_stack([np.cos(angles), np.sin(angles)])
    centres = np.stack(np.meshgrid(np.arange(20), np.arange(18)), -1).reshape(-1, 2)
    assert np.array_equal(fill([star], (18, 20)).ravel(), Polygon(star).contains_points(centres))


# --- outlines


def area(corners: np.ndarray) -> float:
    x, y = corners.T
    return abs(float(x @ np.roll(y, -1) - y @ np.roll(x, -1))) / 2


def test_a_pixel_is_outlined_by_its_edges() -> None:
    plane = np.zeros((4, 5), bool)
    plane[2, 3] = True
    (corners,) = outlines(plane)
    assert sorted(corners.tolist()) == [[2.5, 1.5], [2.5, 2.5], [3.5, 1.5], [3.5, 2.5]]
    assert outlines(np.zeros((3, 3), bool)) == []


def test_pixels_that_touch_at_a_corner_are_two_parts() -> None:
    assert [area(corners) for corners in outlines(np.eye(3, dtype=bool))] == [1, 1, 1]
    ring = np.ones((4, 4), bool)
    ring[1, 1] = ring[2, 2] = False  # two holes that touch at a corner
    (corners,) = outlines(ring)
    assert area(corners) == 14
    assert np.array_equal(fill([corners], (4, 4)), ring)


def test_thousands_of_holes_take_a_moment() -> None:
    plane = np.ones((200, 200), bool)
    plane[1:-1:2, 1:-1:2] = False
    began = time.process_time()
    (outline,) = outlines(plane)
    assert time.process_time() - began < 5  # of a slit each, looked for anew in the whole way, half a minute
    assert abs(area(outline)) == plane.sum()
    assert np.array_equal(fill([outline], plane.shape), plane)


@settings(deadline=None, max_examples=150)
@given(st.integers(0, 2**32 - 1), st.integers(1, 9), st.integers(1, 9), st.floats(0.1, 0.95))
def test_outlines_filled_are_the_plane_and_have_its_area(seed: int, rows: int, columns: int, share: float) -> None:
    plane = np.random.default_rng(seed).random((rows, columns)) < share
    found = outlines(plane)
    assert sum(map(area, found)) == plane.sum()  # one polygon a part: slits enclose nothing
    assert np.array_equal(fill(found, plane.shape), plane)
    steps = [np.abs(np.diff(np.vstack([c, c[:1]]), axis=0)) for c in found]
    assert all(
        (np.count_nonzero(step, axis=1) == 1).all() for step in steps
    )  # along edges, and no corner twice running


# --- which slice shows a contour


def test_contours_on_slices_belong_to_them_alone() -> None:
    assert slices(np.array([1.0, 1.04, 3.0]), 5, 2.0) == [[], [0, 1], [], [2], []]


def test_slices_between_contours_take_the_nearest_plane() -> None:
    heights = np.array([0.25, 2.25, 4.25])  # two slices apart
    assert slices(heights, 7, 1.0) == [[0], [0], [1], [1], [2], [2], []]


def test_thin_planes_on_thick_slices_and_a_single_plane_between_slices() -> None:
    assert slices(np.arange(8) * 0.3, 3, 5.0) == [[0], [3], [7]]
    assert slices(np.array([1.4]), 4, 1.0) == [[], [0], [], []]
    far = slices(np.array([1.4, 40.4]), 45, 1.0)  # 39 mm apart are two structures, and not one of that thickness
    assert [k for k, shown in enumerate(far) if shown] == [*range(7), *range(36, 45)]


# --- files


def test_holes_parts_and_overlaps_by_name(tmp_path: Path) -> None:
    hole = np.array([(2, 2), (4, 2), (4, 4), (2, 4)], float)
    volume = filled(tmp_path, organ=[at(1), at(1, hole), at(2)], other=[at(4), at(4, SQUARE[:3] + 3.2)])
    assert volume.meta["labels"].names == ("organ", "other")
    assert volume.meta["labels"].exclusive
    assert [(volume.array[0, :, :, k] == 1).sum() for k in range(6)] == [0, 12, 16, 0, 0, 0]
    assert not (volume.array[0, :, :, [0, 3, 5]]).any()
    assert volume.geometry == GRID
    assert volume.kind == "labels"


def test_structures_that_overlap_are_channels(tmp_path: Path) -> None:
    volume = filled(tmp_path, body=[at(1)], tumour=[at(1, SQUARE / 2 + 1)], far=[at(3)])
    assert volume.array.shape[0] == 3
    assert not volume.meta["labels"].exclusive
    assert [int(channel.sum()) for channel in volume.array] == [16, 4, 16]
    assert volume.meta["notes"] == ("structures overlap in 4 voxels",)


def test_what_is_odd_is_said_in_numbers(tmp_path: Path) -> None:
    notes = filled(tmp_path, a=[at(0), at(0), at(2), at(4), at(9)]).meta["notes"]
    assert "1 of 4 contours lie outside of the scan, and were left out" in notes
    assert "contours were drawn in one of 2 slices alone; the slices between them are empty" in notes
    assert "1 contour comes twice, and counts once" in notes
    assert "on other slices" in filled(tmp_path, a=[at(1.5), at(2.5)]).meta["notes"][0]
    beside = filled(tmp_path, a=[at(0), at(1, SQUARE + 20)])
    assert beside.meta["notes"] == ("1 of 2 contours lie outside of the scan, and were left out",)


def test_points_lines_and_contours_without_points_are_counted(tmp_path: Path) -> None:
    path = structure_set(tmp_path / "rs.dcm", {"a": [at(1), at(2)], "b": [at(1)], "c": [at(3)]})
    data = pydicom.dcmread(path)
    data.ROIContourSequence[0].ContourSequence[1].ContourData = None
    data.ROIContourSequence[1].ContourSequence[0].ContourGeometricType = "POINT"
    del data.ROIContourSequence[2].ContourSequence[0].ContourData
    data.save_as(path)
    mask = io.read(path, on=GRID)
    assert mask.meta["labels"].names == ("a",)
    assert mask.array.sum() == 16
    assert mask.meta["notes"] == ("3 points and open lines are no structures: left out",)


def test_a_set_in_which_nothing_is_drawn_is_an_empty_mask(tmp_path: Path) -> None:
    empty = filled(tmp_path, a=[], b=[])
    assert empty.meta["labels"].names == ("a", "b")
    assert not empty.array.any()


def test_what_cannot_be_filled_is_refused(tmp_path: Path) -> None:
    for kind in ("POINT", "OPEN_PLANAR"):
        path = structure_set(tmp_path / "open.dcm", {"Doe": [at(1)]}, kind)
        with pytest.raises(DataError, match="no closed contours"):
            io.read(path, on=GRID)
    with pytest.raises(GeometryError, match="run across 2 slices"):
        filled(tmp_path, a=[SLANTED])
    with pytest.raises(GeometryError, match=r"all contours lie outside of the scan \(slices 40.0 to 40.0 of its 6,"):
        filled(tmp_path, a=[at(40)])
    with pytest.raises(GeometryError, match=r"all contours lie outside of the scan .*or beside them"):
        filled(tmp_path, a=[at(2, SQUARE - 20)])
    for wrong in (1e9, np.nan):
        with pytest.raises(DataError, match="damaged or incomplete"):
            filled(tmp_path, a=[at(1, np.where(SQUARE == 5, wrong, SQUARE))])
    with pytest.raises(DataError, match="which become a mask on a grid alone"):
        io.read(structure_set(tmp_path / "rs.dcm", {"a": [at(1)]}))
    with pytest.raises(DataError, match="damaged or incomplete") as caught:
        io.read(structure_set(tmp_path / "rs.dcm", {"a": [at(1)]}, ROIContourSequence=[pydicom.Dataset()]), on=GRID)
    assert "Doe" not in str(caught.value)


def test_a_structure_across_the_slices_is_left_out_whole_and_the_others_stay(tmp_path: Path) -> None:
    standing = np.column_stack([np.full(4, 3.0), [1, 5, 5, 1], [0, 0, 4, 4]])  # as drawn on a sagittal reformation
    mask = filled(tmp_path, body=[at(1)], tumour=[standing], cyst=[at(2), SLANTED])
    assert mask.meta["labels"].names == ("body",)
    assert mask.meta["left_out"] == ("tumour", "cyst")
    assert mask.meta["notes"] == (
        "drawn across the slices, on planes of another direction, and left out: 'tumour', 'cyst'",
    )
    assert mask.array.sum() == 16


def test_structures_drawn_on_two_series_are_placed_series_by_series(tmp_path: Path) -> None:
    """One on the slices of the scan, the other on planes between them: neither takes the other's slices."""
    path = structure_set(tmp_path / "rs.dcm", {"a": [at(k) for k in (0, 1, 4)], "b": [at(0.4), at(1.9), at(3.4)]})
    data = pydicom.dcmread(path)
    named = []
    for number, drawn in enumerate(data.ROIContourSequence):
        image, series, study = pydicom.Dataset(), pydicom.Dataset(), pydicom.Dataset()
        image.ReferencedSOPInstanceUID, series.SeriesInstanceUID = f"1.9.{number}", f"1.8.{number}"
        series.ContourImageSequence, study.RTReferencedSeriesSequence = [image], [series]
        for contour in drawn.ContourSequence:
            contour.ContourImageSequence = [image]
        named.append(study)
    data.ReferencedFrameOfReferenceSequence = [pydicom.Dataset()]
    data.ReferencedFrameOfReferenceSequence[0].RTReferencedStudySequence = named
    data.save_as(path)
    mask = io.read(path, on=GRID)
    shown = [
        np.flatnonzero(mask.meta["labels"].mask(mask.array, item).any(axis=(0, 1))) for item in mask.meta["labels"]
    ]
    assert [found.tolist() for found in shown] == [[0, 1, 4], [0, 1, 2, 3, 4]]  # a has a gap, b's planes are 1.5 apart
    assert mask.meta["notes"] == (
        "contours were drawn on other slices than the scan's; each slice takes the nearest ones",
        "structures overlap in 48 voxels",
    )


def test_names_that_come_twice_or_not_at_all(tmp_path: Path) -> None:
    path = structure_set(tmp_path / "rs.dcm", {"a": [at(1)], "b": [at(2)], "c": [at(3)]})
    data = pydicom.dcmread(path)
    data.StructureSetROISequence[1].ROIName, data.StructureSetROISequence[2].ROIName = "a", ""
    data.save_as(path)
    assert io.read(path, on=GRID).meta["labels"].names == ("a", "a (2)", "label 3")


# --- real ones


@pytest.mark.parametrize("modality", ["CT", "MR_T1", "PET"])
@pytest.mark.parametrize("patient", ["STS_019", "STS_025"])
def test_real_contours_give_the_very_mask(shared_data: Path, tmp_path: Path, patient: str, modality: str) -> None:
    folder = shared_data / "C_rtstruct_sts" / patient / modality
    mask = io.read(folder / "RS.dcm", on=io.read_geometry(folder / "dicom"))
    truth = nib.as_closest_canonical(nib.load(folder / "truth_mask.nii.gz"))
    ours = nib.as_closest_canonical(nib.Nifti1Image(mask.array[0], mask.geometry.affine))
    assert np.array_equal(np.asarray(ours.dataobj) > 0, np.asarray(truth.dataobj) > 0)
    assert np.abs(ours.affine - truth.affine).max() < 1e-3
    assert not io.references(folder / "RS.dcm")[0].instances & {
        str(pydicom.dcmread(file, stop_before_pixels=True).SOPInstanceUID) for file in (folder / "dicom").iterdir()
    }  # the contours name images that are not there: their places count


def test_contours_beyond_the_series_are_counted(shared_data: Path) -> None:
    folder = shared_data / "C_rtstruct_rtutils"
    affine = np.diag([-0.488281, -0.488281, 5.0, 1])
    affine[:3, 3] = (125, 125, 60)
    grid = Geometry((512, 512, 2), affine)
    mask = io.read(folder / "invalid_reference_rt.dcm", on=grid)
    assert mask.meta["labels"].names == ("ROI-1", "ROI-2", "ROI-3", "ROI-4")
    assert "4 of 12 contours lie outside of the scan, and were left out" in mask.meta["notes"]
    assert all(mask.meta["labels"].mask(mask.array, item).any(axis=(0, 1)).all() for item in mask.meta["labels"])


# --- writing


def test_written_contours_are_valid_and_say_what_they_belong_to(
    tmp_path: Path, make_series: Callable[..., Path]
) -> None:
    mask = np.zeros(GRID.shape, np.uint8)
    mask[2:7, 2:6, 1:4] = 5
    mask[4, 4, 2] = 0  # a hole
    mask[7, 2:4, 1:3] = 9  # beside it
    labels = Labels.of({"Kidney left": 5, "Ün tumour": 9})
    series = make_series(tmp_path / "ct", Volume(np.zeros(GRID.shape, np.int16), GRID))
    path = tmp_path / "m.rtstruct.dcm"
    dicom_objects.write(Volume(mask, GRID, "labels"), labels, source_of(series), path)
    data = pydicom.dcmread(path)
    pydicom.config.settings.reading_validation_mode = pydicom.config.RAISE
    try:
        text = str(pydicom.dcmread(path))  # every value is looked at
    finally:
        pydicom.config.settings.reading_validation_mode = None
    assert "Kidney left" in text
    assert (data.PatientID, str(data.PatientName), data.StudyInstanceUID) == ("PAT-4711", "Doe^John", "1.2.826.0.1.7.8")
    assert [roi.ROIName for roi in data.StructureSetROISequence] == ["Kidney left", "Ün tumour"]
    (refers,) = io.references(path)
    assert refers.series == ("1.2.826.0.1.7.9",)
    assert len(refers.instances) == 6
    contours = data.ROIContourSequence[0].ContourSequence
    assert [len(contour.ContourImageSequence) for contour in contours] == [1, 1, 1]
    assert [contour.NumberOfContourPoints for contour in contours] == [4, 10, 4]  # a keyhole in the second
    images = [contour.ContourImageSequence[0].ReferencedSOPInstanceUID for contour in contours]
    assert images == [f"1.2.826.0.1.7.{k + 1}" for k in (1, 2, 3)]
    back = io.read(path, on=GRID)
    assert np.array_equal(np.array([0, 5, 9])[back.array], mask[None])
    assert [item.colour for item in back.meta["labels"]] == [item.colour for item in labels]


def test_the_places_of_slices_are_looked_up_once_for_any_number_of_contours(
    tmp_path: Path, make_series: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    series = make_series(tmp_path / "series", Volume(np.zeros(GRID.shape, np.int16), GRID))
    mask = (np.indices(GRID.shape).sum(axis=0) % 2).astype(np.uint8)  # each voxel is a part of its own
    looked, places = [], Source.positions_lps.fget
    monkeypatch.setattr(Source, "positions_lps", property(lambda source: looked.append(1) or places(source)))
    dicom_objects.write(
        Volume(mask, GRID, "labels"), Labels.of({"x": 1}), source_of(series), tmp_path / "m.rtstruct.dcm"
    )
    assert 1 <= len(looked) < 5


def test_long_contours_keep_their_kind_in_the_file(tmp_path: Path, make_series: Callable[..., Path]) -> None:
    """In explicit encoding 64 kB of numbers become bytes of unknown kind, which many programs do not read."""
    grid = Geometry((2400, 3, 2), np.diag([-1.0, -1, 2, 1]))
    rough = np.ones(grid.shape, np.uint8)
    rough[1::2, 1:] = 0  # a comb
    series = make_series(tmp_path / "ct", Volume(np.zeros(grid.shape, np.int16), grid))
    dicom_objects.write(
        Volume(rough, grid, "labels"), Labels.of({"a": 1}), source_of(series), tmp_path / "m.rtstruct.dcm"
    )
    contour = pydicom.dcmread(tmp_path / "m.rtstruct.dcm").ROIContourSequence[0].ContourSequence[0]
    assert contour["ContourData"].VR == "DS"
    assert sum(len(str(number)) for number in contour.ContourData) > 2**16
    assert np.array_equal(io.read(tmp_path / "m.rtstruct.dcm", on=grid).array[0], rough)


def test_what_is_no_structure_set_is_refused(tmp_path: Path) -> None:
    io.write(Volume(np.zeros((3, 3, 3), np.uint8), Geometry((3, 3, 3), np.eye(4))), tmp_path / "a.nii.gz")
    with pytest.raises(MedsegError, match=r"a\.nii\.gz' (has a grid of its own|cannot be read with on)"):
        io.read(tmp_path / "a.nii.gz", on=GRID)
