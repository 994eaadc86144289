"""A scan in, a mask in the scan's own space out: `Predictor` owns device, preparation, windows and resampling back."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from medseg import bundle as bundles
from medseg import postprocess, preprocess, system
from medseg.arrays import Array
from medseg.bundle import Bundle, networks, suitability
from medseg.crf.dense_crf import Config as Crf
from medseg.errors import DataError
from medseg.geometry import region
from medseg.geometry.region import Box
from medseg.inference import autotuning, refining
from medseg.inference.autotuning import Way
from medseg.inference.ensemble import Ensemble
from medseg.inference.outputs import Blank, Outputs, finite_slabs
from medseg.inference.prediction import Prediction, PreparedScan
from medseg.inference.sliding import Stream, Work
from medseg.inference.uncertainty import Config as Sampling
from medseg.settings import parse
from medseg.volume import Geometry, Volume

T = TypeVar("T")
Scan = Volume | str | Path | Sequence[str | Path]
_NOWHERE = "the first stage found nothing: the second one saw the whole scan, which it was not trained for"


class Predictor:
    """A loaded model. Of a model with two stages, `locator` is the first: it finds where in a scan this one looks.

    Args:
        folder: a bundle, or a run that holds one.
        device: "auto" takes a GPU where there is one; an exported model computes on the CPU.
        mirrors: test-time augmentation over the flips that the bundle allows.
        precision: "auto" takes the fastest that the bundle allows, by a short measurement on first use; "fp32" and "bf16" are
            used as given.
        compile: compile the network (`torch.compile`), which takes a while and makes each window faster.
        module: import path of your own module, if the model is one: medseg runs no code from files, so you have to name it.
        sampling: predict by the mean of passes with dropout, or of the members of an ensemble, and keep their variance where
            probabilities are kept.
        crf: refine with a dense CRF, which needs the whole map of probabilities at once (see `medseg.inference.refining`).

    Raises:
        BundleError: there is no usable model, or the runtime that it was exported to is missing.
        DataError: no such device, or an exported model is to use a GPU or to be compiled.
        ConfigError: samples of a model whose passes do not differ, or a CRF for labels that overlap.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        device: str = "auto",
        mirrors: bool = False,
        precision: str = "auto",
        compile: bool = False,
        module: str | None = None,
        sampling: Sampling | None = None,
        crf: Crf | None = None,
    ) -> None:
        folder = bundles.find(folder)
        described = bundles.read(folder)
        if described.runtime != "torch":
            device = _cpu(device, described.runtime, compile)
        first = bundles.locator(folder, described)
        locator = Predictor(first, device=device, precision=precision, compile=compile) if first else None
        self._set(described, networks.load(folder, described, module), device, mirrors, locator, sampling, crf)
        if precision != "auto":
            self.ensemble.compute_in(parse(Way, {"precision": precision}, ""))
        self._measures, self._compiles = precision == "auto" and described.runtime == "torch", compile

    @classmethod
    def of(
        cls,
        described: Bundle,
        networks: Sequence[nn.Module],
        *,
        device: str = "auto",
        mirrors: bool = False,
        locator: Predictor | None = None,
        sampling: Sampling | None = None,
        crf: Crf | None = None,
    ) -> Predictor:
        """From networks in memory, and the first stage if there are two."""
        made = cls.__new__(cls)
        made._set(described, networks, device, mirrors, locator, sampling, crf)
        return made

    def _set(
        self,
        described: Bundle,
        networks: Sequence[nn.Module],
        device: str,
        mirrors: bool,
        locator: Predictor | None,
        sampling: Sampling | None,
        crf: Crf | None,
    ) -> None:
        self.locator, self.crf = locator, crf
        self.bundle, self.labels, self.mirrors = described, described.labels, mirrors
        self._measures = self._compiles = False
        where = system.pick_device(device)
        way = Way(precision="bf16" if described.precision == "bf16" and system.has_bf16(where) else "fp32")
        self.ensemble: Ensemble = Ensemble(networks, where, way, self.labels.background_logits)
        if sampling:
            self.ensemble.sample(sampling, exclusive=self.labels.exclusive)
        if crf:
            refining.check(self.labels)

    @property
    def networks(self) -> Sequence[nn.Module]:
        """The members of the ensemble, or the one network."""
        return self.ensemble.networks

    def __call__(self, scan: Scan, *, probabilities: bool = False) -> Prediction:
        """Segment one scan.

        Args:
            scan: a volume, a file or DICOM folder, or one file per channel.
            probabilities: keep them too, and the variances of samples; each takes 4 bytes x classes for every voxel.

        Raises:
            DataError: the scan cannot be read or does not fit the model, or the model gives values that are not numbers.
        """
        return self.segment(self.prepare(scan), probabilities=probabilities)

    def prepare(self, scan: Scan) -> PreparedScan:
        """What comes before the network: read a scan, find where to look, and prepare that part as the model expects it."""
        volume = scan if isinstance(scan, Volume) else preprocess.read_image(_paths(scan))
        box, warnings = self._box(volume)
        bundle, how = self.bundle, self.bundle.preprocess
        prepared = preprocess.prepare(region.crop(volume, box), how)
        odd = suitability.warnings(volume, prepared.geometry, how, bundle.inference.window, bundle.channels)
        meta = {key: value for key, value in volume.meta.items() if key in ("sform_code", "qform_code", "axes")}
        image = torch.tensor(prepared.array)
        return PreparedScan(image, prepared.geometry, volume.geometry, box, meta, (*odd, *warnings))

    def _box(self, scan: Volume) -> tuple[Box, tuple[str, ...]]:
        """The part of a scan that the network sees, and warnings about it."""
        if self.locator is None or self.bundle.locate is None:
            return region.whole(scan.geometry), ()
        where, grid = self.locator.find(scan)
        return self.bundle.locate.around(where, grid, scan.geometry), () if where.any() else (_NOWHERE,)

    def find(self, scan: Volume) -> tuple[Array, Geometry]:
        """Where any structure is, as booleans `(I, J, K)` on the network's grid, and that grid: nothing is resampled back."""
        prepared = self.prepare(scan)
        here = dataclasses.replace(prepared, mask_grid=prepared.grid, box=region.whole(prepared.grid))
        return np.any(self.segment(here).mask.array, axis=0), prepared.grid

    def segment(self, scan: PreparedScan, *, probabilities: bool = False, blank: Blank = np.zeros) -> Prediction:
        """What follows: network, dense CRF, resampling to the scan's grid, post-processing; see `__call__`.

        Args:
            scan: from `prepare`.
            probabilities: keep them too.
            blank: makes arrays of zeros, from shape and type, into which mask and probabilities are written as they come.
        """
        classes, outside = self.labels.channels, self.ensemble.background or ()
        outputs = Outputs(scan, self.labels, len(outside) if probabilities else 0, blank)

        def fill(stream: Stream) -> Work:
            slabs, strips = finite_slabs(stream, self._advice()), stream.strips(len(outside))
            if self.crf:
                slabs, strips = refining.refined(slabs, scan, classes, self.crf, blank), (0, 1)
            outputs.fill(slabs, outside, strips)
            return stream.work

        work = self.stream(scan.image, fill)
        found = postprocess.apply(
            Volume(outputs.mask, scan.mask_grid, "labels", scan.meta), self.labels, self.bundle.postprocess
        )
        warnings = scan.warnings if found.array.any() else (*scan.warnings, "nothing was found: the mask is empty")
        passes = work.voxels / scan.image[0].numel()
        likely, variances = outputs.volume(slice(classes)), outputs.volume(slice(classes, None))
        return Prediction(found, self.labels, likely, warnings, passes, work.air_share, variances)

    def _advice(self) -> str:
        """What to do where the model gives no numbers."""
        if self.ensemble.way.precision == "bf16":
            return "Load it as `Predictor(..., precision='fp32')`."
        return "Look at the scan's values; if other scans fail too, train the model again."

    def stream(self, image: Tensor, use: Callable[[Stream], T]) -> T:
        """What a function makes of what the ensemble gives for a prepared image `(C, I, J, K)`; see `Ensemble.stream`."""
        self.settle()
        return self.ensemble.stream(image, use, self.bundle.inference, mirrors=self.mirrors)

    def settle(self) -> None:
        """Choose once how to compute: measured unless this machine remembers it, and compiled where that was asked for.

        The first scan does this by itself. Do it before starting other work, which would disturb the measurement.

        Raises:
            MedsegError: the model cannot be compiled here.
        """
        if self.locator:
            self.locator.settle()
        windows, device = self.bundle.inference, self.ensemble.device
        batch = 1 if device.type == "cpu" else windows.batch  # a core computes one after the other
        size = (len(self.bundle.channels), *windows.window[: self.bundle.spatial_dims])
        if self._measures:
            precisions = ("bf16", "fp32") if self.ensemble.way.precision == "bf16" else ("fp32",)
            example, weights = torch.randn(batch, *size, device=device), tuple(self.bundle.weights.values())
            way = autotuning.choose(self.networks[0], example, self.bundle.name, weights, precisions)
            self.ensemble.compute_in(way)
        if self._compiles:
            self.ensemble.compile(torch.randn(1, *size, device=device))
        self._measures = self._compiles = False


def _cpu(device: str, runtime: str, compile: bool) -> str:
    if compile:
        raise DataError(f"the model was exported to {runtime}, which compiles by itself: leave compile out.")
    if device not in ("auto", "cpu"):
        raise DataError(
            f"the model was exported to {runtime}, which computes on the CPU: leave the device out, got '{device}'."
        )
    return "cpu"


def _paths(scan: str | Path | Sequence[str | Path]) -> list[Path]:
    return [Path(scan)] if isinstance(scan, str | Path) else [Path(part) for part in scan]
