from __future__ import annotations

import csv
import itertools
import json
import math
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning_fabric import Fabric
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from medseg.engine import clock, optim
from medseg.engine.fit import Config, fit
from medseg.engine.optim import learning_rate
from medseg.engine.state import COLUMNS, Run
from medseg.errors import ConfigError, Interrupted, MedsegError, RunError
from medseg.losses import create_loss
from medseg.models import create_model
from medseg.settings import parse


class Data:
    """Bright voxels are the structure; each batch is a function of its step. May do something before a step."""

    size = 2
    spacing_mm = (1.0, 1.0, 1.0)

    def __init__(self, **before: Callable[[], Any]) -> None:
        self.before = {int(key.removeprefix("step_")): action for key, action in before.items()}
        self.asked: list[int] = []

    def __call__(self, step: int) -> tuple[Tensor, Tensor]:
        self.asked.append(step)
        if step in self.before:
            self.before[step]()
        image = torch.randn(2, 1, 8, 8, 8, generator=torch.Generator().manual_seed(step))
        return image, (image[:, 0] > 0.5).long()


class WeightedLoss(nn.Module):
    """A loss with a parameter of its own (a learned temperature), which may fail at some steps."""

    def __init__(self, bad: Callable[[int], bool] = lambda _: False) -> None:
        super().__init__()
        self.scale, self.bad, self.calls = nn.Parameter(torch.ones(1)), bad, 0

    def forward(self, output: Tensor, target: Tensor, context: Any) -> Tensor:
        self.calls += 1
        value = nn.functional.cross_entropy(output * self.scale, target)
        return value * float("nan") if self.bad(self.calls - 1) else value


def network(seed: int = 0) -> nn.Module:
    """With everything that a checkpoint must hold: weights, averages and a counter of normalisation, and chance."""
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv3d(1, 4, 3, padding=1), nn.BatchNorm3d(4), nn.Dropout(0.2), nn.ReLU(), nn.Conv3d(4, 2, 1)
    )


def ready(value: float = 0.5) -> Callable[[Mapping[str, Tensor]], float]:
    return lambda _: value


def term() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def run(folder: Path, fabric: Fabric, data: Data | None = None, **changes: Any) -> Run:
    """A short run; `train` and `how` are settings."""
    arguments: dict[str, Any] = {
        "model": changes.pop("model", None) or network(),
        "loss": changes.pop("loss", None) or create_loss("cross_entropy"),
        "validate": changes.pop("validate", ready()),
        "config": parse(Config, {"steps": 10, "validations": 5} | changes.pop("train", {})),
        "optim_config": parse(optim.Config, {"learning_rate": 0.05} | changes.pop("how", {})),
        "started": time.monotonic(),
    }
    return fit(batches=data or Data(), fabric=fabric, folder=folder / "checkpoints", **(arguments | changes))


def history(folder: Path) -> list[dict[str, str]]:
    with (folder / "history.csv").open() as stream:
        return list(csv.DictReader(stream))


def last(folder: Path) -> dict[str, Tensor]:
    return load_file(folder / "checkpoints/last.safetensors")


# --- learning


@pytest.mark.parametrize("how", [{"learning_rate": 0.02}, {"name": "sgd", "learning_rate": 0.1, "momentum": 0.9}])
def test_it_learns(tmp_path: Path, fabric: Fabric, how: dict[str, Any]) -> None:
    torch.manual_seed(0)
    model = create_model("unet", spatial_dims=3, in_channels=1, out_channels=2, preset="tiny")
    train = {"steps": 40, "validations": 1}
    run(tmp_path, fabric, model=model, loss=create_loss("dice_ce"), train=train, how=how)
    losses = [float(row["loss"]) for row in history(tmp_path)]
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])


def test_bf16_learns(tmp_path: Path) -> None:
    fabric = Fabric(accelerator="cpu", devices=1, precision="bf16-mixed")
    run(tmp_path, fabric, train={"steps": 40, "validations": 1})
    losses = [float(row["loss"]) for row in history(tmp_path)]
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])


def test_gradients_are_clipped(tmp_path: Path, fabric: Fabric) -> None:
    """Plain SGD moves by rate x gradient, whose norm may be no more than the limit."""
    model = network()
    before = [p.detach().clone() for p in model.parameters()]
    how = {"name": "sgd", "momentum": 0, "weight_decay": 0, "schedule": "constant", "warm_up": 0, "learning_rate": 1.0}
    run(tmp_path, fabric, model=model, train={"steps": 1, "validations": 1}, how=how | {"clip_norm": 1e-3})
    moved = torch.cat([(p - b).flatten() for p, b in zip(model.parameters(), before, strict=True)]).norm()
    assert moved.item() == pytest.approx(1e-3, rel=1e-3)


def test_a_loss_may_learn_too(tmp_path: Path, fabric: Fabric) -> None:
    loss = WeightedLoss()
    run(tmp_path, fabric, loss=loss)
    stored = last(tmp_path)["loss/scale"]
    assert stored.item() != 1.0
    assert torch.equal(stored, loss.scale.detach())
    other = WeightedLoss()
    run(tmp_path, fabric, loss=other, resume=True)
    assert torch.equal(other.scale.detach(), stored)


# --- several batches a step


class Share(Data):
    """The samples of `Data`, two a step, in batches of one."""

    size = 1

    def __call__(self, number: int) -> tuple[Tensor, Tensor]:
        step, part = divmod(number, 2)
        return tuple(whole[part : part + 1] for whole in super().__call__(step))  # type: ignore[return-value]


@pytest.mark.parametrize(("name", "atol"), [("sgd", 1e-6), ("adamw", 1e-4)])
def test_accumulated_batches_make_the_step_of_one_large_batch(
    tmp_path: Path, fabric: Fabric, name: str, atol: float
) -> None:
    asked = {}
    for folder, data, parts in (("whole", Data(), 1), ("parts", Share(), 2)):
        torch.manual_seed(0)
        # a bias before a normalisation has no gradient, and adamw makes steps of what rounding leaves of it
        first = nn.Conv3d(1, 4, 3, padding=1, bias=False)
        model = nn.Sequential(first, nn.GroupNorm(4, 4), nn.ReLU(), nn.Conv3d(4, 2, 1))
        train = {"steps": 5, "accumulate": parts}
        run(tmp_path / folder, fabric, data, model=model, train=train, how={"name": name})
        asked[folder] = data.asked
    assert asked == {"whole": [0, 1, 2, 3, 4], "parts": [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]}
    whole, parts_ = last(tmp_path / "whole"), last(tmp_path / "parts")
    for key in (key for key in whole if key.startswith(("model", "ema"))):
        torch.testing.assert_close(parts_[key], whole[key], rtol=1e-5, atol=atol)
    losses = [[float(row["loss"]) for row in history(tmp_path / folder)] for folder in ("whole", "parts")]
    assert losses[0] == pytest.approx(losses[1], abs=1e-4)


def test_a_bad_batch_among_accumulated_ones_spoils_the_step(tmp_path: Path, fabric: Fabric) -> None:
    """The first batch of the first step; its second one, and the second step, are good."""
    model, seen = network(), []
    weight = model[4].weight  # type: ignore[index]
    data = Data(step_2=lambda: seen.append(weight.detach().clone()))  # type: ignore[operator, union-attr]
    run(tmp_path, fabric, data, model=model, loss=WeightedLoss(lambda n: n == 0), train={"steps": 2, "accumulate": 2})
    assert torch.equal(seen[0], network()[4].weight)  # type: ignore[index]
    assert not torch.equal(weight, seen[0])  # type: ignore[arg-type]


# --- ways to compute a step


def test_stages_that_are_computed_again_learn_the_same(tmp_path: Path, fabric: Fabric) -> None:
    for folder, checkpointing in (("plain", False), ("again", True)):
        run(
            tmp_path / folder, fabric, model=nn.Sequential(network(), nn.ReLU()), train={"checkpointing": checkpointing}
        )
    assert exact(tmp_path / "plain") == exact(tmp_path / "again")
    assert torch.equal(last(tmp_path / "plain")["random/torch"], last(tmp_path / "again")["random/torch"])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # torch 2.13 warns of itself
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_a_compiled_model_learns_the_same_under_the_same_names(tmp_path: Path, fabric: Fabric) -> None:
    for folder, compiled in (("plain", False), ("compiled", True)):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv3d(1, 2, 3, padding=1), nn.ReLU())
        run(tmp_path / folder, fabric, model=model, train={"compile": compiled, "steps": 3})
    plain, compiled_ = last(tmp_path / "plain"), last(tmp_path / "compiled")
    assert plain.keys() == compiled_.keys()
    for key in (key for key in plain if key.startswith(("model", "ema"))):
        torch.testing.assert_close(compiled_[key], plain[key], rtol=1e-4, atol=1e-4)


def test_a_loss_that_learns_is_not_divided(tmp_path: Path, fabric: Fabric) -> None:
    with pytest.raises(ConfigError, match=r"train\.strategy=fsdp.*train\.strategy=ddp"):
        run(tmp_path, fabric, loss=WeightedLoss(), train={"strategy": "fsdp"})


@pytest.mark.parametrize(
    ("train", "message"),
    [
        ({"deterministic": True, "budget_s": 60}, "deterministic needs steps"),
        ({"compile": True, "checkpointing": True}, "compile excludes checkpointing"),
        ({"compile": True, "strategy": "fsdp"}, "compile excludes .* strategy=fsdp"),
        ({"compile": "maybe"}, r"compile: expected 'auto', True or False, got 'maybe'"),
        ({"accumulate": 0}, "accumulate"),
    ],
)
def test_what_cannot_be_had_together_is_refused(train: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse(Config, train)


# --- the history


def test_history(tmp_path: Path, fabric: Fabric) -> None:
    done = run(tmp_path, fabric, how={"warm_up": 0.2, "schedule": "poly"})
    rows = history(tmp_path)
    assert tuple(rows[0]) == COLUMNS
    assert [int(row["step"]) for row in rows] == list(range(1, 11))
    assert [row["validation_dice"] for row in rows] == ["", "0.5"] * 5
    config = optim.Config(learning_rate=0.05, warm_up=0.2, schedule="poly")
    rates = [learning_rate(config, n / 10) for n in range(10)]
    assert [float(row["learning_rate"]) for row in rows] == pytest.approx(rates, rel=1e-3)
    seconds = [float(row["seconds"]) for row in rows]
    assert seconds == sorted(seconds)
    assert all(0 <= float(row["wait_share"]) <= 1 for row in rows)
    assert (done.step, done.validations) == (10, 5)


def test_history_does_not_grow_with_the_run(tmp_path: Path, fabric: Fabric) -> None:
    model = nn.Conv3d(1, 2, 1)
    run(tmp_path, fabric, model=model, train={"steps": 500, "validations": 2})
    rows = history(tmp_path)
    assert 190 <= len(rows) <= 210
    assert int(rows[-1]["step"]) == 500


def test_waiting_for_batches_is_counted(tmp_path: Path, fabric: Fabric) -> None:
    slow = Data(step_1=lambda: time.sleep(0.2))
    assert run(tmp_path, fabric, slow, train={"steps": 2, "validations": 1}).waited_s >= 0.2


# --- stopping and going on


def exact(folder: Path) -> dict[str, Any]:
    """All that must be equal, bit for bit, in two runs that did the same."""
    rows = [[row["step"], row["loss"], row["learning_rate"], row["validation_dice"]] for row in history(folder)]
    return {"rows": rows, "best": (folder / "checkpoints/best.safetensors").read_bytes()}


@pytest.mark.parametrize("how", [{"name": "adamw"}, {"name": "sgd"}])
@pytest.mark.parametrize("stop", [0, 3, 8])
def test_a_resumed_run_is_the_uninterrupted_run(tmp_path: Path, fabric: Fabric, stop: int, how: dict[str, Any]) -> None:
    def dice(weights: Mapping[str, Tensor]) -> float:
        return float(weights["4.weight"].abs().mean())  # of the average, so that it is compared as well

    run(tmp_path / "whole", fabric, validate=dice, loss=WeightedLoss(), how=how)
    first = Data(**{f"step_{stop}": term})
    with pytest.raises(Interrupted, match=f"after step {stop + 1}, saved.*--resume"):
        run(tmp_path / "parts", fabric, first, validate=dice, loss=WeightedLoss(), how=how)
    second = Data()
    done = run(
        tmp_path / "parts", fabric, second, model=network(7), validate=dice, loss=WeightedLoss(), how=how, resume=True
    )
    assert first.asked + second.asked == list(range(10))
    assert done.step == 10
    whole, parts = last(tmp_path / "whole"), last(tmp_path / "parts")
    assert whole.keys() == parts.keys()
    assert {name.partition("/")[0] for name in whole} == {"model", "loss", "ema", "optimiser", "random"}
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    assert exact(tmp_path / "whole") == exact(tmp_path / "parts")


def test_two_stops_are_as_good_as_none(tmp_path: Path, fabric: Fabric) -> None:
    run(tmp_path / "whole", fabric)
    for stop in (2, 6):
        with pytest.raises(Interrupted):
            run(tmp_path / "parts", fabric, Data(**{f"step_{stop}": term}), resume=True)
    run(tmp_path / "parts", fabric, model=network(9), resume=True)
    whole, parts = last(tmp_path / "whole"), last(tmp_path / "parts")
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


def test_sigint_stops_too_and_handlers_are_put_back(tmp_path: Path, fabric: Fabric) -> None:
    before = [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(Interrupted, match="after step 2"):
        run(tmp_path, fabric, Data(step_1=lambda: os.kill(os.getpid(), signal.SIGINT)))
    assert [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)] == before


def test_a_second_signal_is_not_made_to_wait(tmp_path: Path, fabric: Fabric, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two at once are one, for a launcher passes on what the terminal has sent already."""

    def twice() -> None:
        term()
        term()

    with pytest.raises(Interrupted, match="after step 2"):
        run(tmp_path / "one", fabric, Data(step_1=twice))
    monkeypatch.setattr(clock, "_TWICE_S", 0.0)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "two", fabric, Data(step_1=twice))


def test_the_checkpoint_knows_the_best_weights(tmp_path: Path, fabric: Fabric) -> None:
    """Killed two steps after the best validation: the next start must not take lesser weights for better ones."""

    def kill() -> None:
        raise SystemError

    with pytest.raises(SystemError):
        run(tmp_path, fabric, Data(step_3=kill))
    facts = {}
    for name in ("best", "last"):
        with safe_open(str(tmp_path / f"checkpoints/{name}.safetensors"), "pt") as stream:
            facts[name] = json.loads(stream.metadata()["facts"])
    assert facts["last"]["run"]["best"] == facts["best"]["dice"] == 0.5
    assert facts["last"]["run"]["best_step"] == facts["best"]["step"] == 2
    assert len(facts["last"]["run"]["rows"]) == 2


def test_it_runs_in_a_thread_where_signals_cannot_be_caught(tmp_path: Path, fabric: Fabric) -> None:
    done: list[Run] = []
    thread = threading.Thread(target=lambda: done.append(run(tmp_path, fabric)))
    thread.start()
    thread.join()
    assert done[0].step == 10


def test_resuming_what_is_done_changes_nothing(tmp_path: Path, fabric: Fabric) -> None:
    run(tmp_path, fabric)
    before, data = last(tmp_path), Data()
    assert run(tmp_path, fabric, data, model=network(3), resume=True).step == 10
    assert data.asked == []
    assert all(torch.equal(before[name], tensor) for name, tensor in last(tmp_path).items())


def test_resuming_nothing_is_a_new_run(tmp_path: Path, fabric: Fabric) -> None:
    assert run(tmp_path, fabric, resume=True).step == 10


def test_a_damaged_checkpoint_is_named(tmp_path: Path, fabric: Fabric) -> None:
    run(tmp_path, fabric)
    path = tmp_path / "checkpoints/last.safetensors"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(RunError, match=r"last\.safetensors.*cannot be read.*new folder") as caught:
        run(tmp_path, fabric, resume=True)
    assert "\n" not in str(caught.value)


def test_a_checkpoint_of_another_model_is_refused(tmp_path: Path, fabric: Fabric) -> None:
    run(tmp_path, fabric)
    with pytest.raises(RunError, match="another model"):
        run(tmp_path, fabric, model=nn.Conv3d(1, 2, 1), resume=True)


# --- the budget


def test_a_budget_ends_on_the_clock(tmp_path: Path, fabric: Fabric) -> None:
    done = run(tmp_path, fabric, train={"budget_s": 0.6, "validations": 3})
    assert done.seconds >= 0.6
    assert done.step > 1
    assert done.validations == 3
    assert float(history(tmp_path)[-1]["learning_rate"]) < 0.05 * 0.1  # annealed on the clock


def test_time_before_the_first_step_and_time_kept_back_belong_to_the_budget(tmp_path: Path, fabric: Fabric) -> None:
    done = run(tmp_path, fabric, train={"budget_s": 1000}, started=time.monotonic() - 500, reserve_s=lambda _: 499.8)
    assert 500.2 <= done.seconds < 520


def test_a_budget_that_is_spent_makes_one_step_so_that_there_is_a_model(tmp_path: Path, fabric: Fabric) -> None:
    done = run(tmp_path, fabric, train={"budget_s": 1, "validations": 20}, started=time.monotonic() - 50)
    assert done.step == 1
    assert sum(row[-1] != "" for row in done.rows) == 1
    assert (tmp_path / "checkpoints/best.safetensors").is_file()


def test_the_time_kept_back_follows_the_last_validation(tmp_path: Path, fabric: Fabric) -> None:
    asked: list[float] = []

    def validate(_: Mapping[str, Tensor]) -> float:
        time.sleep(0.05)
        return 0.5

    run(
        tmp_path,
        fabric,
        train={"budget_s": 0.5, "validations": 2},
        validate=validate,
        reserve_s=lambda seconds: asked.append(seconds) or 0.0,  # type: ignore[func-returns-value]
    )
    assert asked[0] == 0
    assert asked[-1] >= 0.05


def test_a_resumed_budget_goes_on_where_the_clock_stopped(tmp_path: Path, fabric: Fabric) -> None:
    """As if 600 s had passed before the first step: less than a second is left to both starts together."""
    train, first, second = {"budget_s": 600.6, "validations": 2}, Data(step_2=term), Data()
    with pytest.raises(Interrupted):
        run(tmp_path, fabric, first, train=train, started=time.monotonic() - 600)
    began = time.monotonic()
    done = run(tmp_path, fabric, second, train=train, model=network(5), resume=True)
    assert time.monotonic() - began < 30
    assert 600.6 <= done.seconds < 630
    assert first.asked + second.asked == list(range(done.step))


def test_a_budget_that_ran_out_before_the_first_validation_still_gives_a_model(tmp_path: Path, fabric: Fabric) -> None:
    """Preparing took what was left: one more step, and its validation."""
    train = {"budget_s": 600.0, "validations": 1}
    with pytest.raises(Interrupted):
        run(tmp_path, fabric, Data(step_1=term), train=train)
    assert not (tmp_path / "checkpoints/best.safetensors").exists()
    done = run(tmp_path, fabric, train=train, resume=True, started=time.monotonic() - 600)
    assert (done.step, done.validations) == (3, 1)
    assert (tmp_path / "checkpoints/best.safetensors").is_file()


# --- numbers that are none


def test_a_bad_step_is_left_out(tmp_path: Path, fabric: Fabric) -> None:
    """Bad at steps 3 and 4: nothing moves there, and the history shows the mean of good steps."""
    seen: list[Tensor] = []
    model = network()

    def look() -> None:
        seen.append(model[4].weight.detach().clone())  # type: ignore[index]

    data = Data(**{f"step_{n}": look for n in range(10)})
    run(tmp_path, fabric, data, model=model, loss=WeightedLoss(lambda n: n in (3, 4)))
    same = [torch.equal(a, b) for a, b in itertools.pairwise(seen)]
    assert same == [n in (3, 4) for n in range(9)]
    assert all(torch.isfinite(tensor).all() for tensor in last(tmp_path).values())
    assert all(math.isfinite(float(row["loss"])) for row in history(tmp_path))


def test_a_bad_batch_leaves_no_trace_in_the_running_figures_of_normalisation(tmp_path: Path, fabric: Fabric) -> None:
    class Spoilt(Data):
        def __call__(self, step: int) -> tuple[Tensor, Tensor]:
            image, target = super().__call__(step)
            return (image * math.inf if step == 3 else image), target

    seen: list[dict[str, Tensor]] = []
    model = network()
    look = {f"step_{n}": lambda: seen.append({k: b.clone() for k, b in model.named_buffers()}) for n in range(6)}
    run(tmp_path, fabric, Spoilt(**look), model=model, train={"steps": 6})
    assert all(torch.equal(before, seen[4][name]) for name, before in seen[3].items())
    assert not torch.equal(seen[4]["1.running_mean"], seen[5]["1.running_mean"])
    assert all(torch.isfinite(tensor).all() for tensor in last(tmp_path).values())


@pytest.mark.parametrize("clip_norm", [12.0, None])
def test_a_gradient_that_is_no_number_moves_nothing(tmp_path: Path, fabric: Fabric, clip_norm: float | None) -> None:
    """The loss is a number there, and its slope is none."""

    class Steep(nn.Module):
        def forward(self, output: Tensor, target: Tensor, context: Any) -> Tensor:
            return (output * 0).sum().sqrt()

    model = network()
    before = [p.detach().clone() for p in model.parameters()]
    run(tmp_path, fabric, model=model, loss=Steep(), train={"steps": 2}, how={"clip_norm": clip_norm})
    assert all(torch.equal(b, p) for b, p in zip(before, model.parameters(), strict=True))


def test_too_many_bad_steps_end_the_run_with_advice(tmp_path: Path, fabric: Fabric) -> None:
    loss = WeightedLoss(lambda n: n >= 2)
    with pytest.raises(MedsegError, match=r"not a number for 20 steps.*optim\.learning_rate"):
        run(tmp_path, fabric, loss=loss, train={"steps": 100})
    assert loss.calls == 22


# --- choosing


def test_patience(tmp_path: Path, fabric: Fabric) -> None:
    values = iter((0.2, 0.4, 0.3, 0.3, 0.3, 0.9))
    train = {"steps": 20, "validations": 20, "patience": 3}
    done = run(tmp_path, fabric, train=train, validate=lambda _: next(values))
    assert (done.step, done.best, done.best_step) == (5, 0.4, 2)


def test_the_best_checkpoint_holds_the_average_that_was_best(tmp_path: Path, fabric: Fabric) -> None:
    scores, judged = iter((0.1, 0.8, 0.3, 0.8, 0.2)), []

    def validate(weights: Mapping[str, Tensor]) -> float:
        judged.append({name: tensor.clone() for name, tensor in weights.items()})
        return next(scores)

    done = run(tmp_path, fabric, validate=validate)
    best = load_file(tmp_path / "checkpoints/best.safetensors")
    assert (done.best, done.best_step) == (0.8, 4)  # the earlier of two equals
    assert all(torch.equal(best[f"model/{name}"], tensor) for name, tensor in judged[1].items())


def test_a_model_that_finds_nothing_is_stored_all_the_same(tmp_path: Path, fabric: Fabric) -> None:
    assert run(tmp_path, fabric, validate=ready(0.0)).best == 0.0
    assert (tmp_path / "checkpoints/best.safetensors").is_file()
