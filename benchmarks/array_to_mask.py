"""From a prepared scan to its labels with one trained network, by each library in its default setting, with the Dice it reaches.

The scans are those of the run's inner split, on which medseg chose its windows; held-out cases are left alone.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import medseg
from benchmarks import _operation as operation
from benchmarks._operation import Variant
from benchmarks.predict import small_run
from medseg import files, metrics, overrides
from medseg.data import layouts
from medseg.metrics import statistics
from medseg.predictor import Predictor
from medseg.resources import shipped
from medseg.training.prepared import Prepared, prepare_cases

_BATCH = 4  # windows at once for MONAI, which has no default
Run = Callable[[Tensor], Tensor]  # prepared scan (C, I, J, K) -> classes (I, J, K)
Maker = Callable[[Predictor, Sequence[int]], Run]


def parser() -> argparse.ArgumentParser:
    """The arguments."""
    made = operation.parser(__doc__)
    made.add_argument("--run", type=Path, help="run of `medseg train`; otherwise a small one is trained first")
    made.add_argument("--data", type=Path, default=shipped("sample_data/mr"), help="dataset that it learned from")
    made.add_argument("--scans", type=int, default=10, help="of the inner split, the first ones")
    return made


def main(arguments: list[str] | None = None) -> None:
    """Measure, print, write."""
    words = sys.argv[1:] if arguments is None else arguments
    asked = parser().parse_args(words)
    with tempfile.TemporaryDirectory(prefix="medseg-bench-") as folder:
        asked.run = asked.run or small_run(Path(folder))
        chosen = sections(asked)
        found = operation.compare("array_to_mask", chosen, asked, [*words, "--run", str(asked.run)])
    operation.publish("array_to_mask", chosen, found, asked)


def sections(asked: argparse.Namespace) -> operation.Sections:
    """The same scans by all."""

    def variant(make: Maker, *needed: str, compile: bool = False) -> Variant:
        return Variant(
            partial(labelled, make, asked, compile), partial(dice, asked), left_out=operation.missing(*needed)
        )

    return {
        "prepared scans to labels": {
            "medseg": variant(ours),
            "medseg, compiled": variant(ours, compile=True),
            "monai": variant(monai, "monai"),
            "nnunetv2": variant(nnunet, "nnunetv2"),
        }
    }


def labelled(make: Maker, asked: argparse.Namespace, compile: bool) -> Callable[[], list[Any]]:
    """Labels of all scans, one after the other, the model loaded and the scans prepared."""
    predictor = medseg.load(asked.run, compile=compile)
    patch = overrides.read(asked.run / "config.yaml")["sample"]["patch"]
    images, run = [torch.tensor(case.image) for case in scans(asked)], make(predictor, patch)
    return lambda: [run(image).cpu().numpy() for image in images]


def ours(predictor: Predictor, patch: Sequence[int]) -> Run:
    """medseg's windows and arithmetic, as its bundle and this machine have them."""

    def run(image: Tensor) -> Tensor:
        labels = predictor.labels
        return predictor.stream(image, lambda stream: stream.collect(labels.of_logits, labels.channels)[0])

    return run


def monai(predictor: Predictor, patch: Sequence[int]) -> Run:
    """MONAI's: a quarter overlap, constant weights, fp32; the windows that the network was trained on."""
    from monai.inferers import sliding_window_inference

    network, device = _alone(predictor)

    def run(image: Tensor) -> Tensor:
        with torch.inference_mode():
            found: Any = sliding_window_inference(image[None].to(device), patch, _BATCH, network)
            return found[0].argmax(0)

    return run


def nnunet(predictor: Predictor, patch: Sequence[int]) -> Run:
    """nnU-Net's: half overlap, Gaussian weights, all mirrors that training showed; fp32 on a CPU, fp16 on a GPU."""
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    network, device = _alone(predictor)
    made = nnUNetPredictor(device=device, allow_tqdm=False)
    made.network, made.allowed_mirroring_axes = network, predictor.bundle.inference.mirror_axes or None
    made.configuration_manager = SimpleNamespace(patch_size=list(patch))
    made.label_manager = SimpleNamespace(num_segmentation_heads=predictor.labels.channels)

    def run(image: Tensor) -> Tensor:
        with torch.inference_mode():
            return made.predict_sliding_window_return_logits(image).argmax(0)

    return run


def _alone(predictor: Predictor) -> tuple[nn.Module, torch.device]:
    if not predictor.labels.exclusive or predictor.bundle.spatial_dims == 2:
        raise SystemExit("only models of volumes, with labels that exclude each other")
    return predictor.networks[0], predictor.ensemble.device


def scans(asked: argparse.Namespace) -> list[Prepared]:
    """The first scans of the run's inner split, as its network sees them."""
    bundle = medseg.load(asked.run).bundle
    (split,) = files.read_json(asked.run / "splits.json")
    known = {case.id: case for case in layouts.find(asked.data).cases}
    cases = [known[name] for name in split["validation"][: asked.scans]]
    with tempfile.TemporaryDirectory(prefix="medseg-bench-") as cache:
        prepared = prepare_cases(cases, bundle.preprocess, bundle.labels, cache)
        return [
            Prepared(case.id, case.geometry, np.array(case.image), np.array(case.target), case.points)
            for case in prepared
        ]


def dice(asked: argparse.Namespace, found: Sequence[Any]) -> Mapping[str, float]:
    """Mean over labels of the mean over scans, on the prepared grid."""
    labels = range(1, medseg.load(asked.run).labels.channels)
    scores = [
        [metrics.overlap.dice(mask == n, case.target[0] == n) for n in labels]
        for mask, case in zip(found, scans(asked), strict=True)
    ]
    return {"mean Dice": float(statistics.mean(statistics.mean(np.array(scores)))), "scans": len(found)}


if __name__ == "__main__":
    main()
