from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
import pytest

from medseg.files import read_json
from medseg.resources import shipped

SETS = ("mr", "ct", "oblique", "two_channel", "slices", "dicom")
ROOT = shipped("sample_data")
TRUTH: dict[str, Any] = read_json(ROOT / "truth.json")
MASKS = {"mr": "labelsTr/{}.nii.gz", "ct": "labelsTr/{}.nii.gz", "oblique": "labels/{}.nii.gz"}
MASKS |= {"two_channel": "{}_label.nii.gz", "slices": "labels/{}.png", "dicom": "mask.nii.gz"}
CASES = [(name, case) for name in SETS for case in TRUTH[name]]


def voxels(path: Path) -> npt.NDArray[Any]:
    if path.suffix == ".png":
        from PIL import Image

        return np.asarray(Image.open(path)).T[:, :, None]
    if path.suffix == ".dcm":
        import pydicom

        return pydicom.dcmread(path).pixel_array
    return np.asanyarray(nib.load(path).dataobj)


def mask_of(name: str, case: str) -> tuple[npt.NDArray[Any], npt.NDArray[np.float64]]:
    path = ROOT / name / MASKS[name].format(case)
    return voxels(path), np.diag([-1.0, -1, 1, 1]) if path.suffix == ".png" else nib.load(path).affine


def test_the_script_makes_the_same_files_again(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-B", str(ROOT / "make.py"), str(tmp_path)], check=True)
    made = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file())
    kept = (path.relative_to(ROOT) for path in ROOT.rglob("*") if path.is_file())
    assert made == sorted(path for path in kept if path.parts[0] in (*SETS, "truth.json"))
    for path in made:
        if path.suffix in (".json", ".csv"):
            assert (tmp_path / path).read_text() == (ROOT / path).read_text(), path
        else:
            np.testing.assert_array_equal(voxels(tmp_path / path), voxels(ROOT / path), err_msg=str(path))


def test_it_is_small() -> None:
    assert sum(path.stat().st_size for path in ROOT.rglob("*") if path.is_file()) < 5_000_000


def test_every_mask_has_a_truth() -> None:
    assert [len(TRUTH[name]) for name in SETS] == [24, 6, 4, 6, 12, 1]
    for name in ("mr", "ct", "oblique", "slices"):
        folder = ROOT / name / Path(MASKS[name]).parent
        assert {path.name.split(".")[0] for path in folder.iterdir()} == set(TRUTH[name])


@pytest.mark.parametrize(("name", "case"), CASES)
def test_masks_hold_the_volumes_and_centres_of_the_formulas(name: str, case: str) -> None:
    mask, affine = mask_of(name, case)
    known = TRUTH[name][case]
    assert set(np.unique(mask)) == set(range(len(known) + 1))
    for label, truth in enumerate(known.values(), 1):
        index = np.argwhere(mask == label)
        volume_ml = len(index) * abs(np.linalg.det(affine[:3, :3])) / 1000
        assert volume_ml == pytest.approx(truth["voxels_ml"], abs=1e-3)
        assert volume_ml == pytest.approx(truth["analytic_ml"], rel=0.05)
        centre = nib.affines.apply_affine(affine, index.mean(0))
        np.testing.assert_allclose(centre, truth["centre_mm"], atol=0.02)


@pytest.mark.parametrize(("name", "case"), [(name, case) for name, case in CASES if name != "slices"])
def test_left_is_left_and_larger(name: str, case: str) -> None:
    left, right, _ = TRUTH[name][case].values()
    assert left["centre_mm"][0] < right["centre_mm"][0]
    assert left["analytic_ml"] > 1.15 * right["analytic_ml"]


@pytest.mark.parametrize("name", SETS)
def test_any_flip_shows(name: str) -> None:
    mask, _ = mask_of(name, next(iter(TRUTH[name])))
    for axis in [axis for axis in range(3) if mask.shape[axis] > 1]:
        mirrored = np.flip(mask, axis)
        assert 2 * np.count_nonzero((mask == mirrored) & (mask > 0)) < 0.8 * 2 * np.count_nonzero(mask)


def test_thick_slices_tilts_and_second_grids_are_there() -> None:
    ct = nib.load(ROOT / "ct/imagesTr/ct_01_0000.nii.gz")
    assert ct.header.get_zooms() == (1, 1, 3)
    assert np.asanyarray(ct.dataobj)[0, 0].mean() == pytest.approx(-1000, abs=20)
    oblique = nib.load(ROOT / "oblique/images/oblique_1.nii.gz")
    assert nib.aff2axcodes(oblique.affine) == ("L", "P", "S")
    assert nib.affines.obliquity(oblique.affine).max() > np.radians(8)
    t1, t2 = (nib.load(ROOT / f"two_channel/two_1_{name}.nii.gz") for name in ("t1", "t2"))
    assert nib.aff2axcodes(t1.affine) != nib.aff2axcodes(t2.affine)
    with (ROOT / "two_channel/dataset.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len({row["group"] for row in rows}) == 4
    assert all((ROOT / "two_channel" / row[column]).is_file() for row in rows for column in ("t1", "t2", "label"))


@pytest.mark.parametrize("case", list(TRUTH["two_channel"]))
def test_the_second_channel_shows_the_same_head_on_its_own_grid(case: str) -> None:
    mask, affine = mask_of("two_channel", case)
    t1, t2 = (nib.load(ROOT / f"two_channel/{case}_{name}.nii.gz") for name in ("t1", "t2"))

    def mean(image: nib.Nifti1Image, label: int) -> float:
        points = nib.affines.apply_affine(affine, np.argwhere(mask == label))
        index = np.rint(nib.affines.apply_affine(np.linalg.inv(image.affine), points)).astype(int)
        return float(np.asanyarray(image.dataobj)[tuple(index.T)].mean())

    assert mean(t1, 1) > 1.3 * mean(t1, 3)
    assert mean(t2, 3) > 1.2 * mean(t2, 1)


def test_the_dicom_series_lies_under_its_mask() -> None:
    import SimpleITK

    folder = str(ROOT / "dicom/series")
    by_position = SimpleITK.ImageSeriesReader.GetGDCMSeriesFileNames(folder)
    image = SimpleITK.ReadImage(by_position)
    mask = SimpleITK.ReadImage(str(ROOT / "dicom/mask.nii.gz"))
    assert list(by_position) != sorted(by_position)
    assert image.GetSize() == mask.GetSize()
    for field in ("GetOrigin", "GetSpacing", "GetDirection"):
        np.testing.assert_allclose(getattr(image, field)(), getattr(mask, field)(), atol=1e-4)
    hu, labels = SimpleITK.GetArrayFromImage(image), SimpleITK.GetArrayFromImage(mask)
    assert hu[labels == 3].mean() > hu[labels == 1].mean() + 30 > hu[labels == 0].mean() + 60
    assert hu.min() > -1100
