"""Files that can be read, to be broken: of the samples, of a folder of real scans, and made for forms that neither has."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from medseg import io
from medseg.errors import MedsegError
from medseg.io import dicom, metaimage, nifti, nrrd, raster

FAMILIES = {"nifti": nifti, "nrrd": nrrd, "metaimage": metaimage, "raster": raster, "dicom": dicom}
_LARGEST = 600_000  # bytes of a file: smaller ones are read more often in the same time
_SLICES = 6  # of a DICOM series
Files = Mapping[str, bytes]  # by name, in one folder


def seeds(folders: list[Path]) -> dict[str, list[tuple[str, Files]]]:
    """By family the name to read and the files that belong to it; a name of "" is the folder itself."""
    found: dict[str, list[tuple[str, Files]]] = {name: [] for name in FAMILIES}
    with tempfile.TemporaryDirectory(prefix="medseg-fuzz-") as made:
        make(Path(made))
        for folder in [Path(made), *folders]:
            for path in sorted(file for file in folder.rglob("*") if file.is_file()):
                for family, form in FAMILIES.items():
                    if form.matches(path) and path.stat().st_size <= _LARGEST:
                        found[family].append((path.name, {part.name: part.read_bytes() for part in _parts(path)}))
                        break
        for folder in folders:
            found["dicom"] += [("", files) for files in _series(folder)]
    return found


def _parts(path: Path) -> list[Path]:
    """The file, and the other half of a scan in two files where there is one."""
    try:
        return io.parts(path)
    except MedsegError:
        return [path]


def _series(folder: Path) -> Iterator[Files]:
    """Of each folder of DICOM files the first few."""
    for inner in sorted(path for path in folder.rglob("*") if path.is_dir()):
        files = [file for file in sorted(inner.iterdir()) if file.is_file() and dicom.matches(file)][:_SLICES]
        if len(files) > 1 and sum(file.stat().st_size for file in files) <= _LARGEST:
            yield {file.name: file.read_bytes() for file in files}


def make(folder: Path) -> None:
    """A small volume in every form that is read and that a library can write."""
    import nibabel as nib
    import SimpleITK as sitk
    from PIL import Image

    array = np.random.default_rng(0).integers(0, 900, (9, 8, 7)).astype(np.int16)
    affine = np.diag((-1.0, 2.0, 3.0, 1.0))
    for name, kind in (("two", nib.Nifti2Image), ("pair", nib.Nifti1Pair)):
        nib.save(kind(array, affine), folder / f"{name}.{'img' if name == 'pair' else 'nii'}")
    image = sitk.GetImageFromArray(array)
    for suffix in (".nrrd", ".nhdr", ".mha", ".mhd"):
        for packed in (False, True):
            sitk.WriteImage(image, str(folder / f"{'packed' if packed else 'plain'}{suffix}"), useCompression=packed)
    pages = [Image.fromarray(page) for page in array.astype(np.uint16)]
    colour = Image.fromarray(array[:, :, :3].astype(np.uint8))
    for how in ("raw", "tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg"):
        if how != "jpeg":
            pages[0].save(folder / f"pages_{how}.tif", save_all=True, append_images=pages[1:], compression=how)
        colour.save(folder / f"colour_{how}.tif", compression=how)
    for suffix in (".jpg", ".png"):
        colour.save(folder / f"colour{suffix}")
    colour.convert("P").save(folder / "palette.png")
