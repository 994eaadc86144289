import itertools

import pytest
import torch

from medseg.losses import create_loss


@pytest.mark.parametrize("errors", ["probability", "hinge"])
def test_whole_errors_are_one_minus_iou(errors):
    """Hinge errors are 0 or 1 where margins are 1 or 0."""
    generator = torch.Generator().manual_seed(2)
    truth, answer = (torch.rand(2, 3, 6, 7, generator=generator) > 0.6 for _ in range(2))
    logits = (truth == answer).float() * (2 * truth.float() - 1) if errors == "hinge" else answer * 200.0 - 100
    iou = (truth & answer).sum((2, 3)) / (truth | answer).sum((2, 3))
    loss = create_loss("lovasz", activation="sigmoid", errors=errors)
    if errors == "hinge":
        # every wrong voxel is one of the union: the ground set of the Jaccard loss of errors
        wrong = truth != answer
        iou = 1 - wrong.sum((2, 3)) / (truth | wrong).sum((2, 3))
    torch.testing.assert_close(loss(logits, truth.long()), 1 - iou.mean(), atol=1e-5, rtol=0)


def test_worked_example(grid):
    assert 1 - create_loss("lovasz")(*grid).item() == pytest.approx(0.7071, abs=1e-4)
    assert 1 - create_loss("lovasz", include_background=False)(*grid).item() == pytest.approx(7 / 11, abs=1e-5)


def test_the_extension_by_its_definition():
    """The largest <m, s(order)> over all orders: the extension of a submodular set function is the support of its base."""
    truth = torch.tensor([1, 0, 1, 0, 0])
    logits = torch.tensor([0.3, -1.0, 2.0, 0.8, -0.2])
    errors = (truth - logits.sigmoid()).abs()

    def jaccard(wrong: set[int]) -> float:
        missed = sum(int(truth[i]) for i in wrong)
        return 1 - (2 - missed) / (2 + len(wrong) - missed)

    sums = []
    for order in itertools.permutations(range(5)):
        steps = [jaccard(set(order[: n + 1])) - jaccard(set(order[:n])) for n in range(5)]
        sums.append(sum(errors[i].item() * step for i, step in zip(order, steps, strict=True)))
    loss = create_loss("lovasz", activation="sigmoid")
    assert loss(logits.view(1, 1, 1, 5), truth.view(1, 1, 1, 5)).item() == pytest.approx(max(sums), abs=1e-6)


@pytest.mark.parametrize("absent", [0.2, 0.9])
def test_an_absent_class_costs_its_largest_error(absent):
    logits = torch.full((1, 1, 3, 3), -3.0)
    logits[0, 0, 1, 1] = torch.tensor(absent).logit()
    value = create_loss("lovasz", activation="sigmoid")(logits, torch.zeros(1, 1, 3, 3, dtype=int))
    assert value.item() == pytest.approx(absent)


def test_the_batch_as_one_image(batch):
    logits, target = batch
    joined = create_loss("lovasz", batch=True)(logits, target)
    side_by_side = torch.cat(list(logits), 1)[None], torch.cat(list(target), 0)[None]
    torch.testing.assert_close(joined, create_loss("lovasz")(*side_by_side))
    assert joined != create_loss("lovasz")(logits, target)


def test_single_precision_is_enough_for_large_images():
    """Steps far down the order are 1e-6 of the whole, and keep their size."""
    target = torch.zeros(1, 1, 1000, 1000, dtype=int)
    target[..., :100] = 1
    logits = torch.zeros(1, 1, 1000, 1000, requires_grad=True)
    loss = create_loss("lovasz", activation="sigmoid")
    value = loss(logits, target)
    value.backward()
    assert value.item() == pytest.approx(0.5, abs=1e-3)  # every error is one half
    double = logits.detach().double().requires_grad_()
    loss(double, target).backward()
    torch.testing.assert_close(logits.grad.abs().sum(), double.grad.abs().sum().float(), rtol=1e-4, atol=0)


def test_classes_that_are_present_alone(batch):
    """The first image lacks the last class; the second one has all three."""
    logits, target = batch
    target[0, target[0] == 2] = 0

    def of(k: int, n: int) -> torch.Tensor:
        alone = create_loss("lovasz", class_weights=[float(k == other) for other in range(3)])
        return alone(logits[n : n + 1], target[n : n + 1])

    expected = (of(0, 0) + of(1, 0)) / 2 / 2 + (of(0, 1) + of(1, 1) + of(2, 1)) / 3 / 2
    loss = create_loss("lovasz", classes="present")
    torch.testing.assert_close(loss(logits, target), expected)
    joined = create_loss("lovasz", classes="present", batch=True)(logits, target)
    torch.testing.assert_close(joined, create_loss("lovasz", batch=True)(logits, target))
    nothing = create_loss("lovasz", classes="present", activation="sigmoid")(logits, torch.zeros_like(logits))
    assert nothing.item() == 0
