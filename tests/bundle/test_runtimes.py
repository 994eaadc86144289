from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from medseg.bundle.runtimes import Exported
from medseg.errors import BundleError, DataError

onnx = pytest.importorskip("onnx", reason="the extra `onnx` is not installed")
pytest.importorskip("onnxruntime", reason="the extra `onnx` is not installed")


@pytest.fixture(scope="module")
def doubling(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A network that doubles windows of 4 x 5 pixels, made without any exporter."""
    path = tmp_path_factory.mktemp("doubling") / "model.onnx"
    make, float32 = onnx.helper, onnx.TensorProto.FLOAT
    given, answer = (make.make_tensor_value_info(n, float32, ["batch", 1, 4, 5]) for n in ("image", "logits"))
    graph = make.make_graph([make.make_node("Add", ["image", "image"], ["logits"])], "double", [given], [answer])
    onnx.save(make.make_model(graph, opset_imports=[make.make_opsetid("", 20)], ir_version=10), path)

    def of(runtime: str) -> Path:
        if runtime == "onnx":
            return path
        openvino = pytest.importorskip("openvino", reason="the extra `openvino` is not installed")
        openvino.save_model(openvino.Core().read_model(str(path)), str(path.with_suffix(".xml")))
        return path.with_suffix(".xml")

    return of


@pytest.mark.parametrize("runtime", ["onnx", "openvino"])
@pytest.mark.parametrize("batch", [1, 3])
def test_any_batch_of_the_one_size(doubling: Callable[[str], Path], runtime: Any, batch: int) -> None:
    network = Exported(doubling(runtime), runtime)
    assert network.window == (4, 5)
    windows = torch.randn(batch, 1, 4, 5)
    first, again = network(windows.bfloat16()), network(windows)
    torch.testing.assert_close(again, 2 * windows, rtol=0, atol=0)
    assert first.dtype == again.dtype == torch.float32
    torch.testing.assert_close(first, 2 * windows, rtol=0.01, atol=0), "an answer is not overwritten by the next"
    again += 1
    assert not list(network.parameters())


@pytest.mark.parametrize("runtime", ["onnx", "openvino"])
def test_other_sizes_are_refused(doubling: Callable[[str], Path], runtime: Any) -> None:
    with pytest.raises(DataError, match="computes windows of 4 x 5 voxels, and no others; got 4 x 6"):
        Exported(doubling(runtime), runtime)(torch.zeros(1, 1, 4, 6))


@pytest.mark.parametrize("runtime", ["onnx", "openvino"])
def test_a_missing_runtime_is_named_with_its_extra(
    doubling: Callable[[str], Path], runtime: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = doubling(runtime)
    monkeypatch.setitem(sys.modules, {"onnx": "onnxruntime", "openvino": "openvino"}[runtime], None)
    with pytest.raises(BundleError, match=rf"exported to {runtime}, .* Run: pip install 'medseg\[{runtime}\]'"):
        Exported(path, runtime)


@pytest.mark.parametrize("runtime", ["onnx", "openvino"])
def test_what_is_no_network_is_one_line(doubling: Callable[[str], Path], tmp_path: Path, runtime: Any) -> None:
    path = tmp_path / doubling(runtime).name
    path.write_bytes(b"no network")
    with pytest.raises(BundleError, match=rf"'{path.name}' cannot be opened: .*Update {runtime}") as caught:
        Exported(path, runtime)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("said", "kind"), [("Failed to allocate 3 GB", MemoryError), ("std::bad_alloc", MemoryError), ("odd", RuntimeError)]
)
def test_failures_are_those_that_prediction_knows(
    doubling: Callable[[str], Path], said: str, kind: type[Exception]
) -> None:
    """Out of memory must be seen as such, so that a smaller batch is tried."""
    network = Exported(doubling("onnx"), "onnx")

    def fail(windows: np.ndarray) -> np.ndarray:
        raise Exception(said)

    network.run = fail
    with pytest.raises(kind, match=said):
        network(torch.zeros(1, 1, 4, 5))


def test_it_takes_as_many_threads_as_torch(doubling: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    import onnxruntime

    seen = []
    session = onnxruntime.InferenceSession
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    monkeypatch.setattr(
        onnxruntime, "InferenceSession", lambda path, options, **k: seen.append(options) or session(path, options, **k)
    )
    Exported(doubling("onnx"), "onnx")
    assert [options.intra_op_num_threads for options in seen] == [3]
