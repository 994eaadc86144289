from __future__ import annotations

import time

import pytest
import torch
from torch import Tensor, nn

from medseg import system
from medseg.engine import trial
from medseg.errors import MedsegError
from medseg.losses import create_loss


class Data:
    size = 1
    spacing_mm = (1.0, 1.0, 1.0)

    def __call__(self, step: int) -> tuple[Tensor, Tensor]:
        return torch.randn(1, 1, 8, 8), torch.zeros(1, 8, 8, dtype=torch.long)


class Picky(nn.Conv2d):
    """Has no bf16, as some operators on some devices."""

    def forward(self, input: Tensor) -> Tensor:
        if torch.is_autocast_enabled("cpu"):
            raise RuntimeError("not implemented for 'BFloat16'")
        return super().forward(input)


CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def has_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    """On every machine."""
    monkeypatch.setattr(system, "has_bf16", lambda device: True)


def test_it_measures_and_leaves_everything_as_it_was() -> None:
    model, loss = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.BatchNorm2d(2)).eval(), create_loss("dice_ce")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    found = trial.measure(model, loss, Data(), CPU)
    assert set(found.seconds) == {"fp32", "bf16"}
    assert 0 < found.step_s == found.seconds[found.precision]
    assert found.memory_gb > 0
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert not model.training
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_one_arithmetic_alone(precision: str) -> None:
    found = trial.measure(nn.Conv2d(1, 2, 1), create_loss("dice_ce"), Data(), CPU, precision)
    assert (found.precision, set(found.seconds)) == (precision, {precision})


@pytest.mark.parametrize(
    ("fp32", "bf16", "chosen"),
    [(1.0, 0.5, "bf16"), (1.0, 0.95, "fp32"), (1.0, None, "fp32"), (None, 0.5, "bf16"), (1.0, 2.0, "fp32")],
)
def test_bf16_must_be_a_tenth_quicker(
    monkeypatch: pytest.MonkeyPatch, fp32: float | None, bf16: float | None, chosen: str
) -> None:
    found = {False: fp32, True: bf16}
    monkeypatch.setattr(trial, "_times", lambda *arguments: [9.0, s] if (s := found[arguments[4]]) else [])
    assert trial.measure(nn.Conv2d(1, 2, 1), create_loss("dice_ce"), Data(), CPU).precision == chosen


def test_bf16_is_not_tried_where_it_is_imitated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(system, "has_bf16", lambda device: False)
    assert trial.measure(nn.Conv2d(1, 2, 1), create_loss("dice_ce"), Data(), CPU).seconds.keys() == {"fp32"}


class Slow(nn.Conv2d):
    """Imitates bf16, many times slower than fp32."""

    steps = 0

    def forward(self, input: Tensor) -> Tensor:
        if torch.is_autocast_enabled("cpu"):
            Slow.steps += 1
            time.sleep(0.5)
        return super().forward(input)


def test_bf16_is_given_up_after_one_slow_step() -> None:
    found = trial.measure(Slow(1, 2, 1), create_loss("dice_ce"), Data(), CPU)
    assert (found.precision, Slow.steps) == ("fp32", 1)
    assert found.seconds["bf16"] > 0.4


def test_an_arithmetic_that_is_missing_is_not_taken() -> None:
    found = trial.measure(Picky(1, 2, 1), create_loss("dice_ce"), Data(), CPU)
    assert (found.precision, set(found.seconds)) == ("fp32", {"fp32"})


def test_a_loss_that_is_no_number_is_told_before_the_run() -> None:
    model = nn.Conv2d(1, 2, 1)
    nn.init.constant_(model.weight, float("inf"))
    with pytest.raises(MedsegError, match=r"finite loss on cpu.*train\.precision=fp32"):
        trial.measure(model, create_loss("dice_ce"), Data(), CPU)


def test_a_fault_of_the_model_is_not_hidden() -> None:
    with pytest.raises(RuntimeError, match="channels"):
        trial.measure(nn.Conv2d(3, 2, 1), create_loss("dice_ce"), Data(), CPU)


class Hungry(nn.Conv2d):
    def forward(self, input: Tensor) -> Tensor:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes")


@pytest.mark.parametrize("precision", ["fp32", "bf16", "auto"])
def test_out_of_memory_is_told_so_that_the_run_can_be_planned_again(precision: str) -> None:
    with pytest.raises(MemoryError, match="1 samples does not fit in the memory of cpu"):
        trial.measure(Hungry(1, 2, 1), create_loss("dice_ce"), Data(), CPU, precision)


class Large(nn.Conv2d):
    """Fits in bf16 alone."""

    def forward(self, input: Tensor) -> Tensor:
        if not torch.is_autocast_enabled("cpu"):
            raise torch.OutOfMemoryError("too much")
        return super().forward(input)


def test_what_fits_in_one_arithmetic_is_trained_in_it() -> None:
    found = trial.measure(Large(1, 2, 1), create_loss("dice_ce"), Data(), CPU)
    assert (found.precision, set(found.seconds)) == ("bf16", {"bf16"})
