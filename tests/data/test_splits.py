from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medseg.data.cases import Case
from medseg.data.splits import Fold, declared, folds, inner_split, nnunet_folds, parse_fold, presence, shared_groups
from medseg.errors import ConfigError
from medseg.labels import Labels


def case(name: str, group: str = "", split: str | None = None, labelled: bool = True) -> Case:
    return Case(name, (Path(f"{name}.nii.gz"),), Path("mask.nii.gz") if labelled else None, group, split)


def cases(n: int, per_group: int = 1) -> list[Case]:
    return [case(f"c{i:03d}", f"p{i // per_group:03d}") for i in range(n)]


@pytest.mark.parametrize(
    ("text", "fold"), [("0/5", (0, 5)), (" 4 / 5 ", (4, 5)), ("1/2", (1, 2)), ("all", (None, 5)), ("all/3", (None, 3))]
)
def test_parse_fold(text: str, fold: tuple[int | None, int]) -> None:
    assert parse_fold(text) == fold


@pytest.mark.parametrize("text", ["", "5/5", "0/1", "-1/5", "0:5", "all/1", "none", "0/5/2"])
def test_parse_fold_refuses(text: str) -> None:
    with pytest.raises(ConfigError, match="0/5"):
        parse_fold(text)


@settings(max_examples=40, deadline=None)
@given(n=st.integers(2, 6), groups=st.lists(st.integers(1, 4), min_size=6, max_size=20), seed=st.integers(0, 9))
def test_folds_test_every_case_once_and_never_divide_a_patient(n: int, groups: list[int], seed: int) -> None:
    everyone = [case(f"{g}-{i}", f"p{g}") for g, size in enumerate(groups) for i in range(size)]
    result = folds(everyone, n, seed)
    assert len(result) == n
    assert sorted(i for fold in result for i in fold.test) == sorted(c.id for c in everyone)
    group = {c.id: c.group for c in everyone}
    for fold in result:
        assert fold.test
        assert sorted(fold.train + fold.test) == sorted(group)
        assert not {group[i] for i in fold.train} & {group[i] for i in fold.test}


def test_folds_are_of_equal_size_without_groups() -> None:
    assert Counter(len(fold.test) for fold in folds(cases(23), 5)) == {5: 3, 4: 2}


def test_folds_depend_on_the_seed_and_not_on_the_order() -> None:
    members = cases(20)
    assert folds(members, 4, seed=1) == folds(members[::-1], 4, seed=1)
    assert folds(members, 4, seed=1) != folds(members, 4, seed=2)


def test_folds_spread_each_label_evenly() -> None:
    members = cases(40)
    rare, half = {"c001", "c002", "c003", "c004"}, {c.id for c in members[20:]}
    has = {"all": {c.id for c in members}, "rare": rare, "half": half}
    known = {c.id: frozenset(name for name, ids in has.items() if c.id in ids) for c in members}
    for fold in folds(members, 4, 0, known):
        assert len(rare & set(fold.test)) == 1
        assert len(half & set(fold.test)) == 5
        assert len(fold.test) == 10


def test_folds_leave_out_the_unlabelled_and_the_declared_test() -> None:
    members = [*cases(4), case("bare", labelled=False), case("kept", split="test")]
    assert {i for fold in folds(members, 2) for i in fold.train + fold.test} == {c.id for c in members[:4]}


@pytest.mark.parametrize(("n", "members"), [(5, cases(4)), (1, cases(4)), (3, cases(4, per_group=2))])
def test_folds_need_patients(n: int, members: list[Case]) -> None:
    with pytest.raises(ConfigError, match="patients"):
        folds(members, n)


@pytest.mark.parametrize("n", [5, 6, 23, 260])
def test_nnunet_folds_are_those_of_sklearn(n: int) -> None:
    from sklearn.model_selection import KFold

    ids = np.array([c.id for c in cases(n)])
    splitter = KFold(n_splits=5, shuffle=True, random_state=12345)
    expected = tuple(Fold(tuple(ids[train]), tuple(ids[test])) for train, test in splitter.split(ids))
    assert nnunet_folds(cases(n)[::-1]) == expected


def test_nnunet_folds_need_five() -> None:
    with pytest.raises(ConfigError, match="at least 5"):
        nnunet_folds(cases(4))


def test_declared_split() -> None:
    assert declared(cases(3)) is None
    members = [case("a"), case("b", split="test"), case("c", split="train"), case("d", split="validation")]
    assert declared(members) == Fold(("a", "c", "d"), ("b",))


def test_cases_of_one_patient_on_both_sides_are_found() -> None:
    members = [case("a", "p"), case("b", "p"), case("c", "q"), case("d"), case("e", "q")]
    assert shared_groups(members, Fold(("a", "c"), ("b", "d"))) == ("b",)
    assert shared_groups(members, Fold(("a", "b"), ("c", "d", "e"))) == ()


@pytest.mark.parametrize(("n", "least", "most"), [(2, 1, 1), (9, 3, 3), (203, 17, 20), (1000, 20, 24)])
def test_inner_split_keeps_a_tenth_within_bounds(n: int, least: int, most: int) -> None:
    split = inner_split(cases(n))
    assert least <= len(split.test) <= most
    assert sorted(split.train + split.test) == [c.id for c in cases(n)]


def test_inner_split_keeps_patients_together_even_where_they_have_many_scans() -> None:
    split = inner_split(cases(60, per_group=30))
    assert len(split.test) == 30


def test_inner_split_needs_two_patients() -> None:
    with pytest.raises(ConfigError, match="patients"):
        inner_split(cases(3, per_group=3))


def test_inner_split_honours_a_declared_validation() -> None:
    assert inner_split([*cases(3), case("v", split="validation")]).test == ("v",)


def test_presence_names_the_labels_of_each_case() -> None:
    labels = Labels.of({"whole": [1, 2], "core": [2]})
    values = {"a": (frozenset({1}),), "b": (frozenset({2}),), "c": (frozenset(),)}
    assert presence(values, labels) == {"a": {"whole"}, "b": {"whole", "core"}, "c": set()}


def test_presence_in_masks_of_a_channel_a_label() -> None:
    labels = Labels.of({"whole": [1, 2], "core": [2], "ignore": 9})
    values = {"a": (frozenset({1}), frozenset({9})), "b": (frozenset({1}), frozenset({1, 9}))}
    assert presence(values, labels) == {"a": {"whole"}, "b": {"whole", "core"}}
