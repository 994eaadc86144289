from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from medseg.errors import ConfigError
from medseg.transfer.channels import Use, follow


class Small(nn.Module):
    """Three layers, and what becomes of their maps is passed in."""

    def __init__(self, join: Callable[[Tensor, Tensor], Tensor], width: int = 4, read: int = 4) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(1, width, 3, padding=1, bias=False)
        self.norm, self.join, self.last = nn.BatchNorm2d(4), join, nn.ConvTranspose2d(read, 2, 2, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.join(self.norm(self.a(x)).relu(), self.b(x)))


def uses(network: nn.Module) -> dict[tuple[str, int], Use]:
    with torch.device("meta"):
        found = follow(network.to("meta").train(), torch.empty(1, 1, 8, 8))
    assert len({use[:2] for use in found}) == len(found)  # each axis is said once
    return {use[:2]: use for use in found}


def heads(use: Use) -> list[object]:
    return [run.head for run in use.runs]


def test_what_is_summed_belongs_together() -> None:
    found = uses(Small(torch.add))
    assert {key: use.role for key, use in found.items()} == {
        ("a.weight", 1): "reads",
        ("a.weight", 0): "makes",
        ("a.bias", 0): "makes",
        ("norm.weight", 0): "scales",
        ("norm.bias", 0): "scales",
        ("norm.running_mean", 0): "reads",
        ("norm.running_var", 0): "reads",
        ("b.weight", 1): "reads",
        ("b.weight", 0): "makes",
        ("last.weight", 0): "reads",
        ("last.weight", 1): "makes",
        ("last.bias", 0): "makes",
    }
    together = [heads(found[key]) for key in (("a.weight", 0), ("b.weight", 0), ("norm.weight", 0), ("last.weight", 0))]
    assert all(each == together[0] for each in together)
    assert heads(found["a.weight", 1]) == heads(found["b.weight", 1]) != together[0]  # the image


def test_what_is_concatenated_lies_side_by_side() -> None:
    found = uses(Small(lambda a, b: torch.cat((b, a), dim=1), width=3, read=7))
    assert heads(found["last.weight", 0]) == heads(found["b.weight", 0]) + heads(found["a.weight", 0])
    assert [run.size for run in found["last.weight", 0].runs] == [3, 4]


def test_one_channel_that_weighs_all_stays_apart() -> None:
    """As in the gates of an Attention U-Net."""
    found = uses(Small(lambda a, b: a * b.sigmoid(), width=1))
    assert heads(found["last.weight", 0]) == heads(found["a.weight", 0])
    assert heads(found["b.weight", 0]) != heads(found["a.weight", 0])


@pytest.mark.parametrize(
    "join",
    [
        lambda a, b: torch.einsum("bchw,cd->bdhw", a, torch.empty(4, 4, device=a.device))[:, :3],
        lambda a, b: a.repeat(1, 2, 1, 1)[:, :3],
        lambda a, b: torch.cat((a[:, :2], b[:, :1]), dim=1),
    ],
)
def test_what_cannot_be_followed_is_refused(join: Callable[[Tensor, Tensor], Tensor]) -> None:
    with pytest.raises(ConfigError, match="cannot be followed"):
        uses(Small(join, read=3))


def test_sums_of_unequal_parts_are_refused() -> None:
    """A V-Net adds one map to two that lie side by side."""
    with pytest.raises(ConfigError, match="cannot be followed"):
        uses(Small(lambda a, b: torch.cat((a, b), dim=1) + torch.cat((b, a), dim=1)[:, :7], width=3, read=7))


def test_shared_weights_are_refused() -> None:
    layer = nn.Conv2d(1, 1, 3, padding=1)
    with pytest.raises(ConfigError, match="cannot be followed"):
        uses(nn.Sequential(layer, nn.ReLU(), layer))
