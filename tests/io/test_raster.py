import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image

from medseg import io
from medseg.errors import ConfigError, DataError
from medseg.labels import Labels
from medseg.volume import Geometry, Volume

GREY = np.arange(12, dtype=np.uint8).reshape(3, 4)  # three rows, four columns


def save(path: Path, array: np.ndarray, mode: str | None = None) -> Path:
    image = Image.fromarray(array)
    (image.convert(mode) if mode else image).save(path)
    return path


@pytest.mark.parametrize("suffix", [".png", ".tif", ".TIFF"])
def test_columns_are_i_and_rows_are_j(tmp_path: Path, suffix: str) -> None:
    volume = io.read(save(tmp_path / f"a{suffix}", GREY))
    assert volume.array.shape == (1, 4, 3, 1)
    assert volume.array[0, 3, 1, 0] == GREY[1, 3]
    assert np.array_equal(volume.geometry.affine, np.diag((-1, -1, 1, 1)))
    assert volume.geometry.axcodes == "LPS"
    assert "1 mm" in volume.meta["notes"][0]
    assert io.read_geometry(tmp_path / f"a{suffix}") == volume.geometry


# TIFF 6.0, tag Orientation: which sides of the picture the first row and the first column are.
SHOWN = (GREY, GREY[:, ::-1], GREY[::-1, ::-1], GREY[::-1], GREY.T, GREY.T[:, ::-1], GREY[::-1, ::-1].T, GREY.T[::-1])


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".png", ".tif", ".jpg"])
def test_pictures_are_read_as_they_are_shown(tmp_path: Path, suffix: str, orientation: int) -> None:
    """A camera held upright stores its rows lying; masks are drawn on what viewers show."""
    stored, expected = (np.kron(20 * pixels, np.ones((8, 8), np.uint8)) for pixels in (GREY, SHOWN[orientation - 1]))
    exif = Image.Exif()
    exif[274] = orientation
    tags = {"tiffinfo": {274: orientation}} if suffix == ".tif" else {"exif": exif}
    Image.fromarray(stored).save(path := tmp_path / f"a{suffix}", **tags)
    volume = io.read(path)
    np.testing.assert_allclose(volume.array[0, :, :, 0].T, expected, atol=1 if suffix == ".jpg" else 0)
    assert io.read_geometry(path) == volume.geometry
    assert any("shown turned" in note for note in volume.meta["notes"]) == (orientation > 1)


def test_an_orientation_that_cannot_be_understood_is_none(tmp_path: Path) -> None:
    for number, exif in enumerate(
        (b"Exif\0\0what is this", b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x63\0\0\0")
    ):
        Image.fromarray(GREY).save(path := tmp_path / f"{number}.png", exif=exif)
        assert np.array_equal(io.read(path).array[0, :, :, 0].T, GREY)


@pytest.mark.parametrize("array", [GREY.astype(np.uint16) * 5000, GREY.astype(np.float32) / 3, GREY.astype(np.int32)])
def test_deep_pixels_keep_their_values(tmp_path: Path, array: np.ndarray) -> None:
    assert np.array_equal(io.read(save(tmp_path / "a.tif", array)).array[0, :, :, 0], array.T)


def tiff(path: Path, pixels: np.ndarray, packed: bool, ink: int = 1) -> Path:
    """A TIFF as other programs write it: in any type and order of bytes, deflated or not, black as 0 (ink 1) or white."""
    order, (rows, columns) = ">" if pixels.dtype.str[0] == ">" else "<", pixels.shape
    data = zlib.compress(pixels.tobytes()) if packed else pixels.tobytes()
    form = {"u": 1, "i": 2, "f": 3}[pixels.dtype.kind]
    tags = {256: columns, 257: rows, 258: 8 * pixels.itemsize, 259: 8 if packed else 1, 262: ink, 273: 8, 277: 1}
    tags |= {278: rows, 279: len(data), 339: form}
    entries = b"".join(struct.pack(f"{order}HHIHxx", tag, 3, 1, value) for tag, value in tags.items())
    start = (b"MM\0*" if order == ">" else b"II*\0") + struct.pack(f"{order}I", 8 + len(data))
    path.write_bytes(start + data + struct.pack(f"{order}H", len(tags)) + entries + bytes(4))
    return path


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("code", ["u1", "i1", "u2", "i2", "u4", "i4", "f4", "f8"])
def test_every_number_of_a_tiff_keeps_its_value(tmp_path: Path, code: str, order: str, packed: bool) -> None:
    most = 1e30 if code[0] == "f" else np.iinfo(code).max
    pixels = np.array([[0, 1, 2], [100, most / 3, most]]).astype(order + code)
    volume = io.read(tiff(tmp_path / "a.tif", pixels, packed))
    expected = pixels.astype(np.float32) if code[0] == "f" else pixels
    assert np.array_equal(volume.array[0, :, :, 0].T, expected)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("code", ["u1", "u2", "u4", "f4"])
def test_values_that_count_down_from_white_are_kept_as_stored(
    tmp_path: Path, code: str, order: str, packed: bool
) -> None:
    """ImageJ saves its binary masks so: 255 is the structure, to be shown in black."""
    pixels = np.array([[0, 1, 2], [100, 254, 255]]).astype(order + code)
    path = tiff(tmp_path / "a.tif", pixels, packed, ink=0)
    assert np.array_equal(io.read(path, "labels").array[0, :, :, 0].T, pixels)
    volume = io.read(path)
    assert np.array_equal(volume.array[0, :, :, 0].T, pixels)
    assert volume.meta["notes"][1].startswith("WhiteIsZero")
    assert len(io.read(tiff(path, pixels, packed)).meta["notes"]) == 1


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_colours_of_16_bits_are_coarsened_in_images_alone_and_never_in_silence(tmp_path: Path, suffix: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 65535, (3, 4, 3), np.uint16)
    sitk.WriteImage(sitk.GetImageFromArray(pixels, isVector=True), str(tmp_path / f"a{suffix}"))
    volume = io.read(tmp_path / f"a{suffix}")
    assert np.array_equal(volume.array[..., 0].T, pixels >> 8)
    assert "only 8 are read" in volume.meta["notes"][1]
    with pytest.raises(DataError, match="only 8 are read, so that labels may become one"):
        io.read(tmp_path / f"a{suffix}", "labels")


def test_colours_are_channels_and_transparency_is_dropped(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (3, 4, 4), np.uint8)
    volume = io.read(save(tmp_path / "a.png", pixels))
    assert np.array_equal(volume.array[..., 0], pixels[..., :3].transpose(2, 1, 0))


@pytest.mark.parametrize(("mode", "channels"), [("1", 1), ("LA", 1), ("P", 3), ("RGB", 3)])
def test_other_modes_become_grey_or_colour(tmp_path: Path, mode: str, channels: int) -> None:
    assert io.read(save(tmp_path / "a.png", GREY, mode)).array.shape == (channels, 4, 3, 1)


def test_jpeg_is_an_image_but_never_a_mask(tmp_path: Path) -> None:
    path = save(tmp_path / "a.jpg", GREY)
    assert io.read(path).array.shape == (1, 4, 3, 1)
    with pytest.raises(DataError, match="JPEG changes values"):
        io.read(path, "labels")


def test_palette_indices_and_bits_are_labels(tmp_path: Path) -> None:
    image = Image.fromarray(GREY % 3)
    image.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0])
    image.save(tmp_path / "a.png")
    assert np.array_equal(io.read(tmp_path / "a.png", "labels").array[0, :, :, 0], (GREY % 3).T)
    Image.fromarray(GREY > 5).save(tmp_path / "b.png")
    assert np.array_equal(io.read(tmp_path / "b.png", "labels").array[0, :, :, 0], (GREY > 5).T)


def test_colours_of_a_mask_are_numbers_and_come_back_as_colours(tmp_path: Path) -> None:
    pixels = np.zeros((3, 4, 3), np.uint8)
    pixels[0, 0], pixels[1, 2], pixels[2, 3] = (255, 0, 0), (0, 0, 255), (255, 255, 255)
    mask = io.read(save(tmp_path / "a.png", pixels), "labels")
    assert {int(v) for v in np.unique(mask.array)} == {0, 255, 0x10000FF, 0x1FF0000}
    assert mask.array[0, 0, 0, 0] == 0x1FF0000
    assert Labels.of(sorted(map(int, np.unique(mask.array)))[1:]).names == ("label 255", "#0000ff", "#ff0000")
    io.write(mask, tmp_path / "b.png")
    assert np.array_equal(np.asarray(Image.open(tmp_path / "b.png")), pixels)


def test_grey_saved_in_colours_is_grey_and_transparent_is_background(tmp_path: Path) -> None:
    assert np.array_equal(io.read(save(tmp_path / "a.png", GREY, "RGB"), "labels").array[0, :, :, 0], GREY.T)
    pixels = np.full((3, 4, 4), 200, np.uint8)
    pixels[:, :2, 3] = 0
    assert io.read(save(tmp_path / "b.png", pixels), "labels").array[0, :, 0, 0].tolist() == [0, 0, 200, 200]


@pytest.mark.parametrize(("top", "dtype"), [(1, "u1"), (255, "u1"), (256, "u2"), (65535, "u2")])
def test_masks_come_back_from_png(tmp_path: Path, top: int, dtype: str) -> None:
    array = np.zeros((4, 3, 1), np.int64)
    array[3, 1] = top
    io.write(Volume(array, Geometry((4, 3, 1), np.eye(4)), "labels"), tmp_path / "m.png")
    back = io.read(tmp_path / "m.png", "labels")
    assert np.array_equal(back.array[0], array)
    assert back.array.dtype == np.dtype(dtype)


def test_colour_images_come_back_from_png(tmp_path: Path) -> None:
    array = np.random.default_rng(0).integers(0, 255, (3, 4, 5, 1), np.uint8)
    io.write(Volume(array, Geometry((4, 5, 1), np.eye(4))), tmp_path / "a.png")
    assert np.array_equal(io.read(tmp_path / "a.png").array, array)


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("a.jpg", np.zeros((4, 3, 1), np.uint8)),
        ("a.png", np.zeros((4, 3, 2), np.uint8)),
        ("a.png", np.zeros((4, 3, 1), np.float32)),
        ("a.png", np.zeros((2, 4, 3, 1), np.uint8)),
    ],
)
def test_what_png_cannot_hold_is_refused(tmp_path: Path, name: str, array: np.ndarray) -> None:
    with pytest.raises(DataError, match=r"PNG|\.png"):
        io.write(Volume(array, Geometry(array.shape[-3:], np.eye(4))), tmp_path / name)
    assert not list(tmp_path.iterdir())


def stack(path: Path, pages: list[np.ndarray]) -> Path:
    first, *rest = (Image.fromarray(page) for page in pages)
    first.save(path, save_all=True, append_images=rest)
    return path


def test_pages_of_a_tiff_are_slices(tmp_path: Path) -> None:
    pages = [GREY + 20 * n for n in range(3)]
    path = stack(tmp_path / "a.tif", pages)
    volume = io.read(path)
    assert np.array_equal(volume.array[0], np.stack(pages, -1).transpose(1, 0, 2))
    assert io.read_geometry(path) == volume.geometry
    colour = stack(tmp_path / "b.tif", [np.stack([page] * 3, -1) for page in pages])
    assert io.read(colour).array.shape == (3, 4, 3, 3)
    with pytest.raises(DataError, match="pages of different sizes"):
        io.read(stack(tmp_path / "c.tif", [GREY, GREY[:2]]))


def test_spacing_is_given_or_told_beside_the_file(tmp_path: Path) -> None:
    path = stack(tmp_path / "case_0000.tif", [GREY] * 2)
    given = io.read(path, spacing_mm=(0.5, 0.25, 2))
    assert given.geometry.spacing_mm == (0.5, 0.25, 2)
    assert given.meta["notes"] == ()
    (tmp_path / "case.json").write_text('{"spacing": [2, 0.25, 0.5]}')  # as nnU-Net has it: slices, rows, columns
    assert io.read(path).geometry == io.read_geometry(path) == given.geometry
    assert io.parts(path) == [path, tmp_path / "case.json"]
    for wrong in ("[2, 0.25, 0]", '["x", 1, 1]', "[NaN, 1, 1]", "[1, 1, 1e999]"):
        (tmp_path / "case.json").write_text(f'{{"spacing": {wrong}}}')
        with pytest.raises(DataError, match="three lengths in mm"):
            io.read(path)


def test_other_formats_know_their_spacing(tmp_path: Path) -> None:
    io.write(Volume(GREY[..., None], Geometry((3, 4, 1), np.eye(4))), tmp_path / "a.nii")
    with pytest.raises(ConfigError, match="with spacing_mm: it is no option of its format"):
        io.read(tmp_path / "a.nii", spacing_mm=(1, 1, 1))


def test_frames_of_an_animation_are_no_slices(tmp_path: Path) -> None:
    stack(tmp_path / "a.png", [GREY, GREY + 1])
    with pytest.raises(DataError, match="2 pictures"):
        io.read(tmp_path / "a.png")


@pytest.mark.parametrize("how", ["text", "empty", "cut", "flipped"])
@pytest.mark.parametrize("suffix", [".png", ".tif", ".jpg"])
def test_damage_is_one_line(tmp_path: Path, suffix: str, how: str) -> None:
    path = save(tmp_path / f"a{suffix}", np.random.default_rng(0).integers(0, 255, (64, 64), np.uint8))
    content = path.read_bytes()
    flipped = bytes(8) + content[8:]
    path.write_bytes({"text": b"no image", "empty": b"", "cut": content[: len(content) // 3], "flipped": flipped}[how])
    with pytest.raises(DataError) as caught:
        io.read(path)
    assert "\n" not in str(caught.value)


def test_a_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(tmp_path / "a.png", np.zeros((50, 50), np.uint8))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 2000)
    assert io.read(path).geometry.shape == (50, 50, 1)  # above the warning, below the error
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(DataError, match="more pixels"):
        io.read(path)


def test_real_images_and_instances(shared_data: Path) -> None:
    for folder, channels in (("E_dsb2018/images", 3), ("E_isbi2012/image", 1)):
        file = sorted(p for p in (shared_data / folder).rglob("*") if p.is_file())[0]
        volume = io.read(file)
        assert volume.channels == channels
        assert volume.array.dtype == np.uint8
    label = sorted((shared_data / "E_dsb2018/labels").rglob("*.png"))[0]
    assert np.array_equal(io.read(label, "labels").array[0, :, :, 0], np.asarray(Image.open(label)).T)


def test_a_tiff_without_some_of_its_strips_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    Image.fromarray(np.full((64, 48), 7, np.uint8)).save(path, tiffinfo={278: 8})
    data = bytearray(path.read_bytes())
    (at,) = struct.unpack_from("<I", data, 4)
    for entry in range(at + 2, at + 2 + 12 * data[at], 12):
        if struct.unpack_from("<H", data, entry)[0] in (273, 279):  # where strips begin, and how long they are
            struct.pack_into("<I", data, entry + 4, 3)
    path.write_bytes(data)
    with pytest.raises(DataError, match="lacks a part of page 1 of 1"):
        io.read(path)


def test_bytes_of_a_tiff_may_have_a_sign(tmp_path: Path) -> None:
    pixels = np.arange(-6, 6, dtype=np.int8).reshape(3, 4)
    path = tmp_path / "a.tif"
    Image.fromarray(pixels.view(np.uint8)).save(path, tiffinfo={339: 2})
    assert np.array_equal(io.read(path).array[0, :, :, 0].T, pixels)
