"""Charts of a report: SVG that takes the page's ink and font."""

from __future__ import annotations

import html
import io
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from medseg import picture
from medseg.arrays import Array

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

RGB = tuple[int, int, int]

# A colour nobody else uses: it becomes the page's own ink, so that one chart serves a light and a dark page.
_INK = "#010203"
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "medseg",
    "text.parse_math": False,  # a label named `$T_1$` is a name
    "font.size": 9,
    "text.color": _INK,
    "axes.labelcolor": _INK,
    "axes.edgecolor": _INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "xtick.color": _INK,
    "ytick.color": _INK,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
}


def curve(x: Sequence[float], y: Sequence[float], *, x_label: str, y_label: str, smooth: bool = False) -> str:
    """One quantity over another.

    Args:
        x: positions, ascending.
        y: as many values; those that are not finite leave a gap.
        x_label: name and unit of x.
        y_label: name and unit of y.
        smooth: draw a running mean over a fiftieth of the points, and the values themselves faintly.

    Returns:
        An `<svg>` element. No values give empty axes.
    """
    with _axes(3.0, 2.1) as (figure, axes):
        values = np.asarray(y, float)
        colour = _hex(picture.colour(5))
        if smooth and len(values):
            axes.plot(x, values, color=colour, linewidth=0.7, alpha=0.3)
            axes.plot(x, _running_mean(values, max(1, len(values) // 50)), color=colour, linewidth=1.5)
        else:
            axes.plot(x, values, color=colour, linewidth=1.5, marker="o" if len(values) < 40 else "", markersize=3)
        axes.set_xlabel(x_label)
        axes.set_title(y_label, loc="left", fontsize=9)
        _guides(axes, "y")
        return _svg(figure, f"{y_label} over {x_label}")


def distribution(values: Mapping[str, Sequence[float]], colours: Mapping[str, RGB], *, x_label: str) -> str:
    """Every value of every group as a point, over a box from quartile to quartile and a bar at the median.

    Args:
        values: numbers of each group, drawn from top to bottom; those that are not finite are left out.
        colours: RGB of each group.
        x_label: name and unit of the values.

    Returns:
        An `<svg>` element. A group without values keeps an empty row.
    """
    with _axes(9.6, 0.6 + 0.36 * max(1, len(values))) as (figure, axes):
        axes.use_sticky_edges = False  # or a box that begins with the least value would cut its points in half
        for row, (name, numbers) in enumerate(values.items()):
            kept = np.sort([n for n in numbers if np.isfinite(n)])
            if len(kept):
                low, middle, high = np.percentile(kept, (25, 50, 75))
                axes.barh(row, high - low, 0.62, left=low, color=_hex(colours[name]), alpha=0.22)
                axes.plot([middle, middle], [row - 0.31, row + 0.31], color=_INK, linewidth=1.4)
            _points(axes, kept, row + 0.2 * np.sin(2.4 * np.arange(len(kept))), colours[name])
        _rows(axes, list(values), x_label)
        return _svg(figure, f"{x_label} of every case, by label")


def paired(
    first: Sequence[float], second: Sequence[float], colour: RGB, *, names: tuple[str, str], x_label: str
) -> str:
    """The values of two runs on the same cases: one row per run, a line from each case's first to its second, a bar at each median.

    Args:
        first: values of the first run; pairs that are not finite are left out.
        second: of the second run, in the same order.
        colour: RGB of the points.
        names: of both runs.
        x_label: name and unit of the values.

    Returns:
        An `<svg>` element. No pairs give empty axes.
    """
    with _axes(4.6, 1.5) as (figure, axes):
        pairs = np.array([first, second], float)
        pairs = pairs[:, np.isfinite(pairs).all(0)]
        axes.plot(pairs, [[0] * pairs.shape[1], [1] * pairs.shape[1]], color=_INK, linewidth=0.5, alpha=0.3)
        for row, values in enumerate(pairs):
            _points(axes, values, np.full(len(values), row), colour)
            if len(values):
                axes.plot([np.median(values)] * 2, [row - 0.3, row + 0.3], color=_INK, linewidth=1.4)
        _rows(axes, names, x_label)
        return _svg(figure, f"{x_label} of every case, {names[0]} above {names[1]}")


def agreement(reference_ml: Sequence[float], predicted_ml: Sequence[float], colour: RGB, *, name: str) -> str:
    """Volumes compared as Bland and Altman do: the difference over the mean, the bias and its limits of agreement.

    Args:
        reference_ml: volumes of the reference masks; pairs that are not finite are left out.
        predicted_ml: volumes of the predictions, in the same order.
        colour: RGB of the points.
        name: the structure, for readers who cannot see the chart.

    Returns:
        An `<svg>` element. Limits (bias plus and minus 1.96 standard deviations) need two cases.

    Reference:
        Bland and Altman, Lancet 1986; 327:307-310.
    """
    with _axes(3.0, 2.1) as (figure, axes):
        pairs = np.array([reference_ml, predicted_ml], float)
        reference, predicted = pairs[:, np.isfinite(pairs).all(0)]
        difference = predicted - reference
        _points(axes, (predicted + reference) / 2, difference, colour)
        axes.axhline(0, color=_INK, linewidth=0.6, alpha=0.4)
        if len(difference) > 1:
            bias, spread = difference.mean(), 1.96 * difference.std(ddof=1)
            for level, dashes in ((bias, "-"), (bias - spread, "--"), (bias + spread, "--")):
                axes.axhline(level, color=_hex(colour), linewidth=1.2, linestyle=dashes)
        axes.set_xlabel("mean of both, ml")
        axes.set_ylabel("difference, ml")
        return _svg(figure, f"Predicted minus reference volume of {name} over the mean of both")


@contextmanager
def _axes(width: float, height: float) -> Iterator[tuple[Figure, Axes]]:
    import matplotlib
    from matplotlib.figure import Figure

    # The browser draws the letters with its own fonts; matplotlib only measures them, and need not know them all.
    with matplotlib.rc_context(_STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure, figure.add_subplot()


def _svg(figure: Figure, description: str) -> str:
    stream = io.StringIO()
    figure.savefig(stream, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    text = stream.getvalue().replace(_INK, "currentColor")
    # matplotlib numbers its groups from 1 in each figure; several figures on one page may not share names.
    text = re.sub(r' id="[\w.]+_\d+"', "", text[text.index("<svg") :])
    return text.replace("<svg", f'<svg role="img" aria-label="{html.escape(description)}"', 1)


def _points(axes: Axes, x: Array, y: Array, colour: RGB) -> None:
    axes.scatter(x, y, s=14, color=_hex(colour), edgecolors=_INK, linewidths=0.4, alpha=0.85, zorder=3)


def _rows(axes: Axes, names: Sequence[str], x_label: str) -> None:
    """Name the rows from top to bottom, and what runs along them."""
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_xlabel(x_label)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    _guides(axes, "x")


def _guides(axes: Axes, axis: str) -> None:
    axes.grid(axis=axis, color=_INK, alpha=0.13, linewidth=0.6)  # type: ignore[arg-type]
    axes.set_axisbelow(True)


def _running_mean(values: Array, width: int) -> Array:
    window = np.ones(width)
    return np.asarray(np.convolve(values, window, "same") / np.convolve(np.ones_like(values), window, "same"))


def _hex(colour: RGB) -> str:
    return "#{:02x}{:02x}{:02x}".format(*colour)
