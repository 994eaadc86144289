"""A scan in, a mask in the scan's own space out: `Predictor` owns device, preparation, windows and the way home."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from medseg import arithmetic, networks, postprocess, preprocess, region, suitability, system
from medseg import bundle as bundles
from medseg.arithmetic import Way
from medseg.bundle import Bundle
from medseg.ensemble import Ensemble
from medseg.errors import DataError
from medseg.inference import Slab, Stream, Work
from medseg.logits import finite
from medseg.prediction import Prediction, Ready
from medseg.region import Box
from medseg.restore import restore
from medseg.settings import parse
from medseg.stitching import Range
from medseg.volume import Geometry, Volume

T = TypeVar("T")
Array = npt.NDArray[Any]
Blank = Callable[[tuple[int, ...], npt.DTypeLike], Array]
Scan = Volume | str | Path | Sequence[str | Path]
_NOWHERE = "the first stage found nothing: the second one saw the whole scan, which it was not trained for"


class Predictor:
    """A loaded model, of one stage or of two: then `locator` finds where to look, and this one looks there.

    Args:
        folder: a bundle, or a run that holds one.
        device: "auto" takes a GPU where there is one; what was exported computes on the CPU.
        mirrors: test-time augmentation over the flips that the bundle allows.
        precision: "auto" takes what is quickest here, and right by the bundle, by a short measurement on first use; "fp32" and
            "bf16" are taken as they are.
        compile: compile the network (`torch.compile`), which takes a while and makes each window quicker.
        module: import path of your own module, where the model is one: no code comes from files, so that you must name it.

    Raises:
        BundleError: no usable model there, or the runtime that it was exported to is missing.
        DataError: no such device, or none that an exported model can use; or an exported model was to be compiled.
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
    ) -> None:
        folder = bundles.find(folder)
        described = bundles.read(folder)
        if described.runtime != "torch":
            device = _cpu(device, described.runtime, compile)
        first = bundles.locator(folder, described)
        locator = Predictor(first, device=device, precision=precision, compile=compile) if first else None
        self._set(described, networks.load(folder, described, module), device, mirrors, locator)
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
    ) -> Predictor:
        """From networks in memory, and the first stage if there are two."""
        made = cls.__new__(cls)
        made._set(described, networks, device, mirrors, locator)
        return made

    def _set(
        self,
        described: Bundle,
        networks: Sequence[nn.Module],
        device: str,
        mirrors: bool,
        locator: Predictor | None,
    ) -> None:
        self.locator = locator
        self.bundle, self.labels, self.mirrors = described, described.labels, mirrors
        self._measures = self._compiles = False
        where = system.pick_device(device)
        way = Way(precision="bf16" if described.precision == "bf16" and system.has_bf16(where) else "fp32")
        self.ensemble: Ensemble = Ensemble(networks, where, way, self.labels.nothing)

    @property
    def networks(self) -> Sequence[nn.Module]:
        """The members of the ensemble, or the one network."""
        return self.ensemble.networks

    def __call__(self, scan: Scan, *, probabilities: bool = False) -> Prediction:
        """Segment one scan.

        Args:
            scan: a volume, a file or DICOM folder, or one file a channel.
            probabilities: keep them too; they take 4 bytes x classes a voxel.

        Raises:
            DataError: the scan cannot be read, or does not fit the model, or the model gives no numbers on it.
        """
        return self.segment(self.prepare(scan), probabilities=probabilities)

    def prepare(self, scan: Scan) -> Ready:
        """What comes before the network: read a scan, find where to look, and bring that to the model's grid and values."""
        volume = scan if isinstance(scan, Volume) else preprocess.read_image(_paths(scan))
        box, warnings = self._box(volume)
        bundle, how = self.bundle, self.bundle.preprocess
        prepared = preprocess.prepare(region.cut(volume, box), how)
        odd = suitability.warnings(volume, prepared.geometry, how, bundle.inference.window, bundle.channels)
        meta = {key: value for key, value in volume.meta.items() if key in ("sform_code", "qform_code", "axes")}
        image = torch.tensor(prepared.array)
        return Ready(image, prepared.geometry, volume.geometry, box, meta, (*odd, *warnings))

    def _box(self, scan: Volume) -> tuple[Box, tuple[str, ...]]:
        """What of a scan the network sees, and what speaks against that."""
        if self.locator is None or self.bundle.locate is None:
            return region.whole(scan.geometry), ()
        where, grid = self.locator.find(scan)
        return self.bundle.locate.around(where, grid, scan.geometry), () if where.any() else (_NOWHERE,)

    def find(self, scan: Volume) -> tuple[Array, Geometry]:
        """Where anything is, as booleans `(I, J, K)` on the grid of the network, and that grid: the way home is spared."""
        ready = self.prepare(scan)
        here = dataclasses.replace(ready, home=ready.grid, box=region.whole(ready.grid))
        return np.any(self.segment(here).mask.array, axis=0), ready.grid

    def segment(self, ready: Ready, *, probabilities: bool = False, blank: Blank = np.zeros) -> Prediction:
        """What follows: network, way home, post-processing; see `__call__`.

        Args:
            ready: from `prepare`.
            probabilities: keep them too.
            blank: makes arrays of zeros, from shape and type, into which mask and probabilities are written as they come.
        """
        mask, likely, work = self._mask(ready, probabilities, blank)
        found = postprocess.apply(Volume(mask, ready.home, "labels", ready.meta), self.labels, self.bundle.postprocess)
        warnings = ready.warnings if found.array.any() else (*ready.warnings, "nothing was found: the mask is empty")
        passes = work.voxels / ready.image[0].numel()
        kept = None if likely is None else Volume(likely, ready.home, meta=ready.meta)
        return Prediction(found, self.labels, kept, warnings, passes, work.air_share)

    def _mask(self, ready: Ready, probabilities: bool, blank: Blank) -> tuple[Array, Array | None, Work]:
        """File values on the scan's own grid, probabilities if they are wanted, and what that took."""
        labels, home, shown = self.labels, ready.home, region.part(ready.home, ready.box)
        maps = 1 if labels.exclusive else labels.channels
        like = labels.decode(np.zeros((maps, 0, 0, 0), np.int16))
        mask = blank((len(like), *home.shape), like.dtype)
        likely = blank((labels.channels, *home.shape), np.float32) if probabilities else None
        if likely is not None and labels.exclusive:
            likely[0] = 1

        def reduce(logits: Tensor) -> Tensor:
            best = labels.of_logits(logits)
            if not probabilities:
                return best.to(torch.int16)
            return torch.cat([best.float(), logits.softmax(0) if labels.exclusive else logits.sigmoid()])

        def fill(stream: Stream) -> Work:
            strips = stream.strips(labels.channels)
            for box, part in restore(self._numbers(stream), ready.grid, shown, reduce, labels.nothing, strips):
                mask[:, *ready.box][:, *box] = labels.decode(part[:maps].astype(np.int16, copy=False))
                if likely is not None:
                    likely[:, *ready.box][:, *box] = part[maps:]
            return stream.work

        return mask, likely, self.stream(ready.image, fill)

    def _numbers(self, stream: Stream) -> Callable[[Sequence[Range]], Iterator[Slab]]:
        """The stream, as long as its logits are numbers."""
        advice = (
            "Load it as `Predictor(..., precision='fp32')`."
            if self.ensemble.way.precision == "bf16"
            else "Look at the scan's values; if other scans fail too, train the model again."
        )

        def checked(region: Sequence[Range]) -> Iterator[Slab]:
            for slab in stream(region):
                if not finite(slab.logits):
                    raise DataError(f"the model gives values that are no numbers on this scan. {advice}")
                yield slab

        return checked

    def stream(self, image: Tensor, use: Callable[[Stream], T]) -> T:
        """What a function makes of the logits of a prepared image `(C, I, J, K)`; see `Ensemble.stream`."""
        self.settle()
        return self.ensemble.stream(image, use, self.bundle.inference, mirrors=self.mirrors)

    def settle(self) -> None:
        """Choose how to compute, once, by the windows that will come: measured unless this machine remembers it, and compiled
        where that was asked for.

        The first scan does so by itself; before work that runs beside, the seconds are truer.

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
            names = (self.bundle.name, tuple(self.bundle.weights.values()))
            example = torch.randn(batch, *size, device=device)
            self.ensemble.compute_in(arithmetic.choose(self.networks[0], example, *names, precisions))
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
