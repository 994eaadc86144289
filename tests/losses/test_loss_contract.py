"""What every loss keeps to: being listed means being tested."""

from types import SimpleNamespace

import pytest
import torch
from torch.autograd import gradcheck

from medseg.losses import LossContext, create_loss, names

CONTEXT = LossContext(spacing_mm=(1.0, 0.8, 2.5))
every_loss = pytest.mark.parametrize("name", names())


def nothing_to_compare(name):
    return -1.0 if name == "combo" else 0.0  # combo: -(1 - alpha) K for two structures


@every_loss
def test_scalar_and_backward(name, any_batch):
    logits, target = any_batch
    value = create_loss(name)(logits, target, CONTEXT)
    value.backward()
    assert value.shape == ()
    assert value.isfinite()
    assert logits.grad.isfinite().all()
    assert logits.grad.abs().sum() > 0


@every_loss
def test_context_may_be_omitted(name, batch):
    assert create_loss(name)(*batch).isfinite()


@every_loss
@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_gradient(name, activation, overlapping):
    logits = overlapping[0].detach().double()[:1, :, :2, :3, :2].contiguous().requires_grad_()
    memberships = overlapping[1][:1, :, :2, :3, :2]
    target = memberships.argmax(1) if activation == "softmax" else memberships
    loss = create_loss(name, activation=activation)
    assert gradcheck(lambda z: loss(z, target, CONTEXT), (logits,))


@every_loss
def test_right_is_better_than_wrong(name, batch):
    target = batch[1]
    right = torch.nn.functional.one_hot(target, 3).movedim(-1, 1) * 10.0
    loss = create_loss(name)
    values = [loss(logits, target).item() for logits in (right, 0.3 * right, torch.zeros_like(right), -right)]
    assert values == sorted(values)
    assert values[0] < values[-1]


@every_loss
@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_certain_and_wrong_is_finite(name, activation, overlapping):
    memberships = overlapping[1]
    target = memberships.argmax(1) if activation == "softmax" else memberships
    logits = (50 - 100.0 * memberships).requires_grad_()
    value = create_loss(name, activation=activation)(logits, target)
    value.backward()
    assert value.isfinite()
    assert logits.grad.isfinite().all()


@every_loss
def test_classes_equal_their_memberships(name, batch):
    logits, target = batch
    memberships = torch.nn.functional.one_hot(target, 3).movedim(-1, 1)
    loss = create_loss(name)
    expected = loss(logits, target)
    for same in (target.short(), target.to(torch.uint8), memberships, memberships.float()):
        torch.testing.assert_close(loss(logits, same), expected)


@every_loss
def test_ignored_voxels_count_nowhere(name, batch):
    logits, target = batch
    target[:, 2:4] = -1
    loss = create_loss(name)
    value = loss(logits, target)
    value.backward()
    assert not logits.grad[:, :, 2:4].any()
    changed = logits.detach().clone()
    changed[:, :, 2:4] = 7 * torch.randn(changed[:, :, 2:4].shape, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(loss(changed, target), value.detach())


@every_loss
def test_ignored_voxels_of_overlapping_structures(name, overlapping):
    logits, target = overlapping
    target[:, :, 2:4] = 255
    loss = create_loss(name, activation="sigmoid", ignore_index=255)
    loss(logits, target).backward()
    assert not logits.grad[:, :, 2:4].any()
    assert logits.grad[:, :, :2].any()


@every_loss
def test_nothing_annotated(name, batch):
    logits, target = batch
    value = create_loss(name)(logits, torch.full_like(target, -1), CONTEXT)
    value.backward()
    assert value.item() == pytest.approx(nothing_to_compare(name), abs=1e-6)
    assert not logits.grad.any()


@every_loss
@pytest.mark.parametrize("options", [{}, {"class_weights": (0.2, 1, 3)}], ids=["", "weights"])
def test_absent_classes(name, options, batch):
    logits, target = batch
    for present in (0, 1):
        logits.grad = None
        value = create_loss(name, **options)(logits, torch.full_like(target, present))
        value.backward()
        assert value.isfinite()
        assert logits.grad.isfinite().all()


@every_loss
def test_equal_class_weights_change_nothing(name, batch):
    torch.testing.assert_close(create_loss(name, class_weights=(1, 1, 1))(*batch), create_loss(name)(*batch))


@every_loss
def test_class_weights_favour_their_class(name, batch):
    logits, target = batch
    slope = []
    for weight in (1.0, 20.0):
        (grad,) = torch.autograd.grad(create_loss(name, class_weights=(1, 1, weight))(logits, target), logits)
        slope.append((grad[:, 2].abs().sum() / grad[:, 1].abs().sum()).item())
    assert slope[1] > slope[0]


@every_loss
@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_single(name, half, batch):
    logits, target = batch[0].detach().to(half).requires_grad_(), batch[1]
    loss = create_loss(name)
    with torch.autocast("cpu", dtype=half):
        value = loss(logits, target, CONTEXT)
    value.backward()
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, loss(logits.float(), target, CONTEXT))
    assert logits.grad.dtype == half
    assert logits.grad.isfinite().all()


@every_loss
def test_deep_supervision_halves_the_weight_of_each_level(name):
    generator = torch.Generator().manual_seed(0)
    target = torch.randint(0, 3, (2, 16, 24), generator=generator)
    sizes = ((16, 24), (8, 12), (4, 6))
    levels = [(5 * torch.randn(2, 3, *size, generator=generator)).requires_grad_() for size in sizes]
    loss = create_loss(name)
    value = loss(SimpleNamespace(logits=levels[0], auxiliary=tuple(levels[1:])), target)
    alone = [
        loss(z, target[:, step // 2 :: step, step // 2 :: step], LossContext(spacing_mm=(step, step)))
        for z, step in zip(levels, (1, 2, 4), strict=True)
    ]
    torch.testing.assert_close(value, (4 * alone[0] + 2 * alone[1] + alone[2]) / 7)
    value.backward()
    assert all(z.grad.any() for z in levels)


@every_loss
def test_a_step_downhill_lowers_it(name, batch):
    logits, target = batch
    loss = create_loss(name)
    value = loss(logits, target)
    (grad,) = torch.autograd.grad(value, logits)
    assert loss(logits - 1e-2 * grad / grad.abs().max(), target) < value
