import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pydicom
import pytest
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import BasicTextSRStorage, CTImageStorage, ExplicitVRLittleEndian, generate_uid

from medseg import io
from medseg.errors import DataError, GeometryError
from medseg.io import dicom

CASES = {  # what this reader takes; everything else in the set must be refused
    "d2n_failing_slicecount_001",
    "d2n_ge_anatomical_001_single_slice",
    "d2n_generic_compressed_j2k_001",
    "d2n_generic_compressed_jpegls_001",
    "d2n_hitachi_anatomical_001",
    "d2n_philips_anatomical_001",
    "d2n_siemens_anatomical_001",
    "canon_classic_3000",
}
REFUSED = {
    "d2n_ge_fmri_001": "8 images lie at 4 positions",
    "d2n_generic_rgb_001": "colour images",
    "d2n_hyperfine_anatomical_001": "8 frames",
    "d2n_philips_dti_001": "8 images lie at 2 positions",
    "d2n_philips_enhanced_anatomical_001": "8 frames",
    "d2n_philips_enhanced_fmri_001": "32 frames",
    "d2n_siemens_fmri_001": "mosaics",
    "dcm_qa_axasc35": "mosaics",
    "dcm_qa_corasc35": "mosaics",
    "dcm_qa_sagdesc35": "mosaics",
    "stc_GE_RTIA": "24 images lie at 8 positions",
    "enh_Si_XA10": "6 frames",
    "philips_enh_1901": "40 frames",
}
NEEDS_DECODER = "frag_5001_slab24"  # JPEG Lossless


def image(position: tuple[float, float, float], pixels: np.ndarray, **changes: Any) -> FileDataset:
    """One slice of a CT; `changes` sets attributes, or removes those that are None."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = CTImageStorage, generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data = FileDataset("", {}, file_meta=meta, preamble=bytes(128))
    data.SOPClassUID, data.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    data.SeriesInstanceUID, data.Modality, data.PatientName = "1.2.3", "CT", "Doe^John"
    data.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    data.Rows, data.Columns = pixels.shape
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.BitsAllocated, data.BitsStored, data.HighBit = 16, 16, 15
    data.PixelRepresentation = int(pixels.dtype.kind == "i")
    data.PixelSpacing, data.SliceThickness = [0.5, 0.75], 4
    data.ImageOrientationPatient, data.ImagePositionPatient = [1, 0, 0, 0, 1, 0], list(position)
    data.PixelData = pixels.tobytes()
    for name, value in changes.items():
        if value is None:
            del data[name]
        else:
            setattr(data, name, value)
    return data


def slab(n: int) -> np.ndarray:
    """Pixels of slice n, four rows of three columns, unlike those of any other slice."""
    return (np.arange(12).reshape(4, 3) + 100 * n).astype(np.int16)


def save(folder: Path, images: list[FileDataset]) -> Path:
    """Names run against the order of the slices, as on many scanners."""
    folder.mkdir(exist_ok=True)
    for n, data in enumerate(images):
        data.save_as(folder / f"{len(images) - n:03d}.dcm")
    return folder


def series(folder: Path, change: Callable[[int], dict[str, Any]] = lambda n: {}, count: int = 5) -> Path:
    return save(folder, [image((10, -20, 30 + 2 * n), slab(n), **change(n)) for n in range(count)])


def test_slices_are_sorted_along_the_normal_and_lie_in_ras(tmp_path: Path) -> None:
    volume = io.read(series(tmp_path / "s"))
    assert volume.array.shape == (1, 3, 4, 5)
    assert all(np.array_equal(volume.array[0, :, :, n], slab(n).T) for n in range(5))
    # Columns are 0.75 mm apart, rows 0.5 mm; the first voxel lies 10 mm to the left and 20 mm to the front.
    expected = [[-0.75, 0, 0, -10], [0, -0.5, 0, 20], [0, 0, 2, 30], [0, 0, 0, 1]]
    assert np.allclose(volume.geometry.affine, expected)
    assert volume.meta["modality"] == "CT"
    assert volume.meta["notes"] == ()
    assert io.read_geometry(tmp_path / "s") == volume.geometry


def test_the_name_tells_nothing_about_the_patient(tmp_path: Path) -> None:
    folder = series(tmp_path / "Doe_John")
    assert io.stem(folder) == io.read(folder).meta["series"] == io.stem(folder / "001.dcm")
    assert len(io.stem(folder)) == 12
    assert "Doe" not in str(dict(io.read(folder).meta)) + io.stem(folder)


def test_a_folder_that_cannot_be_read_has_a_name_of_its_own_that_tells_nothing(tmp_path: Path) -> None:
    for name in ("Doe_John", "Doe_Jane"):
        (tmp_path / name).mkdir()
    names = {io.stem(tmp_path / name) for name in ("Doe_John", "Doe_Jane")}
    assert len(names) == 2
    assert all(len(name) == 12 and "Doe" not in name for name in names)


def test_units_are_made_slice_by_slice(tmp_path: Path) -> None:
    whole = io.read(series(tmp_path / "ct", lambda n: {"RescaleSlope": 1, "RescaleIntercept": -1024}))
    assert whole.array.dtype == np.int16
    assert np.array_equal(whole.array[0, :, :, 3], slab(3).T - 1024)
    pet = io.read(series(tmp_path / "pt", lambda n: {"RescaleSlope": 0.5 + n, "RescaleIntercept": 1, "Modality": "PT"}))
    assert pet.array.dtype == np.float32
    assert np.allclose(pet.array[0, :, :, 3], slab(3).T * 3.5 + 1)


def test_values_beyond_16_bits_are_kept(tmp_path: Path) -> None:
    pixels = np.full((4, 3), 65535, np.uint16)
    volume = io.read(save(tmp_path / "s", [image((0, 0, n), pixels) for n in range(2)]))
    assert volume.array.dtype == np.int32
    assert (volume.array == 65535).all()


@pytest.mark.parametrize(("dtype", "value"), [("u2", 0x0ABC), ("i2", -5)])
def test_bits_above_those_stored_are_ignored(tmp_path: Path, dtype: str, value: int) -> None:
    dirty = np.full((4, 3), (value & 0x0FFF) | 0x7000, np.uint16).view(dtype)
    volume = io.read(save(tmp_path / "s", [image((0, 0, n), dirty, BitsStored=12, HighBit=11) for n in range(2)]))
    assert (volume.array == value).all()


def test_monochrome1_keeps_its_values_with_a_note(tmp_path: Path) -> None:
    volume = io.read(series(tmp_path / "s", lambda n: {"PhotometricInterpretation": "MONOCHROME1"}))
    assert np.array_equal(volume.array[0, :, :, 1], slab(1).T)
    assert "MONOCHROME1" in volume.meta["notes"][0]


def test_a_tilted_stack_keeps_its_shear(tmp_path: Path) -> None:
    images = [image((0, 2 * n * np.tan(np.radians(15)), 2 * n), slab(n)) for n in range(4)]
    volume = io.read(save(tmp_path / "s", images))
    assert volume.geometry.shear_deg == pytest.approx(15, abs=0.01)
    assert np.allclose(volume.geometry.to_world((0, 0, 3)), (0, -6 * np.tan(np.radians(15)), 6))
    assert "leans 15.0 degrees" in volume.meta["notes"][0]


@pytest.mark.parametrize(
    ("changes", "gap", "word"),
    [
        ({"SpacingBetweenSlices": 5}, 5, "SpacingBetweenSlices"),
        ({}, 4, "SliceThickness"),
        ({"SliceThickness": None}, 1, "1 mm"),
    ],
)
def test_one_slice_says_where_its_thickness_comes_from(
    tmp_path: Path, changes: dict[str, Any], gap: float, word: str
) -> None:
    volume = io.read(series(tmp_path / "s", lambda n: changes, count=1))
    assert volume.geometry.spacing_mm == pytest.approx((0.75, 0.5, gap))
    assert word in volume.meta["notes"][0]


def test_rounded_positions_are_a_stack(tmp_path: Path) -> None:
    images = [image((0, 0, round(0.625 * n, 1)), slab(n)) for n in range(9)]
    assert io.read_geometry(save(tmp_path / "s", images)).spacing_mm[2] == pytest.approx(0.625, abs=0.01)


def test_other_files_in_the_folder_do_no_harm(tmp_path: Path) -> None:
    folder = series(tmp_path / "s")
    (folder / "notes.txt").write_text("nothing")
    report = image((0, 0, 0), slab(0), Rows=None, Columns=None, PixelData=None, Modality="SR", SeriesInstanceUID="1.9")
    report.file_meta.MediaStorageSOPClassUID = report.SOPClassUID = BasicTextSRStorage
    report.save_as(folder / "report.dcm")
    assert io.read(folder).geometry.shape == (3, 4, 5)


@pytest.mark.parametrize("size", [400, 500, 600])
def test_a_slice_that_is_cut_off_is_not_passed_over(tmp_path: Path, size: int) -> None:
    """The outermost one leaves no gap."""
    last = sorted(series(tmp_path / "s").iterdir())[-1]
    last.write_bytes(last.read_bytes()[:size])
    with pytest.raises(DataError, match=r"1 image\(s\) of which only the beginning is there|damaged or incomplete"):
        io.read(tmp_path / "s")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda n: {"SeriesInstanceUID": f"1.2.{n // 3}"}, r"2 series \(of 2, 3 images\)"),
        (lambda n: {"ImagePositionPatient": [0, 0, 2 * n + 2 * (n > 2)]}, "from 2.000 to 4.000 mm"),
        (lambda n: {"ImagePositionPatient": [0, 0, n // 2]}, "5 images lie at 3 positions"),
        (lambda n: {"ImagePositionPatient": [0, 0, 0]}, "5 images lie at 1 positions"),
        (lambda n: {"ImagePositionPatient": [n % 2, 0, 2 * n]}, "off an even stack"),
        (
            lambda n: {"ImageOrientationPatient": [1, 0, 0, 0, 0, -1] if n else [1, 0, 0, 0, 1, 0]},
            "differ in orientation",
        ),
        (lambda n: {"ImageOrientationPatient": [1, 0, 0, 1, 0, 0]}, "not two axes at right angles"),
        (lambda n: {"PixelSpacing": [0.5, 0.75 + n / 100]}, r"differ in pixel size \(by 0.04\)"),
        (lambda n: {"ImagePositionPatient": None}, "without position"),
        (lambda n: {"PixelSpacing": None}, "without position, orientation or pixel size"),
        (lambda n: {"NumberOfFrames": 2}, "2 frames"),
        (lambda n: {"PhotometricInterpretation": "RGB"}, "colour"),
        (lambda n: {"ImageType": ["ORIGINAL", "PRIMARY", "M", "MOSAIC"]}, "mosaics"),
        (lambda n: {"ModalityLUTSequence": [pydicom.Dataset()]}, "lookup table"),
        (lambda n: {"PixelData": None}, "damaged or incomplete"),
        (lambda n: {"PixelData": bytes(10)}, "damaged or incomplete"),
    ],
)
def test_what_is_not_a_plain_series_is_refused(
    tmp_path: Path, change: Callable[[int], dict[str, Any]], message: str
) -> None:
    with pytest.raises(DataError, match=message) as caught:
        io.read(series(tmp_path / "s", change))
    assert "\n" not in str(caught.value)
    assert "Doe" not in str(caught.value)


def test_a_folder_without_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no DICOM images"):
        io.read(tmp_path)


def test_a_slice_that_lost_its_preamble_is_not_left_out(tmp_path: Path) -> None:
    folder = series(tmp_path / "s")
    (folder / "001.dcm").write_bytes((folder / "001.dcm").read_bytes()[132:])
    with pytest.raises(DataError, match="damaged"):
        io.read(folder)


def test_a_missing_decoder_is_named(tmp_path: Path, shared_data: Path) -> None:
    lossless = pydicom.uid.JPEGLosslessSV1
    if pydicom.pixels.get_decoder(lossless).is_available:
        pytest.skip("a decoder for JPEG Lossless is installed")
    with pytest.raises(DataError, match="pip install python-gdcm"):
        io.read(shared_data / "A_dicom_nifti" / NEEDS_DECODER / "dicom")


def needs_decoder(folder: Path) -> bool:
    first = next(file for file in sorted(folder.rglob("*")) if file.is_file())
    syntax = pydicom.dcmread(first, stop_before_pixels=True).file_meta.TransferSyntaxUID
    return bool(syntax.is_compressed and not pydicom.pixels.get_decoder(syntax).is_available)


@pytest.mark.parametrize("case", sorted(CASES | {NEEDS_DECODER}))
def test_voxels_and_places_equal_the_reference(shared_data: Path, case: str) -> None:
    folder = shared_data / "A_dicom_nifti" / case
    if needs_decoder(folder / "dicom"):
        pytest.skip("no decoder for this compression is installed")
    volume = io.read(folder / "dicom")
    ours = nib.as_closest_canonical(nib.Nifti1Image(volume.array[0], volume.geometry.affine))
    truth = nib.as_closest_canonical(nib.load(folder / "truth.nii.gz"))
    assert np.array_equal(np.asarray(ours.dataobj), np.asarray(truth.dataobj).reshape(ours.shape))
    assert np.abs(ours.affine - truth.affine).max() < 1e-3


@pytest.mark.parametrize("case", sorted(REFUSED))
def test_the_rest_is_refused_with_the_reason(shared_data: Path, case: str) -> None:
    with pytest.raises(DataError, match=REFUSED[case]):
        io.read(shared_data / "A_dicom_nifti" / case / "dicom")


def test_every_pair_is_read_or_refused(shared_data: Path) -> None:
    known = {case["case"] for case in json.loads((shared_data / "A_dicom_nifti/cases.json").read_text())}
    assert known == CASES | set(REFUSED) | {NEEDS_DECODER}


@pytest.mark.parametrize(("name", "degrees"), [("tilt14_siemens_ct4", 14.0), ("tilt16_philips_ct8", 16.5)])
def test_real_tilts_keep_every_slice_in_its_place(shared_data: Path, name: str, degrees: float) -> None:
    folder = shared_data / "A_no_truth" / name
    volume = io.read(folder)
    assert volume.geometry.shear_deg == pytest.approx(degrees, abs=0.1)
    assert f"{degrees:.1f} degrees" in volume.meta["notes"][0]
    for file in folder.iterdir():
        header = pydicom.dcmread(file)
        corner = np.array(header.ImagePositionPatient, float) * (-1, -1, 1)
        index = volume.geometry.to_index(corner)
        assert np.allclose(index, np.rint(index), atol=0.05)
        hounsfield = header.pixel_array * float(header.RescaleSlope) + float(header.RescaleIntercept)
        assert np.array_equal(volume.array[0, :, :, round(index[2])], hounsfield.T)


def test_real_gaps_are_refused(shared_data: Path) -> None:
    with pytest.raises(GeometryError, match=r"from 5.000 to 10.000 mm and slices lie up to 2.00 mm"):
        io.read(shared_data / "A_no_truth/uneven_ge_ct4")
    with pytest.raises(GeometryError, match=r"from 1.250 to 202.500 mm"):
        io.read(shared_data / "C_seg_highdicom/source_CT2")


def test_odd_files_give_a_plane_or_one_line(shared_data: Path) -> None:
    read, messages = 0, []
    for file in sorted((shared_data / "D_dicom_odd").glob("*.dcm")):
        try:
            read += io.read(file).geometry.shape[2]
        except DataError as error:
            messages.append(str(error))
    assert read >= 5
    assert messages
    assert not any("\n" in message for message in messages)


def test_files_are_known_by_name_or_by_their_first_bytes(tmp_path: Path) -> None:
    folder = series(tmp_path / "s")
    bare = (folder / "001.dcm").rename(folder / "IM1")
    assert dicom.matches(bare)
    assert io.read(bare).geometry.shape == (3, 4, 1)
    (tmp_path / "short").write_bytes(b"DICM")
    assert not dicom.matches(tmp_path / "short")
