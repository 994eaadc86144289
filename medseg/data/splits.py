"""How cases are divided: always whole patients, every label in every part where it can be."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from medseg.data.cases import Case, MaskValues
from medseg.errors import ConfigError
from medseg.labels import Labels

Presence = Mapping[str, frozenset[str]]
_MOST_INNER = 24  # cases of an inner split, for each of its many validations predicts all of them


@dataclass(frozen=True)
class Fold:
    """Ids of the cases to learn from, and of those that are kept apart."""

    train: tuple[str, ...]
    test: tuple[str, ...]


def presence(values: Mapping[str, MaskValues], labels: Labels) -> dict[str, frozenset[str]]:
    """Names of the labels in each case, whose masks hold `values`, in one channel or one per label: what `folds` spreads."""
    return {case: frozenset(_present(mask, labels)) for case, mask in values.items()}


def _present(mask: MaskValues, labels: Labels) -> Iterator[str]:
    if len(mask) == 1:
        return (item.name for item in labels if mask[0] & set(item.values))
    return (name for name, found in zip(labels.names, mask, strict=False) if found - {labels.ignore})


def parse_fold(text: str) -> tuple[int | None, int]:
    """`0/5` -> (0, 5): the first of five parts; `all/5`, or `all` for short, -> (None, 5): each of five in turn.

    Raises:
        ConfigError: not of that form, or no such part.
    """
    match = re.fullmatch(r"\s*(all|\d+)\s*/\s*(\d+)\s*", "all/5" if text == "all" else text)
    index, parts = (match[1], int(match[2])) if match else ("", 0)
    if parts < 2 or (index != "all" and int(index) >= parts):
        raise ConfigError(f"expected i/n with i from 0 to n-1, such as 0/5, or all, all/n, none; got '{text}'")
    return None if index == "all" else int(index), parts


def declared(cases: Sequence[Case]) -> Fold | None:
    """The split that the dataset itself declares: its `test` cases against the rest; None where it declares none."""
    labelled = [case for case in cases if case.label]
    test = {case.id for case in labelled if case.split == "test"}
    return _apart([case.id for case in labelled], test) if test else None


def shared_groups(cases: Sequence[Case], fold: Fold) -> tuple[str, ...]:
    """Ids of the cases kept apart whose patient (group) is learned from all the same: scores on them flatter."""
    learned, apart = set(fold.train), set(fold.test)
    groups = {case.group for case in cases if case.id in learned}
    return tuple(case.id for case in cases if case.id in apart and case.group in groups)


def folds(cases: Sequence[Case], n: int, seed: int = 0, presence: Presence | None = None) -> tuple[Fold, ...]:
    """Divide cases into n folds of whole groups, each label spread evenly over them.

    Cases without a mask, and cases that the dataset declares as `test`, are in no fold.

    Args:
        cases: all cases, in any order: the result depends on ids, groups (not their names), n, seed and presence alone.
        n: number of folds, at least 2.
        seed: of the shuffle that breaks ties.
        presence: names of the labels in each case, by id, where known; a case that is not listed counts as having none.

    Raises:
        ConfigError: fewer groups than folds.
    """
    ids = _usable(cases)
    groups: dict[str, list[str]] = {}
    for case in sorted(cases, key=lambda case: case.id):
        if case.id in ids:
            groups.setdefault(case.group, []).append(case.id)
    if not 2 <= n <= len(groups):
        raise ConfigError(
            f"{n} folds need at least {max(n, 2)} labelled patients (groups), got {len(groups)}. "
            "Ask for fewer with --fold 0/N, hold none back with --fold none, or add cases."
        )
    parts = _deal(list(groups.values()), n, seed, presence or {})
    return tuple(_apart(ids, part) for part in parts)


def nnunet_folds(cases: Sequence[Case]) -> tuple[Fold, ...]:
    """nnU-Net's own five folds, so that numbers can stand beside its: sklearn's `KFold(5, shuffle=True, random_state=12345)`.

    They take no account of groups; where a patient has several cases, they leak.

    Raises:
        ConfigError: fewer than five cases.
    """
    ids = _usable(cases)
    if len(ids) < 5:
        raise ConfigError(f"nnU-Net's folds need at least 5 labelled cases, got {len(ids)}")
    order = np.arange(len(ids))
    np.random.RandomState(12345).shuffle(order)
    return tuple(_apart(ids, {ids[n] for n in part}) for part in np.array_split(order, 5))


def inner_split(train: Sequence[Case], share: float = 0.1, seed: int = 0, presence: Presence | None = None) -> Fold:
    """Keep some training cases aside, on which choices are made: the cases declared `validation`, else a stratified draw.

    Args:
        train: the training cases of a fold.
        share: of the cases to keep aside; at least three where there are nine, and at most 24 (more only where each patient has more).
        seed: of the draw.
        presence: as for `folds`.

    Raises:
        ConfigError: the cases come from fewer than two patients (groups).
    """
    ids = _usable(train)
    chosen = {case.id for case in train if case.label and case.split == "validation"}
    if chosen and len(chosen) < len(ids):
        return _apart(ids, chosen)
    target = min(_MOST_INNER, max(1, min(3, len(ids) // 3), round(share * len(ids))))
    groups = len({case.group for case in train if case.id in ids})
    parts = folds(train, max(2, min(groups, -(-len(ids) // target))), seed, presence)
    return min(parts, key=lambda part: abs(len(part.test) - target))


def _apart(ids: Sequence[str], test: Container[str]) -> Fold:
    return Fold(tuple(i for i in ids if i not in test), tuple(i for i in ids if i in test))


def _usable(cases: Sequence[Case]) -> tuple[str, ...]:
    return tuple(sorted(case.id for case in cases if case.label and case.split != "test"))


def _deal(groups: list[list[str]], n: int, seed: int, presence: Presence) -> list[set[str]]:
    """Iterative stratification (Sechidis et al. 2011, algorithm 1), of groups: the rarest label is dealt out first,
    each group to the part that lacks that label most, then to the smallest."""
    order = np.random.default_rng(seed).permutation(len(groups))
    waiting = sorted((groups[i] for i in order), key=len, reverse=True)
    have = [Counter(label for i in group for label in presence.get(i, ())) for group in waiting]
    parts: list[set[str]] = [set() for _ in range(n)]
    filled: list[Counter[str]] = [Counter() for _ in range(n)]
    left = list(range(len(waiting)))
    while left:
        remaining = Counter(label for g in left for label in have[g])
        label = min(remaining, key=lambda name: (remaining[name], name), default="")
        for g in [g for g in left if have[g][label]] or list(left):
            part = min(range(n), key=lambda p: (filled[p][label], len(parts[p]), p))
            parts[part].update(waiting[g])
            filled[part].update(have[g])
            left.remove(g)
    return parts
