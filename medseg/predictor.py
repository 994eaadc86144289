"""A scan in, a mask in the scan's own space out: `Predictor` owns device, preparation, windows and the way home."""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from medseg import arithmetic, networks, postprocess, preprocess, suitability, system
from medseg import bundle as bundles
from medseg.arithmetic import Way
from medseg.bundle import Bundle
from medseg.ensemble import Ensemble
from medseg.errors import DataError
from medseg.inference import Slab, Stream, Work
from medseg.labels import Labels
from medseg.restore import restore
from medseg.stitching import Range
from medseg.volume import Geometry, Volume

T = TypeVar("T")
Array = npt.NDArray[Any]
Scan = Volume | str | Path | Sequence[str | Path]


@dataclass(frozen=True)
class Prediction:
    """A mask and what follows from it.

    Args:
        mask: labels in file values, on the scan's own grid; one channel a label where labels overlap without an order.
        labels: what the values mean.
        probabilities: `(K, I, J, K)` float32 on the same grid, background first unless labels overlap; None unless asked for.
        warnings: why the mask should be looked at, one line each: see `medseg.suitability`; or that nothing was found.
        passes: how often the network computed a voxel of the prepared scan, in the mean, because windows overlap.
        air_share: of the windows, which was left out because they hold nothing but air.
    """

    mask: Volume
    labels: Labels
    probabilities: Volume | None = None
    warnings: tuple[str, ...] = ()
    passes: float = 0.0
    air_share: float = 0.0

    @cached_property
    def volumes_ml(self) -> dict[str, float]:
        """Volume of each structure in millilitres, by name."""
        voxel_ml = self.mask.geometry.voxel_ml
        return {item.name: float(self.labels.mask(self.mask.array, item).sum()) * voxel_ml for item in self.labels}

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td>{html.escape(name)}</td><td>{ml:.3g} ml</td></tr>" for name, ml in self.volumes_ml.items()
        )
        notes = "".join(f"<p>{html.escape(warning)}</p>" for warning in self.warnings)
        return f"{self.mask._repr_html_()}<table>{rows}</table>{notes}"


@dataclass(frozen=True)
class Prepared:
    """A scan as the network sees it.

    Args:
        image: `(C, I, J, K)` float32, on `grid`.
        home: the scan's own grid, on which its mask will lie.
        meta: of the scan, as far as its mask takes it over.
        warnings: why the mask should be looked at.
    """

    image: Tensor
    grid: Geometry
    home: Geometry
    meta: dict[str, Any]
    warnings: tuple[str, ...]


class Predictor:
    """A loaded model.

    Args:
        folder: a bundle, or a run that holds one.
        device: "auto" takes a GPU where there is one; what was exported computes on the CPU.
        mirrors: test-time augmentation over the flips that the bundle allows.
        precision: "auto" takes what is quickest here, and right by the bundle, by a short measurement on first use; "fp32" and
            "bf16" are taken as they are.
        module: import path of your own module, where the model is one: no code comes from files, so that you must name it.

    Raises:
        BundleError: no usable model there, or the runtime that it was exported to is missing.
        DataError: no such device, or none that an exported model can use.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        device: str = "auto",
        mirrors: bool = False,
        precision: str = "auto",
        module: str | None = None,
    ) -> None:
        folder = bundles.locate(folder)
        described = bundles.read(folder)
        if described.runtime != "torch":
            device = _cpu(device, described.runtime)
        self._set(described, networks.load(folder, described, module), device, mirrors)
        if precision != "auto":
            self.ensemble.compute_in(Way(precision=precision))  # type: ignore[arg-type]
        self._measures = precision == "auto" and described.runtime == "torch"

    @classmethod
    def of(
        cls, described: Bundle, networks: Sequence[nn.Module], *, device: str = "auto", mirrors: bool = False
    ) -> Predictor:
        """From networks in memory."""
        made = cls.__new__(cls)
        made._set(described, networks, device, mirrors)
        return made

    def _set(self, described: Bundle, networks: Sequence[nn.Module], device: str, mirrors: bool) -> None:
        self.bundle, self.labels, self.mirrors, self._measures = described, described.labels, mirrors, False
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

    def prepare(self, scan: Scan) -> Prepared:
        """What comes before the network: read a scan and bring it to the model's grid and values."""
        volume = scan if isinstance(scan, Volume) else preprocess.read_image(_paths(scan))
        prepared = preprocess.prepare(volume, self.bundle.preprocess)
        warnings = suitability.warnings(volume, prepared.geometry, self.bundle.preprocess, self.bundle.inference.window)
        meta = {key: value for key, value in volume.meta.items() if key in ("sform_code", "qform_code", "axes")}
        return Prepared(torch.tensor(prepared.array), prepared.geometry, volume.geometry, meta, warnings)

    def segment(self, ready: Prepared, *, probabilities: bool = False) -> Prediction:
        """What follows: network, way home, post-processing; see `__call__`."""
        mask, likely, work = self._mask(ready.image, ready.grid, ready.home, probabilities)
        found = Volume(self.labels.decode(mask), ready.home, "labels", ready.meta)
        found = postprocess.apply(found, self.labels, self.bundle.postprocess)
        warnings = ready.warnings if found.array.any() else (*ready.warnings, "nothing was found: the mask is empty")
        passes = work.windows * math.prod(self.bundle.inference.window) / ready.image[0].numel()
        likely = likely and likely.replace(meta=ready.meta)
        return Prediction(found, self.labels, likely, warnings, passes, work.air_share)

    def _mask(
        self, image: Tensor, grid: Geometry, home: Geometry, probabilities: bool
    ) -> tuple[Array, Volume | None, Work]:
        """Classes of a prepared image on the scan's own grid, their probabilities if they are wanted, and what that took."""
        channels, exclusive = self.labels.channels, self.labels.exclusive
        classes = np.zeros((1 if exclusive else channels, *home.shape), np.min_scalar_type(channels))
        likely = np.zeros((channels, *home.shape), np.float32) if probabilities else None

        def reduce(logits: Tensor) -> Tensor:
            best = self.labels.of_logits(logits)
            if not probabilities:
                return best.to(torch.int16)
            return torch.cat([best.float(), logits.softmax(0) if exclusive else logits.sigmoid()])

        def fill(stream: Stream) -> Work:
            outside, strips = self.labels.nothing, stream.strips(channels)
            for box, part in restore(self._numbers(stream), grid, home, reduce, outside, strips):
                classes[:, *box] = part[: len(classes)]
                if likely is not None:
                    likely[:, *box] = part[len(classes) :]
            return stream.work

        work = self.stream(image, fill)
        return classes, None if likely is None else Volume(likely, home), work

    def _numbers(self, stream: Stream) -> Callable[[Sequence[Range]], Iterator[Slab]]:
        """The stream, as long as its logits are numbers."""
        advice = (
            "Load it as `Predictor(..., precision='fp32')`."
            if self.ensemble.way.precision == "bf16"
            else "Look at the scan's values; if other scans fail too, train the model again."
        )

        def checked(region: Sequence[Range]) -> Iterator[Slab]:
            for slab in stream(region):
                if not slab.finite:
                    raise DataError(f"the model gives values that are no numbers on this scan. {advice}")
                yield slab

        return checked

    def stream(self, image: Tensor, use: Callable[[Stream], T]) -> T:
        """What a function makes of the logits of a prepared image `(C, I, J, K)`; see `Ensemble.stream`."""
        if self._measures:
            self._measure(image)
        return self.ensemble.stream(image, use, self.bundle.inference, mirrors=self.mirrors)

    def _measure(self, image: Tensor) -> None:
        """Choose how to compute, once, by the windows that will come."""
        self._measures, windows, trained = False, self.bundle.inference, self.ensemble.way.precision
        size = windows.window[: self.bundle.spatial_dims]
        example = torch.randn(windows.batch, len(image), *size, device=self.ensemble.device)
        precisions = ("bf16", "fp32") if trained == "bf16" else ("fp32",)
        names = (self.bundle.name, tuple(self.bundle.weights.values()))
        self.ensemble.compute_in(arithmetic.choose(self.networks[0], example, *names, precisions))


def _cpu(device: str, runtime: str) -> str:
    if device not in ("auto", "cpu"):
        raise DataError(
            f"the model was exported to {runtime}, which computes on the CPU: leave the device out, got '{device}'."
        )
    return "cpu"


def _paths(scan: str | Path | Sequence[str | Path]) -> list[Path]:
    return [Path(scan)] if isinstance(scan, str | Path) else [Path(part) for part in scan]
