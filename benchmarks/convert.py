"""DICOM to NIfTI beside the peers, on real series with references: what each gets right, and its CPU seconds; and a large tree listed."""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

import medseg
from benchmarks import _measure as measure
from medseg import tables

DATA = Path(__file__).parents[2] / "shared/data"
_PROGRAM = (sys.executable, "-m", "benchmarks.peers.to_nifti")  # with the medseg of this checkout
_MODULES = {"dicom2nifti": "dicom2nifti", "SimpleITK": "SimpleITK", "dcm2niix": "dcm2niix"}
_OFF_MM = 0.01  # some references were cut out of longer series whose positions are rounded
_ANSWERS = ("right", "refused", "wrong")


def main(arguments: list[str] | None = None) -> None:
    """Convert, judge, list, print, write."""
    parser = measure.parser(__doc__)
    parser.add_argument("--data", type=Path, default=DATA, help="folder of A_dicom_nifti and A_transfer_syntax")
    parser.add_argument("--peers", nargs="*", default=list(_MODULES), choices=list(_MODULES))
    parser.add_argument("--files", type=int, default=10_000, help="of a synthetic tree that is listed; 0 leaves it out")
    asked = parser.parse_args(arguments)
    programs = ["medseg", *(name for name in asked.peers if importlib.util.find_spec(_MODULES[name]))]
    cases, found = pairs(asked.data), dict[str, Any]()
    with tempfile.TemporaryDirectory(prefix="medseg-bench-") as folder:
        for program in programs if cases else []:
            found[program] = answers(program, cases, Path(folder))
        listed = listing_s(Path(folder) / "tree", asked.files) if asked.files else {}
    lines = [table(found, list(cases))] if found else [f"no pairs in {asked.data}"]
    lines += [f"{name}: {seconds:.2f} CPU s" for name, seconds in listed.items()]
    measure.publish("\n".join(lines), {"benchmark": "convert", "cases": found, "listing_s": listed}, asked.json)


def pairs(data: Path) -> dict[str, tuple[Path, Path]]:
    """DICOM and reference of each case, by name."""
    folders = sorted((data / "A_dicom_nifti").glob("*/truth.nii.gz"))
    encodings = sorted((data / "A_transfer_syntax").glob("*.dcm"))
    known = {path.parent.name: (path.parent / "dicom", path) for path in folders}
    return known | {f"encoding {path.stem}": (path, path.with_suffix(".nii.gz")) for path in encodings}


def answers(program: str, cases: Mapping[str, tuple[Path, Path]], folder: Path) -> dict[str, Any]:
    """What a program made of each case, and its CPU seconds for each."""
    sources = [str(_folder(source, folder / "alone")) for source, _ in cases.values()]
    sample = measure.run((*_PROGRAM, program, str(folder / program), *sources))
    spent = json.loads(sample.output.strip().splitlines()[-1])
    outcomes = [judged(folder / program / str(n), truth) for n, (_, truth) in enumerate(cases.values())]
    return {name: {"answer": a, "cpu_s": s} for name, a, s in zip(cases, outcomes, spent, strict=True)}


def _folder(source: Path, beside: Path) -> Path:
    """A folder that holds a file alone, for programs that take none."""
    if source.is_dir():
        return source
    (beside / source.stem).mkdir(parents=True, exist_ok=True)
    shutil.copy(source, beside / source.stem)
    return beside / source.stem


def judged(out: Path, truth: Path) -> str:
    """Right: one file with voxels and affine of the reference, in one orientation. Refused: none. Wrong: anything else."""
    made = sorted(out.glob("*.nii.gz"))
    if not made:
        return "refused"
    return "right" if len(made) == 1 and _equal(nib.load(made[0]), nib.load(truth)) else "wrong"


def _equal(ours: Any, theirs: Any) -> bool:
    ours, theirs = nib.as_closest_canonical(ours), nib.as_closest_canonical(theirs)
    if ours.get_data_dtype().names or theirs.get_data_dtype().names:  # colours
        a, b = (np.asarray(image.dataobj) for image in (ours, theirs))
        return a.shape == b.shape and all(np.array_equal(a[name], b[name]) for name in "RGB")
    a, b = (image.get_fdata(dtype=np.float32) for image in (ours, theirs))
    if a.squeeze().shape != b.squeeze().shape:
        return False
    return np.allclose(a.squeeze(), b.squeeze(), rtol=1e-5) and bool(
        np.abs(ours.affine - theirs.affine).max() < _OFF_MM
    )


def table(found: Mapping[str, Mapping[str, Any]], cases: Sequence[str]) -> str:
    """A column a program: its answers, how many of each kind, and its seconds."""
    rows = [(case, *(results[case]["answer"] for results in found.values())) for case in cases]
    for answer in _ANSWERS:
        rows.append(
            (answer, *(str(sum(r["answer"] == answer for r in results.values())) for results in found.values()))
        )
    rows.append(("CPU s of all", *(f"{sum(r['cpu_s'] for r in results.values()):.2f}" for results in found.values())))
    return tables.aligned([("", *found), *rows])


def listing_s(tree: Path, count: int, series: int = 40) -> dict[str, float]:
    """CPU seconds to list a tree of small CT slices, for the first time in this process."""
    _plant(tree, count, series)
    began = time.process_time()
    found = medseg.list_series(tree)
    assert len(found.volumes) == min(series, count)
    return {f"list_series, {count:,} files in {len(found.volumes)} series": time.process_time() - began}


def _plant(tree: Path, count: int, series: int) -> None:
    import pydicom
    from pydicom.uid import generate_uid

    from medseg.resources import shipped

    data = pydicom.dcmread(next((shipped("sample_data") / "dicom/series").iterdir()))
    uids = [generate_uid() for _ in range(series)]
    for number in range(count):
        which, place = number % series, number // series
        data.SeriesInstanceUID, data.SeriesNumber, data.InstanceNumber = uids[which], which, place
        data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        data.ImagePositionPatient, data.ImageOrientationPatient = [0, 0, place], [1, 0, 0, 0, 1, 0]
        (tree / str(which)).mkdir(parents=True, exist_ok=True)
        data.save_as(tree / str(which) / f"{place:05d}")


if __name__ == "__main__":
    main()
