"""A scan in, a mask in the scan's own space out: `Predictor` owns device, preparation, windows and the way home."""

from __future__ import annotations

import html
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from medseg import bundle as bundles
from medseg import inference, models, postprocess, preprocess, progress
from medseg.bundle import Bundle
from medseg.errors import BundleError, DataError
from medseg.labels import Labels
from medseg.restore import restore
from medseg.volume import Geometry, Volume

Array = npt.NDArray[Any]
Scan = Volume | str | Path | Sequence[str | Path]


@dataclass(frozen=True)
class Prediction:
    """A mask and what follows from it.

    Args:
        mask: labels in file values, on the scan's own grid; one channel a label where labels overlap.
        labels: what the values mean.
        probabilities: `(K, I, J, K)` float32 on the same grid, background first unless labels overlap; None unless asked for.
    """

    mask: Volume
    labels: Labels
    probabilities: Volume | None = None

    @cached_property
    def volumes_ml(self) -> dict[str, float]:
        """Volume of each structure in millilitres, by name."""
        voxel_ml = self.mask.geometry.voxel_ml
        return {item.name: float(self.labels.mask(self.mask.array, item).sum()) * voxel_ml for item in self.labels}

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td>{html.escape(name)}</td><td>{ml:.3g} ml</td></tr>" for name, ml in self.volumes_ml.items()
        )
        return f"{self.mask._repr_html_()}<table>{rows}</table>"


class Predictor:
    """A loaded model.

    Args:
        folder: a bundle, or a run that holds one.
        device: "auto" takes a GPU where there is one.
        mirrors: test-time augmentation over the flips that the bundle allows.
        precision: "auto" takes the bundle's.

    Raises:
        BundleError: no usable model there.
    """

    def __init__(
        self, folder: str | Path, *, device: str = "auto", mirrors: bool = False, precision: str = "auto"
    ) -> None:
        described, members = bundles.load(locate(folder))
        self._set(described, _build(described, members), device, mirrors, precision)

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
        self.device = pick_device(device)
        self.bf16 = (described.precision if precision == "auto" else precision) == "bf16"
        self.networks = [network.to(self.device).eval() for network in networks]

    def __call__(self, scan: Scan, *, probabilities: bool = False) -> Prediction:
        """Segment one scan.

        Args:
            scan: a volume, a file or DICOM folder, or one file a channel.
            probabilities: keep them too; they take 4 bytes x classes a voxel.

        Raises:
            DataError: the scan cannot be read, or does not fit the model.
        """
        volume = scan if isinstance(scan, Volume) else preprocess.read_image(_paths(scan))
        prepared = preprocess.prepare(volume, self.bundle.preprocess)
        image, grid = torch.tensor(prepared.array), prepared.geometry
        del prepared  # the tensor is a copy
        parts = self._parts(image, grid, volume.geometry, probabilities)
        mask, likely = self._merge(parts, volume.geometry, probabilities)
        meta = {key: value for key, value in volume.meta.items() if key in ("sform_code", "qform_code", "xyzt_units")}
        found = Volume(self.labels.decode(mask), volume.geometry, "labels", meta)
        found = postprocess.apply(found, self.labels, self.bundle.postprocess)
        return Prediction(found, self.labels, likely and likely.replace(meta=meta))

    def _parts(
        self, image: Tensor, grid: Geometry, home: Geometry, probabilities: bool
    ) -> Iterator[tuple[int, int, Array]]:
        """Finished slices on the scan's own grid: classes, followed by probabilities if they are wanted."""

        def reduce(logits: Tensor) -> Tensor:
            classes = logits.argmax(0, keepdim=True) if self.labels.exclusive else (logits > 0)
            if not probabilities:
                return classes.to(torch.int16)
            likely = logits.softmax(0) if self.labels.exclusive else logits.sigmoid()
            return torch.cat([classes.float(), likely])

        outside = [0.0 if self.labels.exclusive and n == 0 else -1e4 for n in range(self.labels.channels)]
        return restore(self.stream(image), grid, home, reduce, outside)

    def stream(self, image: Tensor) -> Iterator[inference.Slab]:
        """Finished slabs of logits of a prepared image `(C, I, J, K)`, averaged over members and mirrors.

        Out of memory is a plan: the batch is halved, and a single window that does not fit goes to the CPU.

        Raises:
            DataError: a single window does not fit there either.
        """
        config = self.bundle.inference
        while True:
            stream = inference.slabs(image, self._network, config, mirrors=self.mirrors)
            try:
                first = next(stream)
                break
            except torch.OutOfMemoryError:
                config = self._smaller(config)
        yield from itertools.chain([first], stream)

    def _smaller(self, config: inference.Config) -> inference.Config:
        torch.cuda.empty_cache()
        if config.batch > 1:
            progress.warn(f"out of memory on {self.device}: going on with {config.batch // 2} window(s) at once")
            return config.model_copy(update={"batch": config.batch // 2})
        if self.device.type == "cpu":
            raise DataError(f"out of memory with a single window of {config.window} voxels. Close other programs.")
        progress.warn(f"out of memory on {self.device} with a single window: going on with the CPU")
        self.device = torch.device("cpu")
        self.networks = [network.cpu() for network in self.networks]
        return config

    def _network(self, windows: Tensor) -> Tensor:
        windows = windows.to(self.device, non_blocking=True)
        with torch.no_grad(), torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            total = self.networks[0](windows).float()
            for network in self.networks[1:]:
                total += network(windows).float()
        return total / len(self.networks) if len(self.networks) > 1 else total

    def _merge(
        self, parts: Iterator[tuple[int, int, Array]], home: Geometry, probabilities: bool
    ) -> tuple[Array, Volume | None]:
        channels = 1 if self.labels.exclusive else self.labels.channels
        classes = np.zeros((channels, *home.shape), np.min_scalar_type(self.labels.channels))
        likely = np.zeros((self.labels.channels, *home.shape), np.float32) if probabilities else None
        for axis, first, part in parts:
            here = [slice(None)] * 4
            here[axis + 1] = slice(first, first + part.shape[axis + 1])
            classes[tuple(here)] = part[:channels]
            if likely is not None:
                likely[tuple(here)] = part[channels:]
        return classes, None if likely is None else Volume(likely, home)


def locate(folder: str | Path) -> Path:
    """The bundle of a folder: the folder itself, or the one a run holds.

    Raises:
        BundleError: neither; a run that has not finished has none.
    """
    folder = Path(folder)
    for place in (folder, folder / "bundle"):
        if (place / "config.json").is_file():
            return place
    state = (
        "this run has not finished (finish it with --resume)"
        if (folder / "config.yaml").is_file()
        else "no model there"
    )
    raise BundleError(f"'{folder}' holds no bundle: {state}. Give a run folder or its bundle/.")


def _build(described: Bundle, members: Sequence[Mapping[str, Tensor]]) -> list[nn.Module]:
    networks = []
    for weights in members:
        network = models.create_model(
            described.model,
            spatial_dims=described.spatial_dims,
            in_channels=len(described.channels),
            out_channels=described.labels.channels,
        )
        try:
            network.load_state_dict(dict(weights))
        except RuntimeError as error:
            raise BundleError(
                "the weights do not fit the model that config.json describes. Copy the bundle again."
            ) from error
        networks.append(network)
    return networks


def pick_device(name: str) -> torch.device:
    """The device of a name; "auto" takes a GPU where there is one.

    Raises:
        DataError: no such device here.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
        return device
    except (RuntimeError, AssertionError) as error:
        raise DataError(
            f"device '{name}' cannot be used here. Use auto, cpu, cuda, cuda:1 or mps, as the machine has them."
        ) from error


def _paths(scan: str | Path | Sequence[str | Path]) -> list[Path]:
    return [Path(scan)] if isinstance(scan, str | Path) else [Path(part) for part in scan]
