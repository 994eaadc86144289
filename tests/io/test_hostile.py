"""Files that lie: each ends in a volume or in one line, and takes no more memory or time than the file backs."""

import contextlib
import functools
import gzip
import random
import struct
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("psutil")
from benchmarks._mutations import mutated
from benchmarks._reader import look
from benchmarks._seeds import FAMILIES, make, seeds
from medseg import io
from medseg.errors import DataError, MedsegError
from medseg.io import _packed

MB = 1_000_000
NOISE = np.random.default_rng(0).integers(0, 256, 400_000, dtype=np.uint8).tobytes()


def nifti(shape: tuple[int, ...], voxels: bytes, *, two: bool = False, **fields: object) -> bytes:
    """A header that says anything, and voxels."""
    header = nib.Nifti2Header() if two else nib.Nifti1Header()
    header.set_data_dtype(np.uint8)
    header["dim"][: len(shape) + 1] = [len(shape), *shape]
    header["vox_offset"] = 544 if two else 352
    for name, value in ({"magic": b"n+2\0\r\n\x1a\n"[: 8 if two else 4] if two else b"n+1"} | fields).items():
        header[name] = value
    return bytes(header.binaryblock + bytes(4) + voxels)


def looked_at(path: Path) -> dict[str, object]:
    """The worst that reading a file takes, once all that is imported is there."""
    return look(lambda: io.read(path))


@pytest.fixture(scope="module")
def warm(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("warm")
    make(folder)
    for path in folder.iterdir():
        if io.ending(path):
            io.read(path)


@pytest.mark.usefixtures("warm")
@pytest.mark.parametrize("packed", [False, True])
def test_no_memory_for_voxels_that_are_not_there(tmp_path: Path, packed: bool) -> None:
    """400 MB are promised, and after zlib's best ratio 400 kB could hold them: but they hold 400 kB."""
    content = nifti((20_000, 20_000), NOISE)
    path = tmp_path / "a.nii"
    path.write_bytes(gzip.compress(content) if packed else content)
    found = looked_at(path)
    assert found["kind"] == "DataError"
    assert float(str(found["peak_mb"])) < 30


@pytest.mark.usefixtures("warm")
@pytest.mark.parametrize("name", ["a.nrrd", "a.mha"])
def test_no_memory_for_voxels_of_other_formats_either(tmp_path: Path, name: str) -> None:
    said = {
        "a.nrrd": "NRRD0004\ntype: uchar\ndimension: 3\nsizes: 20000 20000 1\nencoding: gzip\n\n",
        "a.mha": "NDims = 3\nDimSize = 20000 20000 1\nElementType = MET_UCHAR\nCompressedData = True\nElementDataFile = LOCAL\n",
    }[name]
    packed = gzip.compress(NOISE) if name == "a.nrrd" else zlib.compress(NOISE)
    (tmp_path / name).write_bytes(said.encode() + packed)
    found = looked_at(tmp_path / name)
    assert (found["kind"], "cut short or damaged" in str(found["where"])) == ("DataError", True)
    assert float(str(found["peak_mb"])) < 30


@pytest.mark.usefixtures("warm")
def test_a_bomb_behind_the_voxels_is_not_unpacked(tmp_path: Path) -> None:
    with gzip.open(tmp_path / "a.nii.gz", "wb", 1) as stream:
        stream.write(nifti((10, 10, 10), NOISE[:1000]))
        for _ in range(300):
            stream.write(bytes(MB))
    began = time.process_time()
    found = looked_at(tmp_path / "a.nii.gz")
    assert found["kind"] == "DataError"
    assert float(str(found["peak_mb"])) < 30
    assert time.process_time() - began < 1


def test_a_little_behind_the_voxels_does_no_harm(tmp_path: Path) -> None:
    content = nifti((10, 10, 10), NOISE[:1000] + bytes(5000))
    for name, packed in (("a.nii.gz", gzip.compress(content)), ("b.nii", content), ("c.nii.gz", content)):
        (tmp_path / name).write_bytes(packed)
        assert io.read(tmp_path / name).array.shape == (1, 10, 10, 10)
    (tmp_path / "d.nii.gz").write_bytes(gzip.compress(content[:700]) + gzip.compress(content[700:]) + bytes(512))
    assert np.array_equal(io.read(tmp_path / "d.nii.gz").array, io.read(tmp_path / "b.nii").array)


def test_what_does_not_fit_into_memory_is_said_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path)
    monkeypatch.setattr(_packed.memory, "free_bytes", lambda: 500.0)
    for name in ("two.nii", "pair.img", "plain.nrrd", "packed.mha", "pages_raw.tif"):
        assert io.read_geometry(tmp_path / name).shape
        with pytest.raises(DataError, match=r"holds 0\.0 GB of voxels, but 0\.0 GB of memory are free"):
            io.read(tmp_path / name)


@pytest.mark.parametrize(
    "content",
    [
        nifti((2**31, 2**31, 2**31), b"", two=True),
        nifti((2**62, 2, 2), b"", two=True),
        nifti((-5, 4, 3), NOISE[:60]),
        nifti((32767, 32767, 32767), NOISE[:60]),
        *(nifti((5, 4, 3), NOISE[:60], vox_offset=offset) for offset in (1e30, np.nan, np.inf, -1e9, 2e9, 1)),
        nifti((5, 4, 3), NOISE[:60], vox_offset=2**62, two=True),
        nifti((5, 4, 3), NOISE[:60], bitpix=64, datatype=1),
        nifti((5, 4, 3), NOISE[:60], datatype=4096),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_numbers_that_no_header_holds(tmp_path: Path, content: bytes, packed: bool) -> None:
    (tmp_path / "a.nii").write_bytes(gzip.compress(content) if packed else content)
    with pytest.raises(MedsegError) as caught:
        io.read(tmp_path / "a.nii")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("length", ["inf", "nan", "-inf", "1e300", "1e-300", "0"])
def test_lengths_of_any_size_end_without_a_warning(tmp_path: Path, length: str) -> None:
    nrrd = f"NRRD0004\ntype: uchar\ndimension: 3\nsizes: 3 4 5\nencoding: raw\nspace directions: ({length},1,0) (0,2,0) (0,0,1)"
    mha = (
        f"NDims = 3\nDimSize = 3 4 5\nElementType = MET_UCHAR\nElementSpacing = {length} 1 2\nElementDataFile = LOCAL\n"
    )
    (tmp_path / "a.nrrd").write_bytes(f"{nrrd}\n\n".encode() + NOISE[:60])
    (tmp_path / "a.mha").write_bytes(mha.encode() + NOISE[:60])
    steps = np.array([[float(length), 1, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0]], np.float64).clip(-3e38, 3e38)
    forms = {"sform_code": 1, "srow_x": steps[0], "srow_y": steps[1], "srow_z": steps[2]}
    (tmp_path / "a.nii").write_bytes(nifti((3, 4, 5), NOISE[:60], **forms))
    for path in tmp_path.iterdir():
        with contextlib.suppress(MedsegError):
            assert "\n" not in repr(io.read(path))
            assert length not in ("inf", "-inf", "1e300")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.nii", nifti((5, 4, 3), NOISE[:60])[:200]),  # nibabel's WrapStructError
        ("a.nii", nifti((5, 4, 3), NOISE[:60], intent_code=3001)),  # its Cifti2HeaderError, or one of its parser of XML
        ("a.mha", b"NDims = 1e+30\nDimSize = 7 8 9\nElementType = MET_SHORT\nElementDataFile = LOCAL\n"),  # ITK's end
        ("a.mha", b"NDims = 3\nDimSize = 7 8 9\nElementType = MET_SHORT\nHeaderSize = -9\nElementDataFile = LOCAL\n"),
        ("a.mha", b"NDims = 3\nDimSize = 1 1 1\nElementType = MET_SHORT\nElementDataFile = a\0b\n"),
        ("a.nrrd", b"NRRD0004\ntype: short\ndimension: 9999999999\nsizes: 1\nencoding: raw\n\n"),
        ("a.nrrd", b"NRRD0004\ntype: short\ndimension: 3\nsizes: 1 1 1\nencoding: raw\nline skip: 9999999999\n\n"),
        ("a.nrrd", b"NRRD0004\ntype: short\ndimension: 2\nsizes: 1 1\nencoding: ascii\n\nx"),
    ],
)
def test_finds(tmp_path: Path, name: str, content: bytes) -> None:
    """What ended otherwise once, in medseg or in a library that it used."""
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError) as caught:
        io.read(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_pixels_that_no_packing_holds_in_so_few_bytes(tmp_path: Path) -> None:
    head = b"IHDR" + struct.pack(">IIBBBBB", 13_000, 13_000, 8, 0, 0, 0, 0)
    (tmp_path / "a.png").write_bytes(
        b"\x89PNG\r\n\x1a\n\0\0\0\r" + head + struct.pack(">I", zlib.crc32(head)) + b"\0\0\1\0IDAT" + NOISE[:300]
    )
    for read in (io.read, io.read_geometry):
        with pytest.raises(DataError, match=r"promises 13000x13000 pixels in 341 bytes"):
            read(tmp_path / "a.png")


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "RGB", "RGBA", "I;16"])
def test_rows_that_are_missing_are_not_black(tmp_path: Path, mode: str) -> None:
    """Pillow gives zeros for them."""
    from PIL import Image

    image = Image.fromarray(np.full((9, 13), 200, np.uint16 if mode == "I;16" else np.uint8))
    (image if mode == "I;16" else image.convert(mode)).save(tmp_path / "a.png")
    assert io.read(tmp_path / "a.png").geometry.shape == (13, 9, 1)
    content = bytearray((tmp_path / "a.png").read_bytes())
    content[20:24] = struct.pack(">I", 10)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(DataError, match="fewer rows than its header says"):
        io.read(tmp_path / "a.png")


def test_a_page_that_lies_about_its_size_is_not_read(tmp_path: Path) -> None:
    """Pillow gives zeros for what a plain TIFF lacks, as many as its header says."""
    from PIL import Image

    page = Image.fromarray(np.zeros((8, 7), np.uint8))
    page.save(tmp_path / "a.tif", save_all=True, append_images=[page])
    content = (tmp_path / "a.tif").read_bytes()
    width = struct.pack("<HHII", 256, 4, 1, 7)
    assert content.count(width) == 2
    second = content.rindex(width)
    lie = struct.pack("<HHII", 256, 4, 1, 20_000_000)
    for name, broken in (
        ("first.tif", content.replace(width, lie, 1)),
        ("next.tif", content[:second] + lie + content[second + 12 :]),
    ):
        (tmp_path / name).write_bytes(broken)
        found = looked_at(tmp_path / name)
        assert found["kind"] == "DataError"
        assert float(str(found["peak_mb"])) < 30


def test_an_extension_without_end_is_not_read(tmp_path: Path) -> None:
    """The lengths of extensions are lies more often than they are needed."""
    content = bytearray(nifti((5, 4, 3), NOISE[:60]))
    content[348:360] = b"\1\0\0\0" + struct.pack("<ii", 2**31 - 1, 6)
    (tmp_path / "a.nii").write_bytes(content)
    assert io.read_geometry(tmp_path / "a.nii").shape == (5, 4, 3)


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "a.nrrd", "a.mha", "a.png", "a.tif"])
def test_memory_that_a_library_does_not_get_is_one_line(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / name).write_bytes(b"x")

    def refuse(*_: object) -> None:
        raise MemoryError

    for form in io._FORMATS:
        monkeypatch.setattr(form, "read", refuse)
    with pytest.raises(DataError, match="more memory than there is"):
        io.read(tmp_path / name)


# --- headers alone


def bytes_read(read: Callable[[], object]) -> int:
    """What the system handed to this process meanwhile."""
    counter = Path("/proc/self/io")
    if not counter.exists():
        pytest.skip("the system does not count")
    before = int(counter.read_text().split()[1])
    read()
    return int(counter.read_text().split()[1]) - before


@pytest.mark.usefixtures("warm")
@pytest.mark.parametrize(
    "name", ["a.nii", "a.nii.gz", "a.hdr", "a.nrrd", "a.nhdr", "a.mha", "a.mhd", "a.png", "a.tif", "a.jpg"]
)
def test_a_grid_is_read_without_voxels(tmp_path: Path, name: str) -> None:
    import SimpleITK as sitk
    from PIL import Image

    array = np.random.default_rng(0).integers(0, 60_000, (8, 300, 300)).astype(np.uint16)
    path = tmp_path / name
    if path.suffix in (".nii", ".gz", ".hdr"):
        kind = nib.Nifti1Pair if path.suffix == ".hdr" else nib.Nifti1Image
        nib.save(kind(array, np.eye(4)), path.with_suffix(".img") if path.suffix == ".hdr" else path)
    elif path.suffix in (".png", ".jpg"):
        Image.fromarray((array[0] >> 8).astype(np.uint8)).save(path)
    elif path.suffix == ".tif":
        pages = [Image.fromarray(page) for page in array]
        pages[0].save(path, save_all=True, append_images=pages[1:])
    else:
        sitk.WriteImage(sitk.GetImageFromArray(array), str(path))
    size = sum(part.stat().st_size for part in io.parts(path))
    whole = io.read_geometry(path)
    assert bytes_read(lambda: io.read_geometry(path)) < min(90_000, size / 1.2)
    if path.suffix != ".tif":  # which tells its pages one by one
        path.write_bytes(path.read_bytes()[: max(4096, size // 50)])
        assert io.read_geometry(path) == whole
        if path.suffix not in (".hdr", ".nhdr", ".mhd"):
            with pytest.raises(DataError):
                io.read(path)


# --- any damage at all


@functools.cache
def known() -> list[tuple[str, dict[str, bytes]]]:
    found = seeds([])
    assert all(found[family] for family in FAMILIES if family != "dicom")
    return [(name, dict(files)) for family in FAMILIES for name, files in found[family]]


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 2**32))
def test_any_damage_gives_a_volume_or_one_line(tmp_path_factory: pytest.TempPathFactory, seed: int) -> None:
    rng = random.Random(seed)
    name, files = rng.choice(known())
    folder = tmp_path_factory.mktemp("damage")
    broken = rng.choice(sorted(files))
    for other, data in files.items():
        (folder / other).write_bytes(mutated(data, rng) if other == broken else data)
    for read in (lambda: io.read_geometry(folder / name), lambda: io.read(folder / name, "labels")):
        try:
            said = repr(read())
        except MedsegError as error:
            said = str(error)
        assert "\n" not in said
