from __future__ import annotations

import copy
import time
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from medseg import models
from medseg.inference import autotuning
from medseg.inference.autotuning import PLAIN, Way

CPU = torch.device("cpu")
WAYS = [Way(precision=p, channels=c) for p in ("fp32", "bf16") for c in ("first", "last")]  # type: ignore[arg-type]


def network(dims: int = 3) -> nn.Module:
    torch.manual_seed(0)
    config = {"name": "unet", "preset": "tiny"}
    return models.create_model(config, spatial_dims=dims, in_channels=1, out_channels=2).eval()


def windows(dims: int = 3) -> Tensor:
    return torch.randn(2, 1, *(16, 12, 8)[:dims], generator=torch.Generator().manual_seed(0))


class Slow(nn.Module):
    """Takes longer where a way is asked for that it does not like."""

    def __init__(self, likes: Way) -> None:
        super().__init__()
        self.likes, self.conv = likes, nn.Conv3d(1, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        precision = "bf16" if torch.is_autocast_enabled("cpu") else "fp32"
        last = x.is_contiguous(memory_format=torch.channels_last_3d) and not x.is_contiguous()
        time.sleep(0 if Way(precision=precision, channels="last" if last else "first") == self.likes else 0.05)  # type: ignore[arg-type]
        found: Tensor = self.conv(x)
        return found


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("way", WAYS, ids=str)
def test_all_ways_give_the_same_logits(way: Way, dims: int) -> None:
    plain, x = network(dims), windows(dims)
    found = way.compute(way.lay(copy.deepcopy(plain)), x)
    assert found.dtype == torch.float32
    tolerance = 1e-5 if way.precision == "fp32" else 0.15
    torch.testing.assert_close(found, PLAIN.compute(plain, x), rtol=tolerance, atol=tolerance)


def test_a_network_can_be_laid_back() -> None:
    laid = PLAIN.lay(Way(channels="last").lay(network()))
    assert all(p.is_contiguous() for p in laid.parameters())


@pytest.mark.parametrize("likes", [Way(), Way(precision="bf16")], ids=str)
def test_the_quickest_way_is_chosen_and_remembered(likes: Way, monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.randn(2, 3, 4, 4, 4)
    slow = Slow(likes)
    slow.conv = nn.Conv3d(3, 2, 1)
    assert autotuning.choose(slow, x, "liver", ["abc"], ("bf16", "fp32")) == likes
    monkeypatch.setattr(autotuning, "measure", lambda *_: pytest.fail("measured again"))
    assert autotuning.choose(slow, x, "liver", ["abc"], ("bf16", "fp32")) == likes
    (record,) = autotuning.remembered().values()
    assert str(record).startswith(f"liver, 2 windows of 4x4x4: {likes} (")


def test_another_model_is_measured_anew() -> None:
    net, x = network(), windows()
    for weights in ("a", "b", "a"):
        autotuning.choose(net, x, "liver", [weights], ("fp32",))
    autotuning.choose(net, x[:1], "liver", ["a"], ("fp32",))
    assert len(autotuning.remembered()) == 3


def test_a_precision_that_is_not_right_is_not_measured() -> None:
    autotuning.choose(network(), windows(), "liver", ["a"], ("fp32",))
    assert "bf16" not in str(autotuning.remembered())


@pytest.mark.parametrize("content", ["{", "[]", '{"a": 1}', '{"a": {"model": "b"}}'])
def test_a_memory_that_cannot_be_read_is_no_harm(content: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("sys.platform", "linux")
    (tmp_path / "medseg").mkdir()
    (tmp_path / "medseg" / "arithmetic.json").write_text(content)
    assert isinstance(autotuning.choose(network(), windows(), "liver", ["a"], ("fp32",)), Way)
    assert len(autotuning.remembered()) == 1


def test_a_home_that_cannot_be_written_is_no_harm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert isinstance(autotuning.choose(network(), windows(), "liver", ["a"], ("fp32",)), Way)


def test_what_does_not_fit_is_not_chosen() -> None:
    class Tight(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            if not torch.is_autocast_enabled("cpu"):
                raise MemoryError
            return x

    ways = autotuning.measure(Tight(), windows(), WAYS)
    assert {way.precision for way in ways} == {"bf16"}

    class Bad(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise RuntimeError("sizes do not match")

    with pytest.raises(RuntimeError, match="sizes do not match"):
        autotuning.measure(Bad(), windows(), WAYS)


@pytest.mark.parametrize(("long_s", "calls"), [(1000.0, 3), (0.0, 1)])
def test_what_takes_long_is_called_once(long_s: float, calls: int, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr(autotuning, "_LONG_S", long_s)
    handle = (net := network()).register_forward_hook(lambda *_: seen.append(1))
    autotuning.measure(net, windows(), [PLAIN])
    handle.remove()
    assert len(seen) == calls


def test_nothing_fits_and_the_preferred_way_is_left_to_try() -> None:
    class Never(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise MemoryError

    assert autotuning.choose(Never(), windows(), "liver", ["a"], ("bf16", "fp32")) == Way(precision="bf16")
    assert autotuning.remembered() == {}
