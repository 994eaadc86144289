from __future__ import annotations

import re
from xml.etree import ElementTree

import numpy as np
import pytest

from medseg.evaluation import plot

SVG = "{http://www.w3.org/2000/svg}"
NASTY = 'a <b> & "c" $x_1$ 左肾'


def texts(svg: str) -> list[str]:
    return ["".join(element.itertext()).strip() for element in ElementTree.fromstring(svg).iter(f"{SVG}text")]


def points(svg: str) -> list[tuple[float, float]]:
    """Places of the points of a chart, in the order in which they were drawn."""
    uses = [use for use in ElementTree.fromstring(svg).iter(f"{SVG}use") if "fill-opacity" in use.get("style", "")]
    return [(float(use.get("x", "nan")), float(use.get("y", "nan"))) for use in uses]


@pytest.fixture(
    params=[
        lambda name: plot.curve([0, 1, 2], [3.0, 2.0, 1.0], x_label="minutes", y_label=name),
        lambda name: plot.curve([0, 1, 2], [3.0, 2.0, 1.0], x_label=name, y_label="loss", smooth=True),
        lambda name: plot.distribution({name: [0.5, 0.7, 0.9]}, {name: (1, 2, 200)}, x_label="Dice"),
        lambda name: plot.agreement([1, 2, 3], [1, 2.5, 2], (200, 2, 1), name=name),
        lambda name: plot.paired([0.1, 0.2], [0.3, 0.1], (200, 2, 1), names=("A", "B"), x_label=name),
    ],
    ids=["curve", "smooth curve", "distribution", "agreement", "paired"],
)
def chart(request: pytest.FixtureRequest) -> str:
    svg: str = request.param(NASTY)
    return svg


def test_a_chart_is_one_element_that_says_what_it_shows(chart: str) -> None:
    root = ElementTree.fromstring(chart)
    assert (root.tag, root.get("role")) == (f"{SVG}svg", "img")
    assert NASTY in root.get("aria-label", "") + " ".join(texts(chart))


def test_a_chart_takes_the_ink_of_its_page_and_needs_nothing_else(chart: str) -> None:
    assert "currentColor" in chart
    assert "#010203" not in chart
    assert not re.search(r"<(image|script|metadata)", chart)
    assert not re.search(r'(href|src)="(?!#)', chart)


def test_names_are_text_and_never_formulas_or_markup() -> None:
    assert NASTY in texts(plot.distribution({NASTY: [0.5]}, {NASTY: (1, 2, 3)}, x_label="Dice"))


def test_a_chart_is_the_same_each_time(chart: str, request: pytest.FixtureRequest) -> None:
    again = request.node.callspec.params["chart"](NASTY)
    assert again == chart


def test_charts_leave_the_settings_of_matplotlib_alone() -> None:
    import matplotlib

    before = dict(matplotlib.rcParams)
    plot.curve([0, 1], [1, 2], x_label="x", y_label="y")
    assert dict(matplotlib.rcParams) == before


def test_no_point_is_cut_by_the_edge_of_the_axes() -> None:
    """Where the box begins with the least value, or ends with the largest."""
    svg = plot.distribution({"a": [0, 0, 0, 3, 6, 6]}, {"a": (1, 2, 3)}, x_label="HD95, mm")
    clip = next(ElementTree.fromstring(svg).iter(f"{SVG}clipPath"))[0]
    left, width = float(clip.get("x", "nan")), float(clip.get("width", "nan"))
    assert all(left + 2 < x < left + width - 2 for x, _ in points(svg))  # a point is 4 wide


def test_the_distribution_shows_every_finite_value_in_its_place() -> None:
    values = {"a": [0.2, float("nan"), 0.4, 0.8], "b": []}
    x = [place[0] for place in points(plot.distribution(values, dict.fromkeys(values, (9, 9, 9)), x_label="Dice"))]
    assert len(x) == 3
    assert (x[2] - x[1]) / (x[1] - x[0]) == pytest.approx(2, rel=1e-3)


def test_agreement_draws_means_and_differences() -> None:
    places = points(plot.agreement([1, 2, float("nan")], [2, 4, 1], (9, 9, 9), name="n"))
    assert len(places) == 2
    assert places[0][0] < places[1][0]  # means 1.5 and 3
    assert places[0][1] > places[1][1]  # differences 1 and 2; SVG counts downward


@pytest.mark.parametrize("values", [[], [0.5]])
def test_nothing_and_one_value_can_be_drawn(values: list[float]) -> None:
    assert plot.curve(values, values, x_label="x", y_label="y", smooth=True).startswith("<svg")
    assert plot.distribution({"a": values}, {"a": (0, 0, 0)}, x_label="x").startswith("<svg")
    assert plot.agreement(values, values, (0, 0, 0), name="n").startswith("<svg")


def test_the_running_mean_keeps_a_line_and_the_ends_of_a_constant() -> None:
    np.testing.assert_allclose(plot._running_mean(np.full(9, 2.0), 4), 2)
    np.testing.assert_allclose(plot._running_mean(np.arange(9.0), 3)[1:-1], np.arange(1.0, 8))


def test_paired_draws_both_runs_of_the_cases_that_both_have() -> None:
    places = points(plot.paired([0.2, 0.4, float("nan")], [0.3, 0.8, 0.5], (9, 9, 9), names=("A", "B"), x_label="Dice"))
    assert len(places) == 4
    assert len({round(y, 3) for _, y in places}) == 2  # A above B
    assert places[0][1] < places[2][1]
    assert (places[3][0] - places[1][0]) / (places[2][0] - places[0][0]) == pytest.approx(4, rel=1e-3)
    assert plot.paired([], [], (9, 9, 9), names=("A", "B"), x_label="Dice").startswith("<svg")
