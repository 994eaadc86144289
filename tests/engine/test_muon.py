from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from medseg.engine.muon import orthogonal


@given(rows=st.integers(1, 40), columns=st.integers(1, 60), scale=st.floats(1e-4, 1e4), seed=st.integers(0, 99))
@settings(max_examples=50, deadline=None)
def test_singular_values_come_near_1_and_directions_stay(rows: int, columns: int, scale: float, seed: int) -> None:
    """Of a matrix whose largest singular value is 20 times its smallest."""
    generator = torch.Generator().manual_seed(seed)
    u, _, v = torch.linalg.svd(torch.randn(rows, columns, generator=generator), full_matrices=False)
    matrix = scale * u @ torch.diag(torch.logspace(0, -1.3, min(rows, columns))) @ v
    found = orthogonal(matrix)
    values = torch.linalg.svdvals(found)
    assert 0.6 < values.min() <= values.max() < 1.25
    turned = u.T @ found @ v.T  # diagonal where the directions are those of the matrix
    assert (turned - torch.diag(turned.diagonal())).abs().max() < 1e-3


def test_it_is_newton_and_schulz() -> None:
    """The iteration as it is published, on the whole matrix."""
    matrix = torch.randn(12, 50, generator=torch.Generator().manual_seed(0)).double()
    plain = matrix / (matrix.norm() + 1e-7)
    for _ in range(5):
        gram = plain @ plain.T
        plain = 3.4445 * plain + (-4.7750 * gram + 2.0315 * gram @ gram) @ plain
    torch.testing.assert_close(orthogonal(matrix.float()).double(), plain, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(orthogonal(matrix.T.float()).double(), plain.T, rtol=1e-4, atol=1e-5)


def test_no_gradient_is_no_change() -> None:
    assert (orthogonal(torch.zeros(3, 5)) == 0).all()


@pytest.mark.parametrize("rank", [1, 3])
def test_directions_without_a_gradient_stay_without(rank: int) -> None:
    generator = torch.Generator().manual_seed(1)
    matrix = torch.randn(10, rank, generator=generator) @ torch.randn(rank, 30, generator=generator)
    values = torch.linalg.svdvals(orthogonal(matrix))
    assert (values[:rank] > 0.5).all()
    assert (values[rank:] < 0.05).all()


def test_parts_of_a_large_matrix_are_orthogonal_each_by_itself() -> None:
    matrix = torch.randn(400, 900, generator=torch.Generator().manual_seed(0))
    for whole in (orthogonal(matrix), orthogonal(matrix.T).T):
        torch.testing.assert_close(whole, torch.cat([orthogonal(matrix[:200]), orthogonal(matrix[200:])]))
