"""Mean field beside a hand-written one that goes through all pairs, and what no unary energy may become."""

import numpy as np
import pytest

from medseg.crf.dense_crf import Config, refine
from medseg.crf.mean_field import Gaussian, places
from medseg.errors import ConfigError
from medseg.settings import parse
from medseg.volume import Geometry, Volume

SIZES = [(10, 10, 10), (32, 31, 1)]


def volume(array, spacing=(1.0, 1.0, 1.0)):
    return Volume(array.astype(np.float32), Geometry(array.shape[1:], np.diag([*spacing, 1.0])))


def scene(size, spacing=(1.0, 1.0, 2.0)):
    """Two halves that differ in values, and probabilities that doubt."""
    draws = np.random.default_rng(0)
    bright = (np.arange(size[0]) >= size[0] // 2)[:, None, None] * np.ones(size)
    image = 2 * bright - 1 + 0.1 * draws.normal(size=size)
    likely = np.clip(0.5 + 0.3 * (2 * bright - 1) + 0.3 * draws.normal(size=size), 0.02, 0.98)
    return volume(np.stack([1 - likely, likely]), spacing), volume(image[None], spacing), bright.astype(bool)


def by_hand(likely, image, config):
    """Algorithm 1 with the sums of equation 3, in float64."""
    size, spacing = image.array.shape[1:], image.geometry.spacing_mm
    where = np.stack(np.meshgrid(*map(np.arange, size), indexing="ij"), -1).reshape(-1, 3) * spacing
    values = image.array.reshape(len(image.array), -1).T.astype(float)

    def kernel(*parts):
        pairs = np.exp(-sum(((a[:, None] - a[None]) ** 2).sum(-1) / (2 * theta**2) for a, theta in parts))
        root = np.sqrt(pairs.sum(1)) if config.normalised else np.ones(len(pairs))
        pairs = pairs / root[:, None] / root
        np.fill_diagonal(pairs, 0)
        return pairs

    near_and_like = kernel((where, config.theta_alpha), (values, config.theta_beta))
    near = kernel((where, config.theta_gamma))
    energy = -np.log(likely.array.reshape(2, -1).T.astype(float))
    found = np.exp(-energy)
    for _ in range(config.iterations):
        messages = config.w1 * near_and_like @ found + config.w2 * near @ found
        cost = energy + messages[:, ::-1]  # Potts: of two classes, what speaks for the other
        found = np.exp(-cost)
        found /= found.sum(1, keepdims=True)
    return found.T.reshape(likely.array.shape)


@pytest.mark.parametrize("normalised", [True, False])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_all_pairs_are_added_up(size, normalised):
    likely, image, _ = scene(size)
    config = Config(theta_alpha=4, normalised=normalised, w1=2 if normalised else 0.02, w2=1 if normalised else 0.05)
    np.testing.assert_allclose(refine(likely, image, config).array, by_hand(likely, image, config), atol=1e-4)


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_the_lattice_gives_nearly_the_same(size, monkeypatch):
    likely, image, truth = scene(size)
    config = Config(w1=5, theta_alpha=4, theta_beta=0.25, w2=3)
    exact = refine(likely, image, config).array
    monkeypatch.setattr("medseg.crf.mean_field.EXACT", 0)
    found = refine(likely, image, config).array
    assert np.abs(found - exact).max() < 0.02
    assert (found.argmax(0) == exact.argmax(0)).all()
    assert (found.argmax(0) == truth).mean() > 0.99 > (likely.array.argmax(0) == truth).mean()


@pytest.mark.parametrize("few", [0, 10**6])
def test_constant_unaries_stay_constant(few, monkeypatch):
    monkeypatch.setattr("medseg.crf.mean_field.EXACT", few)
    _, image, _ = scene((10, 10, 10))
    even = volume(np.full((4, 10, 10, 10), 0.25))
    np.testing.assert_allclose(refine(even, image).array, 0.25, atol=1e-6)


def test_a_voxel_does_not_talk_to_itself():
    alone = Gaussian(places((1,), (1,), None))
    assert alone(alone.norm).item() == pytest.approx(0)


def test_other_grids_and_single_classes_are_refused():
    likely, image, _ = scene((4, 4, 4))
    with pytest.raises(ConfigError, match="of the same grid"):
        refine(likely, scene((4, 4, 5))[1])
    with pytest.raises(ConfigError, match="two classes or more, got one"):
        refine(likely.replace(array=likely.array[:1]), image)


@pytest.mark.parametrize(("name", "value"), [("w1", "inf"), ("w2", -1), ("theta_beta", "nan"), ("theta_gamma", 0)])
def test_weights_and_widths_without_end_or_sense_are_refused(name, value):
    with pytest.raises(ConfigError, match=rf"^crf\.{name}: expected"):
        parse(Config, {name: float(value)}, "crf")
