import math

import pytest
import torch

from medseg.errors import ConfigError
from medseg.losses import create_loss, resolve


def test_at_first_a_plain_sum(batch):
    parts = [create_loss(name)(*batch) for name in ("dice", "cross_entropy")]
    torch.testing.assert_close(create_loss("multi_task")(*batch), sum(parts))


def test_weights_go_where_the_noise_is_that_of_the_loss(batch):
    """Of fixed losses L the best s is ln(2 L)."""
    loss = create_loss("multi_task", losses=[{"name": "dice"}, {"name": "cross_entropy", "beta": 4.0}])
    logits, target = batch[0].detach(), batch[1]
    optimiser = torch.optim.LBFGS(loss.parameters(), max_iter=50, line_search_fn="strong_wolfe")

    def step():
        optimiser.zero_grad()
        value = loss(logits, target)
        value.backward()
        return value

    optimiser.step(step)
    expected = [math.log(2 * part(logits, target).item()) for part in loss.losses]
    assert loss.log_variance.tolist() == pytest.approx(expected, abs=1e-3)


def test_what_is_learned_is_kept():
    loss, again = create_loss("multi_task"), create_loss("multi_task")
    torch.nn.init.normal_(loss.log_variance)
    again.load_state_dict(loss.state_dict())
    assert list(again.state_dict()) == ["log_variance"]
    assert torch.equal(again.log_variance, loss.log_variance)


def test_options_of_all_parts_and_of_one():
    described = resolve(
        "multi_task", activation="sigmoid", ignore_index=9, losses=[{"name": "focal", "ignore_index": 5}]
    )
    assert described["losses"][0].items() >= {"activation": "sigmoid", "ignore_index": 5, "gamma": 2.0}.items()
    assert resolve(described) == described
    assert resolve("multi_task", losses=["dice", "cross_entropy"]) == resolve("multi_task")


@pytest.mark.parametrize(
    ("losses", "message"),
    [
        ([], "loss.losses"),
        ([{"name": "dise"}], "unknown loss 'dise'"),
        ([{"name": "dice", "smoth": 1}], "loss.smoth: unknown option"),
    ],
)
def test_mistakes_are_told(losses, message):
    with pytest.raises(ConfigError, match=message):
        create_loss("multi_task", losses=losses)
