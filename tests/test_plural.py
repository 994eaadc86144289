"""Nouns that agree with their numbers."""

import pytest

from medseg.plural import counted


@pytest.mark.parametrize(("count", "said"), [(0, "0 images are"), (1, "1 image is"), (2, "2 images are")])
def test_a_noun_and_its_verb_agree_with_the_number(count: int, said: str) -> None:
    assert counted(count, "image is", "images are") == said
    assert counted(count, "image") == said.rpartition(" ")[0]
