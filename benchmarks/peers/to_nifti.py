"""Convert DICOM folders with one program, all in this process: `-m benchmarks.peers.to_nifti PROGRAM OUT FOLDER...` writes OUT/0, OUT/1 ...

Prints the CPU seconds of each folder as JSON, after one that is not counted (imports, first use of decoders).
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path


def by_medseg(source: Path, target: Path) -> None:
    """One file a series, times as channels."""
    import medseg

    medseg.convert(source, target, channels=True)


def by_dicom2nifti(source: Path, target: Path) -> None:
    """Its own defaults."""
    import dicom2nifti

    dicom2nifti.convert_directory(str(source), str(target))


def by_simpleitk(source: Path, target: Path) -> None:
    """The series reader, as its documentation shows it."""
    import SimpleITK as sitk

    for number, series in enumerate(sitk.ImageSeriesReader.GetGDCMSeriesIDs(str(source))):
        names = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(source), series)
        sitk.WriteImage(sitk.ReadImage(names), str(target / f"{number}.nii.gz"))


def by_dcm2niix(source: Path, target: Path) -> None:
    """Its own defaults, compressed."""
    import dcm2niix

    subprocess.run([dcm2niix.bin, "-z", "y", "-o", str(target), str(source)], check=True, capture_output=True)


PROGRAMS: dict[str, Callable[[Path, Path], None]] = {
    "medseg": by_medseg,
    "dicom2nifti": by_dicom2nifti,
    "SimpleITK": by_simpleitk,
    "dcm2niix": by_dcm2niix,
}


def seconds() -> float:
    """CPU seconds of this process and of those it started."""
    own, children = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


def main() -> None:
    """Convert, and print."""
    program, out, folders = PROGRAMS[sys.argv[1]], Path(sys.argv[2]), [Path(name) for name in sys.argv[3:]]
    spent = []
    for number, folder in enumerate([folders[0], *folders]):
        target = out / ("warm" if number == 0 else str(number - 1))
        target.mkdir(parents=True)
        began = seconds()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                program(folder, target)
        except Exception as error:  # to refuse is one of the answers
            print(f"{number - 1}: {type(error).__name__}", file=sys.stderr)
        spent.append(seconds() - began)
    print(json.dumps(spent[1:]))


if __name__ == "__main__":
    main()
