import pytest

from medseg.errors import ConfigError
from medseg.losses import create_loss
from medseg.losses._schedule import Ramp, at
from medseg.settings import parse


def test_a_straight_line_and_then_its_end():
    ramp = parse(Ramp, {"from": 1, "to": 0.2, "over": 0.5})
    assert [at(ramp, progress) for progress in (0.0, 0.25, 0.5, 1.0)] == pytest.approx([1, 0.6, 0.2, 0.2])
    assert at(0.7, 0.3) == 0.7


def test_its_names_are_those_of_files():
    assert parse(Ramp, {"from": 0, "to": 1}).model_dump() == {"from": 0, "to": 1, "over": 1}


@pytest.mark.parametrize(
    ("alpha", "message"),
    [
        ({"from": 1}, "loss.alpha.to: a value is missing"),
        ({"from": 1, "to": 0, "ovre": 0.3}, "loss.alpha.ovre: unknown option. Did you mean 'over'?"),
        ({"from": 1, "to": -1}, "loss.alpha.to: expected a number greater than or equal to 0"),
        ({"from": 2, "to": 1}, "loss.alpha.from: expected a number less than or equal to 1"),
        (2, "loss.alpha: expected a number less than or equal to 1"),
    ],
)
def test_mistakes_are_told(alpha, message):
    with pytest.raises(ConfigError, match="^" + message.replace("?", r"\?")):
        create_loss("boundary", alpha=alpha)
