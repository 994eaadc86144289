from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.tag import Tag

from medseg import io
from medseg.data import dicom_objects
from medseg.errors import DataError
from medseg.io import dicom
from medseg.labels import Labels
from medseg.volume import Volume


def place(make: Any, z: float, **content: Any) -> dict[str, Any]:
    groups = {"PlanePositionSequence": make.item(ImagePositionPatient=[0, 0, z])}
    return groups | ({"FrameContentSequence": make.item(**content)} if content else {})


def store(data: Any, path: Path) -> Path:
    data.save_as(path)
    return path


def test_frames_are_sorted_by_place_and_rescaled_one_by_one(make: Any, tmp_path: Path) -> None:
    pixels = np.stack([make.slab(n) for n in range(4)])
    frames = [place(make, z) for z in (6, 0, 4, 2)]
    for n, frame in enumerate(frames):
        frame["PixelValueTransformationSequence"] = make.item(RescaleSlope=n + 1, RescaleIntercept=-n, RescaleType="US")
    volume = io.read(store(make.enhanced(frames, pixels), tmp_path / "e.dcm"))
    assert volume.geometry.spacing_mm == pytest.approx((0.75, 0.5, 2))
    for k, n in enumerate((1, 3, 2, 0)):
        assert np.array_equal(volume.array[0, :, :, k], make.slab(n).T * (n + 1) - n)


@pytest.mark.parametrize("tag", ["TemporalPositionIndex", "DimensionIndexValues"])
def test_frames_of_several_times_are_volumes_in_the_order_of_time(make: Any, tmp_path: Path, tag: str) -> None:
    order = [(1, 2), (0, 1), (1, 1), (0, 2)]  # slice, time
    value = {"TemporalPositionIndex": lambda k, t: t, "DimensionIndexValues": lambda k, t: [1, k + 1, t]}[tag]
    frames = [place(make, 2 * k, **{tag: value(k, t)}) for k, t in order]
    data = make.enhanced(frames, np.stack([make.slab(10 * t + k) for k, t in order]))
    data.DimensionIndexSequence = [
        make.item(DimensionIndexPointer=Tag(t))[0] for t in (0x00209056, 0x00209057, 0x00209128)
    ]
    both = io.read(store(data, tmp_path / "e.dcm"), channels=True)
    assert both.array.shape == (2, 3, 4, 2)
    for t in (0, 1):
        for k in (0, 1):
            assert np.array_equal(both.array[t, :, :, k], make.slab(10 * (t + 1) + k).T)


def test_stacks_of_one_file_are_volumes_of_their_own(make: Any, tmp_path: Path) -> None:
    frames = [place(make, 2 * k + 50 * s, StackID=str(s)) for s in (0, 1) for k in range(3)]
    path = store(make.enhanced(frames, np.zeros((6, 4, 3), np.int16)), tmp_path / "e.dcm")
    first, second = dicom.find(path).volumes
    assert first.path == path / f"{first.id}.dicom"
    assert io.read(second.path).geometry.affine[2, 3] == 50


def test_echo_b_value_and_direction_come_from_their_groups(make: Any, tmp_path: Path) -> None:
    def frame(k: int, b: float, x: float) -> dict[str, Any]:
        toward = make.item(DiffusionGradientOrientation=[x, 0.0, 0.0])
        diffusion = make.item(DiffusionBValue=b, DiffusionGradientDirectionSequence=toward)
        return place(make, k) | {"MRDiffusionSequence": diffusion, "MREchoSequence": make.item(EffectiveEchoTime=80.0)}

    frames = [frame(k, b, x) for b, x in ((0.0, 0.0), (900.0, 1.0), (900.0, -1.0)) for k in range(3)]
    found = dicom.find(store(make.enhanced(frames, np.zeros((9, 4, 3), np.int16)), tmp_path / "e.dcm")).volumes
    assert [item.label for item in found] == [
        "1 of 3, b-value 0 s/mm2, direction 0/0/0",
        "2 of 3, b-value 900 s/mm2, direction 1/0/0",
        "3 of 3, b-value 900 s/mm2, direction -1/0/0",
    ]


def test_a_single_frame_is_rescaled_by_its_group_though_its_place_stands_outside_too(make: Any, tmp_path: Path) -> None:
    frame = place(make, 5) | {
        "PixelValueTransformationSequence": make.item(RescaleSlope=2, RescaleIntercept=-7, RescaleType="US")
    }
    data = make.enhanced([frame], make.slab(1)[None])
    data.ImagePositionPatient, data.ImageOrientationPatient, data.PixelSpacing = (
        [0, 0, 5],
        [1, 0, 0, 0, 1, 0],
        [0.5, 0.75],
    )
    volume = io.read(store(data, tmp_path / "e.dcm"))
    assert np.array_equal(volume.array[0, :, :, 0], 2 * make.slab(1).T - 7)


def test_frames_that_are_promised_and_not_described_are_refused(make: Any, tmp_path: Path) -> None:
    data = make.enhanced([place(make, z) for z in range(3)], np.zeros((3, 4, 3), np.int16))
    data.NumberOfFrames = 2**31 - 1
    with pytest.raises(DataError, match="promises 2147483647 frames and describes 3"):
        io.read(store(data, tmp_path / "e.dcm"))


@pytest.mark.parametrize("ending", [".seg.dcm", ".rtstruct.dcm"])
def test_texts_in_functional_groups_reach_no_object_of_labels(make: Any, tmp_path: Path, ending: str) -> None:
    """A segmentation needs these groups of its source: places are taken over, and comments are not."""
    frames = [
        place(make, 2 * n, FrameComments="Doe", FrameLabel="Doe", StackID="DOE", FrameAcquisitionDateTime="19500102")
        | {"DerivationImageSequence": make.item(DerivationDescription="Doe")}
        for n in range(4)
    ]
    code = make.item(CodeMeaning="Doe", CodeValue="1", CodingSchemeDesignator="DCM")
    shared = {"ReferencedImageSequence": make.item(PurposeOfReferenceCodeSequence=code)}
    shared |= {"RealWorldValueMappingSequence": make.item(LUTLabel="DOE", LUTExplanation="Doe")}
    data = make.enhanced(frames, np.stack([make.slab(n) for n in range(4)]), **shared)
    data.PatientName, data.PatientID, data.StudyInstanceUID, data.FrameOfReferenceUID = "", "P", "1.2.4", "1.2.5"
    index = make.item(DimensionOrganizationUID="1.2.6", DimensionDescriptionLabel="Doe")[0]
    index.DimensionIndexPointer = index.FunctionalGroupPointer = Tag("FrameContentSequence")
    data.DimensionIndexSequence, data.DimensionOrganizationSequence = (
        [index],
        make.item(DimensionOrganizationUID="1.2.6"),
    )
    series = store(data, tmp_path / "e.dcm")
    grid = io.read_geometry(series)
    mask = Volume(np.ones(grid.shape, np.uint8), grid, "labels")
    dicom_objects.write_structures(mask, Labels.of({"all": 1}), series, tmp_path / f"m{ending}")
    written = (tmp_path / f"m{ending}").read_bytes()
    assert b"1.2.4" in written
    assert b"DOE" not in written.upper()
    assert b"19500102" not in written


def test_a_segmentation_refers_to_the_frames_of_its_own_echo(make: Any, tmp_path: Path) -> None:
    frames = [
        {
            "PlanePositionSequence": make.item(ImagePositionPatient=[0, 0, 3 * (n // 2)]),
            "MREchoSequence": make.item(EffectiveEchoTime=10.0 + n % 2),
        }
        for n in range(6)
    ]
    data = make.enhanced(frames, np.stack([make.slab(n) for n in range(6)]))
    data.StudyInstanceUID, data.FrameOfReferenceUID, data.SeriesNumber = "1.2.4", "1.2.5", 1
    data.save_as(tmp_path / "e.dcm", enforce_file_format=True)
    second = dicom.find(tmp_path).volumes[1]
    mask = Volume(np.ones((1, 3, 4, 3), np.uint8), io.read_geometry(second.path), "labels")
    dicom_objects.write_structures(mask, Labels.of({"liver": 1}), second.path, tmp_path / "m.seg.dcm")
    groups = pydicom.dcmread(tmp_path / "m.seg.dcm").PerFrameFunctionalGroupsSequence
    images = [group.DerivationImageSequence[0].SourceImageSequence for group in groups]
    assert sorted(int(image.ReferencedFrameNumber) for each in images for image in each) == [2, 4, 6]
