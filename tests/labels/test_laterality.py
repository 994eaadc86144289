from __future__ import annotations

import pytest

from medseg.labels import laterality


@pytest.mark.parametrize(
    ("names", "pairs"),
    [
        (("Kidney_left", "Kidney_right"), ((0, 1),)),
        (("right lung", "heart", "left lung"), ((2, 0),)),
        (("L hippocampus", "R hippocampus"), ((0, 1),)),
        (("left atrium", "right ventricle"), ()),
        (("left", "right"), ((0, 1),)),
        (("liver", "bright spot"), ()),
        (("left right shunt", "x"), ()),
        (("左肾 left", "肝 right", "左肾 right"), ((0, 2),)),
    ],
)
def test_sides_of_one_thing_are_pairs(names: tuple[str, ...], pairs: tuple[tuple[int, int], ...]) -> None:
    assert laterality.pairs(names) == pairs
