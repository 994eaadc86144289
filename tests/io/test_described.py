"""What NRRD and MetaImage have in common: what SimpleITK wrote, and what it reads of ours."""

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from medseg import io
from medseg.errors import DataError
from medseg.volume import Geometry, Volume

# An axis that points backwards, a permutation and unequal sizes: any flip or swap moves a landmark.
AFFINE = np.array([[0.0, -2, 0, 5], [1, 0, 0, -3], [0, 0, 3, 7], [0, 0, 0, 1]])


def ramp(*shape: int) -> np.ndarray:
    return np.arange(np.prod(shape), dtype=np.int16).reshape(shape)


def save(path: Path, array: np.ndarray, *, vector: bool = False) -> sitk.Image:
    """An image on a grid of its own; the array is (k, j, i[, component]), as SimpleITK wants it."""
    image = sitk.GetImageFromArray(array, isVector=vector)
    if image.GetDimension() == 3:
        image.SetSpacing((0.5, 2, 3))
        image.SetOrigin((10, -20, 30))
        image.SetDirection((0, 0, 1, 1, 0, 0, 0, 1, 0))
    sitk.WriteImage(image, str(path))
    return image


@pytest.mark.parametrize("suffix", [".nrrd", ".nhdr", ".mha", ".mhd"])
def test_every_voxel_lies_where_simpleitk_puts_it_but_in_ras(tmp_path: Path, suffix: str) -> None:
    known = save(tmp_path / f"a{suffix}", ramp(5, 4, 3))
    volume = io.read(tmp_path / f"a{suffix}")
    assert volume.geometry.shape == (3, 4, 5)
    assert volume.array[0, 2, 1, 3] == known.GetPixel(2, 1, 3)
    left, back, up = known.TransformIndexToPhysicalPoint((2, 1, 3))
    assert np.allclose(volume.geometry.to_world((2, 1, 3)), (-left, -back, up))
    assert io.read_geometry(tmp_path / f"a{suffix}") == volume.geometry


@pytest.mark.parametrize("suffix", [".nrrd", ".mha"])
@pytest.mark.parametrize("channels", [1, 2, 3])
def test_written_and_read_again_is_the_same(tmp_path: Path, suffix: str, channels: int) -> None:
    volume = Volume(ramp(channels, 3, 4, 5), Geometry((3, 4, 5), AFFINE))
    io.write(volume, tmp_path / f"a{suffix}")
    back = io.read(tmp_path / f"a{suffix}")
    assert np.array_equal(back.array, volume.array)
    assert back.array.dtype == np.int16
    assert np.allclose(back.geometry.affine, AFFINE)


def test_masks_are_written_small_and_agree_with_nifti(tmp_path: Path) -> None:
    mask = Volume(ramp(3, 4, 5).astype(np.int64), Geometry((3, 4, 5), AFFINE), "labels")
    io.write(mask, tmp_path / "a.nrrd")
    io.write(mask, tmp_path / "a.nii.gz")
    a, b = sitk.ReadImage(str(tmp_path / "a.nrrd")), sitk.ReadImage(str(tmp_path / "a.nii.gz"))
    assert a.GetPixelID() == sitk.sitkUInt8
    assert np.array_equal(sitk.GetArrayFromImage(a), sitk.GetArrayFromImage(b))
    for one, other in ((a.GetOrigin(), b.GetOrigin()), (a.GetDirection(), b.GetDirection())):
        assert np.allclose(one, other, atol=1e-6)


def test_a_flat_image_has_one_slice(tmp_path: Path) -> None:
    save(tmp_path / "a.mha", ramp(4, 3))
    volume = io.read(tmp_path / "a.mha")
    assert volume.array.shape == (1, 3, 4, 1)
    assert volume.array[0, 2, 1, 0] == 1 * 3 + 2
    save(tmp_path / "b.mha", ramp(4, 3, 2), vector=True)
    assert np.array_equal(io.read(tmp_path / "b.mha").array[1, :, :, 0], ramp(4, 3, 2)[..., 1].T)


def test_time_becomes_channels(tmp_path: Path) -> None:
    array = ramp(2, 5, 4, 3)
    save(tmp_path / "a.nrrd", array)
    assert np.array_equal(io.read(tmp_path / "a.nrrd").array, array.transpose(0, 3, 2, 1))


def test_time_and_components_at_once_are_refused(tmp_path: Path) -> None:
    save(tmp_path / "a.nrrd", ramp(2, 2, 2, 2, 3), vector=True)
    with pytest.raises(DataError, match="for 5 axes; expected two or three, and channels"):
        io.read(tmp_path / "a.nrrd")


def test_shear_comes_back_with_a_note(tmp_path: Path) -> None:
    sheared = AFFINE.copy()
    sheared[0, 2] = 1
    io.write(Volume(ramp(3, 4, 5), Geometry((3, 4, 5), sheared)), tmp_path / "a.nrrd")
    back = io.read(tmp_path / "a.nrrd")
    assert np.allclose(back.geometry.affine, sheared)
    assert "degrees off right angles" in back.meta["notes"][0]


@pytest.mark.parametrize("suffix", [".nrrd", ".mha"])
@pytest.mark.parametrize("how", ["text", "empty", "cut"])
def test_damage_is_one_line(tmp_path: Path, suffix: str, how: str) -> None:
    path = tmp_path / f"a{suffix}"
    save(path, ramp(5, 4, 3))
    path.write_bytes({"text": b"not an image", "empty": b"", "cut": path.read_bytes()[:-50]}[how])
    with pytest.raises(DataError) as caught:
        io.read(path)
    assert "\n" not in str(caught.value)
    assert path.name in str(caught.value)


@pytest.mark.parametrize("suffix", [".nrrd", ".mha"])
def test_a_header_that_promises_more_than_the_file_can_hold(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    save(path, ramp(5, 4, 3))
    path.write_bytes(path.read_bytes().replace(b"3 4 5", b"3000 4000 500", 1))
    with pytest.raises(DataError, match=r"promises 12,000,000,\d+ bytes"):
        io.read(path)


def header_with(folder: Path, suffix: str, voxels: str, *, before: str = "") -> Path:
    """A good header and its voxels in a folder, and beside them one whose last line names other voxels."""
    save(folder / f"good{suffix}", ramp(5, 4, 3))
    lines = (folder / f"good{suffix}").read_text().splitlines()
    path = folder / f"a{suffix}"
    path.write_text("\n".join([*lines[:-1], before + lines[-1].replace("good.raw", voxels)]) + "\n")
    return path


@pytest.mark.parametrize("suffix", [".nhdr", ".mhd"])
@pytest.mark.parametrize("renamed", [False, True])
def test_a_header_reads_no_file_outside_its_folder(tmp_path: Path, suffix: str, renamed: bool) -> None:
    (tmp_path / "secret.raw").write_bytes(bytes(120))
    (tmp_path / "scans").mkdir()
    for voxels in ("../secret.raw", str(tmp_path / "secret.raw"), "../scans/../secret.raw", "/etc/passwd"):
        path = header_with(tmp_path / "scans", suffix, voxels)
        if renamed:  # a header may name a file whatever its own ending
            path = path.rename(path.with_suffix({".nhdr": ".nrrd", ".mhd": ".mha"}[suffix]))
        for read in (io.read, io.read_geometry):
            with pytest.raises(DataError, match="outside its own folder"):
                read(path)
    assert io.read(header_with(tmp_path / "scans", suffix, "../scans/good.raw")).array[0, 2, 3, 4] == 59


@pytest.mark.parametrize("field", ["ElementDataFile\n = ", "ElementDataFile:", "Comment = x\rElementDataFile = "])
def test_odd_ways_to_name_a_file_lead_nowhere(tmp_path: Path, field: str) -> None:
    (tmp_path / "secret.raw").write_bytes(bytes(120))
    path = header_with(tmp_path, ".mhd", "good.raw")
    (tmp_path / "scans").mkdir()
    text = path.read_text().replace("ElementDataFile = good.raw", f"{field}../secret.raw")
    (tmp_path / "scans" / "a.mhd").write_text(text, newline="")
    with pytest.raises(DataError, match=r"is no NRRD or MetaImage|are missing"):
        io.read(tmp_path / "scans" / "a.mhd")


def test_voxels_in_several_files_or_none_are_said(tmp_path: Path) -> None:
    for suffix, several in ((".nhdr", "LIST\ngood.raw"), (".mhd", "LIST\ngood.raw"), (".mhd", "a%03d.raw 1 5 1")):
        with pytest.raises(DataError, match="voxels in several files"):
            io.read(header_with(tmp_path, suffix, several))
    with pytest.raises(DataError, match=r"its voxels, 'gone\.raw', are missing"):
        io.read(header_with(tmp_path, ".mhd", "gone.raw"))


def test_a_header_without_end_is_refused(tmp_path: Path) -> None:
    """Beyond what is looked through, a file might be named."""
    for suffix in (".nhdr", ".mhd"):
        path = header_with(tmp_path, suffix, "good.raw", before="# padding\n" * 120_000)
        with pytest.raises(DataError, match=r"header of more than 1,048,576 bytes"):
            io.read(path)


def test_only_formats_of_one_file_are_written(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"Use .*\.nrrd, \.mha"):
        io.write(Volume(ramp(3, 4, 5), Geometry((3, 4, 5), AFFINE)), tmp_path / "a.mhd")
    assert not list(tmp_path.iterdir())


def test_real_pairs_share_their_grid(shared_data: Path) -> None:
    for name in ("brain1", "breast1"):
        folder = shared_data / "B_pyradiomics_nrrd"
        image, label = io.read(folder / f"{name}_image.nrrd"), io.read(folder / f"{name}_label.nrrd", "labels")
        assert np.allclose(image.geometry.affine, label.geometry.affine, atol=1e-3)
        known = sitk.ReadImage(str(folder / f"{name}_image.nrrd"))
        index = (20, 30, 5)
        assert image.array[0][index] == known.GetPixel(index)
        point = np.array(known.TransformIndexToPhysicalPoint(index)) * (-1, -1, 1)
        assert np.allclose(image.geometry.to_world(index), point)
    assert np.count_nonzero(label.array) == 143


@pytest.mark.parametrize("spacings", ["", "spacings: nan nan nan\n", "spacings: 2 3 nan\n"])
def test_voxels_of_unknown_size_are_said(tmp_path: Path, spacings: str) -> None:
    (tmp_path / "a.nrrd").write_bytes(
        f"NRRD0004\ntype: uchar\ndimension: 3\nsizes: 2 2 2\nencoding: raw\n{spacings}\n".encode() + bytes(8)
    )
    head = b"NDims = 3\nDimSize = 2 2 2\nElementType = MET_UCHAR\n"
    (tmp_path / "a.mha").write_bytes(head + b"ElementDataFile = LOCAL\n" + bytes(8))
    for path in tmp_path.iterdir():
        assert "does not say how large voxels are" in io.read(path).meta["notes"][0]
    (tmp_path / "a.mha").write_bytes(head + b"ElementSpacing = 1 1 1\nElementDataFile = LOCAL\n" + bytes(8))
    assert io.read(tmp_path / "a.mha").meta["notes"] == ()
