"""Networks in whole numbers of eight bits: calibrated on windows of labelled scans, and judged by the Dice that is lost.

Convolutions alone are quantised, symmetric weights by output channel and activations by tensor (static, after training: Jacob et al.
2018, arXiv:1712.05877). The last one, whose answer decides, is left as it is.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from medseg import preprocess, progress, sample
from medseg.arrays import Array
from medseg.bundle.description import Bundle
from medseg.data import layouts, splits
from medseg.data.cases import Case, named
from medseg.inference.windows import Config, window_grid
from medseg.predictor import Predictor
from medseg.training.inner_split import case_dice, mean_dice
from medseg.training.prepared import prepare_case
from medseg.wording import counted

_WINDOWS = 32  # to calibrate on, from 8 scans where there are as many
_SCANS = 8
_LOST = 0.005  # of Dice, beyond which a user should think twice


class Cases(NamedTuple):
    """Labelled cases to calibrate on, and others to measure on: no patient is in both."""

    calibration: tuple[Case, ...]
    validation: tuple[Case, ...]


def divided(data: str | Path) -> Cases:
    """The labelled cases of a dataset in two; of a single patient, the same ones twice.

    Args:
        data: whatever `layouts.find` recognises.

    Raises:
        DataError: no dataset, or no masks.
    """
    labelled = layouts.find(data).labelled
    if len({case.group for case in labelled if case.split != "test"}) < 2:
        progress.warn("one labelled patient alone: int8 is measured on the scans that it is calibrated on")
        return Cases(labelled, labelled)
    fold = splits.inner_split(labelled, share=0.5)
    calibration, validation = ([case for case in labelled if case.id in ids] for ids in (fold.train, fold.test))
    return Cases(tuple(calibration), tuple(validation))


def windows(cases: Sequence[Case], described: Bundle) -> list[Array]:
    """Windows `(1, C, *window)` of prepared scans, as prediction cuts them: some of each scan, spread over it."""
    chosen = _spread(cases, _SCANS)
    found = (_cut(_image(case, described), described.inference, -(-_WINDOWS // len(chosen))) for case in chosen)
    cut = [window for of_case in progress.track(found, "calibrating", len(chosen)) for window in of_case]
    return [window[..., 0] for window in cut] if described.spatial_dims == 2 else cut


def _cut(image: Array, config: Config, count: int) -> Iterator[Array]:
    shape, size = image.shape[1:], config.window
    centred = [
        starts if n >= w else (-((w - n) // 2),)
        for starts, n, w in zip(window_grid(shape, size, config.overlap), shape, size, strict=True)
    ]
    for i, j, k in _spread(list(itertools.product(*centred)), count):
        window = np.empty((1, len(image), *size), image.dtype)
        sample.cut(image, (i, j, k), window[0])
        yield window


def _spread(items: Sequence[Any], count: int) -> list[Any]:
    """At most so many items, evenly from the first to the last."""
    return [items[n] for n in np.linspace(0, len(items) - 1, min(count, len(items))).round().astype(int)]


def _image(case: Case, described: Bundle) -> Array:
    with named(case):
        return preprocess.prepare(preprocess.read_image(case.images), described.preprocess).array


def quantise(source: Path, target: Path, calibration: Sequence[Array]) -> None:
    """Write an ONNX network with 8-bit convolutions.

    Args:
        source: the network in float32; its input is called "image".
        target: file to write.
        calibration: windows whose activations give the ranges.
    """
    import onnx
    from onnxruntime.quantization import QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    folded = target.with_suffix(".folded.onnx")  # batch norm is in the convolutions before these are rounded
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        quant_pre_process(str(source), str(folded), skip_symbolic_shape=True)
        convolutions = [node.name for node in onnx.load(folded).graph.node if node.op_type == "Conv"]
        quantize_static(
            str(folded),
            str(target),
            _Reader(calibration),
            op_types_to_quantize=["Conv"],
            nodes_to_exclude=convolutions[-1:],
            per_channel=True,
            reduce_range=True,  # 7-bit weights: sums of 8-bit ones overflow on processors without VNNI
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
    folded.unlink()


class _Reader:
    """What onnxruntime takes calibration windows from."""

    def __init__(self, windows: Sequence[Array]) -> None:
        self.windows = iter(windows)

    def get_next(self) -> dict[str, Array] | None:
        window = next(self.windows, None)
        return None if window is None else {"image": window}


def compare(whole: Predictor, rounded: Predictor, cases: Sequence[Case]) -> dict[str, Any]:
    """Dice of a model before and after, on the same cases; a loss that matters is a warning.

    Returns:
        `dice` in int8, `fp32_dice`, and how many `cases`: what a bundle keeps among its scores.
    """
    found: list[tuple[list[float], list[float]]] = []
    for case in progress.track(cases, "measuring int8"):
        with named(case):
            prepared = prepare_case(case, whole.bundle.preprocess, whole.bundle.labels)
        found.append((case_dice(whole, prepared), case_dice(rounded, prepared)))
    before, after = (mean_dice(scores) for scores in zip(*found, strict=True))
    said = f"Dice on {counted(len(cases), 'case')}: {before:.4f} in fp32, {after:.4f} in int8"
    if before - after > _LOST:
        progress.warn(f"{said}. That is a loss of more than {_LOST}: export without --int8, unless speed is worth it.")
    else:
        progress.say(said)
    return {"dice": round(after, 4), "fp32_dice": round(before, 4), "cases": len(cases)}
