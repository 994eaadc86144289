"""One network of each family learns a structure with medseg's own loop, and finds it in phantoms that it has never seen."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from scipy.spatial.transform import Rotation
from torch import Tensor, nn

from medseg.engine import fit, optim
from medseg.losses import create_loss
from medseg.metrics import dice
from medseg.models import about, create_model
from medseg.models._about import FAMILIES
from medseg.resources import shipped


class Taught(NamedTuple):
    """A network of a family that learns within seconds, and the Dice that it has to reach, about a tenth below what it does."""

    name: str
    dice: float
    steps: int = 80
    how: optim.Config = optim.Config()


TAUGHT = {
    "u-shape": Taught("unet", 0.85, steps=50),
    "fcn": Taught("fcn", 0.75, steps=160, how=optim.Config(learning_rate=3e-3)),
    "dense": Taught("fc_densenet", 0.78, steps=50),
    "dilated": Taught("deeplab_v3plus", 0.77),
    "attention": Taught("ccnet", 0.78),
    "pyramid": Taught("fpn", 0.8),
    "real-time": Taught("bisenet", 0.77),
    "recurrent": Taught("reseg", 0.77, steps=160, how=optim.Config(name="adamw", learning_rate=3e-3)),
    "boundary": Taught("point_rend", 0.76),
    "transformer": Taught("unetr", 0.82, steps=60),
    "search": Taught("dints", 0.83, steps=40),
}


class Phantoms:
    """Slices of 48x48 through a body with a bright structure, a dark one and a bright spot that are none; any way round."""

    size, spacing_mm = 8, (1.5, 1.5, 1.5)

    def __init__(self, cases: int, seed: int) -> None:
        drawn = [slice_of(seed + number) for number in range(cases)]
        self.images = torch.from_numpy(np.stack([image for image, _ in drawn]))[:, None]
        self.labels = torch.from_numpy(np.stack([labels for _, labels in drawn])).long()

    def __call__(self, number: int) -> tuple[Tensor, Tensor]:
        """The batch of a step."""
        chosen = torch.randperm(len(self.images), generator=torch.Generator().manual_seed(number))[: self.size]
        return self.images[chosen], self.labels[chosen]


def slice_of(seed: int) -> tuple[Any, Any]:
    """Image and labels `(48, 48)` of a phantom."""
    with pytest.MonkeyPatch.context() as patched:
        patched.syspath_prepend(shipped("sample_data"))
        import phantoms
    part, ellipsoid, rng = phantoms.Part, phantoms.Ellipsoid, phantoms.Random(seed)
    structure, other = phantoms.vary(rng, 14, 11, 11, share=0.1), phantoms.vary(rng, 9, 10, 9, share=0.1)
    parts = (
        part(ellipsoid(np.zeros(3), np.array([32, 30, 18])), (100,)),
        part(ellipsoid(np.array([10, -16, 0]), np.array([4, 4, 4])), (150,)),
        part(ellipsoid(np.array([13, 3, 0]), structure), (150,), 1),
        part(ellipsoid(np.array([-17, -3, 0]), other), (50,)),
    )
    turn = Rotation.from_euler("z", rng.uniform(360), degrees=True).as_matrix()
    affine = np.diag([1.5, 1.5, 1.5, 1])
    affine[:2, 3] = -1.5 * 47 / 2
    image, labels = phantoms.Phantom(parts, turn, np.append(rng.uniform(-4, 4, 2), 0)).scan((48, 48, 1), affine)
    noisy = image + 10 * rng.randn(*image.shape)
    return np.float32((noisy - 100) / 40)[..., 0], labels[..., 0]


@pytest.fixture(scope="module")
def seen() -> Phantoms:
    return Phantoms(48, seed=0)


@pytest.fixture(scope="module")
def unseen() -> Phantoms:
    return Phantoms(12, seed=1000)


def judged(found: Tensor, unseen: Phantoms) -> float:
    """Mean Dice of maps of labels `(B, I, J)`."""
    pairs = zip(found.numpy() == 1, unseen.labels.numpy() == 1, strict=True)
    return float(np.mean([dice(a, b, spacing_mm=unseen.spacing_mm[:2]) for a, b in pairs]))


@torch.no_grad()
def predicted(net: nn.Module, unseen: Phantoms, weights: Mapping[str, Tensor]) -> float:
    """Dice of a network with the weights that would be stored."""
    logits = torch.func.functional_call(net.eval(), dict(weights), unseen.images)
    net.train()
    return judged(logits.argmax(1), unseen)


Teach = Callable[[nn.Module, Taught], float]


@pytest.fixture
def teach(tmp_path: Path, seen: Phantoms, unseen: Phantoms) -> Teach:
    """Train a network; gives its Dice on the unseen phantoms, which are predicted once, at the end."""

    def taught(net: nn.Module, it: Taught) -> float:
        config, judge = fit.Config(steps=it.steps, validations=1), partial(predicted, net, unseen)
        fabric, loss = Fabric(accelerator="cpu", devices=1, precision="32-true"), create_loss("dice_ce")
        folder, began = tmp_path / "checkpoints", time.monotonic()
        return fit.fit(net, loss, seen, judge, config, it.how, fabric, folder, started=began).best

    return taught


def made(name: str) -> nn.Module:
    torch.manual_seed(0)
    return create_model(name, spatial_dims=2, in_channels=1, out_channels=2, preset="tiny")


def test_every_family_is_taught() -> None:
    assert {family: about(it.name).family for family, it in TAUGHT.items()} == {name: name for name in FAMILIES}


@pytest.mark.parametrize("it", TAUGHT.values(), ids=TAUGHT)
def test_a_family_learns(it: Taught, teach: Teach) -> None:
    assert teach(made(it.name), it) >= it.dice


def test_what_does_not_look_cannot_reach_it(seen: Phantoms, unseen: Phantoms) -> None:
    """The same answer for every image, the best share of the structure's places among all that is learnt from."""
    often = seen.labels.float().mean(0)
    blind = max(judged((often > share).expand_as(unseen.labels), unseen) for share in torch.linspace(0, 0.5, 11))
    assert blind < 0.5 < min(it.dice for it in TAUGHT.values())


class Displaced(nn.Module):
    """A network whose answers are at wrong places."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, image: Tensor) -> Tensor:
        logits: Tensor = self.net(image)
        order = torch.randperm(logits[0, 0].numel(), generator=torch.Generator().manual_seed(0))
        return logits.flatten(2)[..., order].view_as(logits)


def test_a_broken_network_cannot_reach_it(teach: Teach) -> None:
    it = TAUGHT["attention"]
    assert teach(Displaced(made(it.name)), it) < 0.5
