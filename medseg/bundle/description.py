"""What a stored model says of itself: all that prediction needs besides weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field

from medseg.geometry.region import Region
from medseg.inference.windows import Config as Inference
from medseg.labels import Labels
from medseg.postprocess import Config as Postprocess
from medseg.preprocess import Config as Preprocess
from medseg.settings import Settings

Runtime = Literal["onnx", "openvino"]  # of exported networks
Stored = Literal["fp32", "fp16", "int8"]
LOCATOR = "locator"  # folder of the first of two stages, in that of the second
PACKAGES: Mapping[Runtime, str] = {"onnx": "onnxruntime", "openvino": "openvino"}  # that compute exported networks


class Bundle(Settings):
    """Everything that prediction needs besides weights; the content of `config.json`, where a checksum is added.

    Args:
        format: version of this layout.
        name: of the dataset it was trained on.
        model: name and every option of the architecture.
        spatial_dims: 2 (slice by slice) or 3.
        channels: what each channel of a scan must be, in order.
        labels, preprocess, inference, postprocess: as trained and chosen.
        locate: in a model of two stages, how far this one looks around what the first one finds; None looks at whole scans.
        locator: checksum of the first stage, a whole bundle in the folder `locator`.
        precision: that training measured to be fast and accurate, or that it was exported with.
        runtime: what computes the networks; all but "torch" read files that were exported (see `medseg.exporting`).
        stored: how weights are stored; loaded, they are float32 (see `medseg.bundle.weights`).
        scores: Dice on the inner split, and on held-out cases where there were any.
        training: facts for the card: cases, steps, seconds, seed, loss.
        versions: of medseg, torch and Python that wrote it.
        weights: SHA-256 of each file of weights, or of exported networks; several make an ensemble.
    """

    format: Literal[1] = 1
    name: str
    model: dict[str, Any]
    spatial_dims: Literal[2, 3]
    channels: tuple[str, ...]
    labels: Labels
    preprocess: Preprocess
    inference: Inference
    postprocess: Postprocess = Postprocess()
    locate: Region | None = None
    locator: str = ""
    precision: Literal["fp32", "bf16", "int8"] = "fp32"
    runtime: Literal["torch", Runtime] = "torch"
    stored: Stored = "fp32"
    scores: dict[str, Any] = Field(default_factory=dict)
    training: dict[str, Any] = Field(default_factory=dict)
    versions: dict[str, str] = Field(default_factory=dict)
    weights: dict[str, str] = Field(default_factory=dict)

    @property
    def members(self) -> int:
        """Models of the ensemble; OpenVINO has two files for each."""
        return max(1, sum(not name.endswith(".bin") for name in self.weights))
