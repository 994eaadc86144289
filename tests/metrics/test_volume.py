import math

import numpy as np
import pytest

from medseg.errors import GeometryError
from medseg.metrics import relative_volume_error, volume_error_ml, volume_ml

EMPTY = np.zeros((10, 10, 10), bool)
HALF, WHOLE = EMPTY.copy(), ~EMPTY
HALF[:5] = True


def test_a_cube_of_known_volume() -> None:
    assert volume_ml(WHOLE) == pytest.approx(1)
    assert volume_ml(WHOLE, spacing_mm=(0.5, 2, 3)) == pytest.approx(3)
    assert volume_ml(EMPTY) == 0


def test_shear_keeps_volume() -> None:
    axes = np.array([[1, 0, 0.4], [0, 1, 0], [0, 0, 2]])
    assert volume_ml(WHOLE, spacing_mm=axes) == pytest.approx(2)


def test_errors_are_signed() -> None:
    assert volume_error_ml(HALF, WHOLE, spacing_mm=(1, 1, 2)) == pytest.approx(-1)
    assert relative_volume_error(HALF, WHOLE) == pytest.approx(-0.5)
    assert relative_volume_error(WHOLE, HALF) == pytest.approx(1)


def test_empty_masks() -> None:
    assert math.isnan(volume_error_ml(EMPTY, EMPTY))
    assert math.isnan(relative_volume_error(EMPTY, EMPTY))
    assert volume_error_ml(HALF, EMPTY) == pytest.approx(0.5)
    assert math.isnan(relative_volume_error(HALF, EMPTY))
    assert relative_volume_error(EMPTY, HALF) == -1


def test_as_many_sizes_as_axes() -> None:
    with pytest.raises(GeometryError, match="3 axes"):
        volume_ml(WHOLE, spacing_mm=(1, 1))
