import weakref
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from medseg import settings
from medseg.errors import ConfigError
from medseg.labels import Labels
from medseg.postprocess import Config, _pieces, apply, choose
from medseg.volume import Geometry, Volume

GRID = Geometry((12, 12, 12), np.diag([1.0, 1, 2, 1]))  # 2 mm3 a voxel
LABELS = Labels.of({"organ": 1, "lesion": 3})


def volume(*boxes: tuple[int, slice], geometry: Geometry = GRID) -> Volume:
    """Cubes along the diagonal, each with its value."""
    array = np.zeros(geometry.shape, np.uint8)
    for value, where in boxes:
        array[where, where, where if geometry.shape[2] > 1 else 0] = value
    return Volume(array, geometry, "labels", {"sform_code": 1})


LARGE, SMALL, SPECK = slice(0, 5), slice(7, 9), slice(10, 11)


def same(a: Volume, b: Volume) -> bool:
    return np.array_equal(a.array, b.array)


def test_largest_component_of_one_label_leaves_the_other_alone() -> None:
    mask = volume((1, LARGE), (1, SMALL), (3, SPECK))
    clean = apply(mask, LABELS, Config(largest_component=("organ",)))
    assert same(clean, volume((1, LARGE), (3, SPECK)))
    assert clean.geometry == mask.geometry
    assert clean.meta == mask.meta
    assert same(apply(mask, LABELS, Config()), mask)


def test_minimum_is_in_ml_and_may_remove_all() -> None:
    mask = volume((3, SMALL), (3, SPECK))  # 8 and 1 voxels of .002 ml
    assert same(apply(mask, LABELS, Config(minimum_ml={"lesion": 0.002})), mask)
    assert same(apply(mask, LABELS, Config(minimum_ml={"lesion": 0.0021})), volume((3, SMALL)))
    assert same(apply(mask, LABELS, Config(minimum_ml={"lesion": 1})), volume())


def test_corners_connect() -> None:
    touching = volume((1, slice(0, 2)), (1, slice(2, 3)))
    assert same(apply(touching, LABELS, Config(largest_component=("organ",))), touching)
    plane = volume((1, slice(0, 2)), (1, slice(2, 3)), (1, slice(5, 6)), geometry=Geometry((12, 12, 1), np.eye(4)))
    assert apply(plane, LABELS, Config(largest_component=("organ",))).array.sum() == 5


def test_empty_stays_empty() -> None:
    assert same(apply(volume(), LABELS, Config(largest_component=("organ",), minimum_ml={"lesion": 1})), volume())


def test_regions_in_one_map_leave_what_else_lies_there() -> None:
    labels = Labels.of({"whole": [1, 2, 3], "core": [2, 3], "enhancing": 3}, [1, 2, 3])
    mask = volume((1, LARGE), (3, slice(1, 4)), (2, SMALL), (3, SPECK))
    clean = apply(mask, labels, Config(largest_component=("core",)))
    assert same(clean, volume((1, LARGE), (3, slice(1, 4)), (1, SMALL), (1, SPECK)))
    clean = apply(mask, labels, Config(largest_component=("enhancing",)))
    assert same(clean, volume((1, LARGE), (3, slice(1, 4)), (2, SMALL), (2, SPECK)))
    clean = apply(mask, labels, Config(largest_component=("enhancing", "whole")))
    assert same(clean, volume((1, LARGE), (3, slice(1, 4))))


def test_overlapping_channels() -> None:
    labels = Labels.of({"whole": [1, 2], "core": 2})
    channels = np.concatenate([volume((1, LARGE), (1, SMALL)).array, volume((1, LARGE), (1, SPECK)).array])
    mask = Volume(channels, GRID, "labels")
    clean = apply(mask, labels, Config(largest_component=("core",)))
    assert np.array_equal(clean.array[0], channels[0])
    assert np.array_equal(clean.array[1], volume((1, LARGE)).array[0])


def test_unknown_label() -> None:
    with pytest.raises(ConfigError, match=r"'orgam'\. Did you mean 'organ'"):
        apply(volume(), LABELS, Config(largest_component=("orgam",)))
    with pytest.raises(ConfigError, match="minimum_ml"):
        settings.parse(Config, {"minimum_ml": {"organ": -1}}, "postprocess")


def test_choose_takes_the_largest_component_where_it_helps() -> None:
    predictions = [volume((1, LARGE), (1, SMALL), (3, SPECK)), volume((1, LARGE))]
    references = [volume((1, LARGE), (3, SPECK)), volume((1, LARGE))]
    assert choose(zip(predictions, references, strict=True), LABELS) == Config(largest_component=("organ",))


def test_choose_takes_a_minimum_where_there_are_several_pieces() -> None:
    truth = volume((3, LARGE), (3, SMALL))
    predictions = [volume((3, LARGE), (3, SMALL), (3, SPECK)), volume((3, SPECK))]
    chosen = choose(zip(predictions, [truth, volume()], strict=True), LABELS)
    assert chosen == Config(minimum_ml={"lesion": 0.008})  # half of 8 voxels
    assert same(apply(predictions[0], LABELS, chosen), truth)


def test_choose_leaves_a_good_or_an_undecided_result_alone() -> None:
    good = [volume((1, LARGE), (3, SMALL))] * 2
    assert choose(zip(good, good, strict=True), LABELS) == Config()
    extra, lone = volume((1, LARGE), (1, SMALL)), volume((1, LARGE))
    assert choose([(extra, extra), (extra, lone)], LABELS) == Config()  # as many lose as win
    assert choose([], LABELS) == Config()


def test_removing_a_true_structure_is_no_gain() -> None:
    """The lesion is found in part; without the part it would be missed, which counts as the worst."""
    predictions, references = [volume((3, SPECK))], [volume((3, slice(9, 12)))]
    assert choose(zip(predictions, references, strict=True), LABELS) == Config()


def test_choose_does_not_judge_by_ignored_voxels() -> None:
    labels = Labels.of({"organ": 1, "ignore": 9})
    predictions, references = [volume((1, LARGE), (1, SMALL))], [volume((1, LARGE), (9, SMALL))]
    assert choose(zip(predictions, references, strict=True), labels) == Config()


def test_nothing_to_remove_is_no_copy() -> None:
    mask = volume((1, LARGE))
    assert apply(mask, LABELS, Config()) is mask


def test_choose_takes_case_by_case() -> None:
    held: list[weakref.ref[Volume]] = []

    def pairs() -> Iterator[tuple[Volume, Volume]]:
        for _ in range(4):
            assert sum(ref() is not None for ref in held) <= 2  # the pair before, which the caller may still name
            pair = volume((1, LARGE), (1, SMALL)), volume((1, LARGE))
            held.extend(map(weakref.ref, pair))
            yield pair
            del pair

    assert choose(pairs(), LABELS) == Config(largest_component=("organ",))
    assert len(held) == 8


def test_pieces_are_sought_where_a_structure_lies(monkeypatch: pytest.MonkeyPatch) -> None:
    import cc3d

    seen, label = [], cc3d.connected_components

    def watched(found: Any, **how: Any) -> Any:
        seen.append(found.shape)
        return label(found, **how)

    monkeypatch.setattr(cc3d, "connected_components", watched)
    mask = volume((1, SMALL))
    apply(mask, LABELS, Config(largest_component=("organ",)))
    choose([(mask, mask)], LABELS)
    assert set(seen) == {(2, 2, 2)}


def test_pieces_in_a_line_are_all_counted() -> None:
    """The library that counts them stumbles over arrays of one voxel across."""
    line = np.array([True, False, True, False, True])
    for shape in ((1, 1, 5), (1, 5, 1), (5, 1, 1)):
        pieces, sizes = _pieces(line.reshape(shape))
        assert sizes.tolist() == [1, 1, 1]
        assert pieces.shape == shape
