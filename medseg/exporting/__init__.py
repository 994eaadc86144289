"""A trained model for machines without torch: ONNX or OpenVINO networks with all that describes their use, or smaller weights."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Self

import torch
from pydantic import model_validator

from medseg import bundle as bundles
from medseg import files, models, progress
from medseg.bundle import networks
from medseg.bundle.description import PACKAGES, Bundle, Runtime, Stored
from medseg.bundle.runtimes import ENDINGS, Exported
from medseg.bundle.weights import packed, unpacked
from medseg.errors import BundleError, DataError
from medseg.exporting import quantising, translation
from medseg.predictor import Predictor
from medseg.settings import Settings

_RUNNER = "runner.py"


class Config(Settings):
    """What to write.

    Args:
        to: "onnx" or "openvino" (networks, their description, and `runner.py`, which needs no torch), or "bundle" (smaller weights).
        int8: a labelled dataset: convolutions compute in 8 bits, calibrated on some of its cases and measured on others.
        weights: of a bundle, which computes in float32 all the same.
    """

    to: Literal["onnx", "openvino", "bundle"] = "onnx"
    int8: Path | None = None
    weights: Literal["fp16", "int8"] | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.to == "bundle" and self.int8:
            raise ValueError(
                "a bundle computes in float32. Store smaller weights (--weights int8), or write --to onnx --int8 DATA."
            )
        if self.to == "bundle" and not self.weights:
            raise ValueError("a bundle is written anew for smaller weights: add --weights fp16 or --weights int8.")
        if self.to != "bundle" and self.weights:
            raise ValueError(
                f"weights are those of a bundle (--to bundle); {self.to} computes in 8 bits with --int8 DATA."
            )
        return self


def export(model: str | Path, out: str | Path, config: Config, module: str | None = None) -> Path:
    """Write a model as a folder that prediction needs nothing beside; see `medseg.api.export`."""
    source, out = bundles.find(model), Path(out)
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise DataError(f"'{out}' holds files already. Name a new or an empty folder with -o.")
    described = bundles.read(source)
    if described.runtime != "torch":
        raise BundleError(
            f"the model was exported to {described.runtime} already. Export the bundle that it was made from."
        )
    if described.locate:
        raise BundleError(
            "the model has two stages, and one alone can be exported. Predict with its bundle, or train one stage, without locate.from."
        )
    if config.to == "bundle":
        _shrink(source, out, config.weights or "fp32", module)
    else:
        models.require(described.model, "ONNX", "Predict with its bundle.")
        predictor = Predictor(source, device="cpu", precision="fp32", module=module)
        _translate(predictor, out, config.to, quantising.divided(config.int8) if config.int8 else None)
    return out


def _shrink(source: Path, out: Path, how: Stored, module: str | None) -> None:
    """An ordinary bundle of smaller weights, and how far its logits are off."""
    described, weights = bundles.load(source)
    members, examples, largest, off = [], translation.random_windows(described, 1), 0.0, 0.0
    for network in networks.build(described, weights, module):
        members.append(packed(network.eval(), how))
        with torch.inference_mode():
            before = network(examples)
            network.load_state_dict(unpacked(members[-1], how))
            apart = translation.apart(before, network(examples))
        if not math.isfinite(apart):
            raise BundleError(f"in {how} the model gives values that are not numbers: nothing was written.")
        largest, off = max(largest, float(before.abs().max())), max(off, apart)
    whole = bundles.save(out, described.model_copy(update={"stored": how}), members)
    sizes = " -> ".join(
        _megabytes(folder, names) for folder, names in ((source, described.weights), (out, whole.weights))
    )
    progress.say(f"weights: {sizes}; logits of random values move by up to {off:.2g}, the largest is {largest:.2g}")


def _translate(predictor: Predictor, out: Path, runtime: Runtime, cases: quantising.Cases | None) -> None:
    """Networks of another runtime, verified one by one before anything is written to the folder."""
    described = predictor.bundle.model_copy(update={"runtime": runtime, "precision": "fp32", "stored": "fp32"})
    translation.need_packages(runtime)
    with tempfile.TemporaryDirectory() as scratch:
        paths = [Path(scratch) / f"{stem}.onnx" for stem in bundles.stems(len(predictor.networks))]
        for path, network in zip(paths, predictor.networks, strict=True):
            translation.write_onnx(network, translation.random_windows(described, 2), path)
            off = translation.verified(network, Exported(translation.converted(path, runtime), runtime), described)
            progress.say(f"{path.stem}: logits of random values within {off:.1g} of torch's")
        if cases:
            described, paths = _quantised(predictor, described, paths, runtime, cases)
        made = [path.with_suffix(ending) for path in paths for ending in ENDINGS[runtime]]
        packages = ("medseg", "torch", PACKAGES[runtime])
        whole = bundles.store(out, described, ((path.name, path.read_bytes()) for path in made), packages)
        files.write_text(out / _RUNNER, (Path(__file__).parents[1] / _RUNNER).read_text(encoding="utf-8"))
    progress.say(f"networks: {_megabytes(out, whole.weights)}, in {described.precision}")


def _quantised(
    predictor: Predictor, described: Bundle, paths: Sequence[Path], runtime: Runtime, cases: quantising.Cases
) -> tuple[Bundle, list[Path]]:
    """The description of rounded networks, which says what that costs, and their ONNX files."""
    calibration = quantising.windows(cases.calibration, described)
    folder = paths[0].parent / "int8"
    folder.mkdir()
    rounded = [folder / path.name for path in paths]
    for path, target in zip(paths, rounded, strict=True):
        quantising.quantise(path, target, calibration)
    exported = [Exported(translation.converted(path, runtime), runtime) for path in rounded]
    described = described.model_copy(update={"precision": "int8"})
    found = quantising.compare(predictor, Predictor.of(described, exported, device="cpu"), cases.validation)
    return described.model_copy(update={"scores": described.scores | {"int8": found}}), rounded


def _megabytes(folder: Path, names: Any) -> str:
    return f"{sum((folder / name).stat().st_size for name in names) / 1e6:.2f} MB"
