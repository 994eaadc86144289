"""Real series against references that other programs wrote; whatever is refused is refused for its true reason."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from medseg import io
from medseg.errors import DataError
from medseg.volume import Volume

REFUSED = {
    "d2n_generic_rgb_001": r"holds colours \(RGB\)",
    "d2n_siemens_fmri_001": "a mosaic .* whose private header, which says how many slices it holds .* was removed",
}
RIGHT = (
    "d2n_failing_slicecount_001",
    "d2n_ge_anatomical_001_single_slice",
    "d2n_ge_fmri_001",
    "d2n_generic_compressed_j2k_001",
    "d2n_generic_compressed_jpegls_001",
    "d2n_hitachi_anatomical_001",
    "d2n_hyperfine_anatomical_001",
    "d2n_philips_anatomical_001",
    "d2n_philips_dti_001",
    "d2n_philips_enhanced_anatomical_001",
    "d2n_philips_enhanced_fmri_001",
    "d2n_siemens_anatomical_001",
    "dcm_qa_axasc35",
    "dcm_qa_corasc35",
    "dcm_qa_sagdesc35",
    "stc_GE_RTIA",
    "enh_Si_XA10",
    "philips_enh_1901",
    "canon_classic_3000",
    "frag_5001_slab24",
)
# Cut out of the reference of a longer series whose positions are rounded elsewhere: the slab's own steps are 2 mm exactly.
OFF_MM = {"frag_5001_slab24": 0.01}
ENCODINGS = ("1", "3", "5", "7", "9", "12bitUnsigned", "12bitUnsigned_0x0F0F")
PET = [f"C_rtstruct_sts/STS_{n}/{kind}" for n in ("019", "025") for kind in ("PET", "MR_T1")]


def agrees(volume: Volume, truth: Path, off_mm: float = 1e-3) -> None:
    """Voxels and affine are those of a reference once both are brought to one orientation."""
    ours = nib.as_closest_canonical(nib.Nifti1Image(np.moveaxis(volume.array, 0, -1), volume.geometry.affine))
    theirs = nib.as_closest_canonical(nib.load(truth))
    expected = np.asarray(theirs.dataobj).reshape(ours.shape)
    np.testing.assert_allclose(np.asarray(ours.dataobj), expected, rtol=1e-6, atol=1e-6)
    assert np.abs(ours.affine - theirs.affine).max() < off_mm


def test_every_pair_is_read_or_refused(shared_data: Path) -> None:
    known = {case["case"] for case in json.loads((shared_data / "A_dicom_nifti/cases.json").read_text())}
    assert known == {*RIGHT, *REFUSED}


@pytest.mark.parametrize("case", RIGHT)
def test_voxels_and_places_equal_the_reference(shared_data: Path, case: str) -> None:
    folder = shared_data / "A_dicom_nifti" / case
    agrees(io.read(folder / "dicom", channels=True), folder / "truth.nii.gz", OFF_MM.get(case, 1e-3))


@pytest.mark.parametrize("case", sorted(REFUSED))
def test_the_rest_is_refused_with_the_reason(shared_data: Path, case: str) -> None:
    with pytest.raises(DataError, match=REFUSED[case]):
        io.read(shared_data / "A_dicom_nifti" / case / "dicom", channels=True)


@pytest.mark.parametrize("name", ENCODINGS)
def test_every_encoding_of_a_mosaic_equals_its_reference(shared_data: Path, name: str) -> None:
    folder = shared_data / "A_transfer_syntax"
    agrees(io.read(folder / f"{name}.dcm"), folder / f"{name}.nii.gz")


@pytest.mark.parametrize("case", PET)
def test_series_beside_structure_sets_equal_their_reference(shared_data: Path, case: str) -> None:
    truth = nib.as_closest_canonical(nib.load(shared_data / case / "truth_image.nii.gz"))
    volume = io.read(shared_data / case / "dicom")
    ours = nib.as_closest_canonical(nib.Nifti1Image(volume.array[0], volume.geometry.affine))
    assert ours.shape == truth.shape
    np.testing.assert_allclose(np.asarray(ours.dataobj), np.asarray(truth.dataobj), rtol=1e-4, atol=1e-3)
    assert np.abs(ours.affine - truth.affine).max() < 1e-2


def test_odd_files_give_a_plane_or_one_line(shared_data: Path) -> None:
    read, messages = 0, []
    for file in sorted((shared_data / "D_dicom_odd").glob("*.dcm")):
        try:
            read += io.read(file).geometry.shape[2]
        except DataError as error:
            messages.append(str(error))
    assert read >= 10
    assert messages
    assert not any("\n" in message for message in messages)
