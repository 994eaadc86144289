"""The model card: what people should know of a stored model, in Markdown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from medseg.bundle.description import LOCATOR, PACKAGES, Bundle
from medseg.wording import counted


def card(bundle: Bundle) -> str:
    """The model card, in Markdown."""
    spacing = " x ".join("own" if s is None else f"{s:.3g}" for s in bundle.preprocess.spacing_mm)
    scores = "\n".join(f"- {name.replace('_', ' ')}: {_text(value)}" for name, value in bundle.scores.items())
    facts = "\n".join(f"- {name.replace('_', ' ')}: {_text(value)}" for name, value in bundle.training.items())
    labels = "\n".join(f"- {', '.join(map(str, item.values))}: {item.name}" for item in bundle.labels)
    stored = "" if bundle.stored == "fp32" else f"; weights stored as {bundle.stored}"
    return f"""# {bundle.name}: segmentation model

**Research use only.** Not a medical device; not for diagnosis or treatment. Check every mask that you rely on.

## Input

One scan with the channel(s) {", ".join(bundle.channels)}, in any orientation and spacing (computed at {spacing} mm).{_stages(bundle)}

## Labels

{labels}

## Scores

{scores or "- none"}

## Training

- architecture: {bundle.model["name"]}, {bundle.spatial_dims}D, {counted(bundle.members, "member")}
{facts}
- versions: {", ".join(f"{name} {version}" for name, version in bundle.versions.items())}

## Use

{_use(bundle)}

It computes {bundle.inference}, in {bundle.precision}{stored}.
"""


def _stages(bundle: Bundle) -> str:
    if not bundle.locate:
        return ""
    return (
        f"\n\nTwo stages: the model in `{LOCATOR}/`, which has a card of its own, finds where to look in the scan, and this one looks "
        f"only at that part, with {bundle.locate}. Where the first finds nothing, this one looks at the whole scan."
    )


def _use(bundle: Bundle) -> str:
    predict = "    medseg predict THIS_FOLDER scan.nii.gz -o mask.nii.gz"
    if bundle.runtime != "torch":
        packages = f"numpy, nibabel and {PACKAGES[bundle.runtime]}"
        alone = "    python runner.py THIS_FOLDER scan.nii.gz mask.nii.gz"
        return f"{predict}\n\nWithout medseg and torch: `runner.py` only needs {packages}:\n\n{alone}"
    if "." not in (own := bundle.model["name"]):
        return predict
    return f"""The architecture is the user's own module `{own}`. It is not in this folder, and medseg runs no code from files. Where
Python can import it, name it yourself:

    medseg.load("THIS_FOLDER", module="{own}")("scan.nii.gz")"""


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_text(item)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return f"{', '.join(map(_text, value))} (one per member)"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
