"""Makes the data of this folder, and `truth.json` beside it: `python sample_data/make.py [OUT]`.

Needs numpy, scipy, nibabel, pillow and pydicom. Every run makes the same voxels; README.md lists the sets.
"""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import phantoms
from phantoms import CELL, HEAD, TRUNK, Array, Phantom, Random
from scipy.spatial.transform import Rotation


def grid(shape: Sequence[int], spacing_mm: Sequence[float], codes: str, turn_deg: Sequence[float] = (0, 0, 0)) -> Array:
    """The affine of a grid round the world's origin; `codes` says where its axes point (`LPS`), before the turn."""
    axes = {"R": (1, 0, 0), "L": (-1, 0, 0), "A": (0, 1, 0), "P": (0, -1, 0), "S": (0, 0, 1), "I": (0, 0, -1)}
    affine = np.eye(4)
    linear = Rotation.from_euler("xyz", turn_deg, degrees=True).as_matrix() @ np.array([axes[c] for c in codes]).T
    affine[:3, :3] = linear * spacing_mm
    affine[:3, 3] = -affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    return affine


def save(array: Array, affine: Array, path: Path) -> None:
    """Write a NIfTI file that says where it lies in both of its ways."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(array, affine)
    image.set_sform(affine, 1)
    image.set_qform(affine, 1)
    image.header.set_xyzt_units("mm")
    nib.save(image, path)


def truth(phantom: Phantom, names: Sequence[str], labels: Array, affine: Array) -> dict[str, Any]:
    """What is known of each structure: volume from the formula, volume of its voxels, and their centre in the world."""
    voxel_ml, formula, known = abs(float(np.linalg.det(affine[:3, :3]))) / 1000, phantom.volumes_ml(), {}
    for label, name in enumerate(names, 1):
        index = np.argwhere(labels == label)
        centre = index.mean(0) @ affine[:3, :3].T + affine[:3, 3]
        known[name] = {
            "analytic_ml": round(formula[label], 4),
            "voxels_ml": round(len(index) * voxel_ml, 4),
            "centre_mm": [round(float(x), 2) for x in centre],
        }
    return known


def declare(folder: Path, **fields: Any) -> None:
    """Write the `dataset.json` of a set."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "dataset.json").write_text(json.dumps(fields, indent=2) + "\n")


def make_mr(folder: Path, cases: int = 24) -> dict[str, Any]:
    """MR-like heads of 1 mm in the layout of the Medical Segmentation Decathlon."""
    known, ids = {}, [f"mr_{n:02d}" for n in range(1, cases + 1)]
    for seed, case in enumerate(ids):
        rng = Random(1000 + seed)
        phantom, shape = phantoms.head(rng), [n + rng.randint(-2, 3) for n in (48, 56, 40)]
        affine = grid(shape, (1, 1, 1), "RAS")
        image, labels = phantom.scan(shape, affine)
        save(phantoms.mr(rng, image), affine, folder / "imagesTr" / f"{case}.nii.gz")
        save(labels, affine, folder / "labelsTr" / f"{case}.nii.gz")
        known[case] = truth(phantom, HEAD, labels, affine)
    declare(
        folder,
        name="MR phantom",
        description="Synthetic heads; research use only",
        tensorImageSize="3D",
        modality={"0": "MRI"},
        labels={"0": "background", **{str(n): name for n, name in enumerate(HEAD, 1)}},
        numTraining=cases,
        numTest=0,
        training=[{"image": f"./imagesTr/{c}.nii.gz", "label": f"./labelsTr/{c}.nii.gz"} for c in ids],
        test=[],
    )
    return known


def make_ct(folder: Path, cases: int = 6) -> dict[str, Any]:
    """CT-like trunks in slices of 3 mm, in the layout of an nnU-Net raw folder."""
    known, shape = {}, (64, 56, 20)
    affine = grid(shape, (1, 1, 3), "LAS")
    for seed in range(cases):
        rng, case = Random(2000 + seed), f"ct_{seed + 1:02d}"
        phantom = phantoms.trunk(rng)
        image, labels = phantom.scan(shape, affine, air=-1000)
        save(phantoms.ct(rng, image), affine, folder / "imagesTr" / f"{case}_0000.nii.gz")
        save(labels, affine, folder / "labelsTr" / f"{case}.nii.gz")
        known[case] = truth(phantom, TRUNK, labels, affine)
    names = {"background": 0, **{name: n for n, name in enumerate(TRUNK, 1)}}
    declare(folder, channel_names={"0": "CT"}, labels=names, numTraining=cases, file_ending=".nii.gz")
    return known


def make_oblique(folder: Path, cases: int = 4) -> dict[str, Any]:
    """MR-like heads on tilted grids with axes near L, P and S; `images/` beside `labels/`."""
    known, shape = {}, (54, 52, 30)
    for seed in range(cases):
        rng, case = Random(3000 + seed), f"oblique_{seed + 1}"
        affine = grid(shape, (0.9, 1.1, 1.4), "LPS", rng.uniform(10, 25, 3).tolist())
        phantom = phantoms.head(rng)
        image, labels = phantom.scan(shape, affine)
        save(phantoms.mr(rng, image), affine, folder / "images" / f"{case}.nii.gz")
        save(labels, affine, folder / "labels" / f"{case}.nii.gz")
        known[case] = truth(phantom, HEAD, labels, affine)
    return known


def make_two_channel(folder: Path) -> dict[str, Any]:
    """T1 and T2 of the same heads on different grids, listed in a table; some patients came twice."""
    known, rows = {}, []
    t1_shape, t2_shape = (46, 54, 38), (54, 19, 46)
    t1_affine, t2_affine = grid(t1_shape, (1, 1, 1), "RAS"), grid(t2_shape, (1, 2.5, 1), "PIL", (4, -3, 6))
    for seed, patient in enumerate((1, 1, 2, 2, 3, 4)):
        rng, case = Random(4000 + seed), f"two_{seed + 1}"
        phantom = phantoms.head(rng)
        t1, labels = phantom.scan(t1_shape, t1_affine)
        t2, _ = phantom.scan(t2_shape, t2_affine, channel=1)
        save(phantoms.mr(rng, t1), t1_affine, folder / f"{case}_t1.nii.gz")
        save(phantoms.mr(rng, t2), t2_affine, folder / f"{case}_t2.nii.gz")
        save(labels, t1_affine, folder / f"{case}_label.nii.gz")
        files = [f"{case}_{part}.nii.gz" for part in ("t1", "t2", "label")]
        rows.append([case, *files, f"patient_{patient}"])
        known[case] = truth(phantom, HEAD, labels, t1_affine)
    with (folder / "dataset.csv").open("w", newline="") as stream:
        csv.writer(stream, lineterminator="\n").writerows([["id", "t1", "t2", "label", "group"], *rows])
    return known


def make_slices(folder: Path, cases: int = 12) -> dict[str, Any]:
    """Plain grey pictures of cells and their masks; 1 mm a pixel, 1 mm thick, as medseg reads a picture."""
    from PIL import Image

    known, shape = {}, (104, 88, 1)
    affine = np.diag([-1.0, -1, 1, 1])
    for seed in range(cases):
        rng, case = Random(5000 + seed), f"cell_{seed + 1:02d}"
        phantom = phantoms.cell(rng, centre=affine[:3, :3] @ ((np.array(shape) - 1) / 2))
        image, labels = phantom.scan(shape, affine, air=20)
        for part, array in (("images", np.clip(image + 10 * rng.randn(*shape), 0, 255)), ("labels", labels)):
            (folder / part).mkdir(parents=True, exist_ok=True)
            Image.fromarray(array[:, :, 0].T.astype(np.uint8)).save(folder / part / f"{case}.png", optimize=True)
        known[case] = truth(phantom, CELL, labels, affine)
    return known


def make_dicom(folder: Path) -> dict[str, Any]:
    """One CT-like series, tilted, its files not in the order of its slices, and the mask that belongs to it."""
    rng, shape, spacing_mm = Random(6000), (64, 56, 20), (1.0, 1.0, 3.0)
    affine = grid(shape, spacing_mm, "LPS", (8, 0, 0))
    phantom = phantoms.trunk(rng)
    image, labels = phantom.scan(shape, affine, air=-1000)
    voxels = phantoms.ct(rng, image)
    save(labels, affine, folder / "mask.nii.gz")
    (folder / "series").mkdir(parents=True, exist_ok=True)
    for k, name in enumerate(rng.permutation(shape[2])):
        dicom_slice(voxels[:, :, k], affine, k, folder / "series" / f"IM{name:04d}.dcm")
    return {"series": truth(phantom, TRUNK, labels, affine)}


def dicom_slice(voxels: Array, affine: Array, k: int, path: Path) -> None:
    """Write one slice `(I, J)` of Hounsfield units as a single-frame CT object of a patient who never lived."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

    lps = np.diag([-1, -1, 1]) @ affine[:3]  # DICOM counts to the left and to the back
    spacing_mm = np.linalg.norm(lps[:, :3], axis=0)
    data, data.file_meta = Dataset(), FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.SOPClassUID, data.SOPInstanceUID = CTImageStorage, generate_uid(entropy_srcs=["phantom", str(k)])
    data.StudyInstanceUID, data.SeriesInstanceUID = (
        generate_uid(entropy_srcs=["phantom", x]) for x in ("study", "series")
    )
    data.FrameOfReferenceUID = generate_uid(entropy_srcs=["phantom", "frame"])
    data.PatientName = data.PatientID = "PHANTOM"
    data.PatientBirthDate = data.PatientSex = data.StudyDate = data.StudyTime = data.StudyID = ""
    data.AccessionNumber = data.ReferringPhysicianName = data.PositionReferenceIndicator = ""
    data.Manufacturer, data.Modality, data.ImageType = "medseg", "CT", ["ORIGINAL", "PRIMARY", "AXIAL"]
    data.SeriesNumber, data.InstanceNumber, data.AcquisitionNumber, data.KVP = 1, k + 1, 1, 120
    data.ImageOrientationPatient = [f"{x:.8f}" for x in (lps[:, :2] / spacing_mm[:2]).T.ravel()]
    data.ImagePositionPatient = [f"{x:.6f}" for x in lps[:, :3] @ (0, 0, k) + lps[:, 3]]
    data.PixelSpacing, data.SliceThickness = [spacing_mm[1], spacing_mm[0]], spacing_mm[2]
    data.Columns, data.Rows = voxels.shape
    data.SamplesPerPixel, data.PhotometricInterpretation, data.PixelRepresentation = 1, "MONOCHROME2", 0
    data.BitsAllocated, data.BitsStored, data.HighBit = 16, 12, 11
    data.RescaleIntercept, data.RescaleSlope, data.RescaleType = -1024, 1, "HU"
    data.PixelData = np.clip(voxels.T + 1024, 0, 4095).astype("<u2").tobytes()
    data.save_as(path, enforce_file_format=True)


def make(out: Path) -> None:
    """Make every set below a folder, and `truth.json`."""
    sets = {
        "mr": make_mr,
        "ct": make_ct,
        "oblique": make_oblique,
        "two_channel": make_two_channel,
        "slices": make_slices,
        "dicom": make_dicom,
    }
    known = {name: function(out / name) for name, function in sets.items()}
    (out / "truth.json").write_text(json.dumps(known, indent=1) + "\n")


if __name__ == "__main__":
    make(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
