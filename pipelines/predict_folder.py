"""Segment every scan of a folder, go on where an earlier start ended, and say which masks to look at first.

    python pipelines/predict_folder.py MODEL SCANS MASKS

Needs:  a run or bundle of `medseg train`; one file per scan, in any orientation and spacing. (Where each channel is a file of
        its own, or a scan is a DICOM folder: `medseg predict`.)
Takes:  seconds per scan, for the model is loaded once; scans that already have a mask are not computed again.
Leaves: one mask per scan, on the scan's own grid, and volumes.csv.
Expect: the held-out Dice of the model's card (README.md in its bundle), on scans of the same kind. Structures that are
        missing, or far from the usual size, are listed: most failures are among them, and sometimes the findings.
"""

from __future__ import annotations

import argparse
import csv
import logging
from pathlib import Path
from statistics import median

import medseg

SUFFIXES = (".nii.gz", ".nii", ".nrrd", ".mha")
FAR = 5.0  # times the usual distance from the median


def main(arguments: list[str] | None = None) -> None:
    """Predict what is missing, write the table, name the outliers."""
    given = parse(arguments)
    predictor = medseg.load(given.model, device=given.device, tta=given.tta)
    scans = {name(path): path for path in sorted(given.scans.iterdir()) if path.name.endswith(SUFFIXES)}
    rows: dict[str, dict[str, float]] = {}
    for number, (case, path) in enumerate(scans.items(), 1):
        try:
            rows[case] = segment(predictor, path, given.masks / f"{case}.nii.gz").volumes_ml
        except medseg.MedsegError as error:  # one bad scan does not stop the others
            print(f"{case}: no mask: {error}")
            continue
        print(f"{number}/{len(scans)} {case}: " + ", ".join(f"{label} {ml:.3g} ml" for label, ml in rows[case].items()))
    write(rows, predictor.labels.names, given.masks / "volumes.csv")
    for case, label, ml, usual in outliers(rows):
        print(f"look at {case}: {label} has {ml:.3g} ml, usual is {usual:.3g} ml")
    if len(rows) < len(scans):
        raise SystemExit(2)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="folder of a run, or a bundle")
    parser.add_argument("scans", type=Path, help="folder of scans")
    parser.add_argument("masks", type=Path, help="folder for the masks")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, mps")
    parser.add_argument("--tta", action="store_true", help="average over mirrored scans: slower")
    return parser.parse_args(arguments)


def name(path: Path) -> str:
    """The scan's file name without its ending."""
    return next(path.name.removesuffix(suffix) for suffix in SUFFIXES if path.name.endswith(suffix))


def segment(predictor: medseg.Predictor, scan: Path, mask: Path) -> medseg.Prediction:
    """The prediction of one scan: the mask that an earlier start left, or a new one."""
    if mask.exists():
        return medseg.Prediction(medseg.read(mask, "labels"), predictor.labels)
    prediction = predictor(scan)
    medseg.write(prediction.mask, mask, parents=True)
    return prediction


def write(rows: dict[str, dict[str, float]], labels: tuple[str, ...], path: Path) -> None:
    """Volumes in ml, one row per case."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as stream:
        table = csv.writer(stream)
        table.writerow(["case", *(f"{label}_ml" for label in labels)])
        table.writerows([case, *(f"{row[label]:.4f}" for label in labels)] for case, row in rows.items())


def outliers(rows: dict[str, dict[str, float]]) -> list[tuple[str, str, float, float]]:
    """Case, label, ml and median ml of volumes that are 0 or far from the median, measured by the median distance from it."""
    found = []
    for label in next(iter(rows.values()), {}):
        usual = median(row[label] for row in rows.values())
        spread = median(abs(row[label] - usual) for row in rows.values())
        odd = [
            case for case, row in rows.items() if abs(row[label] - usual) > FAR * spread or (usual and not row[label])
        ]
        found += [(case, label, rows[case][label], usual) for case in odd]
    return found


if __name__ == "__main__":
    logging.basicConfig(format="%(message)s")
    logging.getLogger("medseg").setLevel(logging.INFO)  # say what is being done
    try:
        main()
    except medseg.MedsegError as error:
        raise SystemExit(f"error: {error}") from None
