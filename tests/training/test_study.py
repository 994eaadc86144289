from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from medseg import config as configs
from medseg import losses, models, overrides
from medseg.data.cases import Case, Dataset
from medseg.errors import ConfigError, DataError
from medseg.labels import Labels
from medseg.training.study import settle

Make = Callable[..., Path]


def test_nothing_held_out_is_seen(tmp_path: Path, quick: dict[str, Any], make_dataset: Make) -> None:
    """The plan knows the training cases alone, and choices are made on some of them."""
    (study,) = settle(make_dataset(tmp_path, cases=6), overrides.merge(quick, {"fold": "0/3"}))
    assert study.plan["fingerprint"]["cases"] == len(study.fold.train) == 4
    assert not set(study.inner.test) & set(study.fold.test)
    assert sorted(study.inner.train + study.inner.test) == sorted(study.fold.train)


def test_it_is_deterministic(tmp_path: Path, quick: dict[str, Any], make_dataset: Make) -> None:
    data = make_dataset(tmp_path)
    assert settle(data, quick) == settle(data, quick)


def test_the_plan_shows_what_the_user_has_set(tmp_path: Path, quick: dict[str, Any], make_dataset: Make) -> None:
    (study,) = settle(make_dataset(tmp_path), quick)
    choices = {choice["name"]: choice for choice in study.plan["choices"]}
    assert choices["train.batch"] == {"name": "train.batch", "value": 2, "reason": "set by the user"}
    assert choices["preprocess.spacing_mm"]["value"] == (1.0, 1.0, 2.0)
    assert choices["preprocess.spacing_mm"]["reason"] != "set by the user"


def test_cases_come_by_id_in_the_datasets_order(tmp_path: Path, quick: dict[str, Any], make_dataset: Make) -> None:
    (study,) = settle(make_dataset(tmp_path), quick)
    assert [case.id for case in study.cases(["case_2", "case_0"])] == ["case_0", "case_2"]


def test_dimensions_follow_the_patch(tmp_path: Path, make_dataset: Make) -> None:
    data = make_dataset(tmp_path)
    dims = {dims: settle(data, {"fold": "0/2", "dims": dims})[0].config.spatial_dims for dims in ("2", "3", "auto")}
    assert dims == {"2": 2, "3": 3, "auto": 3}


def test_regions_are_learned_one_by_one(tmp_path: Path, quick: dict[str, Any], make_dataset: Make) -> None:
    data = make_dataset(tmp_path, labels={"background": 0, "whole": [1, 2], "core": [2]})
    assert settle(data, quick)[0].config.loss.items() >= {"name": "dice_ce", "activation": "sigmoid"}.items()


def test_every_loss_of_a_sum_sees_regions_one_by_one(tmp_path: Path, quick: dict[str, Any], make_dataset: Make) -> None:
    data = make_dataset(tmp_path / "data", labels={"background": 0, "whole": [1, 2], "core": [2]})
    learned = {"name": "multi_task", "losses": [{"name": "focal"}], "weight": 0.5}
    (study,) = settle(data, quick | {"loss": [{"name": "dice"}, learned]})
    dice, several = study.config.loss
    assert dice["activation"] == several["activation"] == several["losses"][0]["activation"] == "sigmoid"
    assert several["weight"] == 0.5
    with pytest.raises(ConfigError, match="need sigmoid, got softmax"):
        settle(data, quick | {"loss": [{"name": "dice", "activation": "softmax"}]})


@pytest.mark.parametrize("loss", ["tversky", "focal", {"name": "dice_ce", "ce_weight": 0.5}])
def test_any_loss_sees_regions_one_by_one(
    tmp_path: Path, quick: dict[str, Any], make_dataset: Make, loss: str | dict[str, Any]
) -> None:
    """As prediction will."""
    data = make_dataset(tmp_path, labels={"background": 0, "whole": [1, 2], "core": [2]})
    (study,) = settle(data, quick | overrides.named({"loss": loss}))
    assert study.config.loss["activation"] == "sigmoid"
    assert study.config.loss["name"] == (loss if isinstance(loss, str) else "dice_ce")
    contradiction = {"loss": {"name": "dice", "activation": "softmax"}}
    with pytest.raises(ConfigError, match=r"loss\.activation: labels that overlap need sigmoid, got softmax"):
        settle(data, quick | contradiction)


def test_labels_that_exclude_each_other_are_learned_so(
    tmp_path: Path, quick: dict[str, Any], make_dataset: Make
) -> None:
    data = make_dataset(tmp_path)
    assert settle(data, quick | {"loss": {"name": "focal"}})[0].config.loss["activation"] == "softmax"
    with pytest.raises(ConfigError, match=r"labels that exclude each other need softmax, got sigmoid"):
        settle(data, quick | {"loss": {"name": "focal", "activation": "sigmoid"}})


# --- patients on both sides


def manifest(data: Path, **splits: str) -> Path:
    """Five cases of four patients: 0 and 1 are of one."""
    rows = [
        f"case_{n},images/case_{n}.nii.gz,labels/case_{n}.nii.gz,p{max(n, 1)},{splits.get(f'case_{n}', '')}"
        for n in range(5)
    ]
    (data / "cases.csv").write_text("\n".join(["id,image,label,group,split", *rows]) + "\n")
    return data / "cases.csv"


def test_declared_test_cases_of_known_patients_are_refused(
    tmp_path: Path, quick: dict[str, Any], make_dataset: Make
) -> None:
    data = make_dataset(tmp_path, cases=5)
    with pytest.raises(
        DataError, match=r"declared as test cases.*learned from: case_1\. Declare all cases of a patient"
    ):
        settle(manifest(data, case_1="test", case_3="test"), quick)
    (study,) = settle(manifest(data, case_0="test", case_1="test"), quick)
    assert study.fold.test == ("case_0", "case_1")


@pytest.mark.parametrize(
    ("user", "splits", "said"),
    [
        ({"fold": "all", "folds": "nnunet"}, {}, "held out, but of patients whose other cases are learned from: case_"),
        ({"fold": "none"}, {"case_0": "validation"}, "declared for validation, but of patients"),
        ({"fold": "0/2"}, {}, ""),
    ],
)
def test_other_splits_of_known_patients_are_said(
    tmp_path: Path,
    quick: dict[str, Any],
    make_dataset: Make,
    caplog: pytest.LogCaptureFixture,
    user: dict[str, Any],
    splits: dict[str, str],
    said: str,
) -> None:
    settle(manifest(make_dataset(tmp_path, cases=5), **splits), quick | user)
    found = [record.getMessage() for record in caplog.records if "of patients" in record.getMessage()]
    assert len(found) == bool(said)
    assert all(said in line for line in found)


def test_another_batch() -> None:
    from medseg.data.splits import Fold
    from medseg.training.study import Study

    planned = {"sample": {"patch": (8, 8, 8)}, "inference": {"window": (8, 8, 8)}}
    config = configs.resolve(planned, {"train": {"batch": 4}})
    choice = {"name": "train.batch", "value": 4, "reason": "as planned"}
    dataset = Dataset("set", "by hand", (Case("a", (Path("a.nii"),)),), Labels.of([1]), ("MRI",), Path())
    study = Study(dataset, Labels.of([1]), Fold((), ()), Fold((), ()), config, {"choices": [choice]})
    assert study.with_batch(4) is study
    fewer = study.with_batch(2)
    assert fewer.config.train.batch == fewer.plan["choices"][0]["value"] == 2
    assert "halved until it fit the memory, from 4" in fewer.plan["choices"][0]["reason"]
    assert study.config.train.batch == study.plan["choices"][0]["value"] == 4


def test_every_option_is_written_out(tmp_path: Path, quick: dict[str, Any], make_dataset: Make) -> None:
    """Nothing depends on later defaults; what a preset says is no choice of the plan."""
    (study,) = settle(make_dataset(tmp_path), quick)
    assert study.config.model == models.resolve({"name": "unet", "preset": "tiny"})
    assert study.config.loss == losses.resolve("dice_ce")
    assert not any(choice["name"].startswith("model.") for choice in study.plan["choices"])
