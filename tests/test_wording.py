"""Nouns that agree with their numbers, and lists cut short."""

import pytest

from medseg.wording import counted, few, repeated


@pytest.mark.parametrize(("count", "said"), [(0, "0 images are"), (1, "1 image is"), (2, "2 images are")])
def test_a_noun_and_its_verb_agree_with_the_number(count: int, said: str) -> None:
    assert counted(count, "image is", "images are") == said
    assert counted(count, "image") == said.rpartition(" ")[0]


def test_few_names_the_first_and_counts_the_rest() -> None:
    assert few("abc") == "a, b, c"
    assert few("abcde") == "a, b, c and 2 more"


def test_what_comes_again_is_named_once_and_in_order() -> None:
    assert repeated("cabcac") == ["c", "a"]
    assert repeated(()) == []
