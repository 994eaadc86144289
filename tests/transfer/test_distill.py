from __future__ import annotations

import copy
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from scipy.special import rel_entr
from torch import Tensor, nn

from medseg import bundle as bundles
from medseg import files, overrides
from medseg.engine import optim
from medseg.engine.optim import Average
from medseg.engine.state import Checkpointer
from medseg.engine.trial import Trial
from medseg.errors import BundleError, ConfigError, Interrupted
from medseg.inference.ensemble import Ensemble
from medseg.labels import Labels
from medseg.losses import LossContext, create_loss
from medseg.models import Output, create_model
from medseg.training import runs, trials
from medseg.training.dry_run import dry_run
from medseg.transfer import distill, lineage
from medseg.transfer.distill import Config, Taught, divergence

pytestmark = pytest.mark.usefixtures("one_thread", "no_charts")
Make = Callable[..., Path]
SHAPE = (2, 3, 4, 5, 6)


def logits(seed: int, shape: tuple[int, ...] = SHAPE) -> Tensor:
    return 2 * torch.randn(shape, generator=torch.Generator().manual_seed(seed))


# --- the divergence


def test_two_classes_by_hand() -> None:
    """The teacher is sure by 3 to 1, the student has no idea: .75 ln 1.5 + .25 ln .5."""
    teacher, student = torch.tensor([[3.0, 1.0]]).log()[..., None, None], torch.zeros(1, 2, 1, 1)
    expected = 0.75 * np.log(1.5) + 0.25 * np.log(0.5)
    assert divergence(student, teacher, 1.0, exclusive=True).item() == pytest.approx(expected)
    twice = divergence(2 * student, 2 * teacher, 2.0, exclusive=True).item()
    assert twice == pytest.approx(4 * expected)  # T^2


def test_a_yes_or_no_by_hand() -> None:
    """A channel of overlapping labels is a choice between it and nothing."""
    teacher, student = torch.full((1, 2, 1, 1), float(np.log(3))), torch.zeros(1, 2, 1, 1)
    student[:, 1] = teacher[:, 1]  # the second channel agrees; the mean is over both
    expected = (0.75 * np.log(1.5) + 0.25 * np.log(0.5)) / 2
    assert divergence(student, teacher, 1.0, exclusive=False).item() == pytest.approx(expected)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_it_is_scipys_relative_entropy(temperature: float) -> None:
    student, teacher = logits(0), logits(1)
    q, p = ((z / temperature).double().softmax(1).numpy() for z in (student, teacher))
    found = divergence(student, teacher, temperature, exclusive=True).item()
    assert found == pytest.approx(temperature**2 * rel_entr(p, q).sum(1).mean(), rel=1e-5)
    q, p = ((z / temperature).double().sigmoid().numpy() for z in (student, teacher))
    found = divergence(student, teacher, temperature, exclusive=False).item()
    assert found == pytest.approx(temperature**2 * (rel_entr(p, q) + rel_entr(1 - p, 1 - q)).mean(), rel=1e-5)


def test_hot_logits_are_matched_as_they_are() -> None:
    """At high temperatures the gradient is that of half the squared distance of centred logits (eq. 4 of the source)."""
    student, teacher = logits(0).requires_grad_(), logits(1)
    (slope,) = torch.autograd.grad(divergence(student, teacher, 1000.0, exclusive=True), student)
    apart = student - student.mean(1, keepdim=True) - (teacher - teacher.mean(1, keepdim=True))
    assert torch.allclose(slope * student[:, 0].numel(), apart.detach() / SHAPE[1], atol=5e-3)


@given(st.integers(0, 1000), st.sampled_from([0.5, 1.0, 2.0, 8.0]), st.booleans())
def test_it_is_never_negative_and_nothing_between_equals(seed: int, temperature: float, exclusive: bool) -> None:
    student, teacher = logits(seed, (1, 3, 2, 2)), logits(seed + 1, (1, 3, 2, 2))
    assert divergence(student, teacher, temperature, exclusive=exclusive) > 0
    assert divergence(teacher, teacher, temperature, exclusive=exclusive).abs() < 1e-6


@pytest.mark.parametrize("exclusive", [True, False])
def test_sure_answers_give_numbers(exclusive: bool) -> None:
    student = (1e4 * logits(0)).requires_grad_()
    value = divergence(student, -1e4 * logits(0), 1.0, exclusive=exclusive)
    value.backward()
    assert value.isfinite()
    assert student.grad is not None
    assert student.grad.isfinite().all()


# --- the loss around a loss


class Doubling(nn.Module):
    """Says twice the image in each channel."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(2.0))

    def forward(self, x: Tensor) -> Tensor:
        assert not self.training
        return (self.weight * x).repeat(1, 3, 1, 1)


def teacher() -> Ensemble:
    return Ensemble([Doubling()], torch.device("cpu"))


def taught(by: Ensemble, **options: Any) -> Taught:
    return Taught(create_loss("dice_ce"), by, Config(**{"from": "there", **options}), exclusive=True)


def batch() -> tuple[Tensor, Tensor, LossContext]:
    target = torch.randint(3, (2, 4, 5), generator=torch.Generator().manual_seed(2))
    return logits(0, (2, 3, 4, 5)), target, LossContext(image=logits(3, (2, 1, 4, 5)))


def test_the_teachers_word_is_added_with_its_weight() -> None:
    output, target, context = batch()
    alone = create_loss("dice_ce")(output, target, context)
    assert context.image is not None
    apart = divergence(output, 2 * context.image.repeat(1, 3, 1, 1), 4.0, exclusive=True)
    found = taught(teacher(), weight=0.3, temperature=4.0)(output, target, context)
    assert found == pytest.approx((alone + 0.3 * apart).item())


def test_only_the_main_logits_are_compared() -> None:
    output, target, context = batch()
    deep = Output(output, (logits(5, (2, 3, 2, 3)),))
    added = [
        (taught(teacher())(each, target, context) - create_loss("dice_ce")(each, target, context))
        for each in (output, deep)
    ]
    assert added[0].item() == pytest.approx(added[1].item(), abs=1e-6)


def test_voxels_without_a_mask_are_taught_too() -> None:
    """Nobody annotated them: the loss is silent there, and the teacher is not."""
    output, target, context = batch()
    output.requires_grad_()
    nothing = torch.full_like(target, -1)
    (slope,) = torch.autograd.grad(taught(teacher())(output, nothing, context), output)
    assert (slope.abs().sum(1) > 0).all()


def test_a_teacher_is_neither_trained_nor_stored_nor_averaged_nor_copied() -> None:
    loss = taught(by := teacher())
    assert list(loss.parameters()) == list(loss.buffers()) == []
    assert loss.state_dict() == {}
    student = nn.Conv2d(1, 3, 1)
    known = {id(p) for group in optim.build((student, loss), optim.Config()).param_groups for p in group["params"]}
    assert known == {id(p) for p in student.parameters()}
    assert Average(loss, 0.9).shadow == {}
    again = copy.deepcopy(loss)
    assert again.teacher is by
    assert again.loss is not loss.loss
    assert not any(network.training for network in loss.train().teacher.networks)


def test_the_students_slope_alone_is_kept() -> None:
    """No graph of the teacher's pass is held."""
    output, target, context = batch()
    assert context.image is not None
    context.image.requires_grad_()
    by = teacher()
    taught(by)(output.requires_grad_(), target, context).backward()
    assert by.networks[0].weight.grad is None
    assert context.image.grad is None
    assert output.grad is not None


def test_arithmetic_is_not_that_of_an_autocast_around_it() -> None:
    output, target, context = batch()
    with torch.autocast("cpu", torch.bfloat16):
        inside = taught(teacher())(output, target, context)
    assert inside.dtype == torch.float32
    assert inside == taught(teacher())(output, target, context)


# --- whole runs


def train(data: Path, folder: Path, quick: dict[str, Any], *, resume: bool = False, **changes: Any) -> Path:
    return runs.train(data, folder, overrides.merge(quick, {"fold": "none", **changes}), resume=resume)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, make_dataset: Make) -> Path:
    return make_dataset(tmp_path_factory.mktemp("distill") / "data")


def wide(make_bundle: Make, folder: Path, **description: Any) -> str:
    model = {"name": "unet", "preset": "tiny", "widths": (16, 24, 40)}
    return str(make_bundle(folder, **{"model": model, **description}))


def test_an_interrupted_student_goes_on_to_the_same_model(
    tmp_path: Path,
    data: Path,
    quick: dict[str, Any],
    make_bundle: Make,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The teacher is found again, and none of it lies in what the run keeps."""
    asked = {"distill": {"from": wide(make_bundle, tmp_path / "teacher", members=2), "weight": 0.5}}
    whole = train(data, tmp_path / "whole", quick, **asked)
    saved = Checkpointer.save

    def stop(self: Checkpointer, run: Any) -> None:
        saved(self, run)
        if run.step == 2:
            raise Interrupted("stopped")

    with monkeypatch.context() as patched:
        patched.setattr(Checkpointer, "due", lambda _: True)
        patched.setattr(Checkpointer, "save", stop)
        with pytest.raises(Interrupted):
            train(data, tmp_path / "parts", quick, **asked)
    shutil.move(tmp_path / "teacher", tmp_path / "away")
    with pytest.raises(BundleError, match=r"^distill\.from: .* holds no bundle: no model there") as caught:
        train(data, tmp_path / "parts", quick, resume=True, **asked)
    assert "\n" not in str(caught.value)
    shutil.move(tmp_path / "away", tmp_path / "teacher")
    with pytest.raises(ConfigError, match=r"other settings \(distill\.weight\)"):
        train(data, tmp_path / "parts", quick, resume=True, distill={"weight": 1.0})
    train(data, tmp_path / "parts", {}, resume=True)
    for name in ("bundle/model.safetensors", "checkpoints/last.safetensors"):
        read = [load_file(run / name) for run in (whole, tmp_path / "parts")]
        assert read[0].keys() == read[1].keys()
        assert all(torch.equal(value, read[1][key]) for key, value in read[0].items())
    student = len(load_file(whole / "bundle/model.safetensors"))
    kept = load_file(whole / "checkpoints/last.safetensors")
    assert [sum(key.startswith(part) for key in kept) for part in ("model/", "ema/", "loss/")] == [student, student, 0]
    described = bundles.read(whole / "bundle")
    assert described.training["distill.from"].startswith("unet of phantoms (SHA-256")
    assert str(tmp_path) not in (whole / "bundle/config.json").read_text() + (whole / "log.txt").read_text()


def test_a_teacher_changes_what_is_learned_and_only_that(
    tmp_path: Path, data: Path, quick: dict[str, Any], make_bundle: Make
) -> None:
    """The first weights and the batches are those of the same run without a teacher: the loss alone differs."""
    teacher = wide(make_bundle, tmp_path / "teacher")
    first = [
        train(data, tmp_path / name, quick, **asked)
        for name, asked in (("a", {}), ("b", {"distill": {"from": teacher}}))
    ]
    steps = [run / "bundle/model.safetensors" for run in first]
    assert steps[0].read_bytes() != steps[1].read_bytes()
    losses = [float((run / "history.csv").read_text().splitlines()[1].split(",")[2]) for run in first]
    assert losses[1] > losses[0]
    assert bundles.read(first[0] / "bundle").preprocess == bundles.read(first[1] / "bundle").preprocess


def test_a_student_comes_to_say_what_its_teacher_says(make_bundle: Make, tmp_path: Path) -> None:
    """With next to nothing else in the loss, logits draw near to the teacher's."""
    found = lineage.find("distill.from", wide(make_bundle, tmp_path))
    by = distill.teacher(found, [], torch.device("cpu"))
    loss = Taught(create_loss("cross_entropy"), by, Config(weight=1.0, temperature=1.0), exclusive=True)
    torch.manual_seed(3)
    student = create_model("unet", preset="tiny", spatial_dims=3, in_channels=1, out_channels=3).train()
    image, nothing = logits(0, (2, 1, 16, 16, 8)), torch.full((2, 16, 16, 8), -1)
    optimiser = torch.optim.AdamW(student.parameters(), lr=1e-2)
    values = []
    for _ in range(30):
        value = loss(student(image), nothing, LossContext(image=image))
        value.backward()
        optimiser.step()
        optimiser.zero_grad()
        values.append(value.item())
    assert values[-1] < 0.2 * values[0]


def test_only_networks_that_saw_nothing_teach(make_bundle: Make, tmp_path: Path) -> None:
    make_bundle(tmp_path / "bundle", members=2)
    parts = [
        {"held_out": ["a"], "train": ["b"], "validation": ["c"]},
        {"held_out": ["b"], "train": ["a"], "validation": []},
    ]
    files.write_json(tmp_path / "splits.json", parts)
    found, image = lineage.find("distill.from", str(tmp_path)), logits(0, (1, 1, 16, 16, 8))
    both, second = (distill.teacher(found, held_out, torch.device("cpu")) for held_out in ([], ["b"]))
    members = [Ensemble([network], torch.device("cpu"))(image) for network in both.networks]
    assert torch.equal(second(image), members[1])
    assert torch.allclose(both(image), (members[0] + members[1]) / 2)


def test_overlapping_labels_are_taught(
    tmp_path: Path, quick: dict[str, Any], make_dataset: Make, make_bundle: Make
) -> None:
    names = {"background": 0, "whole": [1, 2], "core": [2]}
    data = make_dataset(tmp_path / "data", labels=names)
    teacher = wide(make_bundle, tmp_path / "teacher", labels=Labels.of(names), channels=("sequence 0",))
    user = {name: value for name, value in quick.items() if name != "model"}
    run = train(data, tmp_path / "run", user, distill={"from": teacher}, prune={"from": teacher})
    assert bundles.read(run / "bundle").model["widths"] == [8, 16, 24]


def test_a_dry_run_counts_the_teacher_in(
    tmp_path: Path, data: Path, quick: dict[str, Any], make_bundle: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    monkeypatch.setattr(trials, "measure", lambda model, loss, *_: seen.append(loss) or Trial("fp32", 1, {}, 2, 0.1))
    dry_run(
        data, overrides.merge(quick, {"distill": {"from": wide(make_bundle, tmp_path / "teacher")}, "fold": "none"})
    )
    assert isinstance(seen[0], Taught)
