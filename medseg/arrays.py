"""The type of an array of whatever kind, for annotations; docstrings give shapes and units."""

from __future__ import annotations

from typing import Any

import numpy.typing as npt

Array = npt.NDArray[Any]
