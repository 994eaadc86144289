from __future__ import annotations

import errno
import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import nn

from medseg.engine import optim
from medseg.engine.state import COLUMNS, Checkpointer, Run, weights
from medseg.errors import DataError, RunError


def checkpointer(
    folder: Path, *, name: str = "adamw", every_s: float = 1e9, writes: bool = True, seed: int = 0
) -> Checkpointer:
    """Something that has made two steps."""
    torch.manual_seed(seed)
    model, loss = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)), nn.Linear(1, 1)
    optimiser = optim.build((model, loss), optim.Config(name=name))  # type: ignore[arg-type]
    average = optim.Average(model, 0.9)
    for _ in range(2):
        optimiser.zero_grad()
        (model(torch.randn(5, 3)).pow(2).sum() + loss(torch.ones(1, 1)).sum()).backward()
        optimiser.step()
        average.update()
    return Checkpointer(folder / "checkpoints", model, loss, optimiser, average, every_s=every_s, writes=writes)


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_everything_comes_back(tmp_path: Path, name: str) -> None:
    a, run = checkpointer(tmp_path, name=name), Run(step=2, seconds=1.5, best=0.3, best_step=1, rows=[[1, 0.5, "", ""]])
    a.save(run)
    after = torch.rand(3)
    b = checkpointer(tmp_path, name=name, seed=9)
    assert b.restore() == run
    assert torch.equal(torch.rand(3), after)  # chance goes on, too
    for x, y in ((a.model, b.model), (a.loss, b.loss)):
        assert all(torch.equal(tensor, y.state_dict()[key]) for key, tensor in x.state_dict().items())
    assert all(torch.equal(a.average.shadow[key], tensor) for key, tensor in b.average.shadow.items())
    assert a.average.steps == b.average.steps == 2
    old, new = a.optimiser.state_dict()["state"], b.optimiser.state_dict()["state"]
    assert old.keys() == new.keys()
    assert all(
        torch.equal(torch.as_tensor(v), torch.as_tensor(new[n][k])) for n, s in old.items() for k, v in s.items()
    )


def test_chance_of_a_gpu_comes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A made-up GPU, whose chance is one number."""
    gpu = {"state": torch.tensor([7], dtype=torch.uint8)}
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda device: gpu["state"])
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda state, device: gpu.update(state=state))
    a, b = checkpointer(tmp_path), checkpointer(tmp_path)
    b.device = torch.device("cuda")
    a.save(Run())
    b.restore()  # it began on a CPU
    assert gpu["state"].item() == 7
    b.save(Run())
    gpu["state"] = torch.tensor([9], dtype=torch.uint8)
    a.restore()  # it goes on with a CPU
    assert gpu["state"].item() == 9
    b.restore()
    assert gpu["state"].item() == 7


def test_nothing_saved_is_a_new_run(tmp_path: Path) -> None:
    assert checkpointer(tmp_path).restore() == Run()


def test_the_file_is_safetensors_and_says_what_it_holds(tmp_path: Path) -> None:
    checkpointer(tmp_path).save(Run(step=2))
    with safe_open(str(tmp_path / "checkpoints/last.safetensors"), "pt") as stream:
        facts = json.loads(stream.metadata()["facts"])
        parts = {key.partition("/")[0] for key in stream.keys()}  # noqa: SIM118 - it is no mapping
    assert facts["run"]["step"] == 2
    assert parts == {"model", "loss", "ema", "optimiser", "random"}


def test_best_holds_the_average(tmp_path: Path) -> None:
    a = checkpointer(tmp_path)
    a.best(Run(step=2, best=0.7))
    stored = weights(tmp_path / "checkpoints/best.safetensors")
    assert stored.keys() == a.model.state_dict().keys()
    assert all(torch.equal(stored[key], tensor) for key, tensor in a.average.shadow.items())


def test_a_checkpoint_is_replaced_as_a_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a = checkpointer(tmp_path)
    a.save(Run(step=2))

    def fail(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(KeyboardInterrupt):
        a.save(Run(step=3))
    assert checkpointer(tmp_path).restore().step == 2
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["last.safetensors"]


def test_a_full_disk_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_bytes", full)
    with pytest.raises(DataError, match="no space left for"):
        checkpointer(tmp_path).save(Run())


def test_it_says_when_it_is_time_to_save(tmp_path: Path) -> None:
    a = checkpointer(tmp_path)
    assert not a.due()
    a.every_s = -1
    assert a.due()


def test_only_one_of_several_processes_writes(tmp_path: Path) -> None:
    a = checkpointer(tmp_path, writes=False)
    a.save(Run())
    a.best(Run())
    a.history(Run())
    assert list(tmp_path.iterdir()) == []


def test_history_has_a_header_and_the_rows(tmp_path: Path) -> None:
    checkpointer(tmp_path).history(Run(rows=[[1, 0.1, 0.2, "0.3", 0.4, ""]]))
    assert (tmp_path / "history.csv").read_text() == ",".join(COLUMNS) + "\n1,0.1,0.2,0.3,0.4,\n"


@pytest.mark.parametrize("content", [b"", b"not tensors at all", b"\x08\x00\x00\x00\x00\x00\x00\x00{}      "])
def test_what_is_no_checkpoint_is_named_in_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "checkpoints/last.safetensors"
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.raises(RunError, match=r"'last\.safetensors' cannot be read") as caught:
        checkpointer(tmp_path).restore()
    assert "\n" not in str(caught.value)


def test_weights_of_a_file_that_is_gone(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"best\.safetensors"):
        weights(tmp_path / "best.safetensors")
