import math

import pytest
import torch

from medseg.losses import create_loss


def voxel(p: float) -> tuple[torch.Tensor, torch.Tensor]:
    """One voxel of class 1 with probability p."""
    logit = torch.tensor(math.log(p) - math.log1p(-p), dtype=torch.float64).view(1, 1, 1, 1)
    return torch.cat([torch.zeros_like(logit), logit], 1).requires_grad_(), torch.ones(1, 1, 1, dtype=int)


@pytest.mark.parametrize("base", [math.e, 2.0])
def test_value_and_slope_are_0_at_one_over_the_base(base):
    logits, target = voxel(1 / base)
    value = create_loss("conservative", base=base)(logits, target)
    value.backward()
    assert value.item() == pytest.approx(0, abs=1e-12)
    assert logits.grad.abs().max() < 1e-12


@pytest.mark.parametrize("p", [0.01, 0.3, 0.6, 0.999])
@pytest.mark.parametrize(("base", "scale"), [(math.e, 5.0), (3.0, 2.0)])
def test_by_the_formula(p, base, scale):
    expected = scale * (1 + math.log(p, base)) ** 2 * math.log(-math.log(p, base), base)
    assert create_loss("conservative", base=base, scale=scale)(*voxel(p)).item() == pytest.approx(expected)


def test_certain_answers_are_finite_either_way():
    for sign in (1, -1):
        logits = torch.tensor([-50.0, 50.0]).mul(sign).view(1, 2, 1, 1).requires_grad_()
        value = create_loss("conservative")(logits, torch.ones(1, 1, 1, dtype=int))
        value.backward()
        assert value.isfinite()
        assert logits.grad.isfinite().all()
        assert (value < 0) == (sign == 1)
