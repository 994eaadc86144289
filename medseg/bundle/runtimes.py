"""Exported networks, computed by ONNX Runtime or OpenVINO on the CPU, in the place of torch's own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from medseg.arrays import Array
from medseg.bundle.description import Runtime
from medseg.errors import BundleError, DataError

Run = Callable[[Array], Array]
# Of a network's files, first of the one that is opened.
ENDINGS: Mapping[Runtime, tuple[str, ...]] = {"onnx": (".onnx",), "openvino": (".xml", ".bin")}
_NO_MEMORY = ("allocate", "bad_alloc", "out of memory")


class Exported(nn.Module):
    """A network of an exported file: windows `(B, C, *window)` of one size to logits `(B, K, *window)`, on the CPU.

    It takes as many threads as torch has when it is made.

    Args:
        path: of the file.
        runtime: that computes it.

    Raises:
        BundleError: the runtime is not installed, or too old for the file.
    """

    def __init__(self, path: Path, runtime: Runtime) -> None:
        super().__init__()
        try:
            self.window, self.run = {"onnx": _onnx, "openvino": _openvino}[runtime](path, torch.get_num_threads())
        except ImportError as error:
            raise BundleError(
                f"the model was exported to {runtime}, which is not installed. Run: pip install 'medseg[{runtime}]'"
            ) from error
        except Exception as error:  # each runtime has errors of its own, which have no base in common
            said = str(error).strip().splitlines()
            raise BundleError(
                f"'{path.name}' cannot be opened: {said[0] if said else error!r}. Update {runtime}."
            ) from error

    def forward(self, windows: Tensor) -> Tensor:
        """Logits, in float32."""
        if tuple(windows.shape[2:]) != self.window:
            sizes = [" x ".join(map(str, size)) for size in (self.window, windows.shape[2:])]
            raise DataError(
                f"the exported model computes windows of {sizes[0]} voxels, and no others; got {sizes[1]}. "
                "Where memory ran out, close other programs."
            )
        try:
            return torch.from_numpy(np.array(self.run(windows.detach().cpu().float().contiguous().numpy()), np.float32))
        except Exception as error:
            lost = any(words in str(error) for words in _NO_MEMORY)
            raise (MemoryError if lost else RuntimeError)(str(error)) from error


def _onnx(path: Path, threads: int) -> tuple[tuple[int, ...], Run]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()
    return tuple(given.shape[2:]), lambda windows: session.run(None, {given.name: windows})[0]


def _openvino(path: Path, threads: int) -> tuple[tuple[int, ...], Run]:
    import openvino

    # without the hint it computes in bf16 where the machine can, which moves logits by tenths
    settings = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32"}
    core = openvino.Core()
    network = core.compile_model(core.read_model(str(path)), "CPU", settings)
    window = tuple(side.get_length() for side in list(network.input(0).partial_shape)[2:])
    return window, lambda windows: network(windows)[0]
