from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from medseg import io
from medseg.bundle import Bundle
from medseg.errors import DataError
from medseg.exporting import quantising
from medseg.inference.windows import Config as Inference
from medseg.labels import Labels
from medseg.predictor import Predictor
from medseg.preprocess import Config as Preprocess
from medseg.preprocess import Intensity
from medseg.volume import Geometry, Volume

Make = Callable[..., Path]
DESCRIBED = Bundle(
    name="boxes",
    model={"name": "unet"},
    spatial_dims=3,
    channels=("MR",),
    labels=Labels.of([1, 2]),
    preprocess=Preprocess(intensity=(Intensity(kind="none"),)),
    inference=Inference(window=(8, 8, 6), overlap=0.5),
)


class Levels(nn.Module):
    """Class 1 or 2 by the brightness of the phantoms, all of a shift too bright; sees one voxel at a time."""

    def __init__(self, shift: float = 0.0) -> None:
        super().__init__()
        self.shift = shift

    def forward(self, x: Tensor) -> Tensor:
        centres = torch.tensor([100.0, 160.0, 220.0]).view(1, 3, 1, 1, 1) + self.shift
        return -((x - centres) ** 2) / 100


def predictor(shift: float = 0.0) -> Predictor:
    return Predictor.of(DESCRIBED, [Levels(shift)], device="cpu")


def test_no_patient_is_calibrated_and_measured_on(tmp_path: Path) -> None:
    rows = ["id,image,label,group"]
    for number in range(12):
        path = tmp_path / f"{number}.nii.gz"
        io.write(Volume(np.ones((3, 3, 3), np.uint8), Geometry((3, 3, 3), np.eye(4)), "labels"), path)
        rows.append(f"case_{number},{path.name},{path.name},patient_{number // 2}")
    (tmp_path / "list.csv").write_text("\n".join(rows))
    calibration, validation = quantising.divided(tmp_path / "list.csv")
    assert len(calibration) + len(validation) == 12
    assert len(validation) == 6
    assert not {case.group for case in calibration} & {case.group for case in validation}


def test_a_single_patient_serves_for_both_and_it_is_said(
    tmp_path: Path, make_dataset: Make, caplog: pytest.LogCaptureFixture
) -> None:
    cases = quantising.divided(make_dataset(tmp_path, cases=1))
    assert [case.id for case in cases.calibration] == [case.id for case in cases.validation] == ["case_0"]
    assert "one labelled patient alone" in caplog.text


def test_scans_without_masks_are_refused(tmp_path: Path, make_dataset: Make) -> None:
    data = make_dataset(tmp_path / "raw", labels={"background": 0, "a": 1, "b": 2})
    for path in (data / "labelsTr").iterdir():
        path.unlink()
    with pytest.raises(DataError, match=r"no case of .* has a label"):
        quantising.divided(data)


def test_windows_are_those_of_prediction(tmp_path: Path, make_dataset: Make) -> None:
    """As many scans as there are, up to 8; each window somewhere in its scan, those of the ends among them."""
    cases = quantising.divided(make_dataset(tmp_path, cases=4)).calibration
    found = quantising.windows(cases, DESCRIBED)
    assert len(found) == 32
    assert {window.shape for window in found} == {(1, 1, 8, 8, 6)}
    image = io.read(cases[0].images[0]).array.astype(np.float32)
    np.testing.assert_array_equal(found[0][0], image[:, :8, :8, :6])
    np.testing.assert_array_equal(found[15][0], image[:, -8:, -8:, -6:])


def test_windows_of_short_scans_are_padded_as_in_prediction(tmp_path: Path, make_dataset: Make) -> None:
    cases = quantising.divided(make_dataset(tmp_path, cases=1)).calibration
    wide = DESCRIBED.model_copy(update={"inference": Inference(window=(24, 18, 17))})
    (window,) = quantising.windows(cases, wide)
    seen: list[Tensor] = []

    def record(x: Tensor) -> Tensor:
        seen.append(x)
        return x.new_zeros(len(x), 3, *x.shape[2:])

    network = nn.Identity()
    network.forward = record  # type: ignore[assignment]
    Predictor.of(wide, [network], device="cpu")(list(cases[0].images))
    np.testing.assert_array_equal(window, seen[0].numpy())


def test_windows_of_2d_models_are_slices(tmp_path: Path, make_dataset: Make) -> None:
    cases = quantising.divided(make_dataset(tmp_path, cases=2)).calibration
    flat = DESCRIBED.model_copy(update={"spatial_dims": 2, "inference": Inference(window=(16, 16, 1))})
    assert {window.shape for window in quantising.windows(cases, flat)} == {(1, 1, 16, 16)}


@pytest.mark.parametrize(("shift", "warned"), [(0.5, False), (45.0, True)])
def test_a_loss_that_matters_is_a_warning(
    tmp_path: Path, make_dataset: Make, caplog: pytest.LogCaptureFixture, shift: float, warned: bool
) -> None:
    """The phantoms are told apart by brightness: a shift by half a step loses what no rounding may."""
    cases = quantising.divided(make_dataset(tmp_path)).validation
    with caplog.at_level(logging.INFO, "medseg"):
        found = quantising.compare(predictor(), predictor(shift), cases)
    assert found["cases"] == len(cases) > 0
    assert found["fp32_dice"] > 0.9
    assert (found["fp32_dice"] - found["dice"] > 0.005) == warned
    assert f"{found['fp32_dice']:.4f} in fp32, {found['dice']:.4f} in int8" in caplog.text
    assert ("warning: " in caplog.text) == warned


def test_data_of_other_labels_are_named_by_their_case(tmp_path: Path, make_dataset: Make) -> None:
    other = Predictor.of(DESCRIBED.model_copy(update={"labels": Labels.of([1])}), [Levels()], device="cpu")
    cases = quantising.divided(make_dataset(tmp_path)).validation
    with pytest.raises(DataError, match=r"^case_\d: label values \[2\] are not declared"):
        quantising.compare(other, other, cases)


def test_convolutions_alone_but_the_last_are_rounded(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx", reason="the extra `onnx` is not installed")
    runtime = pytest.importorskip("onnxruntime", reason="the extra `onnx` is not installed")
    make, float32 = onnx.helper, onnx.TensorProto.FLOAT
    random = np.random.default_rng(0)
    given, answer = (make.make_tensor_value_info(n, float32, ["batch", 1, 9, 9]) for n in ("image", "logits"))
    weights: list[Any] = [random.normal(size=(1, 1, 3, 3)).astype(np.float32) for _ in range(2)]
    graph = make.make_graph(
        [
            make.make_node("Conv", ["image", "w0"], ["first"], "a", pads=[1, 1, 1, 1]),
            make.make_node("Relu", ["first"], ["between"]),
            make.make_node("Conv", ["between", "w1"], ["logits"], "b", pads=[1, 1, 1, 1]),
        ],
        "two",
        [given],
        [answer],
        [onnx.numpy_helper.from_array(weight, f"w{n}") for n, weight in enumerate(weights)],
    )
    onnx.save(make.make_model(graph, opset_imports=[make.make_opsetid("", 20)], ir_version=10), tmp_path / "a.onnx")
    windows = list(random.normal(size=(6, 1, 1, 9, 9)).astype(np.float32))
    quantising.quantise(tmp_path / "a.onnx", tmp_path / "b.onnx", windows)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.onnx", "b.onnx"]
    rounded = onnx.load(tmp_path / "b.onnx")
    convolutions = [node for node in rounded.graph.node if node.op_type == "Conv"]
    assert [node.input[1].endswith("_DequantizeLinear_Output") for node in convolutions] == [True, False]
    (whole,) = [
        onnx.numpy_helper.to_array(t)
        for t in rounded.graph.initializer
        if t.data_type == onnx.TensorProto.INT8 and t.dims and len(t.dims) == 4
    ]
    assert np.abs(whole).max() <= 64, "7 bits, so that sums of products do not overflow on older processors"
    before, after = (
        runtime.InferenceSession(str(tmp_path / name), providers=["CPUExecutionProvider"]).run(
            None, {"image": windows[0]}
        )[0]
        for name in ("a.onnx", "b.onnx")
    )
    assert 0 < np.abs(before - after).max() < 0.05 * np.abs(before).max()
