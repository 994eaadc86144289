"""Seconds and peak memory from scan file to mask file: `medseg predict`, MONAI's parts around the same network, and nnU-Net."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import medseg
from benchmarks import _described as described
from benchmarks import _measure as measure
from benchmarks import _operation as operation
from benchmarks._described import Described
from medseg.data import layouts
from medseg.resources import shipped

_MONAI = str(measure.PEERS / "monai_predict.py")
_NNUNET = str(Path(sys.executable).with_name("nnUNetv2_predict_from_modelfolder"))
_SMALL_CT = (48, 48, 32)


def parser() -> argparse.ArgumentParser:
    """The arguments."""
    made = measure.parser(__doc__)
    made.add_argument("--run", type=Path, help="trained run or bundle; otherwise a small one is trained first")
    made.add_argument("--data", type=Path, default=shipped("sample_data/mr"), help="dataset whose first scan is taken")
    made.add_argument("--repeats", type=int, default=5, help="rounds over the dataset's scan; 0 leaves it out")
    made.add_argument("--shape", type=int, nargs=3, default=(512, 512, 200), help="voxels of the synthetic CT")
    made.add_argument("--classes", type=int, default=20, help="structures that models of the CT tell apart")
    made.add_argument("--ct-repeats", type=int, default=1, help="rounds over the CT; 0 leaves it out")
    return made


def main(arguments: list[str] | None = None) -> None:
    """Measure, print, write."""
    asked = parser().parse_args(arguments)
    sections: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory(prefix="medseg-bench-") as name:
        if asked.repeats:
            sections |= _of_dataset(asked, Path(name))
        if asked.ct_repeats:
            title = f"synthetic CT {'x'.join(map(str, asked.shape))}, {asked.classes} classes"
            data = Described(tuple(asked.shape), described.CT_SPACING_MM, asked.classes)
            sections[title] = _of_ct(data, Path(name), asked.ct_repeats)
    text = "\n\n".join(f"{title}\n{_shown(found)}" for title, found in sections.items())
    measure.publish(text, {"benchmark": "predict", "results": sections}, asked.json)


def _of_dataset(asked: argparse.Namespace, folder: Path) -> dict[str, dict[str, Any]]:
    """A dataset's first scan, as whole processes and with the model loaded once."""
    bundle, scan = bundle_of(asked.run or small_run(folder)), _first_scan(asked.data)
    commands, masks = _both(bundle, scan, folder)
    samples = measure.alternate(commands, asked.repeats, warm_up=asked.repeats > 1)
    return {
        "scan of the dataset": _summed(samples) | {"agreement": _agreement(*masks)},
        "the same, model loaded once": _loaded_once(bundle, scan, folder, asked.repeats),
    }


def _of_ct(data: Described, folder: Path, repeats: int) -> dict[str, Any]:
    """A CT through untrained networks, each as its library plans it; medseg's on the scan's own grid, as nnU-Net's is, and on
    the coarser one that it chooses by itself."""
    ct = _write_ct(folder / "scans" / "ct_0000.nii.gz", data.shape)
    same, own = (described.save(data, folder / name, coarsens=name == "own") for name in ("same", "own"))
    commands, masks = _both(same, ct, folder)
    commands["medseg, own grid"] = _medseg(own, ct, folder / "own.nii.gz")
    if without := operation.missing("nnunetv2"):
        left_out = {"nnunetv2": without}
    else:
        left_out, commands["nnunetv2"] = {}, _nnunet(data, folder)
    first_s = [_first_use_s(bundle, folder) for bundle in (same, own)]
    found = _summed(measure.alternate(commands, repeats))
    agreement = {"agreement": _agreement(*masks)} if "monai" in found else {}
    left_out |= dict.fromkeys(commands.keys() - found, measure.FAILED)
    return {**found, **agreement, "first_use_s": first_s, "left_out": left_out}


def _nnunet(data: Described, folder: Path) -> Sequence[str]:
    """Its own command without mirrors, with an untrained model of the network that it plans for such a CT."""
    from benchmarks.peers import nnunet

    model, device = nnunet.model(data, folder / "nnunet"), operation.device().type
    where = ("-i", str(folder / "scans"), "-o", str(folder / "nnunet" / "masks"), "-m", str(model), "-f", "all")
    return (_NNUNET, *where, "--disable_tta", "--disable_progress_bar", "-device", device)


def _both(bundle: Path, scan: str, folder: Path) -> tuple[dict[str, Sequence[str]], tuple[Path, Path]]:
    """Whole processes: start of Python, loading of the model, prediction, mask on disk; the same network and weights."""
    ours, theirs = folder / "medseg.nii.gz", folder / "monai.nii.gz"
    monai = (sys.executable, _MONAI, str(bundle), scan, "-o", str(theirs))
    return {"medseg": _medseg(bundle, scan, ours), "monai": monai}, (ours, theirs)


def _medseg(bundle: Path, scan: str, mask: Path) -> Sequence[str]:
    return (*measure.MEDSEG, "predict", str(bundle), scan, "-o", str(mask))


def _summed(samples: Mapping[str, Sequence[measure.Sample]]) -> dict[str, Any]:
    return {name: measure.summary(some) for name, some in samples.items()}


def _first_use_s(bundle: Path, folder: Path) -> float:
    """Seconds of a small scan through a model that this machine has not met: it measures how the model is computed quickest."""
    scan = _write_ct(folder / "small.nii.gz", _SMALL_CT)
    return measure.run(_medseg(bundle, scan, folder / "small_mask.nii.gz")).seconds


def small_run(folder: Path) -> Path:
    """The default network, hardly trained: that costs a prediction as much as a good one."""
    command = (*measure.MEDSEG, "train", str(shipped("sample_data/mr")), "-o", str(folder / "run"))
    measure.run((*command, "train.steps=10", "train.validations=1"))
    return folder / "run"


def bundle_of(run: Path) -> Path:
    """The bundle of a run, or the bundle itself."""
    return run if (run / "config.json").is_file() else run / "bundle"


def _loaded_once(bundle: Path, scan: str, folder: Path, repeats: int) -> dict[str, Any]:
    """File to file in a process that has the model already; the first of them, which warms up, is not counted."""
    ours = _api_seconds(bundle, scan, folder / "api.nii.gz", repeats + 1)
    peer = (sys.executable, _MONAI, str(bundle), scan, "-o", str(folder / "peer.nii.gz"))
    command = (*peer, "--repeats", str(repeats + 1))
    theirs = measure.last_json(measure.run(command).output)["seconds"]
    both = {"medseg": ours[1:], "monai": theirs[1:]}
    return {name: {**measure.spread(seconds), "runs": seconds} for name, seconds in both.items()}


def _shown(found: dict[str, Any]) -> str:
    rows = {name: item for name, item in found.items() if isinstance(item, dict) and "median_s" in item}
    lines = [measure.times(rows, "medseg")]
    lines += [f"{name}: left out, {why}" for name, why in found.get("left_out", {}).items()]
    if "agreement" in found:
        lines.append(f"medseg and monai: same label in {found['agreement']:.3%} of all voxels")
    if first_s := found.get("first_use_s"):
        seconds = " and ".join(f"{s:.1f} s" for s in first_s)
        lines.append(
            f"first use of medseg's two models on this machine, with a small scan, not counted above: {seconds}"
        )
    return "\n".join(lines)


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
    path.parent.mkdir(exist_ok=True)
    medseg.write(medseg.Volume(array, medseg.Geometry(shape, np.diag([*described.CT_SPACING_MM, 1.0]))), path)
    return str(path)


if __name__ == "__main__":
    main()
