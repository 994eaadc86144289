import pytest
import torch
from monai.losses import DiceFocalLoss, GeneralizedDiceFocalLoss

from medseg.errors import ConfigError
from medseg.losses import LossContext, create_loss, resolve
from medseg.losses._factory import title

SUM = [{"name": "dice", "weight": 1}, {"name": "boundary", "weight": {"from": 0.01, "to": 1, "over": 0.8}}]


@pytest.mark.parametrize(("progress", "weight"), [(0.0, 0.01), (0.4, 0.505), (0.8, 1.0), (1.0, 1.0)])
def test_weights_follow_the_training(batch, progress, weight):
    dice, boundary = (create_loss(name)(*batch) for name in ("dice", "boundary"))
    value = create_loss(SUM)(*batch, LossContext(progress=progress))
    torch.testing.assert_close(value, dice + weight * boundary)
    torch.testing.assert_close(create_loss(SUM)(*batch), dice + 0.01 * boundary)


@pytest.mark.parametrize("kind", [DiceFocalLoss, GeneralizedDiceFocalLoss])
def test_sums_equal_monai(batch, kind):
    """monai's focal loss takes each class for a yes or no here, beside a softmax for the regions."""
    logits, target = batch
    region = "dice" if kind is DiceFocalLoss else "generalised_dice"
    parts = [
        {"name": region, "include_background": True, "smooth": 1e-5},
        {"name": "focal", "activation": "sigmoid", "alpha": None},
    ]
    memberships = torch.nn.functional.one_hot(target, 3).movedim(-1, 1)
    oracle = kind(softmax=True, to_onehot_y=True, gamma=2.0)
    value = create_loss(parts)(logits, memberships)
    torch.testing.assert_close(value, oracle(logits, target[:, None]), atol=1e-5, rtol=0)


def test_names_and_options_for_all(overlapping):
    value = create_loss(["dice", {"name": "focal", "gamma": 1}], activation="sigmoid")(*overlapping)
    parts = [create_loss("dice", activation="sigmoid"), create_loss("focal", gamma=1, activation="sigmoid")]
    torch.testing.assert_close(value, sum(part(*overlapping) for part in parts))


def test_what_weighs_nothing_is_not_computed(batch):
    """Without an image, the second would be refused."""
    loss = create_loss(["dice", {"name": "level_set", "weight": {"from": 0, "to": 1}}])
    torch.testing.assert_close(loss(*batch), create_loss("dice")(*batch))
    with pytest.raises(ConfigError, match="looks at the image"):
        loss(*batch, LossContext(progress=0.5))


def test_nothing_at_all_has_a_slope_of_0(batch):
    logits, target = batch
    value = create_loss([{"name": "dice", "weight": 0}])(logits, target)
    value.backward()
    assert value.item() == 0
    assert not logits.grad.any()


def test_its_description_is_complete_and_makes_the_same():
    described = resolve(SUM)
    assert described[0].items() >= {"name": "dice", "weight": 1.0, "smooth": 1e-5}.items()
    assert described[1]["weight"] == {"from": 0.01, "to": 1.0, "over": 0.8}
    assert resolve(described) == described
    assert title(SUM) == "dice + boundary"
    assert title("dice") == title({"name": "dice"}) == "dice"


def test_learned_weights_in_a_sum():
    assert [name for name, _ in create_loss(["dice", "multi_task"]).named_parameters()] == ["losses.1.log_variance"]


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        ([], "loss: expected a name, names and values, or a list of them; got []"),
        ([3], "loss: expected a name"),
        ([{"weight": 1}], "a loss needs a name"),
        ([{"name": "dice", "weight": -1}], "loss.weight: expected a number greater than or equal to 0, got -1"),
        ([{"name": "dice", "weight": {"from": 1, "to": 0, "ovre": 1}}], "loss.weight.ovre: unknown option"),
        ({"name": "dice", "weight": 2}, "loss.weight: unknown option"),
    ],
)
def test_mistakes_are_told(loss, message):
    with pytest.raises(ConfigError) as caught:
        create_loss(loss)
    assert message in str(caught.value)
