"""A tree of DICOM studies with SEG or RTSTRUCT, as a dataset."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pydicom
import pytest

from medseg import api, io
from medseg.data import agreement, dicom_objects, dicom_structures, layouts, pairing, reading
from medseg.data.dicom_series import source
from medseg.errors import ConfigError, DataError, GeometryError
from medseg.labels import Labels
from medseg.volume import Geometry, Volume

pytestmark = pytest.mark.usefixtures("no_charts")
Made = Callable[..., Path]
SHAPE = (20, 18, 12)
LPS = np.diag([-1.0, -1, 2, 1])
BOTH = Labels.of({"Liver": 1, "tumour_1": 2})
OBLIQUE = np.array([[-0.8, 0.6, 0, 5], [-0.6, -0.8, 0, 7], [0, 0, 2, 9], [0, 0, 0, 1]])


def masked(number: int) -> np.ndarray:
    """A box of value 1 beside a smaller one of value 2, elsewhere in each case."""
    mask = np.zeros(SHAPE, np.uint8)
    mask[3 + number : 9 + number, 4:10, :7] = 1
    mask[3:7, 12:16, :5] = 2
    return mask


@pytest.fixture
def study(make_series: Made) -> Callable[..., Path]:
    """One patient's study: a series with its structures in an object beside or somewhere else."""

    def make(
        root: Path,
        number: int,
        ending: str = ".rtstruct.dcm",
        labels: Labels = BOTH,
        mask: np.ndarray | None = None,
        affine: np.ndarray = LPS,
        **changes: Any,
    ) -> Path:
        mask, grid = masked(number) if mask is None else mask, Geometry(SHAPE, affine)
        noise = np.random.default_rng(number).normal(100, 10, SHAPE)
        named = {"PatientID": f"PAT-{number}", "PatientName": f"Doe^{number}", **changes}
        flat = mask if mask.ndim == 3 else mask.sum(0)
        folder = root / f"Doe_{number}"
        series = make_series(
            folder / "ct", Volume((flat * 60 + noise).astype(np.int16), grid), name=f"1.2.826.{number}", **named
        )
        geometry = io.read_geometry(series)
        assert geometry == grid or np.allclose(geometry.affine, grid.affine)
        dicom_objects.write(Volume(mask, geometry, "labels"), labels, source(series), folder / f"anything{ending}")
        return series

    return make


@pytest.mark.parametrize("named", [True, False])
def test_structures_of_one_echo_are_no_mask_of_the_others(
    tmp_path: Path, study: Callable[..., Path], caplog: pytest.LogCaptureFixture, named: bool
) -> None:
    first = study(tmp_path, 0)
    for file in list(first.iterdir()):
        data = pydicom.dcmread(file)
        data.EchoTime = 5
        data.save_as(file)
        data.EchoTime, data.SOPInstanceUID = 9, data.SOPInstanceUID + ".9"
        data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID
        data.save_as(file.with_name(f"second_{file.name}"))
    if not named:  # images that are not here
        for file in first.iterdir():
            data = pydicom.dcmread(file)
            data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID + ".8"
            data.save_as(file)
    cases = layouts.find(tmp_path).cases
    assert len(cases) == (1 if named else 2)
    assert len({case.group for case in cases}) == 1
    assert io.read(cases[0].images[0]).meta["traits"]["echo time"] == 5
    assert ("each volume is a case with that mask" in caplog.text) is not named


def test_series_names_and_patients_become_a_dataset(tmp_path: Path, study: Callable[..., Path]) -> None:
    first = study(tmp_path, 0)
    second = study(tmp_path, 1, ".seg.dcm", Labels.of({"TUMOUR 1": 1, "liver": 2}), affine=OBLIQUE)
    third = study(tmp_path, 2, PatientID="PAT-0")
    (tmp_path / "notes.txt").write_text("nothing")
    dataset = layouts.find(tmp_path)
    assert dataset.layout == "DICOM studies with SEG or RTSTRUCT"
    assert dataset.channels == ("CT",)
    assert dataset.labels is not None
    assert dataset.labels.names == ("Liver", "tumour_1")  # as written first, in the order of the alphabet
    assert dataset.labels.exclusive
    assert [item.code for item in dataset.labels] == ["SCT:10200004", "SCT:108369006"] or dataset.labels.items[0].code
    assert [case.id for case in dataset.cases] == [io.stem(path) for path in (first, second, third)]
    assert [case.images for case in dataset.cases] == [(first,), (second,), (third,)]
    groups = [case.group for case in dataset.cases]
    assert groups[0] == groups[2] != groups[1]
    assert not any("PAT" in group for group in groups)
    masks = [reading.read_case(case)[1] for case in dataset.cases]
    assert np.array_equal(masks[0].array[0], masked(0))
    assert np.array_equal(masks[1].array[0], np.array([0, 2, 1])[masked(1)])  # the other way round in that file
    assert masks[1].geometry == io.read_geometry(second)
    assert "Doe" not in str([masks[0].meta, dataset.labels, groups])


def test_groups_keep_their_names_with_the_key_and_lose_them_without(tmp_path: Path, study: Callable[..., Path]) -> None:
    study(tmp_path / "data", 0)
    cache = tmp_path / "runs" / "medseg_cache"

    def group(keys: Path | None) -> str:
        return layouts.find(tmp_path / "data", keys=keys).cases[0].group

    key = tmp_path / "runs" / "medseg_cache.key"
    kept = group(cache)
    assert group(cache) == kept
    assert key.stat().st_mode & 0o77 == 0
    assert len({kept, group(None), group(tmp_path / "other" / "medseg_cache")}) == 3
    key.write_bytes(b"short")
    with pytest.raises(DataError, match=r"is damaged\. Delete it"):
        group(cache)


def test_structures_that_overlap_anywhere_overlap_everywhere(
    tmp_path: Path, study: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    study(tmp_path, 0)
    both = np.stack([masked(1) > 0, masked(1) == 2]).astype(np.uint8)
    study(tmp_path, 1, labels=Labels.of({"liver": [1, 2], "tumour 1": [2]}), mask=both)
    study(tmp_path, 2, labels=Labels.of({"spleen": 1}), mask=(masked(2) == 1).astype(np.uint8))
    caplog.set_level("INFO")
    dataset = layouts.find(tmp_path)
    labels = dataset.labels
    assert labels is not None
    assert labels.names == ("Liver", "spleen", "tumour_1")
    assert not labels.exclusive
    masks = [reading.read_mask(case).array for case in dataset.cases]
    assert [mask.shape[0] for mask in masks] == [3, 3, 3]
    assert np.array_equal(masks[0], np.stack([masked(0) == 1, masked(0) < 0, masked(0) == 2]))
    assert np.array_equal(masks[1][[0, 2]], both)
    assert (
        "not drawn in all 3 cases, and taken as absent in the others: 'Liver' in 2, 'spleen' in 1, 'tumour_1' in 2"
        in caplog.text
    )
    assert "structures overlap" in caplog.text


def test_several_objects_of_a_series_are_one_mask_unless_one_day_drew_a_name_twice(
    tmp_path: Path, study: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    for number in (0, 1):
        series = study(tmp_path, number, labels=Labels.of({"Liver": 1}), mask=(masked(number) == 1).astype(np.uint8))
        name = ("tumour", "LIVER")[number]
        mask = Volume((masked(number) == 2).astype(np.uint8), io.read_geometry(series), "labels")
        dicom_objects.write(mask, Labels.of({name: 1}), source(series), tmp_path / f"Doe_{number}" / "second.seg.dcm")
        edited(tmp_path / f"Doe_{number}" / "anything.rtstruct.dcm", dated("20260101"))
        edited(tmp_path / f"Doe_{number}" / "second.seg.dcm", dated("20260101"))
    dataset = layouts.find(tmp_path)
    (case,) = dataset.cases
    assert len(case.files) == 3
    assert np.array_equal(reading.read_mask(case).array[0], masked(0))
    assert "is drawn 2 times for one series, in ways that differ, and no date says which is the latest" in caplog.text
    assert "(left out)" in caplog.text
    assert "Doe" not in caplog.text


def edited(path: Path, change: Callable[[pydicom.Dataset], None]) -> None:
    data = pydicom.dcmread(path)
    change(data)
    data.save_as(path)


def dated(day: str) -> Callable[[pydicom.Dataset], None]:
    """Objects of one time on a day, or without any date."""

    def change(data: pydicom.Dataset) -> None:
        for kind in ("Content", "InstanceCreation", "Series", "StructureSet"):
            data.update({f"{kind}Date": day, f"{kind}Time": "1200"})

    return change


@pytest.mark.parametrize("ending", [".seg.dcm", ".rtstruct.dcm"])
def test_of_two_drawings_the_latest_counts_and_of_copies_one(
    tmp_path: Path, study: Callable[..., Path], caplog: pytest.LogCaptureFixture, ending: str
) -> None:
    series = study(tmp_path, 0)
    again = tmp_path / "Doe_0" / f"again{ending}"
    shutil.copy(tmp_path / "Doe_0" / "anything.rtstruct.dcm", tmp_path / "Doe_0" / "copy.dcm")
    for day in ("20250101", ""):  # two equal ones need no date
        edited(tmp_path / "Doe_0" / "anything.rtstruct.dcm", dated(day))
        edited(tmp_path / "Doe_0" / "copy.dcm", dated(day))
        (case,) = layouts.find(tmp_path).cases
        assert np.array_equal(reading.read_mask(case).array[0], masked(0))
    assert "drawn 2 times" not in caplog.text
    dicom_objects.write(
        Volume((masked(3) == 1).astype(np.uint8), io.read_geometry(series), "labels"), BOTH, source(series), again
    )
    edited(tmp_path / "Doe_0" / "copy.dcm", dated("20250101"))
    (case,) = layouts.find(tmp_path).cases
    wanted = np.where(masked(3) == 1, 1, np.where(masked(0) == 2, 2, 0))  # where the latest is empty, the others stay
    assert np.array_equal(reading.read_mask(case).array[0], wanted)
    assert "'Liver' is drawn 3 times for one series, in ways that differ: the latest counts" in caplog.text


def test_what_has_one_name_in_an_object_is_one_structure(
    tmp_path: Path, study: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    study(tmp_path, 0, ".seg.dcm", Labels.of({"lesion": 1, "other": 2}))

    def rename(data: pydicom.Dataset) -> None:
        data.SegmentSequence[1].SegmentLabel = "Lesion"

    edited(tmp_path / "Doe_0" / "anything.seg.dcm", rename)
    dataset = layouts.find(tmp_path)
    assert dataset.labels is not None
    assert dataset.labels.names == ("lesion",)
    assert np.array_equal(reading.read_mask(dataset.cases[0]).array[0], masked(0) > 0)
    assert "'lesion' names 2 structures of one object, which are taken as one" in caplog.text


@pytest.fixture
def two_frames(tmp_path: Path, study: Callable[..., Path]) -> Path:
    """Two series in two frames of reference, and one structure set that draws the liver in the first, the tumour in the second,
    as plans of a CT and an MR do."""
    for number in range(2):
        study(tmp_path, number, FrameOfReferenceUID=f"1.2.9.{number}")
    path, second = (tmp_path / f"Doe_{number}" / "anything.rtstruct.dcm" for number in range(2))
    other = pydicom.dcmread(second)
    second.unlink()

    def join(data: pydicom.Dataset) -> None:
        data.ReferencedFrameOfReferenceSequence.extend(other.ReferencedFrameOfReferenceSequence)
        data.StructureSetROISequence[1] = other.StructureSetROISequence[1]
        data.ROIContourSequence[1] = other.ROIContourSequence[1]

    edited(path, join)
    return path


def test_structures_go_to_the_series_of_their_own_frame_of_reference(
    tmp_path: Path, two_frames: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = (tmp_path / f"Doe_{number}" / "ct" for number in range(2))
    dataset = layouts.find(tmp_path)
    assert [case.images for case in dataset.cases] == [(first,), (second,)]
    masks = [reading.read_mask(case).array[0] for case in dataset.cases]
    assert np.array_equal(masks[0], masked(0) == 1)
    assert np.array_equal(masks[1], 2 * (masked(1) == 2))
    assert "1 of 2 structures lie in another frame of reference, and were left out" in caplog.text
    everything = io.read(two_frames, "labels", on=io.read_geometry(first))
    assert everything.meta["notes"][-1].startswith("structures lie in 2 frames of reference; all were placed")
    shutil.rmtree(second)
    (case,) = layouts.find(tmp_path).cases
    assert np.array_equal(reading.read_mask(case).array[0], masked(0) == 1)


def test_a_frame_that_stands_nowhere_else_keeps_no_structure_from_its_series(
    tmp_path: Path, study: Callable[..., Path]
) -> None:
    study(tmp_path, 0)

    def stray(data: pydicom.Dataset) -> None:
        for roi in data.StructureSetROISequence:
            roi.ReferencedFrameOfReferenceUID = "1.9.9"

    edited(tmp_path / "Doe_0" / "anything.rtstruct.dcm", stray)
    (case,) = layouts.find(tmp_path).cases
    assert np.array_equal(reading.read_mask(case).array[0], masked(0))


def test_contours_go_by_their_series_or_their_images_or_their_place(
    tmp_path: Path, study: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(4):
        study(tmp_path, number)
    objects_ = [tmp_path / f"Doe_{number}" / "anything.rtstruct.dcm" for number in range(4)]

    def series(data: pydicom.Dataset) -> Any:
        return data.ReferencedFrameOfReferenceSequence[0].RTReferencedStudySequence[0].RTReferencedSeriesSequence[0]

    def wrong_images(data: pydicom.Dataset) -> None:  # as in many exports: only the series is right
        for image in series(data).ContourImageSequence:
            image.ReferencedSOPInstanceUID = "1.9"
        data.ReferencedFrameOfReferenceSequence[0].FrameOfReferenceUID = "1.9"

    def wrong_series(data: pydicom.Dataset) -> None:
        series(data).SeriesInstanceUID = "1.9"
        data.ReferencedFrameOfReferenceSequence[0].FrameOfReferenceUID = "1.9"

    def of_a_series_that_is_not_here(data: pydicom.Dataset) -> None:
        series(data).SeriesInstanceUID = "1.9"
        series(data).ContourImageSequence = []

    def of_nothing_here(data: pydicom.Dataset) -> None:
        of_a_series_that_is_not_here(data)
        data.ReferencedFrameOfReferenceSequence[0].FrameOfReferenceUID = "1.9"
        for roi in data.StructureSetROISequence:
            roi.ReferencedFrameOfReferenceUID = "1.9"

    for path, change in zip(
        objects_, (wrong_images, wrong_series, of_a_series_that_is_not_here, of_nothing_here), strict=True
    ):
        edited(path, change)
    dataset = layouts.find(tmp_path)
    assert [case.label for case in dataset.cases] == objects_[:3]
    assert all(np.array_equal(reading.read_mask(case).array[0], masked(n)) for n, case in enumerate(dataset.cases))
    assert "1 of 4 SEG or RTSTRUCT objects belong to no series here" in caplog.text


def test_of_several_modalities_one_is_chosen(tmp_path: Path, study: Callable[..., Path]) -> None:
    study(tmp_path, 0)
    study(tmp_path, 1)
    study(tmp_path, 2, Modality="PT", labels=Labels.of({"uptake": 1}), mask=(masked(2) == 1).astype(np.uint8))
    with pytest.raises(
        ConfigError, match=r"drawn on CT \(2 series\), PT \(1 series\); a model learns from one. Choose with --modality"
    ):
        layouts.find(tmp_path)
    pet = layouts.find(tmp_path, "pet")
    assert (len(pet.cases), pet.labels and pet.labels.names) == (1, ("uptake",))
    assert len(layouts.find(tmp_path, "CT").cases) == 2
    with pytest.raises(ConfigError, match="structures were drawn on CT"):
        layouts.find(tmp_path, "MR")


def test_a_series_that_cannot_be_read_is_left_out_with_the_reason(
    tmp_path: Path, study: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(2):
        study(tmp_path, number)
    (tmp_path / "Doe_1/ct/IM0006.dcm").unlink()
    assert len(layouts.find(tmp_path).cases) == 1
    assert "2.000 to 4.000 mm" in caplog.text
    assert "(left out)" in caplog.text
    assert "Doe" not in caplog.text
    (tmp_path / "Doe_0/ct/IM0006.dcm").unlink()
    with pytest.raises(DataError, match=r"no series of .* can be used"):
        layouts.find(tmp_path)


def test_a_tree_without_structures_is_no_dataset(tmp_path: Path, study: Callable[..., Path]) -> None:
    study(tmp_path, 0)
    (tmp_path / "Doe_0/anything.rtstruct.dcm").unlink()
    with pytest.raises(DataError, match="is no dataset that medseg knows"):
        layouts.find(tmp_path)


def test_a_table_may_name_objects_as_masks(tmp_path: Path, study: Callable[..., Path]) -> None:
    rows = ["id,image,label"]
    for number in range(2):
        study(tmp_path, number)
        rows.append(f"case_{number},Doe_{number}/ct,Doe_{number}/anything.rtstruct.dcm")
    (tmp_path / "table.csv").write_text("\n".join(rows))
    dataset = layouts.find(tmp_path / "table.csv")
    assert [case.id for case in dataset.cases] == ["case_0", "case_1"]
    assert dataset.labels is not None
    assert dataset.labels.names == ("Liver", "tumour_1")
    assert np.array_equal(reading.read_mask(dataset.cases[1]).array[0], masked(1))
    io.write(Volume(masked(0), Geometry(SHAPE, LPS), "labels"), tmp_path / "m.nii.gz")
    (tmp_path / "table.csv").write_text("\n".join([*rows, "case_2,Doe_0/ct,m.nii.gz"]))
    with pytest.raises(DataError, match=r"others are not \(case_2\): give all in one form"):
        layouts.find(tmp_path / "table.csv")


def test_a_table_may_name_a_set_that_draws_in_several_frames(
    tmp_path: Path, two_frames: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [f"case_{number},Doe_{number}/ct,{two_frames.relative_to(tmp_path)}" for number in range(2)]
    (tmp_path / "table.csv").write_text("\n".join(["id,image,label", *rows]))
    dataset = layouts.find(tmp_path / "table.csv")
    first, second = (reading.read_mask(case).array[0] for case in dataset.cases)
    assert np.array_equal(first, masked(0) == 1)
    assert np.array_equal(second, 2 * (masked(1) == 2))
    image = io.read(tmp_path / "Doe_0" / "ct")  # converted, of which nobody knows the frame
    io.write(image, tmp_path / "a.nii.gz")
    (tmp_path / "table.csv").write_text(
        "\n".join(["id,image,label", rows[1], f"nifti,a.nii.gz,{rows[0].split(',')[2]}"])
    )
    assert [case.id for case in layouts.find(tmp_path / "table.csv").cases] == ["case_1"]
    assert "nifti: the mask has structures in 2 frames of reference, of which none is known" in caplog.text
    assert "Doe" not in caplog.text


def test_a_table_whose_frame_was_replaced_in_the_images_is_believed(tmp_path: Path, study: Callable[..., Path]) -> None:
    study(tmp_path, 0)
    for file in (tmp_path / "Doe_0/ct").iterdir():
        edited(file, lambda data: data.update({"FrameOfReferenceUID": "1.9", "SeriesInstanceUID": "1.9.1"}))
    (tmp_path / "table.csv").write_text("id,image,label\na,Doe_0/ct,Doe_0/anything.rtstruct.dcm")
    (case,) = layouts.find(tmp_path / "table.csv").cases
    assert np.array_equal(reading.read_mask(case).array[0], masked(0))


def test_a_table_may_name_a_folder_of_objects(tmp_path: Path, two_frames: Path) -> None:
    """Each object in a folder of its own, as many archives export them; and one of another scan among them."""
    folder = tmp_path / "Doe_0" / "objects"
    folder.mkdir()
    two_frames.rename(folder / "IM1")
    series, grid = tmp_path / "Doe_0" / "ct", io.read_geometry(tmp_path / "Doe_0" / "ct")
    spleen = Volume((masked(0) == 2).astype(np.uint8), grid, "labels")
    dicom_objects.write(spleen, Labels.of({"spleen": 1}), source(series), folder / "m.seg.dcm")
    (tmp_path / "table.csv").write_text("id,image,label\na,Doe_0/ct,Doe_0/objects\n")
    dataset = layouts.find(tmp_path / "table.csv")
    assert dataset.labels is not None
    assert dataset.labels.names == ("Liver", "spleen")
    assert np.array_equal(reading.read_mask(dataset.cases[0]).array[0], masked(0))


def standing(data: pydicom.Dataset) -> None:
    """The second structure as if it had been drawn on a sagittal reformation."""
    contour = data.ROIContourSequence[1].ContourSequence[0]
    x, y, z = (float(value) for value in contour.ContourData[:3])
    contour.ContourData = [x, y, z, x, y + 3, z, x, y + 3, z + 8, x, y, z + 8]
    data.ROIContourSequence[1].ContourSequence = [contour]


def test_a_structure_across_the_slices_is_no_absent_one(
    tmp_path: Path, study: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(2):
        study(tmp_path, number)
    path = tmp_path / "Doe_0" / "anything.rtstruct.dcm"
    edited(path, standing)
    (case,) = layouts.find(tmp_path).cases
    assert case.images == (tmp_path / "Doe_1" / "ct",)
    assert "'tumour_1' was drawn across the slices of the scan, on planes of another direction" in caplog.text
    assert "(left out)" in caplog.text
    edited(path, lambda data: setattr(data.StructureSetROISequence[1], "ROIName", "sketch"))  # which no other case has
    dataset = layouts.find(tmp_path)
    assert dataset.labels is not None
    assert dataset.labels.names == ("Liver", "tumour_1")
    assert np.array_equal(reading.read_mask(dataset.cases[0]).array[0], masked(0) == 1)
    assert "another direction, and left out: 'sketch'" in caplog.text
    with pytest.raises(GeometryError, match="'sketch' was drawn across the slices"):
        dicom_structures.read([path], io.read_geometry(dataset.cases[0].images[0]), Labels.of({"sketch": 1}))


def test_of_several_drawings_a_name_chooses(
    tmp_path: Path, study: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    """The second reader drew later, and so counts unless the first is named: by file, by description, or in a table."""
    series = study(tmp_path, 0)
    first, second = tmp_path / "Doe_0" / "anything.rtstruct.dcm", tmp_path / "Doe_0" / "later.seg.dcm"
    dicom_objects.write(Volume(masked(3), io.read_geometry(series), "labels"), BOTH, source(series), second)
    edited(first, dated("20240101"))
    edited(first, lambda data: setattr(data, "StructureSetLabel", "Reader A"))

    def drawn(data: Path | str) -> int:
        (case,) = layouts.find(data).cases
        mask = reading.read_mask(case).array[0]
        return next(number for number in (0, 3) if np.array_equal(mask, masked(number)))

    assert drawn(tmp_path) == 3
    assert "the latest counts. Choose others as DATA#NAME" in caplog.text
    caplog.set_level("INFO")
    assert [drawn(f"{tmp_path}#{name}") for name in ("anything", "reader a", "LATER", ".seg")] == [0, 0, 3, 3]
    assert "1 of 2 SEG or RTSTRUCT objects have the name that was asked for; the others" in caplog.text
    with pytest.raises(DataError, match="none of 2 SEG or RTSTRUCT objects has 'reader c' in the name"):
        layouts.find(f"{tmp_path}#reader c")
    (tmp_path / "table.csv").write_text("id,image,label\na,Doe_0/ct,Doe_0/anything.rtstruct.dcm")
    assert drawn(tmp_path / "table.csv") == 0
    io.write(Volume(masked(0), io.read_geometry(series), "labels"), tmp_path / "masks" / f"{io.stem(series)}.nii.gz")
    (pair,) = pairing.pair_folders(tmp_path / "masks", f"{tmp_path}#reader a")
    assert np.array_equal(reading.read_mask(pair.reference).array[0], masked(0))


def test_a_repaired_copy_has_structures_by_name(tmp_path: Path, study: Callable[..., Path]) -> None:
    """The numbers of segments mean something else in each file."""
    data, two = tmp_path / "data", Labels.of({"tumour": 2, "liver": 1})
    for number, (ending, labels) in enumerate(
        ((".seg.dcm", Labels.of({"liver": 1, "tumour": 2})), (".seg.dcm", two), (".rtstruct.dcm", two))
    ):
        study(data, number, ending, labels)
    done = api.repair(data, tmp_path / "mended")
    assert done.ok
    assert [finding.code for finding in done.repairs] == ["objects"] * 3
    copied = {case.id: reading.read_mask(case).array[0] for case in layouts.find(tmp_path / "mended").cases}
    assert [np.array_equal(copied[case.id], masked(n)) for n, case in enumerate(layouts.find(data).cases)] == [True] * 3
    both = np.stack([masked(3) > 0, masked(3) == 2]).astype(np.uint8)
    study(data, 3, labels=Labels.of({"liver": [1, 2], "tumour": [2]}), mask=both)
    with pytest.raises(DataError, match="that overlap have no place in a copy"):
        api.repair(data, tmp_path / "again")


def words_of(folder: Path) -> str:
    """Names and contents of all files below."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return "\n".join(f"{path.relative_to(folder)}\n{path.read_bytes().decode('latin-1')}" for path in files)


@pytest.mark.parametrize("overlap", [False, True])
def test_a_tree_is_checked_trained_and_measured_and_no_patient_is_named(
    tmp_path: Path, study: Callable[..., Path], quick: dict[str, Any], overlap: bool
) -> None:
    data, run = tmp_path / "Doe_clinic", tmp_path / "runs" / "one"
    for number in range(4):
        mask = np.stack([masked(number) > 0, masked(number) == 2]).astype(np.uint8) if overlap else masked(number)
        labels = Labels.of({"Liver": [1, 2], "tumour": [2]}) if overlap else Labels.of({"Liver": 1, "tumour": 2})
        study(
            data, number, (".seg.dcm", ".rtstruct.dcm")[number % 2], labels, mask, PatientID=f"PAT-{max(0, number - 1)}"
        )
    found = api.check(data)
    assert found.ok, found.table()
    assert not any(finding.severity == "warning" for finding in found.findings)
    api.train(data, run, **(quick | {"fold": "0/3"}))
    rows = list(csv.DictReader((run / "metrics.csv").read_text().splitlines()))
    assert {row["label"] for row in rows} == {"Liver", "tumour"}
    assert len({row["group"] for row in rows}) == 1  # patients are kept whole
    reference = {row["label"]: float(row["reference_ml"]) for row in rows}
    assert reference == {"Liver": 0.504 + 0.16 * overlap, "tumour": 0.16}
    for name in ("Doe_", "Doe^", "PAT-", "19500102", "1.2.826"):
        assert name not in words_of(run)
        assert name not in found.table() + json.dumps(found.to_json())
    outcomes = api.predict(run, [data / "Doe_0" / "ct"], tmp_path / "masks", suffix=".seg.dcm")
    assert outcomes[0].mask is not None
    measured = api.evaluate(tmp_path / "masks", _copy(data, tmp_path / "first"), model=run)
    assert {row["label"]: row["reference_ml"] for row in measured.rows} == pytest.approx(reference)


def _copy(data: Path, folder: Path) -> Path:
    shutil.copytree(data / "Doe_0", folder / "Doe_0")
    return folder


def test_real_studies_train_as_they_are(shared_data: Path, tmp_path: Path, quick: dict[str, Any]) -> None:
    data = shared_data / "C_rtstruct_sts"
    with pytest.raises(ConfigError, match=r"drawn on CT \(2 series\), MR \(2 series\), PT \(2 series\)"):
        api.check(data)
    found = api.check(data, modality="PET")
    assert found.ok, found.table()
    assert found.cases == 2
    run = api.train(
        data, tmp_path / "runs" / "pet", modality="PET", **(quick | {"fold": "none", "sample": {"patch": (24, 24, 24)}})
    )
    assert "STS_0" not in words_of(run)
    scans = [data / f"STS_{number}" / "PET" / "dicom" for number in ("019", "025")]
    api.predict(run, scans, tmp_path / "masks", suffix=".rtstruct.dcm", deidentify=True)
    measured = api.evaluate(tmp_path / "masks", data, tmp_path / "compared", model=run)
    truth = {io.stem(scan): nib.load(scan.parent / "truth_mask.nii.gz") for scan in scans}
    for row in measured.rows:
        voxel_ml = abs(np.linalg.det(truth[row["case"]].affine[:3, :3])) / 1000
        assert row["label"] == "GTV_Mass_PET"
        assert row["reference_ml"] == pytest.approx((truth[row["case"]].get_fdata() > 0).sum() * voxel_ml)
    assert "STS_0" not in words_of(tmp_path / "masks") + words_of(tmp_path / "compared")


def test_all_of_a_cd_may_lie_in_one_folder(tmp_path: Path, study: Callable[..., Path]) -> None:
    flat = tmp_path / "flat"
    flat.mkdir()
    for number in range(3):
        study(tmp_path / "tree", number, (".seg.dcm", ".rtstruct.dcm", ".seg.dcm")[number])
    for n, file in enumerate(sorted(path for path in (tmp_path / "tree").rglob("*") if path.is_file())):
        shutil.copy(file, flat / f"IM{n:04d}")
    dataset = layouts.find(flat)
    assert [case.id for case in dataset.cases] == [case.id for case in layouts.find(tmp_path / "tree").cases]
    masks = [reading.read_case(case)[1].array[0] for case in dataset.cases]
    assert all(np.array_equal(mask, masked(n)) for n, mask in enumerate(masks))
    dicom_objects.write_structures(
        Volume(masks[0], io.read_geometry(dataset.cases[0].images[0]), "labels"),
        BOTH,
        dataset.cases[0].images[0],
        tmp_path / "m.seg.dcm",
    )
    assert io.references(tmp_path / "m.seg.dcm")[0].series == ("1.2.826.0.9",)


def test_masks_are_judged_by_a_tree_by_name_or_not_at_all(
    tmp_path: Path, study: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    """Values mean nothing to a structure set: as "label 1", no structure would be found in any reference."""
    study(tmp_path / "tree", 0)
    scan = tmp_path / "tree" / "Doe_0" / "ct"
    truth, labels = io.read_geometry(scan), Labels.of({"tumour_1": 2, "Liver": 1})
    (case,) = layouts.find(tmp_path / "tree").labelled
    mask = reading.read_mask(case, truth, labels)
    io.write(mask, tmp_path / "values" / f"{case.id}.nii.gz")
    dicom_objects.write_structures(mask, labels, scan, tmp_path / "names" / f"{case.id}.seg.dcm")
    measured = api.evaluate(tmp_path / "names", tmp_path / "tree")
    assert {row["label"]: row["dice"] for row in measured.rows} == {"Liver": 1, "tumour_1": 1}
    with pytest.raises(DataError, match="name the model that says their values"):
        api.evaluate(tmp_path / "values", tmp_path / "tree")
    pairs = pairing.pair_folders(tmp_path / "values", tmp_path / "tree")
    with pytest.raises(
        DataError, match="the references hold Liver, tumour_1, and the model knows lung: no name is the same"
    ):
        agreement.check(pairs, Labels.of({"lung": 1}))
    agreement.check(pairs, Labels.of({"lung": 1, "LIVER": 2}))
    assert "drawn in no reference: lung; the references hold Liver, tumour_1" in caplog.text
