"""Samples of networks that drop something: their mean and variance, by hand, and all else as in evaluation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from medseg import bundle, cohort, io, models
from medseg.bundle import Bundle
from medseg.data.scans import find
from medseg.errors import ConfigError, DataError
from medseg.inference.uncertainty import Config, Sampler, dropouts, summary
from medseg.inference.windows import Config as Windows
from medseg.labels import Labels
from medseg.models._dense_v import _BatchwiseDropout
from medseg.predictor import Predictor
from medseg.preprocess import Config as Preprocess
from medseg.preprocess import Intensity
from medseg.settings import parse
from medseg.volume import Geometry, Volume

WHOLE = (16, 16, 8)


def described(**changes: Any) -> Bundle:
    known: dict[str, Any] = {
        "name": "hand-made",
        "model": {"name": "unet"},
        "spatial_dims": 3,
        "channels": ("MR",),
        "labels": Labels.of({"bright": 3}),
        "preprocess": Preprocess(intensity=(Intensity(kind="none"),), crop_empty=False),
        "inference": Windows(window=WHOLE),
    }
    return Bundle(**known | changes)


def scan(shape: tuple[int, int, int] = WHOLE) -> Volume:
    return Volume(np.random.default_rng(0).normal(size=shape).astype(np.float32), Geometry(shape, np.eye(4)))


def network(rate: float = 0.5, seed: int = 0) -> nn.Module:
    """With batch normalisation whose figures are far from those of any scan, and would show if it learned."""
    torch.manual_seed(seed)
    norm = nn.BatchNorm3d(6)
    norm.running_mean, norm.running_var = torch.randn(6), torch.rand(6) + 1
    return nn.Sequential(nn.Conv3d(1, 6, 3, padding=1), norm, nn.ReLU(), nn.Dropout(rate), nn.Conv3d(6, 2, 1))


def test_mean_and_variance_are_those_of_numpy() -> None:
    logits = torch.randn(7, 2, 3, 4, 4, generator=torch.Generator().manual_seed(0)) * 3
    for exclusive in (True, False):
        likely = (logits.softmax(2) if exclusive else logits.sigmoid()).double().numpy()
        score, variance = summary(logits, exclusive).tensor_split(2, dim=1)
        mean = score.softmax(1) if exclusive else score.sigmoid()
        np.testing.assert_allclose(mean, likely.mean(0), atol=1e-6)
        np.testing.assert_allclose(variance, likely.var(0), atol=1e-6)


def test_two_samples_by_hand() -> None:
    """Of 0.2 and 0.6 the mean is 0.4 and the variance 0.04; the surest contradiction has a variance of 1/4."""
    given = torch.tensor([0.2, 0.6]).view(2, 1, 1)
    torch.testing.assert_close(
        summary(given.logit(), False), torch.tensor([[0.4]]).logit().new_tensor([[-0.4054651, 0.04]])
    )
    sure = summary(torch.tensor([[[50.0, -50.0]], [[-50.0, 50.0]]]), True)
    torch.testing.assert_close(sure[:, 2:], torch.full((1, 2), 0.25))


def test_one_sample_or_many_alike_have_no_variance() -> None:
    logits = torch.randn(1, 3, 5)
    for times in (1, 4):
        found = summary([logits] * times, True)
        torch.testing.assert_close(found[:, :3].softmax(1), logits.softmax(1))
        assert found[:, 3:].abs().max() < 1e-12


def test_what_is_written_is_the_mean_of_passes_with_dropout_alone() -> None:
    net, image = network(), scan()
    found = Predictor.of(described(), [net], device="cpu", sampling=Config(samples=5, seed=3))(
        image, probabilities=True
    )
    by_hand = network().eval()
    by_hand[3].train()  # type: ignore[index]
    torch.manual_seed(3)
    with torch.no_grad():
        likely = torch.stack([by_hand(torch.tensor(image.array)[None])[0].softmax(0) for _ in range(5)]).numpy()
    assert found.probabilities is not None
    assert found.variances is not None
    np.testing.assert_allclose(found.probabilities.array, likely.mean(0), atol=1e-5)
    np.testing.assert_allclose(found.variances.array, likely.var(0), atol=1e-5)
    np.testing.assert_array_equal(found.mask.array[0], likely.mean(0).argmax(0) * 3)
    assert found.variances.array.max() > 1e-3
    assert found.variances.geometry == image.geometry


def test_only_dropout_is_in_training_mode_and_nothing_is_learned() -> None:
    net = network()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    Predictor.of(described(), [net], device="cpu", sampling=Config(samples=2))(scan())
    assert [type(part) for part in net.modules() if part.training] == [nn.Dropout]
    for name, value in net.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)


def test_a_seed_repeats_itself_and_leaves_other_numbers_alone() -> None:
    found = {}
    for name, seed in (("one", 0), ("again", 0), ("other", 1)):
        predictor = Predictor.of(described(), [network()], device="cpu", sampling=Config(samples=3, seed=seed))
        torch.manual_seed(7)
        variances = predictor(scan((40, 16, 8)), probabilities=True).variances
        assert variances is not None
        found[name], drawn = variances.array, torch.rand(3)
        torch.manual_seed(7)
        torch.testing.assert_close(drawn, torch.rand(3), rtol=0, atol=0)
    np.testing.assert_array_equal(found["one"], found["again"])
    assert np.abs(found["one"] - found["other"]).max() > 1e-3


def test_windows_of_air_are_sure_of_background() -> None:
    image = scan((48, 16, 8))
    array = np.array(image.array)
    array[:, 24:] = -9
    given = described(inference=Windows(window=WHOLE, overlap=0, air=-8))
    found = Predictor.of(given, [network()], device="cpu", sampling=Config(samples=3))(
        image.replace(array=array), probabilities=True
    )
    assert found.air_share > 0
    assert found.variances is not None
    assert found.probabilities is not None
    assert found.variances.array[:, 32:].max() == 0
    assert found.probabilities.array[0, 32:].min() == 1
    assert found.variances.array[:, :16].max() > 0


def test_members_of_an_ensemble_are_samples_with_and_without_dropout() -> None:
    image = scan()
    for rate, rounds in ((0.0, 1), (0.5, 4)):
        nets = [network(rate, seed) for seed in range(3)]
        sampler = Sampler([net.eval() for net in nets], Config(samples=4), exclusive=True)
        assert sampler.rounds == rounds
        found = Predictor.of(described(), nets, device="cpu", sampling=Config(samples=4))(image, probabilities=True)
        torch.manual_seed(0)
        with torch.no_grad():
            window = torch.tensor(image.array)[None]
            likely = torch.stack([net(window)[0].softmax(0) for net in nets for _ in range(rounds)]).numpy()
        assert found.variances is not None
        np.testing.assert_allclose(found.variances.array, likely.var(0), atol=1e-5)


def test_regions_that_overlap_have_a_variance_each() -> None:
    given = described(labels=Labels.of({"whole": [1, 2], "core": 2}))
    found = Predictor.of(given, [network()], device="cpu", sampling=Config(samples=6))(scan(), probabilities=True)
    assert found.probabilities is not None
    assert found.variances is not None
    assert found.variances.array.shape == (2, *WHOLE)
    np.testing.assert_array_equal(found.mask.array, found.probabilities.array > 0.5)


def test_mirrors_average_what_is_said_of_each() -> None:
    given = described(inference=Windows(window=WHOLE, mirror_axes=(0,)))
    found = Predictor.of(given, [network()], device="cpu", mirrors=True, sampling=Config(samples=3))(
        scan(), probabilities=True
    )
    assert found.variances is not None
    assert found.probabilities is not None
    np.testing.assert_allclose(found.probabilities.array.sum(0), 1, atol=1e-5)
    assert 0 < found.variances.array.max() <= 0.25


@pytest.mark.parametrize("rate", [0.0, None])
def test_a_model_that_answers_the_same_each_time_is_refused(rate: float | None) -> None:
    net = nn.Conv3d(1, 2, 1) if rate is None else network(rate)
    with pytest.raises(ConfigError, match=r"expected a model with dropout, or an ensemble .*Leave uncertainty out"):
        Predictor.of(described(), [net], device="cpu", sampling=Config())


def test_one_sample_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"uncertainty.samples: expected a number greater than or equal to 2, got 1"):
        parse(Config, {"samples": 1}, "uncertainty")


def test_dropout_of_every_kind_is_found() -> None:
    kinds = [nn.Dropout(0.1), nn.Dropout2d(0.1), nn.Dropout3d(0.1), nn.AlphaDropout(0.1), _BatchwiseDropout(0.1)]
    assert dropouts(nn.Sequential(*kinds, nn.Dropout(0), nn.ReLU())) == kinds


@pytest.mark.parametrize("name", ["bayesian_segnet", "fc_densenet", "dense_vnet"])
@pytest.mark.parametrize("dims", [2, 3])
def test_models_of_the_zoo_are_sampled(tmp_path: Path, name: str, dims: int) -> None:
    """From a stored bundle, whose batch normalisation is folded, to files beside the mask."""
    resolved = models.resolve({"name": name, "preset": "tiny", "dropout": 0.5})
    torch.manual_seed(0)
    net = models.create_model(resolved, spatial_dims=dims, in_channels=1, out_channels=2)
    given = described(model=resolved, spatial_dims=dims, inference=Windows(window=(16, 16, 8 if dims == 3 else 1)))
    bundle.save(tmp_path / "model", given, [net.state_dict()])
    io.write(scan(), tmp_path / "a.nii.gz")
    predictor = Predictor(tmp_path / "model", device="cpu", precision="fp32", sampling=Config(samples=3))
    cohort.predict(predictor, find([tmp_path / "a.nii.gz"]), tmp_path / "out", probabilities=True)
    mean, variances = (io.read(tmp_path / "out" / f"a_{kind}.nii.gz") for kind in ("probabilities", "variances"))
    assert mean.array.shape == variances.array.shape == (2, *WHOLE)
    assert 0 < variances.array.max() <= 0.25
    np.testing.assert_allclose(variances.array[0], variances.array[1], atol=1e-6)  # of two classes
    left_aside = find([tmp_path / "out"])
    assert [item.id for item in left_aside] == ["a"]


def test_a_scan_is_never_replaced_by_variances(tmp_path: Path) -> None:
    for name in ("a.nii.gz", "a_variances.nii.gz"):
        io.write(scan(), tmp_path / name)
    predictor = Predictor.of(described(), [network()], device="cpu", sampling=Config(samples=2))
    scans = find([tmp_path / "a.nii.gz", tmp_path / "a_variances.nii.gz"])
    with pytest.raises(DataError, match=r"a mask would replace the scan 'a_variances\.nii\.gz'"):
        cohort.predict(predictor, scans, tmp_path, suffix=".nrrd", probabilities=True)


def test_where_variances_cannot_be_written_nothing_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    io.write(scan(), tmp_path / "a.nii.gz")
    whole = io.nifti.write

    def full(volume: Volume, path: Path) -> None:
        if path.name == "a_variances.nii.gz":
            raise DataError(f"no space left for '{path}'")
        whole(volume, path)

    monkeypatch.setattr(io.nifti, "write", full)
    predictor = Predictor.of(described(), [network()], device="cpu", sampling=Config(samples=2))
    (outcome,) = cohort.predict(predictor, find([tmp_path / "a.nii.gz"]), tmp_path / "out", probabilities=True)
    assert outcome.error == "no space left for 'a_variances.nii.gz'"
    assert not list((tmp_path / "out").glob("*.nii.gz"))


def test_samples_are_added_up_as_they_come() -> None:
    """No more than one map of logits is held, however many samples there are."""
    import weakref

    alive: list[weakref.ref[Tensor]] = []

    def samples() -> Any:
        for _ in range(9):
            logits = torch.randn(1, 2, 4)
            alive.append(weakref.ref(logits))
            yield logits
            del logits
            assert sum(ref() is not None for ref in alive) <= 1

    summary(samples(), True)
