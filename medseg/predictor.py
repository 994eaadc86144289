"""A scan in, a mask in the scan's own space out: `Predictor` owns device, preparation, windows and the way home."""

from __future__ import annotations

import html
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from medseg import bundle as bundles
from medseg import models, postprocess, preprocess, suitability, system
from medseg.bundle import Bundle
from medseg.ensemble import Ensemble
from medseg.errors import BundleError, DataError
from medseg.inference import Slab, Stream
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
    """

    mask: Volume
    labels: Labels
    probabilities: Volume | None = None
    warnings: tuple[str, ...] = ()

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


class Predictor:
    """A loaded model.

    Args:
        folder: a bundle, or a run that holds one.
        device: "auto" takes a GPU where there is one.
        mirrors: test-time augmentation over the flips that the bundle allows.
        precision: "auto" takes the bundle's, or fp32 where the device has no bf16.
        module: import path of your own module, where the model is one: no code comes from files, so that you must name it.

    Raises:
        BundleError: no usable model there.
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
        described, members = bundles.load(bundles.locate(folder))
        self._set(described, _build(described, members, module), device, mirrors, precision)

    @classmethod
    def of(
        cls, described: Bundle, networks: Sequence[nn.Module], *, device: str = "auto", mirrors: bool = False
    ) -> Predictor:
        """From networks in memory."""
        made = cls.__new__(cls)
        made._set(described, networks, device, mirrors, "auto")
        return made

    def _set(
        self, described: Bundle, networks: Sequence[nn.Module], device: str, mirrors: bool, precision: str
    ) -> None:
        self.bundle, self.labels, self.mirrors = described, described.labels, mirrors
        where = system.pick_device(device)
        trained = "bf16" if described.precision == "bf16" and system.has_bf16(where) else "fp32"
        bf16 = (trained if precision == "auto" else precision) == "bf16"
        self.ensemble = Ensemble(networks, where, bf16=bf16)

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
        volume = scan if isinstance(scan, Volume) else preprocess.read_image(_paths(scan))
        prepared = preprocess.prepare(volume, self.bundle.preprocess)
        image, grid = torch.tensor(prepared.array), prepared.geometry
        del prepared  # the tensor is a copy
        warnings = suitability.warnings(volume, grid, self.bundle.preprocess, self.bundle.inference.window)
        mask, likely = self._mask(image, grid, volume.geometry, probabilities)
        meta = {key: value for key, value in volume.meta.items() if key in ("sform_code", "qform_code", "axes")}
        found = Volume(self.labels.decode(mask), volume.geometry, "labels", meta)
        found = postprocess.apply(found, self.labels, self.bundle.postprocess)
        if not found.array.any():
            warnings = (*warnings, "nothing was found: the mask is empty")
        return Prediction(found, self.labels, likely and likely.replace(meta=meta), warnings)

    def _mask(self, image: Tensor, grid: Geometry, home: Geometry, probabilities: bool) -> tuple[Array, Volume | None]:
        """Classes of a prepared image on the scan's own grid, and their probabilities if they are wanted."""
        channels, exclusive = self.labels.channels, self.labels.exclusive
        classes = np.zeros((1 if exclusive else channels, *home.shape), np.min_scalar_type(channels))
        likely = np.zeros((channels, *home.shape), np.float32) if probabilities else None

        def reduce(logits: Tensor) -> Tensor:
            best = self.labels.of_logits(logits)
            if not probabilities:
                return best.to(torch.int16)
            return torch.cat([best.float(), logits.softmax(0) if exclusive else logits.sigmoid()])

        def fill(stream: Stream) -> None:
            outside = [0.0 if exclusive and n == 0 else -1e4 for n in range(channels)]
            for box, part in restore(self._numbers(stream), grid, home, reduce, outside, stream.strips(channels)):
                classes[:, *box] = part[: len(classes)]
                if likely is not None:
                    likely[:, *box] = part[len(classes) :]

        self.stream(image, fill)
        return classes, None if likely is None else Volume(likely, home)

    def _numbers(self, stream: Stream) -> Callable[[Sequence[Range]], Iterator[Slab]]:
        """The stream, as long as its logits are numbers."""
        advice = (
            "Load it as `Predictor(..., precision='fp32')`."
            if self.ensemble.bf16
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
        return self.ensemble.stream(image, use, self.bundle.inference, mirrors=self.mirrors)


def _build(described: Bundle, members: Sequence[Mapping[str, Tensor]], module: str | None) -> list[nn.Module]:
    name, networks = str(described.model.get("name")), []
    if "." in name and name != module:
        raise BundleError(
            f"the model is a user's own module '{name}', and medseg takes no code from files. If you trust that module, "
            f"name it in Python: medseg.load(FOLDER, module='{name}')."
        )
    for weights in members:
        network = models.create_model(
            described.model,
            spatial_dims=described.spatial_dims,
            in_channels=len(described.channels),
            out_channels=described.labels.channels,
            dotted=name == module,
        )
        try:
            network.load_state_dict(dict(weights))
        except RuntimeError as error:
            raise BundleError(
                "the weights do not fit the model that config.json describes. Copy the bundle again."
            ) from error
        networks.append(network)
    return networks


def _paths(scan: str | Path | Sequence[str | Path]) -> list[Path]:
    return [Path(scan)] if isinstance(scan, str | Path) else [Path(part) for part in scan]
