"""Folders in, results out: masks against references, and two runs against each other."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from medseg import bundle
from medseg import evaluation as evaluations
from medseg.data import agreement, pairing
from medseg.data.pairing import Mask, Pair
from medseg.errors import ConfigError
from medseg.evaluation import Evaluation, comparison, gallery, reporting
from medseg.evaluation.comparison import Comparison
from medseg.labels import Labels
from medseg.training import runs


def evaluate(
    predictions: str | Path,
    references: str | Path,
    out: str | Path | None = None,
    *,
    tolerance_mm: float = 1.0,
    model: str | Path | None = None,
    held_out: bool = False,
    metrics: Collection[str] = ("usual",),
    by: str | None = None,
    manifest: str | Path | None = None,
) -> Evaluation:
    """Measure a folder of masks against a folder of references.

    Args:
        predictions, references: folders (or two files) whose masks are paired by name. Predictions may be a run, references a
            whole dataset.
        out: folder for `metrics.csv`, `scans.csv`, `metrics.json`, `report.html` and its `pictures/`.
        tolerance_mm: of the surface Dice.
        model: run or bundle that knows the labels' names; without it, each value found in the masks is a label.
        held_out: measure only the cases that the run `model` held out; each of them must have been predicted.
        metrics: names from `medseg.metrics.NAMES`, as a list or as one text with commas; "usual" or "all". Dice and volumes are
            always among them.
        by: a column of the manifest, such as the site: cases are also summarised for each of its values.
        manifest: a CSV with this column and a column `id`, where the references are not a manifest themselves.
    """
    pairs, labels = _pairs(predictions, references, model, held_out, manifest)
    result = evaluations.evaluate(pairs, labels, tolerance_mm=tolerance_mm, names=metrics, by=by)
    if out:
        result.write(out)
        gallery.draw(gallery.extremes(result, pairs, worst=3), labels, Path(out) / "pictures")
        reporting.report(out)
    return result


def compare(
    a: str | Path,
    b: str | Path,
    references: str | Path | None = None,
    out: str | Path | None = None,
    *,
    tolerance_mm: float | None = None,
    model: str | Path | None = None,
    metrics: Collection[str] = comparison.USUAL,
) -> Comparison:
    """Compare two runs, or two folders of masks, on the cases that both have.

    Args:
        a: a run, or a folder that `evaluate` wrote; with references, a folder of masks or a run that has some.
        b: likewise; differences are B - A.
        references: folder of masks, or a whole dataset. Without them, the results in both folders are compared; pictures then
            show the masks of both, where the folders are runs.
        out: folder for `comparison.csv`, `comparison.json`, `report.html` and its `pictures/`.
        tolerance_mm: of the surface Dice, with references; 1 mm unless given. What is stored keeps its own.
        model: run or bundle that knows the labels' names, with references.
        metrics: names from `medseg.metrics.NAMES`, as a list or as one text with commas.

    Raises:
        ConfigError: `tolerance_mm` or `model` without references, a metric that cannot be compared, or `out` is taken.
        DataError: nothing in common, or what is stored cannot be compared.

    Example:
        >>> medseg.compare("runs/unet", "runs/vnet")  # doctest: +SKIP
    """
    called, names = _called(Path(a), Path(b)), comparison.comparable(metrics)
    if out and any((Path(out) / name).exists() for name in ("metrics.json", "history.csv")):
        raise ConfigError(f"'{out}' holds a run or an evaluation. Name another folder for the comparison with -o.")
    if references is None and (tolerance_mm is not None or model):
        raise ConfigError("tolerance_mm and model are for masks: what is stored was measured. Name the references too.")
    alone, images = (0, 0), dict[str, tuple[Path, ...]]()
    masks: Mapping[str, Sequence[Mask]]
    if references is None:
        sides = [evaluations.read(folder) for folder in (a, b)]
        masks, labels = _stored(a, b)
    else:
        pairs, labels, alone = _both(a, b, references, model)
        tolerance_mm = 1.0 if tolerance_mm is None else tolerance_mm
        sides = [evaluations.evaluate(some, labels, tolerance_mm=tolerance_mm, names=names) for some in pairs]
        masks = {one.case: (one.reference, one.prediction, other.prediction) for one, other in zip(*pairs, strict=True)}
        images = {pair.case: pair.images for pair in pairs[0]}
    result = comparison.compare(sides[0], sides[1], called, names=names, alone=alone)
    if out:
        result.write(out)
        gallery.draw(gallery.differences(result, masks, images), labels, Path(out) / "pictures")
        reporting.report(out)
    return result


def measured(*folders: str | Path) -> bool:
    """Whether all folders hold results, as a run does and what `evaluate` wrote: then they can be compared as they are."""
    return all((Path(folder) / "metrics.csv").is_file() for folder in folders)


def _pairs(
    predictions: str | Path,
    references: str | Path,
    model: str | Path | None,
    held_out: bool = False,
    manifest: str | Path | None = None,
) -> tuple[list[Pair], Labels]:
    if held_out and not model:
        raise ConfigError("held_out: name the run that held cases out as model (--model RUN)")
    only = runs.held_out_cases(model) if held_out and model else None
    labels, modality = _known(model, predictions)
    pairs = pairing.pair_folders(predictions, references, only, manifest, modality)
    labels = labels or pairing.labels_in(pairs)
    agreement.check(pairs, labels)
    return pairs, labels


def _both(
    a: str | Path, b: str | Path, references: str | Path, model: str | Path | None
) -> tuple[list[list[Pair]], Labels, tuple[int, int]]:
    """Pairs of both folders of masks, of the cases that both have; the labels of all; how many cases one folder alone has."""
    labels, modality = _known(model, a, b)
    only = pairing.shared(a, b, references, modality)
    pairs = [pairing.pair_folders(folder, references, only.cases, modality=modality) for folder in (a, b)]
    labels = labels or pairing.labels_in([*pairs[0], *pairs[1]])
    agreement.check(pairs[0], labels)
    return pairs, labels, only.alone


def _stored(a: str | Path, b: str | Path) -> tuple[Mapping[str, tuple[Path, Path]], Labels]:
    """Masks to draw that two runs hold; none where they are no runs, or do not mean the same by a value."""
    masks = pairing.held_out_masks(a, b)
    one, other = (_known(folder)[0] if masks else None for folder in (a, b))
    return (masks, one) if one is not None and one == other else ({}, Labels.of([]))


def _called(a: Path, b: Path) -> tuple[str, str]:
    """Names of two folders for tables: their own, or those of their runs, and A and B where these are the same."""
    one, other = (path.resolve().parent.name if path.name == "predictions" else path.resolve().name for path in (a, b))
    return (one, other) if one != other else (f"{one} (A)", f"{other} (B)")


def _known(model: str | Path | None, *masks: str | Path) -> tuple[Labels | None, str | None]:
    """The labels and the only channel of a model, or else of the first run whose masks are judged; None where nobody knows."""
    known = [model] if model else [folder for folder in masks if pairing.is_run(Path(folder))]
    if not known:
        return None, None
    described = bundle.read(bundle.find(known[0]))
    return described.labels, described.channels[0] if len(described.channels) == 1 else None
