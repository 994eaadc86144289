import base64
import io as text_io
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.encaps import encapsulate
from pydicom.uid import (
    HTJ2K,
    MPEG2MPML,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from medseg import io
from medseg.errors import DataError
from medseg.io.dicom import _values


def test_units_are_made_slice_by_slice(make: Any, tmp_path: Path) -> None:
    whole = io.read(make.series(tmp_path / "ct", lambda n: {"RescaleSlope": 1, "RescaleIntercept": -1024}))
    assert whole.array.dtype == np.int16
    assert np.array_equal(whole.array[0, :, :, 3], make.slab(3).T - 1024)
    change = lambda n: {"RescaleSlope": 0.5 + n, "RescaleIntercept": 1, "Modality": "PT"}  # noqa: E731
    pet = io.read(make.series(tmp_path / "pt", change))
    assert pet.array.dtype == np.float32
    assert np.allclose(pet.array[0, :, :, 3], make.slab(3).T * 3.5 + 1)


def test_values_beyond_16_bits_are_kept(make: Any, tmp_path: Path) -> None:
    pixels = np.full((4, 3), 65535, np.uint16)
    volume = io.read(make.save(tmp_path / "s", [make.image((0, 0, n), pixels) for n in range(2)]))
    assert volume.array.dtype == np.int32
    assert (volume.array == 65535).all()


@pytest.mark.parametrize(("dtype", "value"), [("u2", 0x0ABC), ("i2", -5)])
@pytest.mark.parametrize("shift", [0, 4])
def test_bits_beside_those_stored_are_ignored(make: Any, tmp_path: Path, dtype: str, value: int, shift: int) -> None:
    dirt = 0x7000 if shift == 0 else 0x0007
    dirty = np.full((4, 3), ((value & 0x0FFF) << shift) | dirt, np.uint16).view(dtype)
    bits = {"BitsStored": 12, "HighBit": 11 + shift}
    volume = io.read(make.save(tmp_path / "s", [make.image((0, 0, n), dirty, **bits) for n in range(2)]))
    assert (volume.array == value).all()


def test_monochrome1_and_padding_keep_their_values_and_are_told(make: Any, tmp_path: Path) -> None:
    change = {"PhotometricInterpretation": "MONOCHROME1", "PixelPaddingValue": -2000, "RescaleIntercept": -1024}
    volume = io.read(make.series(tmp_path / "s", lambda n: change))
    assert np.array_equal(volume.array[0, :, :, 1], make.slab(1).T - 1024)
    assert "MONOCHROME1" in volume.meta["notes"][0]
    assert volume.meta["padding"] == -3024


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
@pytest.mark.parametrize(
    ("dtype", "kind", "value", "meant"),
    [("i2", "SS", -2000, -2000), ("i2", "US", 63536, -2000), ("u2", "SS", -1, 65535)],
)
def test_padding_has_the_sign_of_a_pixel(
    make: Any, tmp_path: Path, dtype: str, kind: str, value: int, meant: int, syntax: str
) -> None:
    data = make.image((0, 0, 0), np.zeros((4, 3), dtype), RescaleIntercept=-24)
    data.add_new("PixelPaddingValue", kind, value)
    data.file_meta.TransferSyntaxUID = syntax
    data.save_as(tmp_path / "a.dcm")
    assert io.read(tmp_path / "a.dcm").meta["padding"] == meant - 24


@pytest.mark.parametrize(
    ("kind", "unit"), [("HU", "HU"), ("US", "HU"), ("", "HU"), ("Z_EFF", "Z_EFF"), ("EDW", "EDW"), ("IODINE", "")]
)
def test_a_ct_of_another_unit_is_no_hounsfield(make: Any, tmp_path: Path, kind: str, unit: str) -> None:
    meta = io.read(make.series(tmp_path / "s", lambda n: {"RescaleType": kind})).meta
    assert meta["unit"] == unit
    assert (meta["notes"] == ()) == bool(unit)
    assert "IODINE" not in str(dict(meta))


def test_a_high_bit_that_cannot_be_moves_no_bits(make: Any, tmp_path: Path) -> None:
    pixels = np.full((4, 3), 5000, np.uint16)
    make.image((0, 0, 0), pixels, HighBit=11).save_as(tmp_path / "a.dcm")
    assert (io.read(tmp_path / "a.dcm").array == 5000).all()


def test_a_lookup_table_of_values_is_refused(make: Any, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="lookup table"):
        io.read(make.series(tmp_path / "s", lambda n: {"ModalityLUTSequence": [pydicom.Dataset()]}))


def noise(bits: int = 12) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 1 << bits, (64, 48)).astype(np.uint16)


@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless, JPEG2000Lossless])
def test_lossless_compressions_give_the_voxels_back(make: Any, tmp_path: Path, syntax: str) -> None:
    data = make.image((0, 0, 0), noise(), BitsStored=12, HighBit=11)
    data.compress(syntax)
    data.save_as(tmp_path / "c.dcm")
    assert np.array_equal(io.read(tmp_path / "c.dcm").array[0, :, :, 0], noise().T)


def test_jpeg_baseline_gives_nearly_the_voxels_back(make: Any, tmp_path: Path) -> None:
    smooth = np.add.outer(np.arange(32), 3 * np.arange(32)).astype(np.uint8)
    stream = text_io.BytesIO()
    Image.fromarray(smooth).save(stream, "JPEG", quality=95)
    data = make.image((0, 0, 0), smooth, BitsAllocated=8, BitsStored=8, HighBit=7)
    data.PixelData = encapsulate([stream.getvalue()])
    data["PixelData"].VR = "OB"
    data.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    data.save_as(tmp_path / "c.dcm")
    assert np.abs(io.read(tmp_path / "c.dcm").array[0, :, :, 0] - smooth.T.astype(int)).max() < 4


def test_lossy_compression_is_told_even_where_it_was_undone(make: Any, tmp_path: Path) -> None:
    for word, told in (("01", True), ("00", False)):
        volume = io.read(make.series(tmp_path / word, lambda n, word=word: {"LossyImageCompression": word}))
        assert any(note.startswith("lossily compressed") for note in volume.meta["notes"]) is told


@pytest.mark.parametrize("name", ["MR_small_bigendian", "MR_small_expb", "MR_small_implicit", "MR_small_jp2klossless"])
def test_encodings_of_one_image_hold_the_same(shared_data: Path, name: str) -> None:
    folder = shared_data / "D_dicom_odd"
    volume = io.read(folder / f"{name}.dcm")
    assert volume.array.dtype.isnative
    assert np.array_equal(volume.array, io.read(folder / "MR_small_implicit.dcm").array)


@pytest.mark.parametrize("name", ["JLSL_08_07_0_1F", "JLSL_16_15_1_1F", "JPEG2000", "image_dfl"])
def test_images_of_odd_encodings_are_decoded_once_they_have_a_place(
    shared_data: Path, tmp_path: Path, name: str
) -> None:
    data = pydicom.dcmread(shared_data / "D_dicom_odd" / f"{name}.dcm")
    data.PixelSpacing, data.ImagePositionPatient, data.ImageOrientationPatient = [1, 1], [0, 0, 0], [1, 0, 0, 0, 1, 0]
    data.save_as(tmp_path / "placed.dcm")
    volume = io.read(tmp_path / "placed.dcm")
    assert volume.geometry.shape == (data.Columns, data.Rows, 1)
    assert np.ptp(volume.array) > 50


def test_a_missing_decoder_is_named(make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = make.image((0, 0, 0), noise())
    data.compress(RLELossless)
    data.file_meta.TransferSyntaxUID = JPEGLosslessSV1
    data.save_as(tmp_path / "c.dcm")
    monkeypatch.setattr("pydicom.pixels.decoders.base.Decoder.is_available", False)
    with pytest.raises(DataError, match=r"is compressed \(JPEG Lossless.*pip install python-gdcm"):
        io.read(tmp_path / "c.dcm")
    assert _values._package("JPEG-LS Lossless Image Compression") == "pyjpegls"
    assert _values._package("High-Throughput JPEG 2000") == "pylibjpeg pylibjpeg-openjpeg"


def test_a_transfer_syntax_that_nobody_decodes_is_named(make: Any, tmp_path: Path) -> None:
    data = make.image((0, 0, 0), noise())
    data.compress(RLELossless)
    data.file_meta.TransferSyntaxUID = MPEG2MPML
    data.save_as(tmp_path / "c.dcm")
    with pytest.raises(DataError, match=r"transfer syntax that is not read \(MPEG2 Main Profile"):
        io.read(tmp_path / "c.dcm")


def test_no_memory_is_asked_for_what_a_file_cannot_hold(make: Any, tmp_path: Path) -> None:
    data = make.image((0, 0, 0), noise())
    data.compress(RLELossless)
    data.Rows = data.Columns = 65535
    data.save_as(tmp_path / "c.dcm")
    with pytest.raises(DataError, match=r"promises images of 8,589,672,450 bytes in a file of"):
        io.read(tmp_path / "c.dcm")


def test_a_deflated_bomb_is_not_unpacked(make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = make.image((0, 0, 0), np.zeros((1024, 1024), np.int16))
    data.file_meta.TransferSyntaxUID = pydicom.uid.DeflatedExplicitVRLittleEndian
    data.save_as(tmp_path / "c.dcm")
    assert io.read(tmp_path / "c.dcm").array.max() == 0
    monkeypatch.setattr("medseg.io.dicom._datasets._MOST_INFLATED", 1 << 20)
    (tmp_path / "c.dcm").touch()
    with pytest.raises(DataError, match="is deflated and holds more than 1,048,576 bytes"):
        io.read(tmp_path / "c.dcm")


def test_lossy_jpeg_of_12_bits_names_its_own_decoder(shared_data: Path, tmp_path: Path) -> None:
    data = pydicom.dcmread(shared_data / "D_dicom_odd/JPGExtended.dcm")
    data.PixelSpacing, data.ImagePositionPatient, data.ImageOrientationPatient = [1, 1], [0, 0, 0], [1, 0, 0, 0, 1, 0]
    data.save_as(tmp_path / "placed.dcm")
    with pytest.raises(DataError, match=r"JPEG Extended .*pip install pylibjpeg pylibjpeg-libjpeg"):
        io.read(tmp_path / "placed.dcm")


# 16 rows of 12 columns, -300, -293, -286 ..., as OpenJPH 0.26 encodes them.
_HIGH_THROUGHPUT = (
    "/0//UQApQAAAAAAMAAAAEAAAAAAAAAAAAAAADAAAABAAAAAAAAAAAAABjwEB/1AACAACAAAACv9SAAwAAgABAAUEBEAB/1wAEyCIkJCQkJCQkJCQkJCQ"
    "iIiI/2QAFwABT3BlbkpQSCBWZXIgMC4yNi4zLv+QAAoAAAAAAHIAAf+TwAAl4AEHdAAAwAASwAATAPYAh3QA/v0Ch3QAwAARwAATgBtzAPzy+wCDVADA"
    "ABPAABVA3t2Bfst1AHjx8P7AGMCMtgDAACqgABXgJEmS3qenp0J3AKYmk8lk+vwAEPYhAey5AP/Z"
)


@pytest.mark.parametrize("syntax", [HTJ2KLossless, HTJ2KLosslessRPCL, HTJ2K])
def test_high_throughput_jpeg_2000_is_read(make: Any, tmp_path: Path, syntax: str) -> None:
    pixels = (np.arange(16 * 12).reshape(16, 12) * 7 - 300).astype(np.int16)
    data = make.image((0, 0, 0), pixels)
    data.PixelData = encapsulate([base64.b64decode(_HIGH_THROUGHPUT)])
    data.file_meta.TransferSyntaxUID = syntax
    data.save_as(tmp_path / "a.dcm")
    assert np.array_equal(io.read(tmp_path / "a.dcm").array[0, :, :, 0], pixels.T)


@pytest.mark.parametrize("change", [{"RescaleSlope": "1e17"}, {"RescaleIntercept": "-1e25"}, {"RescaleSlope": "1e30"}])
def test_slopes_beyond_whole_numbers_wrap_nothing_round(make: Any, tmp_path: Path, change: dict[str, str]) -> None:
    volume = io.read(make.series(tmp_path / "s", lambda n: change))
    wanted = make.slab(4).T * float(change.get("RescaleSlope", 1)) + float(change.get("RescaleIntercept", 0))
    assert volume.array.dtype == np.float32
    assert np.allclose(volume.array[0, :, :, 4], wanted, rtol=1e-6)
