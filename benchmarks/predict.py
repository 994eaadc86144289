"""Seconds and peak memory of `medseg predict` from file to file, beside MONAI's parts around the same network."""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

import medseg
from benchmarks import _measure as measure
from medseg import files, layouts
from medseg.resources import shipped

_PEER = str(measure.PEERS / "monai_predict.py")
_SPACING_MM = (0.8, 0.8, 1.5)  # of the synthetic CT, as of an abdomen


def main(arguments: list[str] | None = None) -> None:
    """Measure, print, write."""
    parser = measure.parser(__doc__)
    parser.add_argument("--run", type=Path, help="trained run or bundle; otherwise a small one is trained first")
    parser.add_argument(
        "--data", type=Path, default=shipped("sample_data/mr"), help="dataset whose first scan is taken"
    )
    parser.add_argument("--ct", type=int, nargs=3, default=(512, 512, 200), help="voxels of the synthetic CT")
    parser.add_argument("--repeats", type=int, default=5, help="rounds over the dataset's scan")
    parser.add_argument("--ct-repeats", type=int, default=1, help="rounds over the CT; 0 leaves it out")
    asked = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="medseg-bench-") as name:
        folder = Path(name)
        bundle = bundle_of(asked.run or small_run(folder))
        scan = _first_scan(asked.data)
        sections = {"scan of the dataset": _compare(bundle, scan, folder, asked.repeats)}
        sections["the same, model loaded once"] = _loaded_once(bundle, scan, folder, asked.repeats)
        if asked.ct_repeats:
            ct = _write_ct(folder / "ct.nii.gz", tuple(asked.ct))
            channels = len(files.read_json(bundle / "config.json")["channels"])
            title = f"synthetic CT {'x'.join(map(str, asked.ct))}"
            sections[title] = _compare(bundle, ",".join([ct] * channels), folder, asked.ct_repeats)
    text = "\n\n".join(f"{title}\n{_shown(found)}" for title, found in sections.items())
    measure.publish(text, {"benchmark": "predict", "results": sections}, asked.json)


def small_run(folder: Path) -> Path:
    """The default network, hardly trained: that costs a prediction as much as a good one."""
    command = (*measure.MEDSEG, "train", str(shipped("sample_data/mr")), "-o", str(folder / "run"))
    measure.run((*command, "train.steps=10", "train.validations=1"))
    return folder / "run"


def bundle_of(run: Path) -> Path:
    """The bundle of a run, or the bundle itself."""
    return run if (run / "config.json").is_file() else run / "bundle"


def _compare(bundle: Path, scan: str, folder: Path, repeats: int) -> dict[str, Any]:
    """Whole processes: start of Python, loading of the model, prediction, mask on disk."""
    ours, theirs = folder / "medseg.nii.gz", folder / "monai.nii.gz"
    commands = {
        "medseg": (*measure.MEDSEG, "predict", str(bundle), scan, "-o", str(ours)),
        "monai": (sys.executable, _PEER, str(bundle), scan, "-o", str(theirs)),
    }
    samples = measure.alternate(commands, repeats, warm_up=repeats > 1)
    found = {name: measure.summary(some) for name, some in samples.items()}
    return {**found, "agreement": _agreement(ours, theirs)}


def _loaded_once(bundle: Path, scan: str, folder: Path, repeats: int) -> dict[str, Any]:
    """File to file in a process that has the model already; the first of them, which warms up, is not counted."""
    ours = _api_seconds(bundle, scan, folder / "api.nii.gz", repeats + 1)
    command = (
        sys.executable,
        _PEER,
        str(bundle),
        scan,
        "-o",
        str(folder / "peer.nii.gz"),
        "--repeats",
        str(repeats + 1),
    )
    theirs = measure.last_json(measure.run(command).output)["seconds"]
    both = {"medseg": ours[1:], "monai": theirs[1:]}
    return {name: {**measure.spread(seconds), "runs": seconds} for name, seconds in both.items()}


def _shown(found: dict[str, Any]) -> str:
    rows = {name: item for name, item in found.items() if name != "agreement"}
    same = f"\nsame label in {found['agreement']:.3%} of all voxels" if "agreement" in found else ""
    return measure.times(rows, "medseg") + same


def _first_scan(data: Path) -> str:
    """The files of a dataset's first scan, commas between channels."""
    return ",".join(str(path) for path in layouts.find(data).cases[0].images)


def _api_seconds(bundle: Path, scan: str, out: Path, repeats: int) -> list[float]:
    """Seconds of each of some predictions through the API."""
    predictor, seconds = medseg.load(bundle), []
    for _ in range(repeats):
        began = time.perf_counter()
        medseg.write(predictor(scan.split(",")).mask, out)
        seconds.append(time.perf_counter() - began)
    return seconds


def _agreement(first: Path, second: Path) -> float:
    """Share of voxels with the same label in two masks."""
    return float((medseg.read(first).array == medseg.read(second).array).mean())


def _write_ct(path: Path, shape: tuple[int, int, int]) -> str:
    """An int16 CT of an elliptic body of soft tissue with a spine, in air, with noise; returns its path."""
    i, j = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape[:2]), indexing="ij", sparse=True)
    slice_hu = np.full(shape[:2], -1000.0)
    slice_hu[(i / 0.85) ** 2 + (j / 0.6) ** 2 < 1] = 40
    slice_hu[i**2 + (j + 0.35) ** 2 < 0.01] = 400
    noise = np.random.default_rng(0).normal(0, 12, shape)
    array = (slice_hu[..., None] + noise).round().clip(-1024, 3071).astype(np.int16)
    medseg.write(medseg.Volume(array, medseg.Geometry(shape, np.diag([*_SPACING_MM, 1.0]))), path)
    return str(path)


if __name__ == "__main__":
    main()
