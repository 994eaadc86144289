from __future__ import annotations

import contextlib
import shutil

import pytest
import torch
from torch import Tensor, nn

from medseg import system
from medseg.errors import DataError, MedsegError
from medseg.inference.autotuning import Way
from medseg.inference.ensemble import Ensemble
from medseg.inference.sliding import Stream
from medseg.inference.windows import Config

CPU = torch.device("cpu")


class Tight(nn.Module):
    """Twice the image; out of memory beyond so many voxels at once, on a device, or at one call."""

    def __init__(self, most: int = 10**9, device: str = "none", fails_at: int = 0) -> None:
        super().__init__()
        self.most, self.device, self.fails_at, self.shapes = most, device, fails_at, list[tuple[int, ...]]()

    def forward(self, x: Tensor) -> Tensor:
        self.shapes.append(tuple(x.shape))
        if x.numel() > self.most or x.device.type == self.device or len(self.shapes) == self.fails_at:
            raise torch.OutOfMemoryError("no more")
        return 2 * x


def whole(stream: Stream) -> Tensor:
    slabs = list(stream())
    return torch.cat([slab.logits for slab in slabs], slabs[0].axis + 1)


def noise(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def test_logits_are_the_mean_over_members() -> None:
    networks = [nn.Conv3d(1, 2, 1) for _ in range(3)]
    image = noise(1, 9, 8, 7)
    found = Ensemble(networks, CPU).stream(image, whole, Config(window=(4, 4, 4)))
    with torch.no_grad():
        torch.testing.assert_close(found, torch.stack([n(image[None])[0] for n in networks]).mean(0))
    assert not any(network.training for network in networks)


def test_the_batch_is_halved_and_then_the_window(caplog: pytest.LogCaptureFixture) -> None:
    network, image = Tight(most=32 * 8 * 8), noise(1, 80, 9, 8)
    found = Ensemble([network], CPU).stream(image, whole, Config(window=(64, 8, 8), batch=2))
    torch.testing.assert_close(found, 2 * image)
    assert network.shapes[-1] == (1, 1, 32, 8, 8)
    assert [record.message.partition("going on with ")[2] for record in caplog.records] == [
        "windows of 64 x 8 x 8 voxels, overlap 0.5, 1 at once",
        "windows of 32 x 8 x 8 voxels, overlap 0.5, 1 at once",
    ]


def test_out_of_memory_at_any_window_begins_the_image_anew() -> None:
    """What was made of the first windows is not mixed with what comes after."""
    network, image, firsts = Tight(fails_at=6), noise(1, 40, 4, 4), list[int]()

    def use(stream: Stream) -> Tensor:
        parts = []
        for slab in stream():
            firsts.append(slab.start)
            parts.append(slab.logits)
        return torch.cat(parts, 1)

    found = Ensemble([network], CPU).stream(image, use, Config(window=(4, 4, 4), batch=2))
    torch.testing.assert_close(found, 2 * image)
    assert firsts.count(0) == 2
    assert network.shapes[5][0] == 2
    assert {shape[0] for shape in network.shapes[6:]} == {1}


def test_memory_that_the_taker_lacks_is_a_plan_too() -> None:
    calls = 0

    def use(stream: Stream) -> Tensor:
        nonlocal calls
        calls += 1
        if calls == 1:
            next(stream())
            raise RuntimeError(
                "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"
            )
        return whole(stream)

    image = noise(1, 8, 8, 8)
    torch.testing.assert_close(Ensemble([Tight()], CPU).stream(image, use, Config(window=(4, 4, 4))), 2 * image)


def test_the_cpu_begins_with_the_windows_that_were_asked_for(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: contextlib.nullcontext())  # knows no such device
    network, image = Tight(device="meta"), noise(1, 64, 4, 4)
    monkeypatch.setattr(system, "has_bf16", lambda device: device != CPU)
    ensemble = Ensemble([network], CPU, Way(precision="bf16"))
    ensemble.device = torch.device("meta")  # stands for a GPU: the windows that come to it have no memory
    torch.testing.assert_close(ensemble.stream(image, whole, Config(window=(64, 4, 4), batch=2)), 2 * image)
    assert ensemble.device == CPU
    assert ensemble.way.precision == "fp32"
    assert network.shapes[-1] == (1, 1, 64, 4, 4)
    assert "on meta with windows of 32 x 4 x 4 voxels, overlap 0.5, one at once: going on with the CPU" in caplog.text


def test_a_window_too_large_for_the_cpu_is_said() -> None:
    with pytest.raises(DataError, match="out of memory with windows of 8 x 8 x 8 voxels"):
        Ensemble([Tight(most=0)], CPU).stream(noise(1, 9, 9, 9), whole, Config(window=(8, 8, 8)))


def test_other_errors_are_not_taken_for_it() -> None:
    calls = 0

    def use(_: Stream) -> None:
        nonlocal calls
        calls += 1
        raise RuntimeError("the sizes of tensors must match")

    with pytest.raises(RuntimeError, match="sizes of tensors"):
        Ensemble([Tight()], CPU).stream(noise(1, 4, 4, 4), use, Config(window=(4, 4, 4)))
    assert calls == 1


def small_convolution() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv3d(1, 4, 3, padding=1), nn.InstanceNorm3d(4), nn.LeakyReLU(), nn.Conv3d(4, 2, 1))


@pytest.mark.skipif(not shutil.which("c++"), reason="no C++ compiler")
def test_compiled_networks_give_the_same_logits_window_by_window() -> None:
    image, config = noise(1, 20, 9, 8), Config(window=(8, 8, 8), batch=4)
    ensemble = Ensemble([small_convolution()], CPU)
    expected = ensemble.stream(image, whole, config)
    ensemble.compile(noise(1, 1, 8, 8, 8))
    with torch.compiler.set_stance("fail_on_recompile"):
        found = ensemble.stream(image, whole, config)
    torch.testing.assert_close(found, expected)


def test_what_no_compiler_takes_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(network: nn.Module, **_: object) -> nn.Module:
        return nn.Conv3d(2, 1, 1)  # as odd an error as any

    monkeypatch.setattr(torch, "compile", fails)
    with pytest.raises(MedsegError, match=r"cannot be compiled here \(RuntimeError: .*\)\. Leave compile out"):
        Ensemble([small_convolution()], CPU).compile(noise(1, 1, 8, 8, 8))
