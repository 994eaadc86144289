"""What every loss keeps to: being listed means being tested."""

import contextlib
import itertools
import math
from types import SimpleNamespace

import pytest
import torch
from torch.autograd import gradcheck

from medseg.errors import ConfigError
from medseg.losses import LossContext, create_loss, names, resolve

TRUTHLESS = {"consistency", "containment", "entropy", "level_set"}  # every voxel counts, those that are ignored too
PRIORS = {"box_mumford_shah", "size_constraint", "star_shape"}  # the truth is one of many best answers
NEEDY = {"box_mumford_shah", "consistency", "dual_task", "level_set"}  # the context must tell them something
# What is left where nothing is compared. combo: -(1 - alpha) K for two structures.
NOTHING = {"combo": -1.0}
every_loss = pytest.mark.parametrize("name", names())
supervised = pytest.mark.parametrize("name", sorted(set(names()) - TRUTHLESS))
strict = pytest.mark.parametrize("name", sorted(set(names()) - TRUTHLESS - PRIORS))


def context(logits, spacing_mm=(1.0, 0.8, 2.5)):
    """All that any loss asks for."""
    generator = torch.Generator().manual_seed(5)
    image = torch.randn((len(logits), 1, *logits.shape[2:]), generator=generator)
    second = torch.randn(logits.shape, generator=generator)
    extras = {"second": second, "boundary": 3 * second[:, :1]}
    return LossContext(image=image, spacing_mm=spacing_mm, extras=extras)


@every_loss
def test_scalar_and_backward(name, any_batch):
    logits, target = any_batch
    value = create_loss(name)(logits, target, context(logits))
    value.backward()
    assert value.shape == ()
    assert value.isfinite()
    assert logits.grad.isfinite().all()
    assert logits.grad.abs().sum() > 0


@every_loss
def test_context_may_be_omitted_or_what_is_missing_is_told(name, batch):
    if name in NEEDY:
        with pytest.raises(ConfigError, match="LossContext"):
            create_loss(name)(*batch)
    else:
        assert create_loss(name)(*batch).isfinite()


@every_loss
@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_gradient(name, activation, overlapping):
    logits = overlapping[0].detach().double()[:1, :, :2, :3, :2].contiguous().requires_grad_()
    memberships = overlapping[1][:1, :, :2, :3, :2]
    target = memberships.argmax(1) if activation == "softmax" else memberships
    loss = create_loss(name, activation=activation)
    loss = loss.double() if list(loss.parameters()) else loss
    assert gradcheck(lambda z: loss(z, target, context(logits)), (logits,))


@strict
def test_right_is_better_than_wrong(name):
    """Slabs, for contours should be short."""
    target = torch.arange(3).repeat_interleave(4).view(1, 12, 1, 1).expand(2, 12, 8, 6)
    right = torch.nn.functional.one_hot(target, 3).movedim(-1, 1) * 10.0
    loss = create_loss(name)
    answers = (right, 0.3 * right, torch.zeros_like(right), -right)
    values = [loss(logits, target, context(logits)).item() for logits in answers]
    assert values == sorted(values)
    assert values[0] < values[-1]


@every_loss
@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_certain_and_wrong_is_finite(name, activation, overlapping):
    memberships = overlapping[1]
    target = memberships.argmax(1) if activation == "softmax" else memberships
    logits = (50 - 100.0 * memberships).requires_grad_()
    value = create_loss(name, activation=activation)(logits, target, context(logits))
    value.backward()
    assert value.isfinite()
    assert logits.grad.isfinite().all()


@every_loss
def test_classes_equal_their_memberships(name, batch):
    logits, target = batch
    memberships = torch.nn.functional.one_hot(target, 3).movedim(-1, 1)
    loss = create_loss(name)
    expected = loss(logits, target, context(logits))
    for same in (target.short(), target.to(torch.uint8), memberships, memberships.float()):
        torch.testing.assert_close(loss(logits, same, context(logits)), expected)


@pytest.mark.parametrize("name", sorted(set(names()) - TRUTHLESS - {"box_mumford_shah"}))  # in a box every voxel counts
def test_ignored_voxels_count_nowhere(name, batch):
    logits, target = batch
    target[:, 2:4] = -1
    loss = create_loss(name)
    value = loss(logits, target, context(logits))
    value.backward()
    assert not logits.grad[:, :, 2:4].any()
    changed = logits.detach().clone()
    changed[:, :, 2:4] = 7 * torch.randn(changed[:, :, 2:4].shape, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(loss(changed, target, context(logits)), value.detach())


@pytest.mark.parametrize("name", sorted(set(names()) - TRUTHLESS - {"box_mumford_shah"}))
def test_ignored_voxels_of_overlapping_structures(name, overlapping):
    logits, target = overlapping
    target[:, :, 2:4] = 255
    loss = create_loss(name, activation="sigmoid", ignore_index=255)
    loss(logits, target, context(logits)).backward()
    assert not logits.grad[:, :, 2:4].any()
    assert logits.grad[:, :, :2].any()


@supervised
def test_nothing_annotated(name, batch):
    logits, target = batch
    value = create_loss(name)(logits, torch.full_like(target, -1), context(logits))
    value.backward()
    assert value.item() == pytest.approx(NOTHING.get(name, 0.0), abs=1e-6)
    assert not logits.grad.any()


@pytest.mark.parametrize("name", sorted(TRUTHLESS))
def test_what_needs_no_truth_has_none(name, batch):
    logits, target = batch
    expected = create_loss(name)(logits, target, context(logits))
    value = create_loss(name)(logits, torch.full_like(target, -1), context(logits))
    value.backward()
    torch.testing.assert_close(value, expected)
    assert logits.grad.any()


@every_loss
@pytest.mark.parametrize("options", [{}, {"class_weights": (0.2, 1, 3)}], ids=["", "weights"])
def test_absent_classes(name, options, batch):
    logits, target = batch
    for present in (0, 1):
        logits.grad = None
        value = create_loss(name, **options)(logits, torch.full_like(target, present), context(logits))
        value.backward()
        assert value.isfinite()
        assert logits.grad.isfinite().all()


@every_loss
def test_equal_class_weights_change_nothing(name, batch):
    same = create_loss(name, class_weights=(1, 1, 1))
    torch.testing.assert_close(same(*batch, context(batch[0])), create_loss(name)(*batch, context(batch[0])))


@strict
def test_class_weights_favour_their_class(name, batch):
    logits, target = batch
    slope = []
    for weight in (1.0, 20.0):
        (grad,) = torch.autograd.grad(
            create_loss(name, class_weights=(1, 1, weight))(logits, target, context(logits)), logits
        )
        slope.append((grad[:, 2].abs().sum() / grad[:, 1].abs().sum()).item())
    assert slope[1] > slope[0]


@every_loss
@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_single(name, half, batch):
    logits, target = batch[0].detach().to(half).requires_grad_(), batch[1]
    loss = create_loss(name)
    with torch.autocast("cpu", dtype=half):
        value = loss(logits, target, context(logits))
    value.backward()
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, loss(logits.float(), target, context(logits)))
    assert logits.grad.dtype == half
    assert logits.grad.isfinite().all()


@every_loss
def test_deep_supervision_halves_the_weight_of_each_level(name):
    generator = torch.Generator().manual_seed(0)
    target = torch.randint(0, 3, (2, 16, 24), generator=generator)
    sizes = ((16, 24), (8, 12), (4, 6))
    levels = [(5 * torch.randn(2, 3, *size, generator=generator)).requires_grad_() for size in sizes]
    loss = create_loss(name)
    value = loss(SimpleNamespace(logits=levels[0], auxiliary=tuple(levels[1:])), target, context(levels[0], (1.0, 1.0)))
    alone = [
        loss(z, target[:, step // 2 :: step, step // 2 :: step], context(levels[0], (step, step)))
        for z, step in zip(levels, (1, 2, 4), strict=True)
    ]
    torch.testing.assert_close(value, (4 * alone[0] + 2 * alone[1] + alone[2]) / 7)
    value.backward()
    assert all(z.grad.any() for z in levels)


@every_loss
def test_a_step_downhill_lowers_it(name, batch):
    logits, target = batch
    loss = create_loss(name)
    value = loss(logits, target, context(logits))
    (grad,) = torch.autograd.grad(value, logits)
    assert loss(logits - 1e-2 * grad / grad.abs().max(), target, context(logits)) < value


@pytest.mark.parametrize("name", sorted(set(names()) - TRUTHLESS - {"box_mumford_shah"}))
def test_an_ignored_border_might_as_well_be_cut_off(name, batch):
    """The second structure is cut in two: it goes on to where nobody looked, or to the edge of the patch."""
    logits = batch[0].detach()
    target = (torch.arange(7) // 3).view(1, 1, 7, 1).repeat(2, 5, 1, 4)
    target[:, :, 5:] = target[..., 3:] = -1
    loss, boundary = create_loss(name), torch.randn(2, 1, 5, 7, 4, generator=torch.Generator().manual_seed(1))
    whole, cut = (
        loss(z, t, LossContext(spacing_mm=(1.0, 0.8, 2.5), extras={"boundary": b}))
        for z, t, b in ((logits, target, boundary), (logits[..., :5, :3], target[..., :5, :3], boundary[..., :5, :3]))
    )
    torch.testing.assert_close(whole, cut, rtol=1e-4, atol=1e-5)


@every_loss
@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_a_nan_is_never_taken_for_a_right_answer(name, activation, overlapping):
    logits = overlapping[0].detach().clone()
    logits[0, 1, 2, 3, 1] = torch.nan
    target = overlapping[1] if activation == "sigmoid" else overlapping[1].argmax(1)
    assert create_loss(name, activation=activation)(logits, target, context(logits)).isnan()


@every_loss
@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
@pytest.mark.parametrize("size", [(1, 1), (1, 6), (1, 1, 1), (5, 1, 1), (3, 1, 4)], ids=str)
def test_tiny_and_thin_patches(name, activation, size):
    logits = 5 * torch.randn(1, 2, *size, generator=torch.Generator().manual_seed(0))
    target = torch.zeros(1, *size, dtype=int)
    target[..., -1] = 1
    if activation == "sigmoid":
        target = torch.stack([1 - target, target], 1)
    value = create_loss(name, activation=activation)(logits.requires_grad_(), target, context(logits))
    value.backward()
    assert value.isfinite()
    assert logits.grad.isfinite().all()


@every_loss
@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
@pytest.mark.parametrize("kind", [torch.float64, torch.float16, torch.bfloat16])
def test_soft_targets_of_any_precision(name, activation, kind, batch):
    logits = batch[0]
    soft = torch.randn(logits.shape, generator=torch.Generator().manual_seed(4))
    soft = (soft.softmax(1) if activation == "softmax" else soft.sigmoid()).to(kind)
    loss = create_loss(name, activation=activation)
    value = loss(logits, soft, context(logits))
    value.backward()
    assert logits.grad.isfinite().all()
    torch.testing.assert_close(value, loss(logits, soft.float(), context(logits)))


ABSURD = (math.inf, math.nan, -1, 1e-300, 1e308, 10**9, 10**400, "", [], [math.inf], [1e9])


@every_loss
def test_an_absurd_value_is_refused_or_gives_a_finite_loss(name, batch):
    logits, target = batch
    for option, value in itertools.product([key for key in resolve(name) if key != "name"], ABSURD):
        with contextlib.suppress(ConfigError):
            found = create_loss({"name": name, option: value})(logits, target, context(logits))
            assert found.isfinite(), (option, value)
            assert torch.autograd.grad(found, logits)[0].isfinite().all(), (option, value)
