"""Reconstructed tomograms of nuclear medicine: all frames follow from the place of the first."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.dataset import FileDataset
from pydicom.uid import NuclearMedicineImageStorage

from medseg import io
from medseg.data import dicom_objects
from medseg.errors import DataError, MedsegError
from medseg.io import dicom
from medseg.labels import Labels
from medseg.volume import Volume

OBLIQUE = [0.6, 0.8, 0, 0, 0, -1]  # the normal of these is (-0.8, 0.6, 0)


def tomogram(make: Any, count: int = 4, **changes: Any) -> FileDataset:
    data: FileDataset = make.bare(NuclearMedicineImageStorage, np.stack([make.slab(n) for n in range(count)]))
    data.Modality, data.InstanceNumber, data.NumberOfFrames = "NM", 1, count
    data.ImageType = ["ORIGINAL", "PRIMARY", "RECON TOMO", "EMISSION"]
    data.PixelSpacing, data.SliceThickness, data.SpacingBetweenSlices = [0.5, 0.75], 4, 4
    data.StudyInstanceUID, data.FrameOfReferenceUID = "1.2", "1.2.4"
    data.SliceVector = list(range(1, count + 1))
    place = {"ImagePositionPatient": [10, -20, 30], "ImageOrientationPatient": OBLIQUE}
    data.DetectorInformationSequence = make.item(**place)
    for name, value in changes.items():
        setattr(data, name, value)
    return data


def stored(data: FileDataset, folder: Path) -> Path:
    data.save_as(folder / "spect.dcm")
    return folder / "spect.dcm"


@pytest.mark.parametrize("step_mm", [4, -4])
def test_frames_follow_the_normal_in_the_direction_of_the_sign(make: Any, tmp_path: Path, step_mm: float) -> None:
    volume = io.read(stored(tomogram(make, SpacingBetweenSlices=step_mm), tmp_path))
    for n in range(4):
        lps = np.array((10, -20, 30)) + n * step_mm * np.array((-0.8, 0.6, 0))
        k = n if step_mm > 0 else 3 - n  # k runs along the normal
        assert volume.geometry.to_world(np.array([[0, 0, k]]))[0] == pytest.approx(lps * (-1, -1, 1))
        assert np.array_equal(volume.array[0, :, :, k], make.slab(n).T)


def test_a_tomogram_of_one_frame_is_a_volume(make: Any, tmp_path: Path) -> None:
    assert io.read(stored(tomogram(make, count=1), tmp_path)).geometry.shape == (3, 4, 1)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"SpacingBetweenSlices": None}, "without SpacingBetweenSlices"),
        ({"SpacingBetweenSlices": 0}, "without SpacingBetweenSlices"),
        ({"SliceVector": [4, 3, 2, 1]}, "not numbered 1, 2, 3"),
        ({"SliceVector": None}, "not numbered 1, 2, 3"),
        ({"DetectorInformationSequence": []}, "without one position and orientation"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "TOMO", "EMISSION"]}, "do not say where they lie"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "RECON GATED TOMO", "EMISSION"]}, "do not say where they lie"),
    ],
)
def test_what_does_not_say_where_slices_lie_is_refused(
    make: Any, tmp_path: Path, changes: dict[str, Any], reason: str
) -> None:
    with pytest.raises(MedsegError, match=reason):
        io.read(stored(tomogram(make, **changes), tmp_path))


def test_detectors_that_disagree_are_refused(make: Any, tmp_path: Path) -> None:
    data = tomogram(make)
    data.DetectorInformationSequence.append(make.item(ImagePositionPatient=[0, 0, 0])[0])
    with pytest.raises(DataError, match="without one position and orientation"):
        io.read(stored(data, tmp_path))


@pytest.mark.parametrize("ending", [".seg.dcm", ".rtstruct.dcm"])
def test_masks_come_home_to_the_frames(make: Any, tmp_path: Path, ending: str) -> None:
    from pydicom import dcmread

    path = stored(tomogram(make, SpacingBetweenSlices=-4), tmp_path)
    grid = io.read_geometry(path)
    mask = np.zeros((1, *grid.shape), np.uint8)
    mask[0, 1:, 1:3, 0] = 1  # of the last frame, for the frames run against the normal
    out = tmp_path / "made" / f"mask{ending}"
    dicom_objects.write_structures(Volume(mask, grid, "labels"), Labels.of({"background": 0, "hot": 1}), path, out)
    assert np.array_equal(io.read(out, on=grid).array, mask)
    written = dcmread(out)
    if ending == ".seg.dcm":
        (frame,) = written.PerFrameFunctionalGroupsSequence
        (image,) = frame.DerivationImageSequence[0].SourceImageSequence
    else:
        (image,) = written.ROIContourSequence[0].ContourSequence[0].ContourImageSequence
    assert image.ReferencedFrameNumber == 4


def test_the_list_has_it(make: Any, tmp_path: Path) -> None:
    assert "NM        3x4x4   0.75 x 0.5 x 4" in dicom.find(stored(tomogram(make), tmp_path)).table()
