"""medseg: labelled medical scans in; a trained model, masks in each scan's own space and a readable report out.

Names are loaded on first use: importing medseg loads neither torch nor monai.
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

# The kernels for AMX that torch 2.13 brings compute strided and transposed convolutions in bfloat16 wrongly, and write beyond their
# maps. Read by torch when it first convolves; whoever sets it otherwise is left alone.
os.environ.setdefault("ONEDNN_MAX_CPU_ISA", "AVX512_CORE_BF16")

if TYPE_CHECKING:
    from medseg.api import check as check
    from medseg.api import compare as compare
    from medseg.api import convert as convert
    from medseg.api import evaluate as evaluate
    from medseg.api import export as export
    from medseg.api import list_series as list_series
    from medseg.api import load as load
    from medseg.api import plan as plan
    from medseg.api import predict as predict
    from medseg.api import repair as repair
    from medseg.api import train as train
    from medseg.data.dicom_objects import write_structures as write_structures
    from medseg.errors import Interrupted as Interrupted
    from medseg.errors import MedsegError as MedsegError
    from medseg.inference.prediction import Prediction as Prediction
    from medseg.inference.sliding import sliding_window as sliding_window
    from medseg.io import read as read
    from medseg.io import write as write
    from medseg.labels import Labels as Labels
    from medseg.losses import LossContext as LossContext
    from medseg.losses import create_loss as create_loss
    from medseg.losses import list_losses as list_losses
    from medseg.models import create_model as create_model
    from medseg.predictor import Predictor as Predictor
    from medseg.volume import Geometry as Geometry
    from medseg.volume import Volume as Volume

__version__ = "0.1.0"
_NAMES = {
    "api": "check compare convert evaluate export list_series load plan predict repair train",
    "errors": "Interrupted MedsegError",
    "inference.sliding": "sliding_window",
    "io": "read write",
    "labels": "Labels",
    "losses": "LossContext create_loss list_losses",
    "models": "create_model",
    "data.dicom_objects": "write_structures",
    "inference.prediction": "Prediction",
    "predictor": "Predictor",
    "volume": "Geometry Volume",
}
_PUBLIC = {name: module for module, names in _NAMES.items() for name in names.split()}
__all__ = ["__version__", *_PUBLIC]


def __getattr__(name: str) -> Any:
    if name == "metrics":  # a module whose functions people call as medseg.metrics.dice
        return importlib.import_module("medseg.metrics")
    if name not in _PUBLIC:
        raise AttributeError(f"module 'medseg' has no attribute '{name}'")
    value = getattr(importlib.import_module(f"medseg.{_PUBLIC[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
