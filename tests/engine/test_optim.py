from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn

from medseg.engine import optim
from medseg.engine.optim import Average, Config, build, ema_decay, learning_rate
from medseg.errors import ConfigError
from medseg.settings import parse

# --- the rate over the run


@pytest.mark.parametrize(
    ("schedule", "progress", "expected"),
    [
        ("cosine", 0.0, 1.0),
        ("cosine", 0.25, (1 + math.cos(math.pi / 4)) / 2),
        ("cosine", 0.5, 0.5),
        ("cosine", 1.0, 0.0),
        ("poly", 0.0, 1.0),
        ("poly", 0.75, 0.25**0.9),
        ("poly", 1.0, 0.0),
        ("constant", 0.0, 1.0),
        ("constant", 1.0, 1.0),
        ("step", 0.0, 1.0),
        ("step", 0.3, 1.0),
        ("step", 0.4, 0.1),
        ("step", 0.7, 0.01),
        ("step", 1.0, 0.01),
        ("exponential", 0.0, 1.0),
        ("exponential", 0.5, 0.1),
        ("exponential", 1.0, 0.01),
    ],
)
def test_schedules(schedule: str, progress: float, expected: float) -> None:
    config = parse(Config, {"schedule": schedule, "learning_rate": 0.3, "warm_up": 0})
    assert learning_rate(config, progress) == pytest.approx(0.3 * expected, abs=1e-12)


def test_warm_up_rises_in_a_line_to_the_highest_rate_and_the_schedule_takes_what_is_left() -> None:
    config = Config(learning_rate=1.0, warm_up=0.2, schedule="poly")
    assert learning_rate(config, 0.1) == pytest.approx(0.5)
    assert learning_rate(config, 0.2) == pytest.approx(1.0)
    assert learning_rate(config, 0.6) == pytest.approx(0.5**0.9)
    assert learning_rate(config, 0.0) > 0  # the first step is not for nothing


def test_a_run_that_overruns_keeps_the_last_rate() -> None:
    assert learning_rate(Config(), 1.5) == learning_rate(Config(), 1.0) == 0


# --- the optimiser


@pytest.mark.parametrize("name", ["muon", "adamw", "sgd", "rmsprop"])
def test_only_weights_decay(name: str) -> None:
    module = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
    decayed, others = build([module], parse(Config, {"name": name, "weight_decay": 0.1})).param_groups
    assert [p.shape for p in decayed["params"]] == [(2, 1, 3, 3)]
    assert (decayed["weight_decay"], others["weight_decay"]) == (0.1, 0.0)
    assert len(others["params"]) == 3  # bias, and the normalisation's two


def test_frozen_parameters_are_left_out() -> None:
    module = nn.Linear(2, 2)
    module.bias.requires_grad_(False)
    groups = build([module], Config()).param_groups
    assert sum(len(group["params"]) for group in groups) == 1


@pytest.mark.parametrize("nesterov", [True, False])
def test_sgd_by_hand(nesterov: bool) -> None:
    """Two steps: v = m v + g; w = w - lr (g + m v), or w - lr v."""
    module = nn.Linear(1, 1, bias=False)
    nn.init.constant_(module.weight, 1.0)
    config = Config(name="sgd", learning_rate=0.1, momentum=0.9, nesterov=nesterov, weight_decay=0)
    optimiser = build([module], config)
    weight, velocity = 1.0, 0.0
    for gradient in (2.0, -1.0):
        module.weight.grad = torch.full((1, 1), gradient)
        optimiser.step()
        velocity = 0.9 * velocity + gradient
        weight -= 0.1 * (gradient + 0.9 * velocity if nesterov else velocity)
    assert module.weight.item() == pytest.approx(weight, rel=1e-6)


def test_adamw_steps_by_its_rate_and_decays() -> None:
    """The first step is lr x sign(g), after w is shrunk by lr x decay."""
    module = nn.Linear(1, 1, bias=False)
    nn.init.constant_(module.weight, 1.0)
    optimiser = build([module], Config(name="adamw", learning_rate=0.01, weight_decay=0.5))
    module.weight.grad = torch.full((1, 1), 3.0)
    optimiser.step()
    assert module.weight.item() == pytest.approx(1 - 0.01 * 0.5 - 0.01, abs=1e-6)


def test_rmsprop_divides_by_the_running_size_of_the_gradient() -> None:
    """Tieleman and Hinton 2012: with a share of 0.99, one step of a gradient g is rate * g / (0.1 |g|)."""
    module = nn.Linear(1, 1, bias=False)
    before = module.weight.item()
    optimiser = build([module], Config(name="rmsprop", learning_rate=0.01, weight_decay=0))
    (5 * module.weight).sum().backward()
    optimiser.step()
    assert module.weight.item() == pytest.approx(before - 0.1, abs=1e-5)


def test_muon_turns_kernels_and_leaves_the_rest_to_adamw() -> None:
    module = nn.Sequential(nn.Conv3d(8, 16, 3), nn.Conv3d(16, 2, 1))
    config = Config(name="muon", learning_rate=0.01, weight_decay=0, momentum=0)
    kernel, head, (before, head_before) = (
        module[0].weight,
        module[1].weight,
        [m.weight.detach().clone() for m in module],
    )  # type: ignore[union-attr]
    optimiser = build([module], config)
    for parameter in module.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0))
    optimiser.step()
    change = ((before - kernel) / 0.01).flatten(1).detach()
    assert change.pow(2).mean().sqrt() == pytest.approx(0.2, rel=0.2)  # as AdamW's usual change
    values = torch.linalg.svdvals(change)
    assert values.max() / values.min() < 2
    torch.testing.assert_close((head_before - head).abs(), torch.full_like(head, 0.01), rtol=1e-3, atol=0)


def test_a_run_by_muon_can_be_restored() -> None:
    def steps(module: nn.Module, optimiser: torch.optim.Optimizer, count: int) -> None:
        for _ in range(count):
            module(torch.ones(2, 8, 4, 4)).square().sum().backward()
            optimiser.step()
            optimiser.zero_grad()

    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(8, 8, 3), nn.Conv2d(8, 2, 1))
    twin = copy.deepcopy(module)
    optimiser, other = build([module], Config()), build([twin], Config())
    steps(module, optimiser, 2)
    twin.load_state_dict(module.state_dict())
    other.load_state_dict(copy.deepcopy(optimiser.state_dict()))
    steps(module, optimiser, 2)
    steps(twin, other, 2)
    torch.testing.assert_close(module.state_dict(), twin.state_dict(), rtol=0, atol=0)


def test_unknown_values_are_named() -> None:
    with pytest.raises(ConfigError, match=r"optim\.name: expected 'muon', 'adamw', 'sgd' or 'rmsprop', got 'adam'"):
        parse(Config, {"name": "adam"}, "optim")


# --- the running average


def test_young_averages_forget_faster_and_then_keep_to_the_decay() -> None:
    module = nn.Linear(1, 1, bias=False)
    nn.init.constant_(module.weight, 0.0)
    average, expected = Average(module, decay=0.4), 0.0
    for step in range(1, 8):
        nn.init.constant_(module.weight, float(step))
        average.update()
        decay = min(0.4, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * step
        assert average.shadow["weight"].item() == pytest.approx(expected, rel=1e-5)


def test_without_decay_the_average_is_the_model() -> None:
    module = nn.BatchNorm1d(2)
    average = Average(module, 0.0)
    module(torch.randn(5, 2))
    average.update()
    assert all(torch.equal(average.shadow[name], tensor) for name, tensor in module.state_dict().items())


def test_whole_numbers_are_copied_not_averaged() -> None:
    module = nn.BatchNorm1d(2)
    average = Average(module, 0.999)
    for _ in range(3):
        module(torch.randn(5, 2))
        average.update()
    assert average.shadow["num_batches_tracked"].item() == 3


def test_the_average_leaves_the_model_alone() -> None:
    module = nn.Linear(2, 2)
    before = module.weight.detach().clone()
    average = Average(module, 0.9)
    average.shadow["weight"].zero_()
    assert torch.equal(module.weight, before)


def test_a_stored_average_goes_on() -> None:
    module = nn.Linear(2, 2)
    a, b = Average(module, 0.9), Average(module, 0.9)
    a.update()
    b.restore({name: tensor.clone() for name, tensor in a.shadow.items()}, a.steps)
    nn.init.ones_(module.weight)
    a.update()
    b.update()
    assert all(torch.equal(a.shadow[name], b.shadow[name]) for name in a.shadow)


@pytest.mark.parametrize(("steps", "memory"), [(1, 10), (1000, 30), (10_000, 300), (10**6, 1000)])
def test_the_average_reaches_back_over_three_hundredths_of_a_run(steps: int, memory: float) -> None:
    assert 1 / (1 - ema_decay(steps)) == pytest.approx(memory)


def test_all_options_are_documented() -> None:
    assert all(f"{name}:" in (optim.Config.__doc__ or "") for name in optim.Config.model_fields)
