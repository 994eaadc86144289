import math
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from medseg.errors import ConfigError
from medseg.losses import LossContext, create_loss, names


def test_names_are_those_of_the_files():
    assert {"cross_entropy", "dice", "dice_ce", "focal", "tversky"} <= set(names())
    assert not [name for name in names() if name.startswith("_")]


def test_listing_loads_no_torch():
    code = "import sys, medseg.losses as l; l.names(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_options_from_a_mapping_and_by_name(batch):
    one = create_loss({"name": "dice", "smooth": 1.0})(*batch)
    assert torch.equal(one, create_loss("dice", smooth=1.0)(*batch))
    assert not torch.equal(one, create_loss("dice")(*batch))


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        ("dise", "unknown loss 'dise'. Did you mean 'dice'?"),
        ({"smooth": 1}, "a loss needs a name"),
        ({"name": "dice", "smoth": 1}, "loss.smoth: unknown option. Did you mean 'smooth'?"),
        ({"name": "tversky", "beta": 2}, "loss.beta: expected a number less than or equal to 1"),
        ({"name": "dice", "smooth": float("inf")}, "loss.smooth: expected a finite number, got inf"),
        (None, "loss: expected a name, names and values, or a list of them; got None"),
    ],
)
def test_wrong_requests(loss, message):
    with pytest.raises(ConfigError, match="^" + message.replace("?", r"\?")):
        create_loss(loss)


@pytest.mark.parametrize(
    ("options", "logits", "target", "message"),
    [
        ({}, (1, 1, 4, 4), torch.zeros(1, 4, 4, dtype=int), "softmax over one channel"),
        ({"activation": "sigmoid"}, (1, 3, 4, 4), torch.zeros(1, 4, 4, dtype=int), "one channel a structure"),
        ({"class_weights": (1, 2)}, (1, 3, 4, 4), torch.zeros(1, 4, 4, dtype=int), "class_weights needs 3 numbers"),
        ({}, (1, 3, 4, 4), torch.full((1, 4, 4), 3), "holds 3, but 0 to 2"),
        ({"activation": "sigmoid"}, (1, 1, 4, 4), torch.full((1, 4, 4), 2), "holds 2, but 0 to 1"),
        ({}, (1, 3, 4, 4), torch.full((1, 4, 4), -100), "holds -100, but 0 to 2 .* ignore_index -1"),
        ({}, (1, 3, 2), torch.tensor([[-2, -1]]), "holds -2, but"),
        ({}, (1, 3, 2), torch.tensor([[-1, 7]]), "holds 7, but"),
        ({"ignore_index": 255}, (1, 3, 2), torch.tensor([[200, 255]], dtype=torch.uint8), "holds 200, but"),
        ({}, (1, 3, 2), torch.tensor([[255, 0]], dtype=torch.uint8), "holds 255, but"),
        ({}, (1, 3, 4, 4), torch.full((1, 4, 4), 0.3), r"holds 0\.3, but 0 to 2"),
        ({}, (1, 3, 4, 4), torch.full((1, 3, 4, 4), torch.nan), "holds nan, but 0 to 1"),
        ({}, (1, 3, 4, 4), torch.full((1, 3, 4, 4), -0.5), r"holds -0\.5, but 0 to 1"),
        ({}, (1, 3, 4, 4), torch.zeros(1, 2, 4, 4), r"need a target \(1, 4, 4\) \(classes\)"),
        ({}, (1, 3, 4, 4), torch.zeros(1, 8, 8, dtype=int), "need a target"),
        ({}, (1, 3, 4, 4), torch.ones(1, 3, 4, 4), "sum to 3, but with activation: softmax"),
        ({}, (1, 3, 4, 4), torch.zeros(1, 3, 4, 4, dtype=bool), "sum to 0, but with activation: softmax"),
        ({}, (1, 3, 2), torch.tensor([[[-1, 1], [0, 1], [0, 0]]]), "sum to 2, but with activation: softmax"),
        ({}, (0, 3, 4, 4), torch.zeros(0, 4, 4, dtype=int), "at least one voxel"),
        ({}, (1, 3, 0, 4), torch.zeros(1, 0, 4, dtype=int), "at least one voxel"),
        ({}, (4, 3), torch.zeros(4, dtype=int), r"expected logits \(B, K, \*spatial\)"),
    ],
)
def test_what_does_not_fit_together(options, logits, target, message):
    with pytest.raises(ConfigError, match=message):
        create_loss("dice", **options)(torch.zeros(logits), target)


@pytest.mark.parametrize("name", ["level_set", "consistency"])
@pytest.mark.parametrize("shape", [(1, 1, 4, 4), (2, 4, 4)])
def test_what_comes_beside_the_logits_is_of_the_same_batch(name, shape):
    beside = torch.zeros(shape)
    context = LossContext(image=beside, extras={"second": beside})
    with pytest.raises(ConfigError, match=r"beside logits \(2, 3, 4, 4\) expected \(B, C, \*spatial\) of the same"):
        create_loss(name)(torch.zeros(2, 3, 4, 4), torch.zeros(2, 4, 4, dtype=int), context)


NO_SPACINGS = [
    (1.0, 0.0),
    (1.0, -1.0, 1.0),
    (1.0, math.nan),
    (1.0, math.inf),
    (),
    1.0,
    "11",
    "a",
    (1.0, None),
    (1.0, "a"),
]


@pytest.mark.parametrize("spacing_mm", NO_SPACINGS)
def test_a_spacing_that_is_none(spacing_mm):
    with pytest.raises(ConfigError, match="spacing_mm needs numbers above 0, one a spatial axis"):
        LossContext(spacing_mm=spacing_mm)


@pytest.mark.parametrize("spacing_mm", [(1.0,), (1.0,) * 4])
def test_a_spacing_of_other_axes(spacing_mm):
    logits, target = torch.zeros(1, 3, 4, 4), torch.zeros(1, 4, 4, dtype=int)
    with pytest.raises(ConfigError, match="spacing_mm needs 2 numbers above 0, one a spatial axis"):
        create_loss("boundary")(logits, target, LossContext(spacing_mm=spacing_mm))


@pytest.mark.parametrize("spacing_mm", [[1, 2, 3], np.array([1.0, 2.0, 3.0]), torch.tensor([1.0, 2.0, 3.0])])
def test_a_spacing_of_any_numbers(spacing_mm):
    assert LossContext(spacing_mm=spacing_mm).spacing_mm == (1.0, 2.0, 3.0)


@pytest.mark.parametrize("progress", [-0.1, 1.1, math.nan, "0.5", None])
def test_progress_is_a_share(progress):
    """Of -1 a rising weight would be negative, and of NaN it was the last one."""
    with pytest.raises(ConfigError, match="progress is a number from 0 to 1, got"):
        LossContext(progress=progress)


@pytest.mark.parametrize("loss", ["dice", "consistency", "dual_task", "multi_task", ["dice", "focal"]])
def test_what_is_no_tensor_and_no_context_is_told(loss, batch):
    loss, (logits, target) = create_loss(loss), batch
    beside = LossContext(extras={"second": logits, "boundary": logits[:, :1]})
    wrong = [
        (logits.detach().numpy(), target),
        (logits.tolist(), target),
        (logits, target.numpy()),
        (logits, None),
    ]
    for output, truth in wrong:
        with pytest.raises(
            ConfigError, match=r"^expected (logits|a target) as a torch tensor, got \w+: torch\.as_tensor"
        ):
            loss(output, truth, beside)
    with pytest.raises(ConfigError, match=r"^expected (logits|a target) of real numbers, got torch\.complex64"):
        loss(logits, target + 0j, beside)
    with pytest.raises(ConfigError, match=r"^expected LossContext\(\.\.\.\) as the context, got \{'spacing_mm': 1\}"):
        loss(logits, target, {"spacing_mm": 1})


def test_an_image_that_is_no_tensor_is_told(batch):
    with pytest.raises(ConfigError, match="beside logits as a torch tensor, got ndarray"):
        create_loss("level_set")(*batch, LossContext(image=np.zeros(batch[0].shape)))
    with pytest.raises(ConfigError, match="extras are tensors by name"):
        LossContext(extras=3)


def test_whole_numbers_of_any_type_are_classes(batch):
    logits, target = batch
    expected = create_loss("dice")(logits, target)
    for kind in (torch.uint8, torch.uint16, torch.int16, torch.uint32, torch.int32, torch.float32, torch.float64):
        assert create_loss("dice", ignore_index=-1)(logits, target.to(kind)) == expected


def test_memberships_may_be_rounded(batch):
    logits, target = batch
    exact = torch.nn.functional.one_hot(target, 3).movedim(-1, 1).float()
    rounded = exact * (1 + 1e-6) - 1e-6 * (1 - exact)
    torch.testing.assert_close(create_loss("dice")(logits, rounded), create_loss("dice")(logits, target))


def test_a_spacing_may_be_an_array(batch):
    spacing = (0.7, 0.8, 3.0)
    loss = create_loss("boundary")
    expected = loss(*batch, LossContext(spacing_mm=spacing))
    for same in (np.array(spacing), torch.tensor(spacing, dtype=torch.float64)):
        assert loss(*batch, LossContext(spacing_mm=same)) == expected


def test_one_sigmoid_channel_takes_classes(grid):
    logits, target = grid
    binary = create_loss("dice", activation="sigmoid")(logits[:, 1:] * 2, target)
    torch.testing.assert_close(binary, create_loss("dice")(logits * 2, target))


def test_yes_and_no_are_classes_and_memberships(grid):
    logits, target = grid
    loss = create_loss("focal", gamma=1)
    torch.testing.assert_close(loss(logits / 9, target.bool()), loss(logits / 9, target))
    overlap = create_loss("focal", gamma=1, activation="sigmoid")
    yes = target.bool()[:, None].expand_as(logits)
    torch.testing.assert_close(overlap(logits / 9, yes), overlap(logits / 9, yes.float()))


def test_a_coarser_level_sees_the_nearest_voxel():
    target = torch.zeros(1, 4, 4, dtype=int)
    target[0, 1::2, 1::2] = 1
    coarse = torch.tensor([-50.0, 50.0]).view(1, 2, 1, 1).expand(1, 2, 2, 2)
    output = SimpleNamespace(logits=torch.zeros(1, 2, 4, 4), auxiliary=(coarse,))
    alone = create_loss("dice")(output.logits, target)
    torch.testing.assert_close(create_loss("dice")(output, target), 2 / 3 * alone)


def test_spacing_of_a_coarser_level():
    target = torch.zeros(1, 8, 8, dtype=int)
    target[:, :4] = 1
    fine, coarse = torch.zeros(1, 2, 8, 8), torch.zeros(1, 2, 4, 4)
    fine[:, 1] = coarse[:, 1] = -50
    loss = create_loss("hausdorff_dt", alpha=1)
    value = loss(SimpleNamespace(logits=fine, auxiliary=(coarse,)), target)
    expected = (
        2 * (1 + 2 + 3 + 4) / 8 + (2 + 4) / 4
    ) / 3  # the same millimetres: voxels of the second level are twice as long
    assert value.item() == pytest.approx(expected)


@pytest.mark.parametrize("name", ["dice", "generalised_dice", "tversky", "cl_dice", "unified_focal", "log_cosh_dice"])
def test_a_batch_that_processes_share_is_compared_as_one(batch, name):
    """The sums of the other part come from elsewhere; values and slopes are those of the whole batch."""
    logits, target = batch
    focal = {"focal_share": 0} if name == "unified_focal" else {}  # of a region alone the value is the whole batch's
    loss, sums = create_loss(name, batch=True, **focal), []
    whole = loss(logits, target)
    (slopes,) = torch.autograd.grad(whole, logits)
    others = LossContext(total=lambda values: sums.append(values.detach()) or values)
    loss(logits[1:], target[1:], others)
    part = loss(logits[:1], target[:1], LossContext(total=lambda values: values + sums.pop(0)))
    torch.testing.assert_close(part, whole)
    torch.testing.assert_close(torch.autograd.grad(part, logits)[0][:1], slopes[:1])
