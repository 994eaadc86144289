"""Headers as people write them, against what SimpleITK makes of the same bytes."""

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from medseg import io
from medseg.errors import DataError

VOXELS = np.arange(24, dtype="<i2")
HEAD = "ObjectType = Image\nNDims = 3\nDimSize = 2 3 4\nElementType = MET_SHORT\n"
TURNED = "0 1 0 0 0 1 1 0 0\nElementSpacing = 2 3 4\n"


def mha(folder: Path, fields: str, voxels: bytes = VOXELS.tobytes()) -> Path:
    path = folder / "a.mha"
    path.write_bytes(f"{fields}ElementDataFile = LOCAL\n".encode() + voxels)
    return path


@pytest.mark.parametrize(
    "fields",
    [
        HEAD,
        HEAD.replace(" = ", "="),
        HEAD + "BinaryData = 1\nElementSize = 1 2 3\nAnatomicalOrientation = RAS\nOffset = 1 2 3\n",
        HEAD + "ElementSize = 1 2 3\nElementSpacing = 2 3 4\n",
        HEAD + f"TransformMatrix = {TURNED}Offset = 1 2 3\nCenterOfRotation = 3 4 5\n",
        HEAD + f"Rotation = {TURNED}Position = 1 2 3\n",
        HEAD + f"Orientation = {TURNED}Origin = 1 2 3\n",
        HEAD.replace("3\nDimSize = 2 3 4", "2\nDimSize = 6 4") + "ElementSpacing = 2 3\n",
        HEAD.replace("2 3 4", "2 3 2") + "ElementNumberOfChannels = 2\n",
        HEAD.replace("3\nDimSize = 2 3 4", "4\nDimSize = 2 3 2 2") + "ElementSpacing = 2 3 4 5\nOffset = 1 2 3 4\n",
    ],
)
def test_places_and_values_are_simpleitks(tmp_path: Path, fields: str) -> None:
    path = mha(tmp_path, fields)
    image, volume = sitk.ReadImage(str(path)), io.read(path)
    axes = min(3, image.GetDimension())
    index = [size - 1 for size in image.GetSize()]
    point = np.zeros(3)
    point[:axes] = image.TransformIndexToPhysicalPoint(index)[:axes]
    at = [*index[:axes], 0][:3]
    assert np.allclose(volume.geometry.to_world(at), point * (-1, -1, 1))
    assert np.ravel(image.GetPixel(*index))[-1] == volume.array[(-1, *at)]
    assert np.array_equal(np.sort(volume.array.ravel()), VOXELS)
    assert io.read_geometry(path) == volume.geometry


def test_voxels_to_be_scaled_and_lengths_in_other_units_are_refused(tmp_path: Path) -> None:
    function = "ElementToIntensityFunctionSlope = {}\nElementToIntensityFunctionOffset = {}\n"
    scaled = mha(tmp_path, HEAD + function.format(2, -1000))
    assert sitk.ReadImage(str(scaled)).GetPixel(1, 2, 3) == VOXELS[-1]  # as stored, whatever the header asks for
    for fields, word in ((function.format(1, -1000), "to be scaled"), ("DistanceUnits = cm\n", "other than mm")):
        with pytest.raises(DataError, match=word):
            io.read_geometry(mha(tmp_path, HEAD + fields))
    assert io.read(mha(tmp_path, f"{HEAD}{function.format('1.0', 0)}DistanceUnits = mm\n")).array.max() == VOXELS[-1]


def test_bytes_before_the_voxels_and_in_either_order(tmp_path: Path) -> None:
    big = VOXELS.astype(">i2").tobytes()
    for field, voxels in (
        ("HeaderSize = -1", b"anything" + VOXELS.tobytes()),
        ("BinaryDataByteOrderMSB = True", big),
        ("ElementByteOrderMSB = True", big),
        ("BinaryData = False", " ".join(map(str, VOXELS)).encode()),
    ):
        assert np.array_equal(io.read(mha(tmp_path, f"{HEAD}{field}\n", voxels)).array.ravel(order="F"), VOXELS)


@pytest.mark.parametrize(
    ("old", "new"),
    [("NDims = 3", "NDims = 1e+30"), ("MET_SHORT", "MET_OTHER"), ("2 3 4", "2 3"), ("2 3 4", f"2 3 {2**63}")],
)
def test_what_cannot_be_is_one_line(tmp_path: Path, old: str, new: str) -> None:
    """The first of these made ITK end the process."""
    with pytest.raises(DataError, match=r"header|sizes"):
        io.read(mha(tmp_path, HEAD.replace(old, new)))
