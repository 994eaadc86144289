"""A better mask never costs more: where one answer's wrong voxels are among those of another, it is the cheaper one."""

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from medseg.losses import LossContext, create_loss, names

# A loss that is not here makes the claim.
NO_CLAIM = {
    "active_contour": "a voxel more may make the contour shorter",
    "box_mumford_shah": "the image decides",
    "cl_dice": "a voxel more may change the whole skeleton",
    "consistency": "knows no truth",
    "containment": "knows no truth",
    "dual_task": "needs boundaries beside the mask, and a voxel more may make its contour shorter",
    "entropy": "knows no truth",
    "hausdorff_dt": "a wrong voxel may bring the predicted boundary nearer to others",
    "hausdorff_erosion": "errors are stretched to 0 to 1",
    "hausdorff_conv": "a wrong voxel may change the balls around others",
    "level_set": "the image decides",
    "size_constraint": "missed and invented voxels make up for each other",
    "star_shape": "of an object missed as a whole no line is broken",
}
sizes = st.tuples(st.just(3), st.integers(1, 6), st.integers(1, 6))


@pytest.mark.parametrize("name", sorted(set(names()) - set(NO_CLAIM)))
@given(masks=arrays.arrays(bool, sizes), sure=st.floats(0.2, 12))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_better_mask_never_costs_more(name, masks, sure):
    truth, bad, worse = masks
    loss, target = create_loss(name), torch.from_numpy(truth.astype(int))[None]
    costs = []
    for wrong in (bad & worse, bad, bad | worse):
        answer = torch.from_numpy(np.where(truth ^ wrong, sure, -sure))
        costs.append(loss(torch.stack([-answer, answer])[None] / 2, target, LossContext()).item())
    assert costs[0] <= costs[1] + 1e-7 * max(1, abs(costs[1]))
    assert costs[1] <= costs[2] + 1e-7 * max(1, abs(costs[2]))


def test_every_exception_is_a_loss():
    assert set(NO_CLAIM) <= set(names())
