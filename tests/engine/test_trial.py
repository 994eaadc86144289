from __future__ import annotations

import time
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from medseg import system
from medseg.engine import trial
from medseg.engine.fit import Config
from medseg.engine.trial import Trial
from medseg.errors import MedsegError
from medseg.losses import create_loss
from medseg.settings import parse


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
    found = trial.measure(model, loss, Data(), CPU, Config())
    assert set(found.seconds) == {"fp32", "bf16"}
    assert 0 < found.step_s == found.seconds[found.precision]
    assert found.memory_gb > 0
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert not model.training
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_one_arithmetic_alone(precision: str) -> None:
    found = trial.measure(
        nn.Conv2d(1, 2, 1), create_loss("dice_ce"), Data(), CPU, parse(Config, {"precision": precision})
    )
    assert (found.precision, set(found.seconds)) == (precision, {precision})


@pytest.mark.parametrize(
    ("fp32", "bf16", "chosen"),
    [(1.0, 0.5, "bf16"), (1.0, 0.95, "fp32"), (1.0, None, "fp32"), (None, 0.5, "bf16"), (1.0, 2.0, "fp32")],
)
def test_bf16_must_be_a_tenth_quicker(
    monkeypatch: pytest.MonkeyPatch, fp32: float | None, bf16: float | None, chosen: str
) -> None:
    found = {False: fp32, True: bf16}
    monkeypatch.setattr(trial._Steps, "times", lambda self, bf16, limit_s: [9.0, s] if (s := found[bf16]) else [])
    assert trial.measure(nn.Conv2d(1, 2, 1), create_loss("dice_ce"), Data(), CPU, Config()).precision == chosen


def test_bf16_is_not_tried_where_it_is_imitated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(system, "has_bf16", lambda device: False)
    assert trial.measure(nn.Conv2d(1, 2, 1), create_loss("dice_ce"), Data(), CPU, Config()).seconds.keys() == {"fp32"}


class Slow(nn.Conv2d):
    """Imitates bf16, many times slower than fp32."""

    steps = 0

    def forward(self, input: Tensor) -> Tensor:
        if torch.is_autocast_enabled("cpu"):
            Slow.steps += 1
            time.sleep(0.5)
        return super().forward(input)


def test_bf16_is_given_up_after_one_slow_step() -> None:
    found = trial.measure(Slow(1, 2, 1), create_loss("dice_ce"), Data(), CPU, Config())
    assert (found.precision, Slow.steps) == ("fp32", 1)
    assert found.seconds["bf16"] > 0.4


@pytest.mark.parametrize(("deterministic", "steps"), [(False, 1), (True, 4)])
def test_a_very_slow_step_is_made_once(monkeypatch: pytest.MonkeyPatch, deterministic: bool, steps: int) -> None:
    monkeypatch.setattr(trial, "_SLOW_S", 0)
    model = nn.Conv2d(1, 2, 1)
    made: list[bool] = []
    monkeypatch.setattr(nn.Conv2d, "forward", counted(nn.Conv2d.forward, made))
    config = Config(precision="fp32", deterministic=deterministic)
    assert trial.measure(model, create_loss("dice_ce"), Data(), CPU, config).step_s > 0
    assert len(made) == steps


def counted(forward: Any, made: list[bool]) -> Any:
    """The function, which leaves a mark in `made` each time."""

    def call(*given: Any) -> Any:
        made.append(True)
        return forward(*given)

    return call


def test_an_arithmetic_that_is_missing_is_not_taken() -> None:
    found = trial.measure(Picky(1, 2, 1), create_loss("dice_ce"), Data(), CPU, Config())
    assert (found.precision, set(found.seconds)) == ("fp32", {"fp32"})


def test_a_loss_that_is_no_number_is_told_before_the_run() -> None:
    model = nn.Conv2d(1, 2, 1)
    nn.init.constant_(model.weight, float("inf"))
    with pytest.raises(MedsegError, match=r"finite loss on cpu.*train\.precision=fp32"):
        trial.measure(model, create_loss("dice_ce"), Data(), CPU, Config())


def test_a_fault_of_the_model_is_not_hidden() -> None:
    with pytest.raises(RuntimeError, match="channels"):
        trial.measure(nn.Conv2d(3, 2, 1), create_loss("dice_ce"), Data(), CPU, Config())


class Hungry(nn.Conv2d):
    def forward(self, input: Tensor) -> Tensor:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes")


@pytest.mark.parametrize("precision", ["fp32", "bf16", "auto"])
def test_out_of_memory_is_told_so_that_the_run_can_be_planned_again(precision: str) -> None:
    with pytest.raises(MemoryError, match="1 samples does not fit in the memory of cpu"):
        trial.measure(Hungry(1, 2, 1), create_loss("dice_ce"), Data(), CPU, parse(Config, {"precision": precision}))


class Large(nn.Conv2d):
    """Fits in bf16 alone."""

    def forward(self, input: Tensor) -> Tensor:
        if not torch.is_autocast_enabled("cpu"):
            raise torch.OutOfMemoryError("too much")
        return super().forward(input)


def test_what_fits_in_one_arithmetic_is_trained_in_it() -> None:
    found = trial.measure(Large(1, 2, 1), create_loss("dice_ce"), Data(), CPU, Config())
    assert (found.precision, set(found.seconds)) == ("bf16", {"bf16"})


# --- what may not depend on the clock, and what it counts


@pytest.mark.parametrize(
    ("train", "tried"),
    [
        ({}, ("fp32", "bf16")),
        ({"deterministic": True}, ("bf16",)),
        ({"strategy": "fsdp"}, ("bf16",)),
        ({"deterministic": True, "precision": "fp32"}, ("fp32",)),
    ],
)
def test_a_choice_by_the_clock_is_made_where_it_may_be(train: dict[str, Any], tried: tuple[str, ...]) -> None:
    found = trial.measure(nn.Conv2d(1, 2, 1), create_loss("dice_ce"), Data(), CPU, parse(Config, train))
    assert tuple(found.seconds) == tried


def test_chance_goes_on_as_if_nothing_had_been_tried() -> None:
    """The number of steps follows the clock; a run must not follow it too."""
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 2, 1), nn.Dropout(0.5))
    torch.manual_seed(0)
    trial.measure(model, create_loss("dice_ce"), Data(), CPU, Config())
    assert torch.equal(torch.rand(3), expected)


def test_a_step_has_all_its_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial._Steps, "times", lambda *_: [9.0, 2.0])
    found = trial.measure(nn.Conv2d(1, 2, 1), create_loss("dice_ce"), Data(), CPU, Config(accumulate=3))
    assert found.step_s == found.seconds["fp32"] == 6.0


def test_stages_are_computed_again_in_a_trial_too(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[nn.Module] = []
    monkeypatch.setattr(trial, "recompute", calls.append)
    for wanted in (True, False, "auto"):
        config = parse(Config, {"checkpointing": wanted, "precision": "fp32"})
        found = trial.measure(nn.Conv2d(1, 2, 1), create_loss("dice_ce"), Data(), CPU, config)
        assert found.checkpointing == found.settled(config).checkpointing == (wanted is True)
    assert len(calls) == 1


# --- compiling


class Gpu:
    """Looks like a GPU to what asks for its kind."""

    type = "cuda"


@pytest.mark.parametrize(
    ("train", "device", "tried"),
    [
        ({"steps": 10_000}, Gpu(), True),
        ({"steps": 1000}, Gpu(), False),  # too short a run
        ({"budget_s": 3600}, Gpu(), True),
        ({"budget_s": 600}, Gpu(), False),
        ({"steps": 10_000}, CPU, False),
        ({"steps": 10_000, "deterministic": True}, Gpu(), False),
        ({"steps": 10_000, "strategy": "fsdp"}, Gpu(), False),
        ({"steps": 10_000, "checkpointing": True}, Gpu(), False),
        ({"steps": 10_000, "compile": False}, Gpu(), False),
        ({"steps": 10, "compile": True}, CPU, True),
    ],
)
def test_compiling_is_tried_where_it_may_pay(train: dict[str, Any], device: Any, tried: bool) -> None:
    config = parse(Config, train)
    found = Trial("fp32", 0.5, {"fp32": 0.5}, 2, 1.0, checkpointing=config.checkpointing is True)
    assert trial._may_compile(config, found, device) == tried


@pytest.mark.parametrize(
    ("wanted", "times", "taken"),
    [
        ("auto", [60.2, 0.2, 0.2], True),  # 300 s won with 60 s
        ("auto", [60.4, 0.45, 0.5], False),  # 50 s won
        ("auto", [0.6, 0.6, 0.6], False),
        (True, [60.4, 0.45, 0.5], True),
        ("auto", [], False),
    ],
)
def test_compiling_must_pay_within_the_run(
    monkeypatch: pytest.MonkeyPatch, wanted: Any, times: list[float], taken: bool
) -> None:
    monkeypatch.setattr(trial, "_may_compile", lambda *_: True)
    monkeypatch.setattr(
        trial._Steps, "times", lambda self, bf16, limit_s=0.0, compiled=False: times if compiled else [9.0, 0.5]
    )
    config = parse(Config, {"steps": 1000, "compile": wanted, "precision": "fp32"})
    found = trial.measure(nn.Conv2d(1, 2, 1), create_loss("dice_ce"), Data(), CPU, config)
    assert found.compiled == found.settled(config).compile == taken
    assert found.step_s == (min(times[1:]) if taken else 0.5)
    assert found.seconds.get("fp32 compiled") == (min(times[1:]) if times else None)


class Uncompilable(nn.Conv2d):
    def forward(self, input: Tensor) -> Tensor:
        if torch.compiler.is_compiling():
            raise RuntimeError("no compiler here\nand many lines more")
        return super().forward(input)


@pytest.mark.parametrize("wanted", [True, "auto"])
def test_a_model_that_cannot_be_compiled_is_told(monkeypatch: pytest.MonkeyPatch, wanted: Any, caplog: Any) -> None:
    def compile(model: nn.Module) -> nn.Module:
        monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
        return model

    monkeypatch.setattr(torch, "compile", compile)
    monkeypatch.setattr(trial, "_may_compile", lambda *_: True)
    config = parse(Config, {"compile": wanted, "precision": "fp32"})
    arguments = Uncompilable(1, 2, 1), create_loss("dice_ce"), Data(), CPU, config
    if wanted is True:
        with pytest.raises(MedsegError, match=r"cannot be compiled here \(no compiler here\).*train\.compile=false"):
            trial.measure(*arguments)
    else:
        assert not trial.measure(*arguments).compiled
        assert "no compiler here" in caplog.text
