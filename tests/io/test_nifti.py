import gzip
import struct
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medseg import io
from medseg.errors import DataError, GeometryError
from medseg.volume import Geometry, Volume

OBLIQUE = nib.affines.from_matvec(nib.eulerangles.euler2mat(0.2, -0.3, 0.4) @ np.diag((0.7, 0.8, 2.5)), (-12, 7, 31))


def ramp(*shape: int, dtype: str = "i2") -> np.ndarray:
    return (np.arange(np.prod(shape)) % 120).reshape(shape).astype(dtype)


def save(path: Path, data: np.ndarray, affine: np.ndarray | None = OBLIQUE, *, sform: int = 1, qform: int = 1) -> Path:
    image = nib.Nifti1Image(data, affine, dtype=data.dtype)
    if affine is not None:
        image.set_sform(affine, sform)
        image.set_qform(affine, qform)
    nib.save(image, path)
    return path


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "a.img", "A.NII.GZ"])
def test_reads_what_nibabel_wrote(tmp_path: Path, name: str) -> None:
    data = ramp(3, 4, 5)
    if name == "a.img":
        nib.save(nib.Nifti1Pair(data, OBLIQUE), tmp_path / name)
    else:
        save(tmp_path / name.lower(), data).rename(tmp_path / name)
    volume = io.read(tmp_path / name)
    assert volume.array.dtype == np.int16
    assert np.array_equal(volume.array[0], data)
    assert np.allclose(volume.geometry.affine, OBLIQUE, atol=1e-6)
    assert volume.meta["notes"] == ()
    assert io.read_geometry(tmp_path / name) == volume.geometry


@pytest.mark.parametrize("code", ["u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f4", "f8", ">i2", ">f4", ">f8"])
def test_every_type_becomes_native_integers_or_float32(tmp_path: Path, code: str) -> None:
    data = ramp(2, 3, 4, dtype=code)
    image = nib.Nifti1Image(
        data, OBLIQUE, header=nib.Nifti1Header(endianness=">" if code[0] == ">" else "<"), dtype=code
    )
    nib.save(image, tmp_path / "a.nii.gz")
    array = io.read(tmp_path / "a.nii.gz").array
    assert array.dtype.isnative
    assert array.dtype == (np.float32 if "f" in code else np.dtype(code).newbyteorder("="))
    assert np.array_equal(array[0], data)


def test_scaled_integers_become_float32_in_their_unit_and_labels_integers(tmp_path: Path) -> None:
    image = nib.Nifti1Image(np.zeros((2, 2, 2)), np.eye(4))
    image.header.set_data_dtype(np.int16)
    image.header.set_slope_inter(0.1, -3)
    stored = ramp(2, 2, 2) * 10
    with (tmp_path / "a.nii").open("wb") as stream:
        image.header["vox_offset"] = 352
        image.header["magic"] = b"n+1"
        stream.write(image.header.binaryblock + bytes(4) + stored.tobytes(order="F"))
    read = io.read(tmp_path / "a.nii")
    assert read.array.dtype == np.float32
    assert np.allclose(read.array[0], stored * 0.1 - 3, atol=1e-5)
    labels = io.read(tmp_path / "a.nii", "labels").array
    assert labels.dtype == np.int8
    assert np.array_equal(labels[0], stored // 10 - 3)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((4, 5), (1, 4, 5, 1)),
        ((4, 5, 1), (1, 4, 5, 1)),
        ((3, 4, 5, 1), (1, 3, 4, 5)),
        ((3, 4, 5, 2), (2, 3, 4, 5)),
        ((3, 4, 5, 1, 3), (3, 3, 4, 5)),
    ],
)
def test_axes_beyond_three_become_channels(tmp_path: Path, shape: tuple[int, ...], expected: tuple[int, ...]) -> None:
    data = ramp(*shape)
    array = io.read(save(tmp_path / "a.nii.gz", data)).array
    assert array.shape == expected
    assert np.array_equal(np.moveaxis(array, 0, -1).ravel(), data.ravel())


def test_time_and_components_at_once_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="expected three and one of time or components"):
        io.read(save(tmp_path / "a.nii.gz", ramp(2, 2, 2, 3, 3)))


def test_sform_goes_before_qform_and_a_conflict_is_measured(tmp_path: Path) -> None:
    image = nib.Nifti1Image(ramp(3, 4, 5), OBLIQUE)
    image.set_sform(OBLIQUE, 2)
    image.set_qform(nib.affines.from_matvec(OBLIQUE[:3, :3], OBLIQUE[:3, 3] + (0, 0, 0.8)), 1)
    nib.save(image, tmp_path / "a.nii.gz")
    volume = io.read(tmp_path / "a.nii.gz")
    assert np.allclose(volume.geometry.affine, OBLIQUE, atol=1e-6)
    assert volume.meta["notes"] == ("sform and qform disagree by up to 0.80 mm; the sform is used",)
    assert (volume.meta["sform_code"], volume.meta["qform_code"]) == (2, 1)


def test_qform_is_used_without_an_sform_or_with_a_useless_one(tmp_path: Path) -> None:
    path = save(tmp_path / "a.nii", ramp(3, 4, 5), sform=0)
    assert np.allclose(io.read_geometry(path).affine, OBLIQUE, atol=1e-5)
    content = bytearray(path.read_bytes())
    content[254:256], content[280:328] = struct.pack("<h", 1), bytes(48)
    path.write_bytes(content)
    volume = io.read(path)
    assert np.allclose(volume.geometry.affine, OBLIQUE, atol=1e-5)
    assert volume.meta["notes"] == ("the sform cannot be inverted and was left aside",)


def test_without_any_form_the_grid_is_nibabels_and_it_says_so(tmp_path: Path) -> None:
    path = save(tmp_path / "a.nii.gz", ramp(3, 4, 5), np.diag((-2.0, 3.0, 4.0, 1.0)), sform=0, qform=0)
    volume = io.read(path)
    assert np.array_equal(volume.geometry.affine, nib.load(path).affine)
    assert "unknown" in volume.meta["notes"][0]


def sized(path: Path, data: np.ndarray, *sizes: float, sform: int = 0, qform: int = 0) -> Path:
    """A file whose header has these voxel sizes, whatever its forms say."""
    content = bytearray(save(path, data, sform=sform, qform=qform).read_bytes())
    struct.pack_into("<3f", content, 80, *sizes)
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("qform", [0, 1])
@pytest.mark.parametrize("size", [0, -4, np.nan, np.inf])
def test_voxels_without_a_length_have_no_grid_but_by_the_sform(tmp_path: Path, size: float, qform: int) -> None:
    path = sized(tmp_path / "a.nii", ramp(3, 4, 5), 2, 3, size, qform=qform)
    with pytest.raises(GeometryError, match=rf"voxel sizes of 2 x 3 x {size:g} and no sform"):
        io.read_geometry(path)
    path = sized(tmp_path / "b.nii", ramp(3, 4, 5), 2, 3, size, sform=1, qform=qform)
    assert np.allclose(io.read(path).geometry.affine, OBLIQUE, atol=1e-6)


@pytest.mark.parametrize("shape", [(3, 4), (3, 4, 1)])
def test_a_slice_of_unknown_thickness_is_1_mm_thick_and_says_so(tmp_path: Path, shape: tuple[int, ...]) -> None:
    volume = io.read(sized(tmp_path / "a.nii", ramp(*shape), 2, 3, 0))
    assert volume.geometry.spacing_mm == (2, 3, 1)
    assert volume.meta["notes"][0] == "one voxel of unknown size along k: its extent is taken as 1 mm"


def test_shear_is_kept_and_measured(tmp_path: Path) -> None:
    sheared = np.eye(4)
    sheared[1, 2] = np.tan(np.radians(10))
    volume = io.read(save(tmp_path / "a.nii.gz", ramp(3, 4, 5), sheared, qform=0))
    assert np.allclose(volume.geometry.affine, sheared)
    assert volume.meta["notes"] == ("axes are up to 10.00 degrees off right angles",)


@pytest.mark.parametrize(("unit", "mm"), [("meter", 1000.0), ("micron", 0.001)])
def test_lengths_become_millimetres(tmp_path: Path, unit: str, mm: float) -> None:
    image = nib.Nifti1Image(ramp(2, 2, 2), np.diag((2.0, 3.0, 4.0, 1.0)))
    image.header.set_xyzt_units(unit)
    nib.save(image, tmp_path / "a.nii.gz")
    volume = io.read(tmp_path / "a.nii.gz")
    assert np.allclose(volume.geometry.spacing_mm, np.array((2, 3, 4)) * mm)
    assert unit in volume.meta["notes"][0]


@pytest.mark.parametrize(
    ("dtype", "word"), [("c8", "complex"), (np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")]), "colour")]
)
def test_complex_and_colour_are_refused(tmp_path: Path, dtype: str, word: str) -> None:
    with pytest.raises(DataError, match=f"holds {word} voxels"):
        io.read(save(tmp_path / "a.nii.gz", np.zeros((2, 2, 2), dtype)))


def test_nan_stays_in_images_and_is_refused_in_labels(tmp_path: Path) -> None:
    data = ramp(2, 2, 2, dtype="f4")
    data[0, 0, 0], data[1, 1, 1] = np.nan, np.inf
    path = save(tmp_path / "a.nii.gz", data)
    assert np.array_equal(io.read(path).array[0], data, equal_nan=True)
    with pytest.raises(DataError, match=r"2 voxels whose values are no labels \(nan is one\)"):
        io.read(path, "labels")


def test_float_labels_become_the_smallest_integers_unless_interpolated(tmp_path: Path) -> None:
    data = np.array([0, 1, 300], "f8").reshape(3, 1, 1)
    assert io.read(save(tmp_path / "a.nii.gz", data), "labels").array.dtype == np.uint16
    with pytest.raises(DataError, match=r"2 voxels whose values are no labels \(0\.5 is one\)"):
        io.read(save(tmp_path / "b.nii.gz", data / 2 + 0.25 * (data == 300)), "labels")


def test_the_type_in_the_file_is_remembered(tmp_path: Path) -> None:
    for code in ("f8", "u1", ">i2"):
        save(tmp_path / "a.nii", ramp(2, 3, 4, dtype=code))
        mask = io.read(tmp_path / "a.nii", "labels")
        assert mask.array.dtype.kind in "ui"
        assert mask.meta["stored_dtype"] == np.dtype(code).newbyteorder("=").name


def damage(path: Path, how: str) -> Path:
    content = path.read_bytes()
    raw = gzip.decompress(content)
    if how == "truncated":
        path.write_bytes(content[: len(content) // 2])
    elif how == "checksum":
        path.write_bytes(content[:-8] + bytes(4) + content[-4:])
    elif how == "text":
        path.write_text("patient,age\n")
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "not gzipped":
        path.write_bytes(raw)
    elif how == "promises too much":
        path.write_bytes(gzip.compress(raw[:40] + struct.pack("<8h", 3, 30000, 30000, 30000, 1, 1, 1, 1) + raw[56:]))
    elif how == "negative size":
        path.write_bytes(gzip.compress(raw[:40] + struct.pack("<8h", 3, -3, 4, 5, 1, 1, 1, 1) + raw[56:]))
    elif how == "unknown type":
        path.write_bytes(gzip.compress(raw[:70] + struct.pack("<h", 999) + raw[72:]))
    return path


HOW = ["truncated", "checksum", "text", "empty", "promises too much", "negative size", "unknown type"]


@pytest.mark.parametrize("how", HOW)
def test_damage_is_one_line(tmp_path: Path, how: str) -> None:
    noise = np.random.default_rng(0).integers(0, 1000, (9, 8, 7)).astype("i2")
    with pytest.raises(DataError) as caught:
        io.read(damage(save(tmp_path / "a.nii.gz", noise), how))
    assert "\n" not in str(caught.value)
    assert "a.nii.gz" in str(caught.value)


def test_a_plain_file_cut_short_is_refused_before_memory_is_taken(tmp_path: Path) -> None:
    path = save(tmp_path / "a.nii", ramp(9, 8, 7))
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DataError, match="promises 1,360 bytes, the file has 1,260"):
        io.read(path)


def test_half_a_pair_is_refused(tmp_path: Path) -> None:
    nib.save(nib.Nifti1Pair(ramp(2, 2, 2), OBLIQUE), tmp_path / "a.img")
    (tmp_path / "a.img").rename(tmp_path / "b.img")
    with pytest.raises(DataError, match="header only"):
        io.read(tmp_path / "a.hdr")
    with pytest.raises(DataError, match="damaged or missing"):
        io.read(tmp_path / "b.img")


def test_other_formats_under_these_names_are_refused(tmp_path: Path) -> None:
    nib.save(nib.AnalyzeImage(ramp(2, 2, 2), np.eye(4)), tmp_path / "a.img")
    with pytest.raises(DataError, match="Analyze"):
        io.read(tmp_path / "a.img")


def test_a_grid_without_end_is_a_geometry_error_with_the_name(tmp_path: Path) -> None:
    path = save(tmp_path / "a.nii", ramp(2, 2, 2), np.eye(4), qform=0)
    content = bytearray(path.read_bytes())
    content[80:84], content[254:256] = struct.pack("<f", np.inf), bytes(2)
    path.write_bytes(content)
    with pytest.raises(GeometryError, match=r"a\.nii.*lengths above 0"):
        io.read(path)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 351), st.integers(0, 255)), min_size=1, max_size=4))
def test_any_damage_to_the_header_gives_a_volume_or_one_line(tmp_path_factory: pytest.TempPathFactory, hits) -> None:  # type: ignore[no-untyped-def]
    path = save(tmp_path_factory.mktemp("fuzz") / "a.nii", ramp(3, 4, 5))
    content = bytearray(path.read_bytes())
    for position, value in hits:
        content[position] = value
    path.write_bytes(content)
    try:
        said = repr(io.read(path))
    except DataError as error:
        said = str(error)
    assert "\n" not in said


# Writing


def labels(values: list[int], affine: np.ndarray = OBLIQUE, **meta: int) -> Volume:
    array = np.array(values, np.int64).reshape(-1, 1, 1)
    return Volume(array, Geometry(array.shape, affine), "labels", meta)


@pytest.mark.parametrize(
    ("values", "dtype"),
    [([0, 1], "u1"), ([0, 255], "u1"), ([0, 256], "u2"), ([0, 70000], "u4"), ([-1, 127], "i1"), ([-1, 128], "i2")],
)
def test_masks_take_the_smallest_type(tmp_path: Path, values: list[int], dtype: str) -> None:
    io.write(labels(values), tmp_path / "m.nii.gz")
    written = nib.load(tmp_path / "m.nii.gz")
    assert written.get_data_dtype() == np.dtype(dtype)
    assert np.asarray(written.dataobj).ravel().tolist() == values


@pytest.mark.parametrize("codes", [(1, 1), (2, 1), (0, 1), (4, 0)])
def test_a_mask_keeps_the_affine_and_the_codes_of_its_scan(tmp_path: Path, codes: tuple[int, int]) -> None:
    scan = io.read(save(tmp_path / "a.nii.gz", ramp(3, 4, 5), sform=codes[0], qform=codes[1]))
    io.write(scan.replace(array=scan.array > 3, kind="labels"), tmp_path / "m.nii.gz")
    header = nib.load(tmp_path / "m.nii.gz").header
    assert (int(header["sform_code"]), int(header["qform_code"])) == codes
    assert np.allclose(io.read_geometry(tmp_path / "m.nii.gz").affine, scan.geometry.affine, atol=1e-4)
    assert header.get_xyzt_units()[0] == "mm"


def test_a_sheared_grid_has_no_qform_and_comes_back_whole(tmp_path: Path) -> None:
    sheared = OBLIQUE.copy()
    sheared[:3, 2] += 0.3 * sheared[:3, 1]
    io.write(labels([0, 1, 2], sheared, sform_code=0, qform_code=1), tmp_path / "m.nii.gz")
    assert int(nib.load(tmp_path / "m.nii.gz").header["qform_code"]) == 0
    assert np.allclose(io.read_geometry(tmp_path / "m.nii.gz").affine, sheared, atol=1e-5)


def test_a_scan_without_forms_gets_none_unless_its_grid_would_be_lost(tmp_path: Path) -> None:
    scan = io.read(save(tmp_path / "a.nii.gz", ramp(3, 4, 5), np.diag((2.0, 3.0, 4.0, 1.0)), sform=0, qform=0))
    io.write(scan, tmp_path / "same.nii.gz")
    assert int(nib.load(tmp_path / "same.nii.gz").header["sform_code"]) == 0
    assert io.read_geometry(tmp_path / "same.nii.gz") == scan.geometry
    moved = scan.replace(geometry=Geometry(scan.geometry.shape, OBLIQUE))
    io.write(moved, tmp_path / "moved.nii.gz")
    assert np.allclose(io.read_geometry(tmp_path / "moved.nii.gz").affine, OBLIQUE, atol=1e-5)


@pytest.mark.parametrize("dtype", ["?", "f2", "f4", "f8", "i4", "i8", "u8"])
def test_channels_and_types_come_back(tmp_path: Path, dtype: str) -> None:
    array = ramp(2, 3, 4, 5, dtype=dtype)
    io.write(Volume(array, Geometry((3, 4, 5), OBLIQUE)), tmp_path / "a.nii")
    back = io.read(tmp_path / "a.nii")
    assert np.array_equal(back.array, array)
    assert np.allclose(back.geometry.affine, OBLIQUE, atol=1e-5)


def test_a_row_longer_than_nifti1_can_count_comes_back(tmp_path: Path) -> None:
    io.write(labels([0, 1] * 20000), tmp_path / "m.nii.gz")
    assert io.read_geometry(tmp_path / "m.nii.gz").shape == (40000, 1, 1)


def test_no_free_text_is_written(tmp_path: Path) -> None:
    io.write(labels([0, 1], notes=("Doe^John",)), tmp_path / "m.nii")
    header = nib.load(tmp_path / "m.nii").header
    assert [bytes(header[name]).strip(b"\0") for name in ("descrip", "aux_file", "intent_name", "db_name")] == [b""] * 4


def test_pairs_are_not_written(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"\.nii\.gz, \.nii"):
        io.write(labels([0, 1]), tmp_path / "m.hdr")


# Real files


def test_odd_files(shared_data: Path) -> None:
    folder = shared_data / "D_nifti_odd"
    for name in ("example_nifti2.nii.gz", "functional.nii", "monai_anatomical.nii", "standard.nii.gz"):
        volume, known = io.read(folder / name), nib.load(folder / name)
        assert np.allclose(
            np.moveaxis(volume.array, 0, -1).squeeze(), np.asarray(known.dataobj).squeeze(), equal_nan=True
        )
        assert np.allclose(volume.geometry.affine, known.affine)
        assert volume.array.dtype.isnative
    for name in ("nifti1.hdr", "row_major.dconn.nii", "test.mgz"):
        with pytest.raises(DataError):
            io.read(folder / name)


def test_labels_stored_as_floats(shared_data: Path) -> None:
    for file in sorted((shared_data / "B_lung_mr").rglob("*.nii.gz")):
        if "labels_" in file.parent.name:
            assert io.read(file, "labels").array.dtype.kind in "iu"
