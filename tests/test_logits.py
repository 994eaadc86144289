from __future__ import annotations

import math

import pytest
import torch

from medseg.logits import best_class, finite


def test_the_best_class_and_of_equal_ones_the_first() -> None:
    logits = torch.tensor([[0.0, 1.0, 2.0, -1.0], [3.0, 1.0, 2.0, -2.0], [1.0, 1.0, 2.5, -1.0]])
    found = best_class(logits)
    assert found.tolist() == [1, 0, 2, 0]
    assert found.dtype == torch.uint8


@pytest.mark.parametrize(("classes", "dtype"), [(256, torch.uint8), (257, torch.int16)])
def test_classes_have_room(classes: int, dtype: torch.dtype) -> None:
    logits = torch.zeros(classes, 1)
    logits[-1] = 1
    assert best_class(logits).item() == classes - 1
    assert best_class(logits).dtype == dtype


@pytest.mark.parametrize(("value", "expected"), [(1.0, True), (math.inf, False), (math.nan, False)])
def test_one_that_is_no_number_is_found(value: float, expected: bool) -> None:
    logits = torch.zeros(2, 3, 3, 3)
    logits[1, 2, 0, 1] = value
    assert finite(logits) is expected
