"""DICOM objects of labels, whatever their format: from any series and back, by place alone."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medseg import io
from medseg.data import dicom_objects
from medseg.data.dicom_series import source as source_of
from medseg.errors import DataError, GeometryError
from medseg.geometry import resample_to
from medseg.io import dicom_seg, rtstruct
from medseg.labels import Labels
from medseg.volume import Geometry, Volume

Made = Callable[..., Path]
LABELS = Labels.of({"ball": 2, "cap": 5})
SHAPE = (24, 21, 17)
formats = pytest.mark.parametrize("ending", dicom_objects.FORMATS.values())


def turn(about: tuple[float, float, float], degrees: float) -> np.ndarray:
    """Rotation about an axis (Rodrigues' formula)."""
    x, y, z = np.array(about) / np.linalg.norm(about)
    cross = np.array([(0, -z, y), (z, 0, -x), (-y, x, 0)])
    angle = np.radians(degrees)
    return np.asarray(np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross)


def grid(axes: np.ndarray, spacing_mm: tuple[float, float, float] = (0.9, 1.1, 1.3), lean: float = 0.0) -> Geometry:
    """Around (30, -40, 50) mm; slices lean by so many mm a slice along i, as under a tilted gantry."""
    steps = axes * spacing_mm
    steps[:, 2] += lean * axes[:, 0]
    affine = np.eye(4)
    affine[:3, :3] = steps
    affine[:3, 3] = np.array((30, -40, 50)) - steps @ (np.array(SHAPE) - 1) / 2
    return Geometry(SHAPE, affine)


GRIDS = {
    "axial": grid(np.diag([-1.0, -1, 1])),
    "feet first": grid(np.diag([1.0, -1, -1])),
    "mirrored": grid(np.diag([1.0, -1, 1])),
    "sagittal": grid(np.array([(0.0, 0, 1), (-1, 0, 0), (0, -1, 0)])),
    "oblique": grid(turn((1, 2, 3), 40) @ np.diag([-1.0, -1, 1])),
    "tilted": grid(np.diag([-1.0, -1, 1]), lean=0.4),
    "tilted and oblique": grid(turn((3, -1, 2), 65), lean=-0.5),
}


def ball(geometry: Geometry) -> np.ndarray:
    """A ball of 8 mm off the middle, whose top is a structure of its own, with a bubble: by place, on any grid."""
    index = np.stack(np.meshgrid(*map(np.arange, geometry.shape), indexing="ij"), -1)
    place = geometry.to_world(index) - (31, -39, 49)
    mask = np.where(np.linalg.norm(place, axis=-1) < 8, 2, 0)
    mask[(mask > 0) & (place @ (0.6, 0, 0.8) > 4)] = 5
    mask[np.linalg.norm(place + 2, axis=-1) < 2.5] = 0
    return mask.astype(np.uint8)


def series_of(folder: Path, make_series: Made, geometry: Geometry, **changes: Any) -> Path:
    return make_series(folder, Volume(np.zeros(geometry.shape, np.int16), geometry), **changes)


@formats
@pytest.mark.parametrize("name", GRIDS)
def test_a_ball_comes_back_voxel_for_voxel(tmp_path: Path, make_series: Made, name: str, ending: str) -> None:
    series = series_of(tmp_path / "series", make_series, GRIDS[name])
    geometry = io.read_geometry(series)  # slices are sorted along their normal: mirrored ones the other way round
    mask = ball(geometry)
    dicom_objects.write(Volume(mask, geometry, "labels"), LABELS, source_of(series), tmp_path / f"m{ending}")
    back = io.read(tmp_path / f"m{ending}", on=geometry)
    assert np.array_equal(np.array([0, 2, 5])[back.array[0]], mask)
    assert back.meta["labels"].names == LABELS.names
    # The centre of the ball without its bubble, by the numbers in the file.
    place = own_centre(tmp_path / f"m{ending}")
    expected = geometry.to_world(np.argwhere(mask)).mean(0)
    assert np.linalg.norm(place - expected) < 0.01


@formats
@pytest.mark.parametrize("name", GRIDS)
def test_single_slices_keep_their_thickness(tmp_path: Path, make_series: Made, name: str, ending: str) -> None:
    """One voxel; and corners and whole planes of the first and the last slice alone. The headers state another thickness."""
    geometry = io.read_geometry(series := series_of(tmp_path / "series", make_series, GRIDS[name]))
    masks = [np.zeros(SHAPE, np.uint8) for _ in range(3)]
    masks[0][11, 10, 8] = 5
    masks[1][0, 0, 0], masks[1][-1, -1, -1] = 2, 5
    masks[2][:, :, 0], masks[2][:, :, -1] = 5, 2
    for mask in masks:
        dicom_objects.write(Volume(mask, geometry, "labels"), LABELS, source_of(series), tmp_path / f"m{ending}")
        back = io.read(tmp_path / f"m{ending}", on=geometry)
        values = [LABELS.written[LABELS.names.index(name)] for name in back.meta["names"]]
        assert np.array_equal(np.array([0, *values])[back.array[0]], mask)
        if "seg" in ending:
            assert io.read(tmp_path / f"m{ending}").geometry.voxel_ml == pytest.approx(geometry.voxel_ml)


def own_centre(path: Path) -> np.ndarray:
    """RAS mm of the centre of all structures, without a series: of frames, or of contours by their area."""
    if dicom_seg.matches(path):
        mask = io.read(path)
        return mask.geometry.to_world(np.argwhere(mask.array[0])).mean(0)
    areas, centres = [], []
    for structure in pydicom.dcmread(path).ROIContourSequence:
        for contour in structure.ContourSequence:
            points = np.array(contour.ContourData, float).reshape(-1, 3)
            a, b = points - points[0], np.roll(points, -1, axis=0) - points[0]
            parts = np.cross(a, b) / 2  # of the triangles to the first point
            normal = parts.sum(0) / np.linalg.norm(parts.sum(0))
            areas.append(float((parts @ normal).sum()))
            centres.append(points[0] + (parts @ normal) @ (a + b) / 3 / areas[-1])
    return np.average(centres, axis=0, weights=areas) * (-1, -1, 1)


@settings(deadline=None, max_examples=8)
@given(
    seed=st.integers(0, 2**32 - 1),
    degrees=st.floats(-180, 180),
    lean=st.sampled_from([0.0, 0.3, -0.7]),
    mirror=st.sampled_from([1, -1]),
)
def test_random_masks_on_random_grids_come_back(
    make_series: Made, seed: int, degrees: float, lean: float, mirror: int
) -> None:
    rng = np.random.default_rng(seed)
    about = tuple(rng.normal(size=3))
    made = grid(turn(about, degrees) @ np.diag([mirror, 1.0, 1]), tuple(rng.uniform(0.4, 3, 3)), lean)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        series = series_of(root / "series", make_series, Geometry((9, 7, 5), made.affine))
        geometry = io.read_geometry(series)
        mask = rng.choice([0, 0, 2, 5], geometry.shape).astype(np.uint8)
        for ending in dicom_objects.FORMATS.values():
            dicom_objects.write(Volume(mask, geometry, "labels"), LABELS, source_of(series), root / f"m{ending}")
            back = io.read(root / f"m{ending}", on=geometry)
            assert np.array_equal(np.array([0, 2, 5])[back.array[0]], mask)


@formats
def test_a_mask_that_does_not_come_back_is_an_error_and_no_file(
    tmp_path: Path, make_series: Made, ending: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    geometry = GRIDS["axial"]
    series = source_of(series_of(tmp_path / "series", make_series, geometry))
    form = dicom_seg if "seg" in ending else rtstruct
    right = form.write
    damages = {
        "away": lambda numbers: np.roll(numbers, 1, axis=1),
        "comes to 0 ml": lambda numbers: np.where(numbers == 1, 0, numbers),
        "mm away": lambda numbers: numbers[:, ::-1],
    }
    for word, damage in damages.items():
        monkeypatch.setattr(form, "write", lambda numbers, *rest, change=damage: right(change(numbers), *rest))
        with pytest.raises(DataError, match=f"was not kept: 'ball' of .* {word}"):
            dicom_objects.write(
                Volume(ball(geometry), geometry, "labels"), LABELS, series, tmp_path / "out" / f"m{ending}"
            )
        assert not list((tmp_path / "out").iterdir())


@formats
def test_what_came_that_was_not_written_is_an_error(
    tmp_path: Path, make_series: Made, ending: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    geometry = GRIDS["axial"]
    series = source_of(series_of(tmp_path / "series", make_series, geometry))
    form = dicom_seg if "seg" in ending else rtstruct
    right, mask = form.write, np.where(ball(geometry) == 5, 0, ball(geometry))
    monkeypatch.setattr(
        form, "write", lambda numbers, *rest: right(np.where(ball(geometry) == 5, numbers * 0 + 2, numbers), *rest)
    )
    with pytest.raises(DataError, match="1 label came back but was not written"):
        dicom_objects.write(Volume(mask, geometry, "labels"), LABELS, series, tmp_path / f"m{ending}")


# --- whose it is


def texts(path: Path) -> str:
    """Every value of an object, and the bytes of its file."""
    return str(pydicom.dcmread(path)) + path.read_bytes().decode("latin-1")


@formats
def test_patient_and_study_are_taken_over_or_left_out(tmp_path: Path, make_series: Made, ending: str) -> None:
    geometry = GRIDS["axial"]
    mask = Volume(ball(geometry), geometry, "labels")
    series = source_of(series_of(tmp_path / "series", make_series, geometry))
    plain, bare, moved = (tmp_path / f"{name}{ending}" for name in ("plain", "bare", "moved"))
    dicom_objects.write(mask, LABELS, series, plain)
    assert all(
        text in texts(plain) for text in ("Doe^John", "PAT-4711", "19500102", "Doe follow-up", "20200304", "Roe^R")
    )
    assert "St Doe" not in texts(plain)  # the place where it was made is no part of what was made of it
    dicom_objects.write(mask, LABELS, series.deidentified(), bare)
    assert not any(
        text in texts(bare) for text in ("Doe", "PAT-4711", "19500102", "20200304", "101112.5", "Roe", "ACC-77", "ST-5")
    )
    ((of_plain,), (of_bare,)) = io.references(plain), io.references(bare)
    assert of_bare == of_plain._replace(own=of_bare.own, made=of_bare.made)
    assert pydicom.dcmread(bare).PatientIdentityRemoved == "YES"
    dicom_objects.write(mask, LABELS, series.deidentified().remapped(b"key"), moved)
    assert "1.2.826.0.1.7" not in texts(moved)
    (again,) = io.references(moved)
    assert again.frame
    assert again.series == (source_of(tmp_path / "series").remapped(b"key").first.SeriesInstanceUID,)
    assert np.array_equal(io.read(moved, on=geometry).array, io.read(plain, on=geometry).array)


@formats
def test_nothing_found_is_an_object_too(
    tmp_path: Path, make_series: Made, caplog: pytest.LogCaptureFixture, ending: str
) -> None:
    geometry = GRIDS["axial"]
    series = source_of(series_of(tmp_path / "series", make_series, geometry))
    nothing = Volume(np.zeros(geometry.shape, np.uint8), geometry, "labels")
    dicom_objects.write(nothing, LABELS, series, tmp_path / f"m{ending}")
    back = io.read(tmp_path / f"m{ending}", on=geometry)
    assert not back.array.any()
    assert back.meta["labels"].names == LABELS.names
    assert not caplog.text


@formats
def test_a_mask_beside_the_series_is_refused_as_such(tmp_path: Path, make_series: Made, ending: str) -> None:
    geometry = GRIDS["axial"]
    far = Geometry(geometry.shape, [[1, 0, 0, 900], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]] @ geometry.affine)
    series = source_of(series_of(tmp_path / "series", make_series, geometry))
    with pytest.raises(GeometryError, match=r"nothing of the mask .* lies on the series"):
        dicom_objects.write(Volume(ball(geometry), far, "labels"), LABELS, series, tmp_path / f"m{ending}")


@formats
def test_a_mask_on_other_voxels_is_refused_with_what_it_would_lose(
    tmp_path: Path, make_series: Made, ending: str
) -> None:
    geometry = GRIDS["oblique"]
    series = source_of(series_of(tmp_path / "series", make_series, geometry))
    coarse = Geometry((12, 10, 8), geometry.affine @ np.diag([2, 2, 2, 1]))
    with pytest.raises(
        GeometryError, match=r"on other voxels than the series: by the nearest ones 'ball' of .* comes to"
    ):
        dicom_objects.write(Volume(ball(coarse), coarse, "labels"), LABELS, series, tmp_path / f"m{ending}")
    there = resample_to(Volume(ball(coarse), coarse, "labels"), series.geometry)
    dicom_objects.write(there, LABELS, series, tmp_path / f"m{ending}")
    other = Geometry(SHAPE[::-1], geometry.affine[:, [2, 1, 0, 3]])  # the same voxels
    dicom_objects.write(Volume(ball(other), other, "labels"), LABELS, series, tmp_path / f"m{ending}")


@formats
def test_names_that_no_object_can_hold_are_refused(tmp_path: Path, make_series: Made, ending: str) -> None:
    geometry = GRIDS["axial"]
    series = source_of(series_of(tmp_path / "series", make_series, geometry))
    mask = Volume(np.ones(geometry.shape, np.uint8), geometry, "labels")
    for name in ("", " ", "x" * 65, "a\\b", "a\nb"):
        with pytest.raises(DataError, match="1 to 64 letters"):
            dicom_objects.write(mask, Labels.of({name: 1}), series, tmp_path / f"m{ending}")
    assert not (tmp_path / f"m{ending}").exists()


@formats
def test_blanks_at_the_ends_of_a_name_mean_nothing(tmp_path: Path, make_series: Made, ending: str) -> None:
    geometry = GRIDS["axial"]
    series = source_of(series_of(tmp_path / "series", make_series, geometry))
    labels = Labels.of({" ball": 2, "cap ": 5})
    dicom_objects.write(Volume(ball(geometry), geometry, "labels"), labels, series, tmp_path / f"m{ending}")
    assert io.read(tmp_path / f"m{ending}", on=geometry).meta["labels"].names == ("ball", "cap")
    same = Labels.of({"ball": 2, "ball ": 5})
    with pytest.raises(DataError, match="names that DICOM takes for one: 'ball'"):
        dicom_objects.write(Volume(ball(geometry), geometry, "labels"), same, series, tmp_path / f"n{ending}")


@formats
def test_what_is_invalid_in_the_series_is_left_empty_and_said(tmp_path: Path, make_series: Made, ending: str) -> None:
    geometry = GRIDS["axial"]
    folder = series_of(tmp_path / "series", make_series, geometry)
    for file in folder.iterdir():
        file.write_bytes(file.read_bytes().replace(b"19500102", b"in 1950 "))
    series = source_of(folder)
    assert series.notes == ("the series' PatientBirthDate is no valid DICOM and was left empty",)
    dicom_objects.write(Volume(ball(geometry), geometry, "labels"), LABELS, series, tmp_path / f"m{ending}")
    assert pydicom.dcmread(tmp_path / f"m{ending}").PatientBirthDate == ""
    assert pydicom.dcmread(tmp_path / f"m{ending}").PatientID == "PAT-4711"


@formats
def test_a_sex_and_a_number_that_no_object_can_have(tmp_path: Path, make_series: Made, ending: str) -> None:
    """A phantom's sex is 0 on some scanners."""
    geometry = GRIDS["axial"]
    series = source_of(series_of(tmp_path / "series", make_series, geometry, PatientSex="0", SeriesNumber=-2000))
    assert series.notes == ("the series' PatientSex is no valid DICOM and was left empty",)
    dicom_objects.write(Volume(ball(geometry), geometry, "labels"), LABELS, series, tmp_path / f"m{ending}")
    written = pydicom.dcmread(tmp_path / f"m{ending}")
    assert (written.PatientSex, written.SeriesNumber) == ("", 1)


@formats
def test_a_series_without_a_frame_of_reference_gets_one(tmp_path: Path, make_series: Made, ending: str) -> None:
    geometry = GRIDS["axial"]
    series = source_of(series_of(tmp_path / "series", make_series, geometry, FrameOfReferenceUID=""))
    assert "no frame of reference" in series.notes[0]
    dicom_objects.write(Volume(ball(geometry), geometry, "labels"), LABELS, series, tmp_path / f"m{ending}")
    assert io.references(tmp_path / f"m{ending}")[0].frame


def test_a_scan_that_is_no_dicom_or_has_no_identity_is_refused(tmp_path: Path, make_series: Made) -> None:
    geometry = GRIDS["axial"]
    io.write(Volume(ball(geometry), geometry), tmp_path / "a.nii.gz")
    with pytest.raises(DataError, match=r"is no DICOM series, to which alone a DICOM object can refer"):
        source_of(tmp_path / "a.nii.gz")
    damaged = source_of(series_of(tmp_path / "d", make_series, geometry))
    del damaged.first.PatientID
    with pytest.raises(DataError, match=r"^'m\.seg\.dcm' cannot be made of this series' headers"):
        dicom_objects.write(Volume(ball(geometry), geometry, "labels"), LABELS, damaged, tmp_path / "m.seg.dcm")
    with pytest.raises(DataError, match="the series has no StudyInstanceUID"):
        source_of(series_of(tmp_path / "s", make_series, geometry, StudyInstanceUID=""))


# --- real ones

SERIES = (
    "A_hippo_dicom/Study1_13_HCropVolume",
    "A_hippo_dicom/Study3_11-T1post-18670",
    "A_no_truth/tilt14_siemens_ct4",
    "A_dicom_nifti/d2n_philips_enhanced_anatomical_001/dicom",  # one file, which repeats in each frame what all share
)


@formats
@pytest.mark.parametrize("name", [*SERIES, "C_rtstruct_sts/STS_019/PET/dicom"])
def test_real_series_carry_masks(shared_data: Path, tmp_path: Path, name: str, ending: str) -> None:
    geometry = io.read_geometry(shared_data / name)
    index = np.indices(geometry.shape) / (np.array(geometry.shape) - 1).reshape(3, 1, 1, 1) - 0.4
    mask = np.where(np.linalg.norm(index, axis=0) < 0.4, 2, 0)  # an egg off the middle, whose end is another structure
    mask[(mask > 0) & (index[0] + index[2] > 0.2)] = 5
    dicom_objects.write(
        Volume(mask, geometry, "labels"), LABELS, source_of(shared_data / name), tmp_path / f"m{ending}"
    )
    back = io.read(tmp_path / f"m{ending}", on=geometry)
    assert np.array_equal(np.array([0, 2, 5])[back.array[0]], mask)


@formats
def test_sixty_real_structures_on_a_series_of_another_orientation(
    shared_data: Path, tmp_path: Path, make_series: Made, ending: str
) -> None:
    folder = shared_data / "B_totalseg_ct"
    series = source_of(make_series(tmp_path / "series", io.read(folder / "example_ct.nii.gz")))
    mask = io.read(folder / "example_ct_seg_model.nii.gz", "labels")
    labels = Labels.of(int(value) for value in np.unique(mask.array) if value)
    dicom_objects.write(mask, labels, series, tmp_path / f"m{ending}")
    placed = resample_to(mask, series.geometry).array
    back = io.read(tmp_path / f"m{ending}", on=series.geometry)
    assert len(labels) == 61
    assert np.array_equal(np.array([0, *labels.values])[back.array], placed)


# --- another reader


@pytest.mark.parametrize("values", [(2, 5), tuple(range(1, 41))])
def test_dcmqi_reads_the_same_voxels_at_the_same_place(
    tmp_path: Path, make_series: Made, values: tuple[int, ...]
) -> None:
    """BINARY, and LABELMAP of many; on an oblique grid, for dcmqi makes a tilted stack upright."""
    program = shutil.which("segimage2itkimage") or shutil.which("segimage2itkimage", path=Path(sys.executable).parent)
    if program is None:
        pytest.skip("dcmqi is not installed")
    series = series_of(tmp_path / "series", make_series, GRIDS["oblique"])
    geometry = io.read_geometry(series)
    mask = np.where(ball(geometry) > 0, np.array(values)[np.arange(SHAPE[0]) % len(values)][:, None, None], 0)
    dicom_objects.write(Volume(mask, geometry, "labels"), Labels.of(values), source_of(series), tmp_path / "m.seg.dcm")
    where = ["--inputDICOM", tmp_path / "m.seg.dcm", "--outputDirectory", tmp_path]
    subprocess.run([program, *where, "-t", "nrrd", "--mergeSegments"], check=True, capture_output=True)
    found = resample_to(io.read(tmp_path / "1.nrrd", "labels"), geometry)
    assert np.array_equal(np.array([0, *values])[found.array[0]], mask)


@formats
def test_a_full_disk_is_said_as_such(tmp_path: Path, make_series: Made, ending: str) -> None:
    """pydicom wraps what the disk says in errors without a number; the file is not there, nor a part of it."""
    resource = pytest.importorskip("resource")
    series = series_of(tmp_path / "series", make_series, GRIDS["oblique"])
    mask, source = Volume(ball(GRIDS["oblique"]), io.read_geometry(series), "labels"), source_of(series)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        with pytest.raises(DataError, match=r"cannot write '.*': File too large"):
            dicom_objects.write(mask, LABELS, source, tmp_path / "out" / f"m{ending}")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not list((tmp_path / "out").iterdir())
