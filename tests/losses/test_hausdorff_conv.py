import numpy as np
import pytest
import torch
from scipy import ndimage

from medseg.losses import LossContext, create_loss


def plain(p: np.ndarray, t: np.ndarray, spacing: tuple[float, ...], radii: tuple[float, ...], alpha: float) -> float:
    """Equation 28 term by term; outside lies nothing, whose complement is all."""
    total = 0.0
    for radius in radii:
        reach = [int(radius / step) for step in spacing]
        grid = np.meshgrid(*[np.arange(-n, n + 1) * s for n, s in zip(reach, spacing, strict=True)], indexing="ij")
        ball = (sum(g**2 for g in grid) <= radius**2).astype(float)
        ball /= ball.sum()

        def soft(values: np.ndarray, outside: float, ball: np.ndarray = ball) -> np.ndarray:
            return np.maximum(ndimage.convolve(values, ball, mode="constant", cval=outside) - 0.5, 0)

        invented, missed = (t - p) ** 2 * p, (t - p) ** 2 * t
        each = soft(1 - t, 1) * invented + soft(t, 0) * missed + soft(1 - p, 1) * missed + soft(p, 0) * invented
        total += radius**alpha * each.mean()
    return total


@pytest.mark.parametrize(
    ("size", "spacing", "radii"),
    [((12, 9), (1.0, 1.0), (2.0, 3.0)), ((7, 8, 6), (1.0, 0.8, 2.5), (2.0, 3.0)), ((4, 3), (1.0, 1.0), (6.0,))],
)
def test_equals_the_plain_way(size, spacing, radii):
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(2, 2, *size, generator=generator)
    target = torch.randint(0, 2, (2, *size), generator=generator)
    target[:, 1:3] = 1
    probabilities = logits.double().softmax(1)[:, 1].numpy()
    pairs = zip(probabilities, target.double().numpy(), strict=True)
    expected = np.mean([plain(p, t, spacing, radii, 2.0) for p, t in pairs])
    value = create_loss("hausdorff_conv", radii=radii)(logits, target, LossContext(spacing_mm=spacing))
    assert value.item() == pytest.approx(expected, rel=1e-4)


def test_farther_errors_cost_more():
    target = torch.zeros(1, 32, 32, dtype=int)
    target[0, :12] = 1
    costs = []
    for place in (13, 17, 24):
        answer = target.clone()
        answer[0, place : place + 2, 15:17] = 1
        costs.append(create_loss("hausdorff_conv")(torch.stack([1 - answer, answer], 1) * 100.0, target).item())
    assert costs[0] < costs[1] < costs[2]


def test_added_dice(batch):
    alone, dice = create_loss("hausdorff_conv")(*batch), create_loss("dice", squared=True)(*batch)
    torch.testing.assert_close(create_loss("hausdorff_conv", dice_weight=2)(*batch), alone + 2 * dice)


@pytest.mark.parametrize(("unit", "radius"), [(0.2, 0.6), (0.1, 0.3), (10.0, 30.0)])
def test_units_do_not_matter(batch, unit, radius):
    """Balls of three voxels, whose edge rounding may put on either side."""
    one = create_loss("hausdorff_conv", radii=(3.0,))(*batch)
    other = create_loss("hausdorff_conv", radii=(radius,))(*batch, LossContext(spacing_mm=(unit,) * 3))
    torch.testing.assert_close(other, unit**2 * one, rtol=1e-4, atol=0)
