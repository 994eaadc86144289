"""A network of torch in another runtime: written, converted, and held to the logits that torch gives."""

from __future__ import annotations

import contextlib
import copy
import importlib
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from medseg.bundle.description import Bundle, Runtime
from medseg.bundle.runtimes import ENDINGS
from medseg.errors import BundleError, MedsegError

_Norm = nn.GroupNorm | nn.modules.instancenorm._InstanceNorm
_ALLOWED = (1e-4, 1e-5)  # logits may differ by so much, and by this share of the largest: float32 rounds them no better


def need_packages(runtime: Runtime) -> None:
    """Check, before anything is computed, that a network can be written.

    Raises:
        MedsegError: a package is missing.
    """
    for name in ("onnx", "onnxruntime", "onnxscript", *(("openvino",) if runtime == "openvino" else ())):
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise MedsegError(
                f"exporting to {runtime} needs {name}, which is not installed. Run: pip install 'medseg[{runtime}]'"
            ) from error


def write_onnx(network: nn.Module, example: Tensor, path: Path) -> None:
    """Any number of windows of one size at once. Where the source code lies is left out: it may name people."""
    from onnx_ir.passes.common import ClearMetadataAndDocStringPass

    network = with_line_means(network)
    try:
        with _quiet(), torch.no_grad():
            program = torch.onnx.export(
                network,
                (example,),
                dynamo=True,
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                input_names=["image"],
                output_names=["logits"],
                verbose=False,
            )
        assert program is not None
        ClearMetadataAndDocStringPass()(program.model)
        program.save(path)
    except Exception as error:  # an exporter fails in as many ways as there are modules
        said = next(iter(str(error).strip().splitlines()), "")
        raise BundleError(f"the network cannot be written as ONNX ({type(error).__name__}: {said}).") from error


class LineMeans(nn.Module):
    """Group or instance normalisation whose means are those of lines, then of planes, then of the whole map.

    Both runtimes add all values of a map up in float32, one after the other: of a window of 128 voxels an axis that is mostly of
    one value, such as air, each of their layers loses 1 to 2 % (ONNX Runtime 1.31, OpenVINO 2026.4). Sums of lines lose nothing
    to speak of, and take no longer.
    """

    def __init__(self, norm: _Norm) -> None:
        super().__init__()
        self.norm = norm
        self.groups = norm.num_groups if isinstance(norm, nn.GroupNorm) else norm.num_features

    def forward(self, x: Tensor) -> Tensor:
        """What the normalisation gives, but for rounding."""
        if x[0].numel() == self.groups:  # one value per group has no spread
            return self.norm(x)
        groups = x.unflatten(1, (self.groups, -1))  # (B, G, C / G, *spatial)
        groups = groups - _mean(groups)
        y = (groups * torch.rsqrt(_mean(groups * groups) + self.norm.eps)).flatten(1, 2)
        if not self.norm.affine:
            return y
        shape = (-1,) + (1,) * (x.ndim - 2)
        return y * self.norm.weight.view(shape) + self.norm.bias.view(shape)


def _mean(x: Tensor) -> Tensor:
    for axis in reversed(range(2, x.ndim)):
        x = x.mean(axis, keepdim=True)
    return x


def with_line_means(network: nn.Module) -> nn.Module:
    """A copy of a network in which normalisations take means as `LineMeans` does; those of running figures stay as they are."""
    network = copy.deepcopy(network)
    for part in list(network.modules()):
        for name, child in list(part.named_children()):
            if isinstance(child, _Norm) and not getattr(child, "track_running_stats", False):
                setattr(part, name, LineMeans(child))
    return network


def converted(path: Path, runtime: Runtime) -> Path:
    """An ONNX file for a runtime: itself, or what OpenVINO makes of it beside it, in float32 where it is not rounded."""
    if runtime == "onnx":
        return path
    import openvino

    target = path.with_suffix(ENDINGS[runtime][0])
    openvino.save_model(openvino.Core().read_model(str(path)), str(target), compress_to_fp16=False)
    return target


def verified(network: nn.Module, exported: nn.Module, described: Bundle) -> float:
    """How far the logits of an exported network are from torch's on a window of random values.

    Raises:
        BundleError: too far.
    """
    windows = random_windows(described, 1)
    with torch.inference_mode():
        expected, found = network(windows), exported(windows)
    off, allowed = apart(expected, found), _ALLOWED[0] + _ALLOWED[1] * float(expected.abs().max())
    if not off <= allowed:
        raise BundleError(
            f"the exported network's logits are {off:.2g} from torch's, and {allowed:.2g} is allowed: nothing was written. "
            "Update onnxscript and the runtime, and report it if that does not help."
        )
    return off


def apart(a: Tensor, b: Tensor) -> float:
    """Largest difference; not a number where one of them is none."""
    return float((a - b).abs().max())


def random_windows(described: Bundle, count: int) -> Tensor:
    """Windows `(count, C, *window)` as a model sees them, of noise that is the same each time."""
    window = described.inference.window[: described.spatial_dims]
    return torch.randn(count, len(described.channels), *window, generator=torch.Generator().manual_seed(0))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter tells of what it meets inside torch, which is none of a user's business."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
