from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import medseg
from medseg import bundle, files
from medseg.errors import BundleError, ConfigError, DataError, MedsegError
from medseg.labels import Labels
from medseg.preprocess import Config as Preprocess
from medseg.transfer import lineage

Make = Callable[..., Path]
LABELS, GRID = Labels.of([1, 2]), Preprocess(spacing_mm=(1, 1, 2))


def run_of(folder: Path, make_bundle: Make, *parts: tuple[str, str, str], members: int = 1) -> Path:
    """A run folder with a bundle, and for each part the cases held out, learned from, and chosen by."""
    make_bundle(folder / "bundle", members=members)
    names = ("held_out", "train", "validation")
    files.write_json(folder / "splits.json", [dict(zip(names, map(str.split, p), strict=True)) for p in parts])
    return folder


def test_a_model_that_fits_is_let_pass(tmp_path: Path, make_bundle: Make) -> None:
    found = lineage.find("distill.from", str(make_bundle(tmp_path)))
    found.check(LABELS, ("IMAGE",), 3, GRID)  # however the dataset spells it
    other_values = Labels.of({"label 1": 5, "label 2": 7})
    found.check(other_values, ("image",), 3, GRID)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            {"labels": Labels.of([1, 2, 3])},
            "knows the labels label 1, label 2, and this run has label 1, label 2, label 3.",
        ),
        ({"labels": Labels.of({"label 2": 1, "label 1": 2})}, "this run has label 2, label 1."),
        ({"labels": Labels.of({"label 1": [1, 2], "label 2": 2})}, "this run has label 1, label 2 (overlapping)."),
        (
            {"channels": ("CT",)},
            "takes the channels image, and this run has CT. Name another model, or say with modality=...",
        ),
        ({"channels": ("image", "image")}, "this run has image, image."),
        ({"dims": 2}, "takes volumes, and this run learns slices."),
        (
            {"grid": Preprocess()},
            "asks for another preprocess.spacing_mm. Name another model, or leave preprocess.spacing_mm out",
        ),
        ({"grid": Preprocess(orientation="LPS", spacing_mm=(1, 1, 2))}, "another preprocess.orientation"),
    ],
)
def test_what_does_not_fit_is_told_in_a_line(
    tmp_path: Path, make_bundle: Make, changes: dict[str, Any], expected: str
) -> None:
    run = {"labels": LABELS, "channels": ("image",), "dims": 3, "grid": GRID} | changes
    found = lineage.find("distill.from", str(make_bundle(tmp_path)))
    with pytest.raises(ConfigError) as caught:
        found.check(run["labels"], run["channels"], run["dims"], run["grid"])
    said = str(caught.value)
    assert said.startswith("distill.from: that model ")
    assert expected in said
    assert "\n" not in said


def test_no_model_there(tmp_path: Path, make_bundle: Make) -> None:
    with pytest.raises(BundleError, match=r"^prune\.from: '.*gone' holds no bundle: no model there"):
        lineage.find("prune.from", str(tmp_path / "gone"))
    (make_bundle(tmp_path / "half") / "model.safetensors").unlink()
    with pytest.raises(BundleError, match=r"^prune\.from: the model lacks 'model.safetensors'"):
        lineage.find("prune.from", str(tmp_path / "half"))


def test_no_code_is_taken_from_files(tmp_path: Path, make_bundle: Make) -> None:
    from medseg import bundle

    described = bundle.read(make_bundle(tmp_path))
    bundle.describe(tmp_path, described.model_copy(update={"model": {"name": "lab.nets"}}))
    with pytest.raises(BundleError, match="a user's own module, and medseg runs no code from files"):
        lineage.find("distill.from", str(tmp_path))


def test_the_same_words_mean_the_same_weights(tmp_path: Path, make_bundle: Make) -> None:
    first, again, other = (
        str(lineage.find("distill.from", str(make_bundle(tmp_path / str(n), seed=seed))))
        for n, seed in enumerate((0, 0, 1))
    )
    assert first == again != other
    assert str(tmp_path) not in first


# --- which cases it has seen


def test_a_run_says_which_cases_it_saw(tmp_path: Path, make_bundle: Make) -> None:
    run = run_of(tmp_path / "run", make_bundle, ("a b", "c d", "e"))
    for folder in (run, run / "bundle"):
        found = lineage.find("distill.from", str(folder))
        assert found.seen == ({"c", "d", "e"},)
        assert found.unseen(["a", "x"]) == found.unseen([]) == [0]
        for leaked in ("c", "e"):
            with pytest.raises(
                DataError, match=rf"cases that this run holds out \({leaked}\), so that their scores would be too good"
            ):
                found.unseen(["a", leaked])


def test_of_an_ensemble_those_teach_that_saw_nothing(tmp_path: Path, make_bundle: Make) -> None:
    parts = ("a b", "c d e", "f"), ("c d", "a e f", "b"), ("e f", "a b c", "d")
    found = lineage.find("distill.from", str(run_of(tmp_path / "run", make_bundle, *parts, members=3)))
    assert [found.unseen(ids) for ids in ([], ["a"], ["a", "b"], ["c"], ["d", "c"])] == [[0, 1, 2], [0], [0], [1], [1]]
    with pytest.raises(DataError, match=r"\(a, c\)"):
        found.unseen(["a", "c", "elsewhere"])


def test_where_members_and_parts_differ_each_member_may_have_seen_all(tmp_path: Path, make_bundle: Make) -> None:
    found = lineage.find("distill.from", str(run_of(tmp_path / "run", make_bundle, ("a", "b", "c"), members=2)))
    assert found.seen == ({"b", "c"},) * 2


def test_what_its_own_ancestors_saw_counts_as_seen(tmp_path: Path, make_bundle: Make) -> None:
    run = run_of(tmp_path / "run", make_bundle, ("a", "b", "c"))
    (split,) = files.read_json(run / "splits.json")
    files.write_json(run / "splits.json", [split | {"inherited": ["d"]}])
    found = lineage.find("prune.from", str(run))
    assert found.seen == ({"b", "c", "d"},)
    assert found.shown(["a"]) == {"b", "c", "d"}
    files.write_json(run / "splits.json", [split | {"inherited": None}])
    unknown = lineage.find("prune.from", str(run))
    assert unknown.seen is None
    assert unknown.shown(["a"]) is None


def test_a_bundle_alone_does_not_know(tmp_path: Path, make_bundle: Make) -> None:
    run = run_of(tmp_path / "run", make_bundle, ("a b", "c d", "e"))
    shutil.copytree(run / "bundle", tmp_path / "shared/model")
    files.write_json(tmp_path / "shared/splits.json", "of something else")
    found = lineage.find("distill.from", str(tmp_path / "shared/model"))
    assert found.seen is None
    assert found.unseen(["c"]) == [0]


def test_every_mistake_is_a_users(tmp_path: Path, make_bundle: Make) -> None:
    """A damaged list of cases is told like any damaged file."""
    run = run_of(tmp_path / "run", make_bundle, ("a", "b", "c"))
    (run / "splits.json").write_text("[")
    with pytest.raises(MedsegError):
        lineage.find("distill.from", str(run))


def test_any_model_of_one_stage_may_be_the_first_of_two(tmp_path: Path, make_bundle: Make) -> None:
    make_bundle(tmp_path / "two/locator")
    found = lineage.find("locate.from", str(make_bundle(tmp_path / "two", locate={"margin_mm": 5.0})))
    with pytest.raises(ConfigError, match=r"^locate\.from: that model has two stages"):
        found.check_locates(("image",))
    first = lineage.find("locate.from", str(tmp_path / "two/locator"))
    first.check_locates(("IMAGE",))
    with pytest.raises(ConfigError, match=r"^locate\.from: that model takes the channels image, and this run has CT"):
        first.check_locates(("CT",))


def test_networks_that_saw_nothing_are_kept(tmp_path: Path, make_bundle: Make) -> None:
    parts = ("a", "b", "c"), ("b", "a", "c")
    found = lineage.find("locate.from", str(run_of(tmp_path / "run", make_bundle, *parts, members=2)))
    found.save(tmp_path / "kept", ["b"])
    described, members = bundle.load(tmp_path / "kept")
    assert len(members) == len(described.weights) == len(found.predictor(["b"], torch.device("cpu")).networks) == 1
    assert all(torch.equal(tensor, found.members[1][name]) for name, tensor in members[0].items())
    assert len(found.predictor([], torch.device("cpu")).networks) == 2
    with pytest.raises(DataError, match="too good"):
        found.save(tmp_path / "none", ["a", "b"])


def test_what_was_stored_in_fewer_bytes_is_kept_as_it_was_read(tmp_path: Path, make_bundle: Make) -> None:
    small = medseg.export(make_bundle(tmp_path / "model"), tmp_path / "small", to="bundle", weights="int8")
    found = lineage.find("locate.from", str(small))
    found.save(tmp_path / "kept", [])
    described, (weights,) = bundle.load(tmp_path / "kept")
    assert described.stored == "fp32"
    assert all(torch.equal(tensor, found.members[0][name]) for name, tensor in weights.items())
