"""What `pull` promises of tensors; its numbers are compared with other libraries' in test_geometry and test_resampling."""

import pytest
import torch

from medseg.geometry.interpolation import pull

STEPS = torch.diag(torch.tensor([0.6, 1.9, 0.8, 1.0])).double().numpy()


def test_a_linear_function_is_reproduced_in_every_order_of_memory() -> None:
    i, j, k = torch.meshgrid(*map(torch.arange, (9, 20, 7)), indexing="ij")
    plain = torch.stack([i - 2.0 * j + 0.5 * k, 3.0 * k - i])
    a, b, c = torch.meshgrid(*map(torch.arange, (12, 9, 7)), indexing="ij")
    wanted = torch.stack([0.6 * a - 3.8 * b + 0.4 * c, 2.4 * c - 0.6 * a])
    for order in ((0, 1, 2, 3), (3, 2, 1, 0), (2, 0, 3, 1), (1, 3, 0, 2)):
        stored = plain.permute(order).contiguous().permute([order.index(n) for n in range(4)])
        found = pull(stored, STEPS, (12, 9, 7))
        torch.testing.assert_close(found, wanted, atol=1e-4, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_the_type_stays_and_each_channel_has_a_fill_of_its_own(dtype: torch.dtype) -> None:
    found = pull(torch.ones(2, 9, 20, 7, dtype=dtype), STEPS, (30, 9, 7), fill=[-1, -2])
    assert found.dtype == dtype
    assert found[:, :14].eq(1).all()
    assert found[0, 15:].eq(-1).all()
    assert found[1, 15:].eq(-2).all()


def test_rows_of_the_kernel_are_no_longer_than_an_axis(monkeypatch: pytest.MonkeyPatch) -> None:
    """It keeps code for every length that it meets: a cohort's products of two axes would fill the memory."""
    lengths, kernel = set(), torch.nn.functional.embedding_bag

    def noted(places: torch.Tensor, rows: torch.Tensor, **options: object) -> torch.Tensor:
        lengths.add(rows.shape[1])
        return kernel(places, rows, **options)

    monkeypatch.setattr(torch.nn.functional, "embedding_bag", noted)
    pull(torch.rand(3, 19, 23, 29), STEPS, (15, 11, 31))
    assert lengths <= {15, 11, 31, 19, 23, 29}
