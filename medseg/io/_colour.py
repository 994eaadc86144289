"""Colours as DICOM writes them: CIELab under D65, scaled to 16 bits (PS3.3 C.10.7.1.1)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

# IEC 61966-2-1 (sRGB): linear red, green, blue -> XYZ, divided by the white point of D65, so that white is 1, 1, 1.
_TO_XYZ = np.array([(0.4124, 0.3576, 0.1805), (0.2126, 0.7152, 0.0722), (0.0193, 0.1192, 0.9505)])
_TO_WHITE = _TO_XYZ / _TO_XYZ.sum(1, keepdims=True)
_TO_LAB = np.array([(0, 116, 0), (500, -500, 0), (0, 200, -200)])  # of f(X), f(Y), f(Z); CIE 15:2004, 8.2.1
_LOWEST, _SPAN = np.array((-16.0, 0, 0)), np.array((100.0, 255, 255))


def lab(rgb: Sequence[int]) -> tuple[float, float, float]:
    """L* (0 to 100), a* and b* of red, green and blue (0 to 255)."""
    part = np.array(rgb) / 255
    linear = np.where(part <= 0.04045, part / 12.92, ((part + 0.055) / 1.055) ** 2.4)
    xyz = _TO_WHITE @ linear
    f = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz * (29 / 6) ** 2 / 3 + 4 / 29)
    light, a, b = (_TO_LAB @ f + _LOWEST).tolist()
    return light, a, b


def rgb(stored: Sequence[int]) -> tuple[int, int, int]:
    """Red, green and blue (0 to 255) of a colour as it is stored: three numbers of 16 bits."""
    values = np.array(stored, float) / 65535 * _SPAN - np.array((0, 128, 128))
    f = np.linalg.solve(_TO_LAB, values - _LOWEST)
    xyz = np.where(f > 6 / 29, f**3, 3 * (6 / 29) ** 2 * (f - 4 / 29))
    linear = np.clip(np.linalg.solve(_TO_WHITE, xyz), 0, 1)
    part = np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)
    red, green, blue = np.rint(part * 255).astype(int).tolist()
    return red, green, blue
