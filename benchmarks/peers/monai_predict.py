"""Segment scans with MONAI's parts and a medseg bundle's network: the same weights, windows, grid and arithmetic.

    python monai_predict.py BUNDLE SCAN -o MASK.nii.gz [--repeats 5]

Prints JSON: seconds to load the model, and of each repeat from file to file.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import time
from pathlib import Path
from typing import Any

import torch
from monai.data import MetaTensor
from monai.inferers import sliding_window_inference
from monai.transforms import (
    AsDiscreted,
    Compose,
    CropForegroundd,
    EnsureChannelFirstd,
    Invertd,
    LoadImaged,
    NormalizeIntensityd,
    Orientationd,
    SaveImage,
    ScaleIntensityRanged,
    Spacingd,
)
from safetensors.torch import load_file

import medseg

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def main() -> None:
    """Load the model once, and segment the scan as often as asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("scan", help="a file, or one per channel with commas between")
    parser.add_argument("-o", "--out", type=Path, required=True, help="the mask, a .nii.gz")
    parser.add_argument("--repeats", type=int, default=1)
    asked = parser.parse_args()
    began = time.perf_counter()
    described = json.loads((asked.bundle / "config.json").read_text())
    if not described["labels"]["exclusive"]:
        parser.error("only models of labels that exclude each other")
    network, before = build(asked.bundle, described), preparation(described["preprocess"])
    load_s, seconds = time.perf_counter() - began, []
    for _ in range(asked.repeats):
        began = time.perf_counter()
        predict(network, described, before, asked.scan.split(","), asked.out)
        seconds.append(time.perf_counter() - began)
    print(json.dumps({"load_s": load_s, "seconds": seconds}))


def build(bundle: Path, described: dict[str, Any]) -> torch.nn.Module:
    """The bundle's network with its (first) weights."""
    network = medseg.create_model(
        described["model"],
        spatial_dims=described["spatial_dims"],
        in_channels=len(described["channels"]),
        out_channels=len(described["labels"]["items"]) + 1,
    )
    network.load_state_dict(load_file(bundle / next(iter(described["weights"]))))
    return network.to(DEVICE).eval()


def preparation(how: dict[str, Any]) -> Compose:
    """The bundle's preparation in MONAI's transforms."""
    steps: list[Any] = [
        LoadImaged("image"),
        EnsureChannelFirstd("image"),
        Orientationd("image", axcodes=how["orientation"], labels=None),
    ]
    if how["crop_empty"]:
        steps.append(CropForegroundd("image", source_key="image", select_fn=lambda values: values != 0))
    if any(how["spacing_mm"]):
        steps.append(Spacingd("image", pixdim=[spacing or -1 for spacing in how["spacing_mm"]], mode="bilinear"))
    first = how["intensity"][0]
    if first["kind"] == "clip":
        low, high = ((first[end] - first["mean"]) / first["std"] for end in ("low", "high"))
        steps.append(ScaleIntensityRanged("image", first["low"], first["high"], low, high, clip=True))
    elif first["kind"] == "z_score":
        steps.append(NormalizeIntensityd("image", channel_wise=True))
    return Compose(steps)


def predict(network: torch.nn.Module, described: dict[str, Any], before: Compose, scan: list[str], out: Path) -> None:
    """From the scan's file to the mask's."""
    windows, flat = described["inference"], described["spatial_dims"] == 2
    half = torch.autocast(DEVICE.type, torch.bfloat16) if described["precision"] == "bf16" else contextlib.nullcontext()

    def logits(batch: torch.Tensor) -> torch.Tensor:
        with half:
            return network(batch[..., 0])[..., None].float() if flat else network(batch).float()

    case = before({"image": scan if len(scan) > 1 else scan[0]})
    image = case["image"]
    with torch.no_grad():
        found = sliding_window_inference(
            image.as_tensor()[None].to(DEVICE),
            windows["window"],
            windows["batch"],
            logits,
            overlap=windows["overlap"],
            mode="gaussian",
        )
    # logits travel home, not classes: borders stay smooth, as in medseg
    case["mask"] = MetaTensor(found[0].cpu(), meta=image.meta, applied_operations=image.applied_operations)
    home = Invertd("mask", transform=before, orig_keys="image", nearest_interp=False)
    mask = AsDiscreted("mask", argmax=True)(home(case))["mask"]
    save = SaveImage(output_postfix="", separate_folder=False, resample=False, print_log=False, output_dtype="uint8")
    save(mask, filename=str(out).removesuffix(".nii.gz"))


if __name__ == "__main__":
    main()
