"""NIfTI-1 and NIfTI-2: `.nii`, `.nii.gz`, and pairs of `.hdr` and `.img`."""

from __future__ import annotations

import glob
import logging
import math
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.spatialimages import HeaderDataError
from nibabel.volumeutils import apply_read_scaling
from nibabel.wrapstruct import WrapStructError

from medseg.arrays import Array
from medseg.errors import DataError, GeometryError
from medseg.files import atomic
from medseg.io import _common, _packed
from medseg.volume import Geometry, Kind, Volume, spans_space

Header = nib.nifti1.Nifti1Header

SUFFIXES = (".nii.gz", ".nii", ".hdr")
WRITTEN = (".nii.gz", ".nii")
_UNIT_MM = {"unknown": 1.0, "mm": 1.0, "meter": 1000.0, "micron": 0.001}
_NIFTI1_SIDE = 32767
_DAMAGE = (
    HeaderDataError,
    WrapStructError,
    OSError,
    EOFError,
    zlib.error,
    ValueError,
    OverflowError,
    KeyError,
    IndexError,
    TypeError,
)
_QUIET = logging.Logger("nibabel's remarks", level=logging.CRITICAL + 1)
_LONGEST_HEADER = 540
_CIFTI = range(3000, 3100)  # intents of surfaces and connections


def matches(path: Path) -> bool:
    """Whether the name is that of a NIfTI file."""
    return _common.has_suffix(path, (*SUFFIXES, ".img"))


def read(path: Path, kind: Kind) -> Volume:
    """Read a file in full.

    The sform is the grid where its code is positive, else the qform, else the bare voxel sizes. What was odd is in
    `meta["notes"]`. Time or components become channels; scaled integers become float32.

    Raises:
        DataError: the file is damaged or holds something else.
        GeometryError: its grid cannot be used.
    """
    header = _header(path)
    grid, meta = _grid(path, header)
    array = _voxels(path, header)
    extra = [n for n in array.shape[3:] if n > 1]
    if len(extra) > 1:
        raise DataError(f"'{path}' has {array.ndim} axes {array.shape}; expected three and one of time or components.")
    channels = array.reshape((*grid.shape, -1), order="F")
    return _common.volume(path, np.moveaxis(channels, -1, 0), grid, kind, meta)


def read_geometry(path: Path) -> Geometry:
    """The grid, from the header alone."""
    return _grid(path, _header(path))[0]


def parts(path: Path) -> list[Path]:
    """The file, or all of its name where header and voxels are two."""
    pair = _common.has_suffix(path, (".hdr", ".img"))
    return sorted(path.parent.glob(f"{glob.escape(path.stem)}.*")) if pair else [path]


def _header(path: Path) -> Header:
    """The header, without its extensions: they may be as long as they like, and nothing here needs them."""
    try:
        block = _packed.beginning(_other(path, ".hdr"), _LONGEST_HEADER)
        kind = _kind(path, block)
        header = kind(block[: kind.template_dtype.itemsize], check=False)
        sizes = header["pixdim"][1:4].copy()
        header.check_fix(_QUIET, error_level=40)
        header["pixdim"][1:4] = sizes  # nibabel makes 1 of 0, and drops a minus
    except _DAMAGE as error:
        raise DataError(f"'{path}' is no NIfTI file, or its header is damaged or missing. Copy it again.") from error
    if header["intent_code"] in _CIFTI:
        raise DataError(f"'{path}' is of type CIFTI, which has no usable grid; expected NIfTI. Convert it first.")
    return header


def _kind(path: Path, block: bytes) -> type[Header]:
    """The version of a header: both say how long they are, in either order of bytes, and carry a mark."""
    kinds = {348: (nib.Nifti1Header, block[344:348]), 540: (nib.Nifti2Header, block[4:8])}
    sizes = [size for size in kinds if block[:4] in (size.to_bytes(4, "little"), size.to_bytes(4, "big"))]
    if not sizes:
        raise ValueError("neither of the two lengths")
    kind, mark = kinds[sizes[0]]
    if mark[:3] not in (b"n+1", b"ni1", b"n+2", b"ni2"):
        raise DataError(f"'{path}' is of type Analyze, which has no usable grid; expected NIfTI. Convert it first.")
    return kind


def _other(path: Path, suffix: str) -> Path:
    """The half of a pair with this ending, in the letters of the one that is named; the file itself where it is alone."""
    if not _common.has_suffix(path, (".hdr", ".img")):
        return path
    return path.with_suffix(suffix.upper() if path.suffix.isupper() else suffix)


def _voxels(path: Path, header: Header) -> Array:
    file = _other(path, ".img")
    if not file.exists():
        raise DataError(f"'{path}' is a header only: its voxels, '{file.name}', are missing. Put the file beside it.")
    try:
        offset, (slope, inter) = header.get_data_offset(), header.get_slope_inter()
        dtype, shape = header.get_data_dtype(), header.get_data_shape()
    except _DAMAGE as error:
        raise DataError(f"'{path}' has a damaged header. Copy it again from its source.") from error
    where = {"packing": "deflate", "skip": offset} if _packed.is_deflated(file) else {"offset": offset}
    array = _packed.voxels(file, dtype, shape, **where)
    if (slope, inter) in ((None, None), (1, 0)) or dtype.kind not in "iuf":
        return array
    with np.errstate(over="ignore", invalid="ignore"):
        return np.asarray(apply_read_scaling(array, slope, inter)).astype(np.float32, copy=False)


def _grid(path: Path, header: Header) -> tuple[Geometry, dict[str, Any]]:
    """The grid in mm, and the facts that belong to it."""
    shape = header.get_data_shape()
    if len(shape) < 2 or min(shape) < 1:
        raise DataError(f"'{path}' has a shape of {shape}; expected an image or a volume.")
    unit, unit_mm = _unit(path, header)
    sform = _form(header.get_sform)
    notes = [] if sform is not None else _with_sizes(path, header, shape, unit_mm)
    qform = _form(header.get_qform)
    form = next((form for form in (sform, qform) if form is not None), header.get_base_affine())
    grid = _common.geometry(path, (*shape, 1)[:3], np.array((unit_mm, unit_mm, unit_mm, 1))[:, None] * form)
    codes = {"sform_code": int(header["sform_code"]), "qform_code": int(header["qform_code"])}
    if unit_mm != 1:
        notes.append(f"lengths are stored in {unit}s and were changed to mm")
    if sform is None and codes["sform_code"] > 0:
        notes.append("the sform cannot be inverted and was left aside")
    if sform is None and qform is None:
        notes.append("neither sform nor qform: where the scan lies is unknown; axes are taken as left, front, up")
    if sform is not None and qform is not None:
        off_mm = unit_mm * Geometry(grid.shape, sform).apart_mm(Geometry(grid.shape, qform))
        if off_mm > 0.01:
            notes.append(f"sform and qform disagree by up to {off_mm:.2f} mm; the sform is used")
    axes = len(shape) if math.prod(shape[3:]) == 1 else 3
    return grid, {**codes, "axes": axes, "xyzt_units": unit, "notes": (*notes, *_common.shear_note(grid))}


def _with_sizes(path: Path, header: Header, shape: tuple[int, ...], unit_mm: float) -> list[str]:
    """Check that the voxel sizes, of which qform and bare axes are made, are lengths; notes on single voxels that get 1 mm.

    Raises:
        GeometryError: an axis of several voxels has none. A minus is none either: readers mirror the scan, or do not.
    """
    sizes = header["pixdim"][1:4]
    wrong = [axis for axis in range(3) if not 0 < sizes[axis] < math.inf]
    if any(axis < len(shape) and shape[axis] > 1 for axis in wrong):
        said = " x ".join(f"{size:g}" for size in sizes)
        raise GeometryError(
            f"'{path}' has voxel sizes of {said} and no sform; expected lengths above 0. Correct its header, or export it again."
        )
    sizes[wrong] = 1 / unit_mm
    return [f"one voxel of unknown size along {'ijk'[axis]}: its extent is taken as 1 mm" for axis in wrong]


def _unit(path: Path, header: Header) -> tuple[str, float]:
    try:
        unit = header.get_xyzt_units()[0]
    except KeyError as error:
        raise DataError(f"'{path}' has the unknown unit code {int(header['xyzt_units'])}; expected 2 (mm).") from error
    return unit, _UNIT_MM[unit]


def _form(get: Callable[..., tuple[Array | None, int]]) -> Array | None:
    """An affine of the header, or None where its code is 0 or it cannot be inverted."""
    try:
        affine, _ = get(coded=True)
        usable = affine is not None and np.isfinite(affine).all() and spans_space(affine[:3, :3])
    except (HeaderDataError, ValueError):  # nibabel finds no rotation in the quaternion
        return None
    return affine if usable else None


def write(volume: Volume, path: Path) -> None:
    """Write `.nii` or `.nii.gz` atomically, with the codes and the number of axes of the scan that the volume came from;
    channels on axis four.

    A qform cannot hold a sheared grid: its code becomes 0 then.

    Raises:
        DataError: the file cannot be written.
    """
    array = _common.stored(volume)
    data = _with_axes(array[0], volume.meta.get("axes", 3)) if volume.channels == 1 else np.moveaxis(array, 0, -1)
    make = nib.Nifti2Image if max(data.shape) > _NIFTI1_SIDE else nib.Nifti1Image
    image = make(data, volume.geometry.affine, dtype=data.dtype)
    sform_code, qform_code = _codes(volume, image.header)
    image.set_sform(volume.geometry.affine, sform_code)
    image.set_qform(volume.geometry.affine, qform_code)
    image.header.set_xyzt_units("mm")
    with atomic(path) as temporary:
        nib.save(image, temporary)


def _with_axes(array: Array, axes: int) -> Array:
    """One channel `(I, J, K)` with further axes of one, or without its own last where that is one."""
    shape = array.shape[:2] if axes == 2 and array.shape[2] == 1 else (*array.shape, *(1,) * (axes - 3))
    return array.reshape(shape)


def _codes(volume: Volume, header: Header) -> tuple[int, int]:
    sform_code, qform_code = (volume.meta.get(name, 1) for name in ("sform_code", "qform_code"))
    if _common.shear_note(volume.geometry):
        qform_code = 0
    if not sform_code and not qform_code and not np.allclose(header.get_base_affine(), volume.geometry.affine):
        sform_code = 1  # without either, a reader would know nothing but the voxel sizes
    return sform_code, qform_code
