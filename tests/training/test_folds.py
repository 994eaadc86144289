from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from medseg import config as configs
from medseg.data.cases import Case, Dataset
from medseg.errors import ConfigError
from medseg.labels import Labels
from medseg.training.folds import divide


def dataset(count: int = 10, **splits: str) -> Dataset:
    cases = tuple(
        Case(f"c{n}", (Path(f"{n}.nii"),), Path(f"{n}_mask.nii"), split=splits.get(f"c{n}")) for n in range(count)
    )
    return Dataset("set", "by hand", cases, Labels.of([1]), ("MRI",), Path())


def ask(**user: Any) -> configs.RunConfig:
    return configs.check(user)


def test_one_part_is_held_back() -> None:
    (fold,) = divide(dataset(), ask(fold="1/5"))
    assert len(fold.test) == 2
    assert sorted(fold.train + fold.test) == [f"c{n}" for n in range(10)]


@pytest.mark.parametrize(("fold", "count"), [("all", 5), ("all/5", 5), ("all/3", 3)])
def test_each_part_in_turn(fold: str, count: int) -> None:
    folds = divide(dataset(), ask(fold=fold))
    assert len(folds) == count
    assert sorted(name for fold in folds for name in fold.test) == [f"c{n}" for n in range(10)]


def test_a_part_is_the_same_alone_and_among_all() -> None:
    assert divide(dataset(), ask(fold="2/4"))[0] == divide(dataset(), ask(fold="all/4"))[2]


def test_nothing_is_held_back() -> None:
    (fold,) = divide(dataset(), ask(fold="none"))
    assert (len(fold.train), fold.test) == (10, ())


def test_what_the_dataset_declares_wins(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "medseg")
    (fold,) = divide(dataset(c3="test", c7="test"), ask(fold="all"))
    assert fold.test == ("c3", "c7")
    assert "declares 2 test cases" in caplog.text


def test_nnunet_has_five() -> None:
    assert len(divide(dataset(), ask(fold="all", folds="nnunet"))) == 5
    with pytest.raises(ConfigError, match=r"five; got fold=0/3"):
        divide(dataset(), ask(fold="0/3", folds="nnunet"))


def test_seeds_divide_otherwise() -> None:
    assert len({divide(dataset(), ask(seed=seed))[0] for seed in range(4)}) > 1
