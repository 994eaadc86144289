import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import map_coordinates
from scipy.spatial.transform import Rotation

from medseg import geometry as geo
from medseg.errors import GeometryError
from medseg.geometry.interpolation import pull
from medseg.volume import Geometry, Volume

OBLIQUE = np.array([[0.8, 0.1, 0.0, -12], [-0.1, 0.9, 0.3, 7], [0.05, -0.2, 2.4, 30], [0, 0, 0, 1]])


def phantom(shape=(7, 6, 5), affine=None, kind="image", dtype=np.float32):
    array = np.arange(np.prod(shape)).reshape(shape).astype(dtype)
    return Volume(array, Geometry(shape, np.diag([1.0, 2, 3, 1]) if affine is None else affine), kind)


def world_field(geometry):
    """A linear function of world position: linear resampling must reproduce it."""
    index = np.stack(np.meshgrid(*map(np.arange, geometry.shape), indexing="ij"), -1)
    return (geometry.to_world(index) @ np.array([1.0, -2.0, 0.5])).astype(np.float32)


@pytest.mark.parametrize("axcodes", ["LPS", "PIR", "SAL", "RAS"])
def test_reorient_keeps_each_value_at_its_place_in_the_world(axcodes):
    volume = phantom(affine=OBLIQUE)
    turned = geo.reorient(volume, axcodes)
    assert turned.geometry.axcodes == axcodes
    for index in [(0, 0, 0), (6, 0, 2), (3, 5, 4)]:
        at = np.round(turned.geometry.to_index(volume.geometry.to_world(index))).astype(int)
        assert turned.array[0][tuple(at)] == volume.array[0][index]
    back = geo.reorient(turned, volume.geometry.axcodes)
    np.testing.assert_array_equal(back.array, volume.array)
    np.testing.assert_allclose(back.geometry.affine, volume.geometry.affine, atol=1e-12)


def test_reorient_refuses_nonsense():
    with pytest.raises(GeometryError, match="such as RAS"):
        geo.reorient(phantom(), "RAA")


def test_crop_and_pad_keep_the_world():
    volume = phantom(affine=OBLIQUE)
    part = geo.crop(volume, (1, 2, 3), (5, 6, 5))
    np.testing.assert_allclose(part.geometry.to_world((0, 0, 0)), volume.geometry.to_world((1, 2, 3)))
    whole = geo.pad(part, (1, 2, 3), (2, 0, 0), fill=-1)
    assert geo.same_space(whole.geometry, volume.geometry, 1e-9)
    assert whole.array[0, 0, 0, 0] == -1
    np.testing.assert_array_equal(whole.array[:, 1:5, 2:6, 3:5], part.array)
    with pytest.raises(GeometryError, match="leaves"):
        geo.crop(volume, (0, 0, 0), (8, 1, 1))


def test_difference_names_axis_and_millimetres():
    a = Geometry((5, 5, 5), np.eye(4))
    shifted, coarse, shorter = np.eye(4), np.diag([1, 1, 1.2, 1]), Geometry((5, 5, 4), np.eye(4))
    shifted[2, 3] = 0.8
    assert geo.difference(a, a) == ""
    assert geo.difference(a, Geometry((5, 5, 5), shifted)) == "0.8 mm off (origin differs along k)"
    assert "spacing 1 x 1 x 1.2 instead of 1 x 1 x 1 mm" in geo.difference(a, Geometry((5, 5, 5), coarse))
    assert geo.difference(a, shorter) == "5x5x4 voxels instead of 5x5x5"
    assert not geo.same_space(a, Geometry((5, 5, 5), shifted))
    assert geo.same_space(a, Geometry((5, 5, 5), shifted), tolerance_mm=0.9)


@pytest.mark.parametrize("target", [np.diag([0.7, 1.1, 0.9, 1]), OBLIQUE], ids=["separable", "oblique"])
def test_linear_resampling_reproduces_a_linear_function(target):
    source = Geometry(
        (40, 40, 46), np.diag([-1.5, 1.2, 2, 1]) + np.array([[0, 0, 0, 30], [0] * 3 + [-20], [0] * 3 + [-25], [0] * 4])
    )
    grid = Geometry((12, 11, 10), target)
    result = geo.resample_to(Volume(world_field(source), source), grid)
    np.testing.assert_allclose(result.array[0], world_field(grid), atol=1e-3)


def test_axes_that_swap_stay_separable_and_equal_reorientation():
    volume = phantom(affine=OBLIQUE)
    turned = geo.reorient(volume, "SLP")
    np.testing.assert_array_equal(geo.resample_to(volume, turned.geometry).array, turned.array)


def test_outside_is_filled_and_edges_reach_half_a_voxel():
    volume = Volume(np.ones((4, 4, 4), np.float32), Geometry((4, 4, 4), np.eye(4)))
    grid = Geometry((8, 4, 4), np.array([[1, 0, 0, -2.4], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]))
    row = geo.resample_to(volume, grid, fill=-5).array[0, :, 1, 1]
    np.testing.assert_array_equal(row, [-5, -5, 1, 1, 1, 1, -5, -5])


def test_coarsening_an_image_averages_and_a_label_map_does_not():
    checker = np.indices((16, 16, 16)).sum(0) % 2
    geometry = Geometry((16, 16, 16), np.eye(4))
    image = geo.resample(Volume(checker.astype(np.float32), geometry), (4, 4, 4))
    assert image.geometry.shape == (4, 4, 4)
    np.testing.assert_allclose(image.array, 0.5, atol=0.02)
    labels = geo.resample(Volume(checker.astype(np.uint8) * 7, geometry, "labels"), (4, 4, 4))
    assert set(np.unique(labels.array)) <= {0, 7}
    assert labels.array.dtype == np.uint8


@settings(max_examples=30, deadline=None)
@given(spacing=st.tuples(*[st.floats(0.5, 3)] * 3), wanted=st.tuples(*[st.floats(0.5, 3)] * 3))
def test_linear_keeps_to_the_error_that_it_states(spacing, wanted):
    waves_mm = np.array((25.0, 30.0, 20.0))

    def waves(geometry):
        index = np.stack(np.meshgrid(*map(np.arange, geometry.shape), indexing="ij"), -1)
        return np.cos(2 * np.pi * geometry.to_world(index) / waves_mm).prod(-1).astype(np.float32)

    geometry = Geometry(tuple(int(40 / s) + 1 for s in spacing), np.diag([*spacing, 1]))
    found = geo.resample(Volume(waves(geometry), geometry), wanted)
    off = np.abs(found.array[0] - waves(found.geometry))
    coarser = np.maximum(spacing, found.geometry.spacing_mm)
    border = tuple(slice(n, -n) for n in np.ceil(coarser / found.geometry.spacing_mm).astype(int) + 1)
    assert off[border].max(initial=0) <= (coarser**2 / 8 * (2 * np.pi / waves_mm) ** 2).sum() + 1e-5


@st.composite
def grids(draw):
    """Any grid of a scanner: turned, flipped, anisotropic, leaning."""
    turn = Rotation.from_euler("xyz", draw(st.tuples(*[st.floats(-180, 180)] * 3)), degrees=True).as_matrix()
    lean = np.eye(3) + np.triu(np.reshape(draw(st.tuples(*[st.floats(-0.4, 0.4)] * 9)), (3, 3)), 1)
    steps = draw(st.tuples(*[st.floats(0.2, 6)] * 3)) * np.array(draw(st.tuples(*[st.sampled_from((-1, 1))] * 3)))
    affine = np.eye(4)
    affine[:3, :3] = turn @ lean * steps
    affine[:3, 3] = draw(st.tuples(*[st.floats(-300, 300)] * 3))
    return Geometry(draw(st.tuples(*[st.integers(1, 7)] * 3)), affine)


@settings(max_examples=200, deadline=None)
@given(grid=grids(), ratio=st.tuples(*[st.floats(1, 4)] * 3), seed=st.integers(0, 99))
def test_a_round_trip_to_a_finer_grid_on_the_same_axes_loses_no_label(grid, ratio, seed):
    labels = Volume(np.random.default_rng(seed).integers(0, 65536, grid.shape).astype(np.uint16), grid, "labels")
    fine = geo.resample(labels, np.divide(grid.spacing_mm, ratio), "nearest")
    np.testing.assert_array_equal(geo.resample_to(fine, grid, "nearest").array, labels.array)


@settings(max_examples=60, deadline=None)
@given(grid=grids(), axcodes=st.sampled_from(["LPS", "PIR", "SAL", "RAS", "ILA"]), seed=st.integers(0, 99))
def test_reorienting_cropping_and_padding_move_no_value_of_any_grid(grid, axcodes, seed):
    volume = Volume(np.random.default_rng(seed).normal(size=grid.shape), grid)
    turned = geo.reorient(volume, axcodes)
    around = geo.pad(turned, (1, 0, 2), (0, 3, 1), fill=np.nan)
    part = geo.crop(around, (1, 0, 2), (np.array((1, 0, 2)) + turned.geometry.shape).tolist())
    assert sorted(part.array.ravel()) == sorted(volume.array.ravel())
    index = np.round(part.geometry.to_index(grid.to_world(np.moveaxis(np.indices(grid.shape), 0, -1))), 6).astype(int)
    np.testing.assert_array_equal(part.array[0][tuple(np.moveaxis(index, -1, 0))], volume.array[0])
    np.testing.assert_allclose(
        part.geometry.to_world(index), grid.to_world(np.moveaxis(np.indices(grid.shape), 0, -1)), atol=1e-9
    )


def block(thick: int) -> Volume:
    """A plate of so many voxels of 1 mm in a volume of background."""
    array = np.zeros((30, 30, 30), np.uint8)
    array[12 : 12 + thick, 12 : 12 + thick, 12 : 12 + thick] = 3
    return Volume(array, Geometry(array.shape, np.eye(4)), "labels")


@settings(max_examples=60, deadline=None)
@given(
    thick=st.integers(2, 6),
    share=st.floats(0.1, 1),
    start=st.tuples(*[st.floats(-1, 1)] * 3),
)
def test_one_hot_keeps_what_is_as_thick_as_a_voxel_of_both_grids(thick, share, start):
    spacing = max(0.2, share * (thick - 1))
    affine = np.diag([spacing] * 3 + [1.0])
    affine[:3, 3] = start
    target = Geometry((int(32 / spacing),) * 3, affine)
    assert (geo.resample_to(block(thick), target, "one_hot").array == 3).any()


def test_one_hot_loses_what_is_thinner():
    """Where a voxel of the new grid lies beside a structure of one voxel, its neighbours outvote it."""
    assert (geo.resample(block(1), (4, 4, 4), "one_hot").array == 0).all()
    beside = geo.part(block(1).geometry, (0.5, 0.5, 0.5), (29, 29, 29))
    assert (geo.resample_to(block(1), beside, "one_hot").array == 0).all()
    assert (geo.resample_to(block(1), beside, "nearest").array == 3).sum() == 1


def test_shear_and_flips_stay_as_they_are():
    leaning = Geometry((9, 8, 7), OBLIQUE * np.array([1, -1, 1, 1]))
    assert leaning.shear_deg > 5
    fine = geo.with_spacing(leaning, np.array(leaning.spacing_mm) / 2)
    np.testing.assert_allclose(fine.affine[:3, :3] * 2, leaning.affine[:3, :3])
    for moved in (
        geo.reorient(phantom((9, 8, 7), leaning.affine), "RAS").geometry,
        geo.part(leaning, (1, 2, 3), (4, 4, 4)),
    ):
        assert moved.shear_deg == pytest.approx(leaning.shear_deg)


def voted_plainly(labels: Volume, target: Geometry) -> np.ndarray:
    """Every label over the whole grid, background first; what `one_hot` says it does."""
    best, winner = np.zeros(target.shape), np.zeros(target.shape, int)
    index = labels.geometry.to_index(target.to_world(np.stack(np.indices(target.shape), -1)))
    outside = ((index < -0.5001) | (index > np.array(labels.geometry.shape) - 0.4999)).any(-1)
    for value in np.unique(labels.array):
        at = np.moveaxis(index, -1, 0)
        share = map_coordinates((labels.array[0] == value).astype(float), at, order=1, mode="nearest")
        share = np.where(outside, value == 0, share)
        better = share > best + 1e-5
        winner[better], best[better] = value, share[better]
    return winner


@pytest.mark.parametrize("turn", [0, 20], ids=["along the axes", "oblique"])
def test_one_hot_is_what_it_says(turn: float) -> None:
    rng = np.random.default_rng(0)
    array = np.kron(rng.choice([0, 0, 2, 7, 300], (4, 5, 3)), np.ones((3, 3, 3), int)).astype(np.uint16)
    labels = Volume(array, Geometry(array.shape, np.diag([1.0, 1.5, 2, 1])), "labels")
    c, s = np.cos(np.radians(turn)), np.sin(np.radians(turn))
    affine = np.array([[c, -s, 0, -2], [s, c, 0, 3.3], [0, 0, 1.1, -1], [0, 0, 0, 1]]) * [[0.9], [0.9], [1], [1]]
    target = Geometry((18, 22, 20), affine)
    found = geo.resample_to(labels, target, "one_hot").array[0]
    expected = voted_plainly(labels, target)
    assert found.dtype == np.uint16
    assert set(np.unique(expected)) == {0, 2, 7, 300}
    assert (found == expected).mean() > 0.999, "ties may fall differently by rounding"


def test_one_hot_is_smooth_and_keeps_a_constant_map():
    geometry = Geometry((8, 8, 8), np.eye(4))
    full = Volume(np.full((8, 8, 8), 3, np.uint8), geometry, "labels")
    assert (geo.resample(full, (0.5, 0.5, 0.5), "one_hot").array == 3).all()
    ball = (np.linalg.norm(np.indices((24, 24, 24)) - 11.5, axis=0) < 8).astype(np.uint8) * 2
    labels = Volume(ball, Geometry((24, 24, 24), np.eye(4)), "labels")
    fine = geo.resample(labels, (0.5, 0.5, 0.5), "one_hot")
    assert (fine.array == 2).sum() / 8 == pytest.approx(ball.astype(bool).sum(), rel=0.02)


def test_nearest_oblique_keeps_large_label_values():
    values = np.array([0, 40001, 65535], np.uint16)[np.indices((6, 6, 6)).sum(0) % 3]
    result = geo.resample_to(
        Volume(values, Geometry((6, 6, 6), np.eye(4)), "labels"), Geometry((5, 5, 5), OBLIQUE * 0.5 + np.eye(4) * 0.5)
    )
    assert set(np.unique(result.array)) <= {0, 40001, 65535}


def test_upright_holds_a_tilted_grid():
    tilt = np.eye(4)
    tilt[:3, :3] = [[0.5, 0, 0], [0, 0.5, 0.8], [0, 0, 4.0]]
    tilted = Geometry((20, 20, 6), tilt)
    grid = geo.upright(tilted)
    assert grid.shear_deg == pytest.approx(0, abs=1e-9)
    np.testing.assert_allclose(grid.spacing_mm, (0.5, 0.5, 4.0))
    corners = np.array([(i, j, k) for i in (0, 19) for j in (0, 19) for k in (0, 5)])
    index = grid.to_index(tilted.to_world(corners))
    assert index.min() > -1e-6
    assert (index < np.array(grid.shape) - 1 + 1e-6).all()
    field = Volume(world_field(tilted), tilted)
    home = geo.resample_to(geo.resample_to(field, grid), tilted)
    np.testing.assert_allclose(home.array[0, :, 3:-3], world_field(tilted)[:, 3:-3], atol=0.02)


def by_simpleitk(volume: Volume, grid: Geometry, method: str) -> np.ndarray:
    sitk = pytest.importorskip("SimpleITK")

    def image(array, g):
        made = sitk.GetImageFromArray(array.transpose(2, 1, 0))
        made.SetSpacing(g.spacing_mm), made.SetOrigin(g.affine[:3, 3])
        made.SetDirection((g.affine[:3, :3] / g.spacing_mm).ravel())
        return made

    reference = image(np.zeros(grid.shape, volume.array.dtype), grid)
    moved = sitk.Resample(image(volume.array[0], volume.geometry), reference, sitk.Transform(), getattr(sitk, method))
    return sitk.GetArrayFromImage(moved).transpose(2, 1, 0)


def turned_grid(degrees: tuple[float, ...], steps: tuple[float, ...], shape: tuple[int, ...]) -> Geometry:
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("xyz", degrees, degrees=True).as_matrix() * steps
    affine[:3, 3] = (3, 4, 5)
    return Geometry(shape, affine)


@pytest.mark.parametrize("degrees", [(0, 0, 0), (10, -20, 30)], ids=["along the axes", "oblique"])
def test_agrees_with_simpleitk(degrees):
    """Linear within 1e-4 of values of about 1, nearest in every voxel; ITK knows no anti-aliasing, so the grid is finer."""
    rng = np.random.default_rng(1)
    source = Geometry((20, 18, 16), np.diag([-1.0, 1.5, 2, 1]) + np.array([[0, 0, 0, 19], [0] * 4, [0] * 4, [0] * 4]))
    grid = turned_grid(degrees, (0.9, -0.8, 0.77) if not any(degrees) else (0.9, 0.8, 0.77), (10, 9, 8))
    index = source.to_index(grid.to_world(np.moveaxis(np.indices(grid.shape), 0, -1)))
    inside = ((index >= 0) & (index <= np.array(source.shape) - 1)).all(-1)
    assert inside.mean() > 0.4
    image = Volume(rng.normal(size=source.shape).astype(np.float32), source)
    found = geo.resample_to(image, grid).array[0]
    np.testing.assert_allclose(found[inside], by_simpleitk(image, grid, "sitkLinear")[inside], atol=1e-4)
    labels = Volume(rng.integers(0, 9, source.shape).astype(np.uint8), source, "labels")
    found = geo.resample_to(labels, grid).array[0]
    np.testing.assert_array_equal(found[inside], by_simpleitk(labels, grid, "sitkNearestNeighbor")[inside])


def test_coarsening_without_smoothing_agrees_with_simpleitk():
    rng = np.random.default_rng(1)
    volume = Volume(rng.normal(size=(20, 18, 16)).astype(np.float32), Geometry((20, 18, 16), np.diag([1.0, 1.5, 2, 1])))
    grid = turned_grid((10, 5, -8), (2.1, 2.3, 2.5), (6, 6, 6))
    inside = (volume.geometry.to_index(grid.to_world(np.moveaxis(np.indices(grid.shape), 0, -1))) >= 0).all(-1)
    from torch import from_numpy

    matrix = np.linalg.inv(volume.geometry.affine) @ grid.affine
    result = pull(from_numpy(volume.array.copy()), matrix, grid.shape).numpy()[0]
    np.testing.assert_allclose(result[inside], by_simpleitk(volume, grid, "sitkLinear")[inside], atol=1e-4)


@settings(max_examples=30, deadline=None)
@given(shape=st.tuples(*[st.integers(1, 9)] * 3), spacing=st.tuples(*[st.floats(0.3, 4)] * 3))
def test_with_spacing_keeps_the_centre(shape, spacing):
    geometry = Geometry(shape, OBLIQUE)
    grid = geo.with_spacing(geometry, spacing)
    centre = geometry.to_world((np.array(shape) - 1) / 2)
    np.testing.assert_allclose(grid.to_world((np.array(grid.shape) - 1) / 2), centre, atol=1e-6)
    np.testing.assert_allclose(grid.spacing_mm, spacing, rtol=1e-9)


def test_a_coarser_grid_leaves_no_slice_uncovered():
    volume = Volume(np.ones((4, 4, 10), np.uint8), Geometry((4, 4, 10), np.eye(4)), "labels")
    coarse = geo.resample(volume, (1, 1, 4))
    assert coarse.geometry.shape == (4, 4, 3)
    assert geo.resample_to(coarse, volume.geometry).array.all()
