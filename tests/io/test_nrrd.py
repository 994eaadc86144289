"""Headers as people write them, against what SimpleITK makes of the same bytes."""

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from medseg import io
from medseg.errors import DataError, GeometryError

VOXELS = np.arange(24, dtype="<i2")
HEAD = "type: short\ndimension: 3\nsizes: 2 3 4\nencoding: raw\nendian: little\n"
LEANING = "space directions: (1,0.1,0) (0.2,2,0) (0,0.3,3)\nspace origin: (5,6,7)\n"


def nrrd(folder: Path, fields: str, voxels: bytes = VOXELS.tobytes(), version: int = 4) -> Path:
    path = folder / "a.nrrd"
    path.write_bytes(f"NRRD000{version}\n{fields}\n".encode() + voxels)
    return path


def known(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """SimpleITK's array, and its grid in RAS."""
    image = sitk.ReadImage(str(path))
    count = image.GetDimension()
    affine = np.eye(4)
    affine[:count, :count] = np.reshape(image.GetDirection(), (count, count)) * image.GetSpacing()
    affine[:count, 3] = image.GetOrigin()
    return sitk.GetArrayFromImage(image), np.diag((-1, -1, 1, 1)) @ affine


@pytest.mark.parametrize(
    "fields",
    [
        HEAD,
        HEAD + "# a comment\nkey:=value: x\ncontent: head\nspacings: 1.5 2 3\n",
        HEAD + "spacings: 1.5 nan 3\n",
        *(HEAD + f"spacings: 1.5 2 3\naxis mins: 1 2 3\n{c}" for c in ("", "centers: node node node\n")),
        *(
            HEAD + f"space: {s}\n" + LEANING
            for s in ("LPS", "right-anterior-superior", "RAS", "LAS", "3D-right-handed")
        ),
        HEAD.replace("3\nsizes: 2 3 4", "2\nsizes: 4 6") + "spacings: 2 3\n",
        HEAD.replace("\n", "\r\n"),
        HEAD.replace("short", "signed short int"),
    ],
)
def test_places_and_values_are_simpleitks(tmp_path: Path, fields: str) -> None:
    path = nrrd(tmp_path, fields)
    array, affine = known(path)
    volume = io.read(path)
    assert np.array_equal(volume.array[0].squeeze(), array.T)
    assert np.allclose(volume.geometry.affine, affine)
    assert io.read_geometry(path) == volume.geometry


@pytest.mark.parametrize("kinds", ["vector domain domain domain", "domain domain domain list"])
def test_the_axis_of_components_may_be_first_or_last(tmp_path: Path, kinds: str) -> None:
    sizes = "2 3 4 1" if kinds.startswith("vector") else "3 4 1 2"
    path = nrrd(tmp_path, HEAD.replace("dimension: 3\nsizes: 2 3 4", f"dimension: 4\nsizes: {sizes}\nkinds: {kinds}"))
    assert np.array_equal(io.read(path).array, known(path)[0].transpose(3, 2, 1, 0))


def test_bytes_and_lines_before_the_voxels(tmp_path: Path) -> None:
    for field, before in (("line skip: 1", b"a line\n"), ("byte skip: -1", b"anything"), ("byte skip: 3", b"abc")):
        path = nrrd(tmp_path, f"{HEAD}{field}\n", before + VOXELS.tobytes())
        assert np.array_equal(io.read(path).array.ravel(order="F"), VOXELS)


@pytest.mark.parametrize("encoding", ["ascii", "bzip2"])
def test_other_encodings(tmp_path: Path, encoding: str) -> None:
    import bz2

    packed = " ".join(map(str, VOXELS)).encode() if encoding == "ascii" else bz2.compress(VOXELS.tobytes())
    path = nrrd(tmp_path, HEAD.replace("raw", encoding), packed)
    assert np.array_equal(io.read(path).array.ravel(order="F"), VOXELS)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(DataError, match="cut short or damaged"):
        io.read(path)


def test_a_slice_in_space_has_its_normal(tmp_path: Path) -> None:
    flat = HEAD.replace("3\nsizes: 2 3 4", "2\nsizes: 4 6")
    grid = io.read_geometry(
        nrrd(tmp_path, flat + "space: RAS\nspace directions: (0,2,0) (0,0,3)\nspace origin: (1,2,3)\n")
    )
    assert grid.shape == (4, 6, 1)
    assert np.allclose(grid.affine, [[0, 0, 1, 1], [2, 0, 0, 2], [0, 3, 0, 3], [0, 0, 0, 1]])


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("sizes: 2 3 4", "sizes: 2 3 x", "header is damaged"),
        ("sizes: 2 3 4", "sizes: 2 3", "expected two or three"),
        ("sizes: 2 3 4", "sizes: 2 0 4", "expected two or three"),
        ("type: short", "type: block", "header is damaged"),
        ("encoding: raw", "encoding: secret", "header is damaged"),
        ("sizes: 2 3 4", f"sizes: 2 3 {2**31}", "promises"),
    ],
)
def test_what_cannot_be_is_one_line(tmp_path: Path, old: str, new: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        io.read(nrrd(tmp_path, HEAD.replace(old, new)))


def test_parallel_axes_are_a_geometry_error(tmp_path: Path) -> None:
    with pytest.raises(GeometryError, match="singular"):
        io.read(nrrd(tmp_path, HEAD + "space: RAS\nspace directions: (1,0,0) (1,0,0) (0,0,1)\n"))


@pytest.mark.parametrize(("unit", "length_mm"), [("um", 1e-3), ("m", 1e3), ("mm", 1), ("???", 1)])
def test_the_unit_of_space_counts(tmp_path: Path, unit: str, length_mm: float) -> None:
    path = tmp_path / "a.nrrd"
    header = f'''NRRD0004
type: uint8
dimension: 3
sizes: 2 2 2
encoding: raw
space: LPS
space directions: (1,0,0) (0,2,0) (0,0,3)
space origin: (4,5,6)
space units: "{unit}" "{unit}" "{unit}"

'''
    path.write_bytes(header.encode() + bytes(8))
    grid = io.read_geometry(path)
    assert np.allclose(grid.spacing_mm, np.array((1, 2, 3)) * length_mm)
    assert np.allclose(grid.affine[:3, 3], np.array((-4, -5, 6)) * length_mm)


@pytest.mark.parametrize("space", ["", "space: scanner-xyz\n", "space: left-posterior-inferior\n", "space: LPS\n"])
def test_a_space_that_is_none_of_the_patient_is_told(tmp_path: Path, space: str) -> None:
    notes = io.read(nrrd(tmp_path, HEAD + space + "space directions: (1,0,0) (0,2,0) (0,0,3)\n")).meta["notes"]
    assert ["LPS is taken" in note for note in notes] == ([] if "LPS" in space else [True])
