"""Write `bundle_format_1`: a model of 1,008 weights as format 1 stores it, and what it answers.

Made once; a test loads it for ever. A new format gets a folder of its own, beside this one.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch

from medseg import bundle, models
from medseg.inference.windows import Config as Inference
from medseg.labels import Labels
from medseg.postprocess import Config as Postprocess
from medseg.preprocess import Config as Preprocess
from medseg.preprocess import Intensity

MODEL = {
    "name": "unet",
    "preset": "tiny",
    "widths": (2, 3),
    "strides": (1, 2),
    "kernels": (3, 3),
    "blocks": (1, 1),
    "full_width": 2,
}


def main(folder: Path) -> None:
    torch.manual_seed(0)
    labels = Labels.of({"liver": 1, "tumour": 5})
    model = models.resolve(MODEL)
    network = models.create_model(model, spatial_dims=3, in_channels=1, out_channels=labels.channels).eval()
    described = bundle.Bundle(
        name="format 1",
        model=model,
        spatial_dims=3,
        channels=("CT",),
        labels=labels,
        preprocess=Preprocess(
            orientation="LPS",
            spacing_mm=(1.0, 1.0, 2.0),
            intensity=(Intensity(kind="clip", low=-100, high=200, mean=40, std=60),),
        ),
        inference=Inference(window=(8, 8, 4), overlap=0.25, batch=2, mirror_axes=(1,)),
        postprocess=Postprocess(largest_component=("liver",), minimum_ml={"tumour": 0.002}),
        scores={"dice": 0.5, "per_label": {"liver": 0.6, "tumour": 0.4}},
        training={"cases": 3, "steps": 5, "loss": "dice_ce"},
    )
    bundle.save(folder, described, [network.state_dict()])
    ramp = torch.linspace(-1, 1, 8 * 8 * 4).reshape(1, 1, 8, 8, 4)
    with torch.inference_mode():
        np.save(folder / "answer.npy", network(ramp)[0].numpy())


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "bundle_format_1")
