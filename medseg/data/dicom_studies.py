"""A tree of DICOM studies as a dataset: series, and the structures that were drawn on them as DICOM SEG or RTSTRUCT."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from medseg import io, progress, volume
from medseg.data import dicom_references, dicom_structures, pseudonym
from medseg.data.cases import Case, Dataset, Structures
from medseg.data.dicom_series import Series, drawn_objects, series_within
from medseg.data.reading import each
from medseg.errors import ConfigError, DataError, MedsegError
from medseg.labels import Label, Labels
from medseg.wording import counted, few

LAYOUT = "DICOM studies with SEG or RTSTRUCT"


class _Seen(NamedTuple):
    """What is known of a case once its structures were read: their labels, and which could not be placed; or why not."""

    case: Case
    labels: Labels | None
    left_out: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    error: str = ""


def find(root: Path, modality: str | None, keys: Path | None, only: str = "") -> Dataset | None:
    """The dataset of a tree of DICOM files, in any folders; None where no file holds structures.

    A structure set belongs to the series that it names, by SeriesInstanceUID or else by its images; where those are not here, to
    all series in its frame of reference, by place. Of a series of several volumes (echoes, times) it belongs to those whose
    images it names, and else to each, which is then a case of its own. Several objects of a series make one mask. Structures of one name (letters
    may be large or small) are one label; where any two share a voxel in any case, labels overlap. A series whose structures
    cannot be read is left out, with a warning.

    Args:
        root: of the tree.
        modality: of the series to take, where there are several.
        keys: see `pseudonym.key`.
        only: the objects that count, by a part of their path in the tree or of what their authors called them; all without it.

    Raises:
        ConfigError: no or several modalities have structures, and `modality` does not choose.
        DataError: no series with structures can be used.
    """
    if not (files := drawn_objects(root)):
        return None
    drawn = dicom_references.matched(series_within(root), dicom_references.called(files, root, only))
    chosen = _choose(drawn, modality)
    _warn_of_several(chosen)
    secret = pseudonym.key(keys)
    cases = [_case(series, drawn[series], secret) for series in chosen]
    known, labels = _resolved(cases, root)
    return Dataset(few(labels.names), LAYOUT, known, labels, (chosen[0].modality,), root)


def by_name(dataset: Dataset) -> Dataset:
    """A dataset of another layout whose masks are DICOM objects, with what their names mean; any other as it is.

    Raises:
        DataError: some masks are objects and some have values, or none can be used.
    """
    drawn = [(case, drawn_objects(case.label)) for case in dataset.labelled if case.label]
    if not any(files for _, files in drawn):
        return dataset
    if other := [case.id for case, files in drawn if not files]:
        raise DataError(f"some masks are DICOM objects and others are not ({few(other)}): give all in one form.")
    cases = [case.replace(label=files[0], structures=Structures(tuple(files))) for case, files in drawn]
    known, labels = _resolved(cases, dataset.root, dataset.labels)
    bare = tuple(case for case in dataset.cases if not case.label)
    return dataset.replace(cases=(*known, *bare), labels=labels)


def _resolved(cases: Sequence[Case], root: Path, declared: Labels | None = None) -> tuple[tuple[Case, ...], Labels]:
    """The cases whose structures can be read, each with the labels that all have in common, and those labels.

    Raises:
        DataError: there are no such cases.
    """
    seen = each(_look, cases, "reading structures")
    every = declared or _common([item.labels for item in seen if item.labels])
    seen = [_complete(item, every) for item in seen]
    for item in seen:
        for text in (item.error, *item.notes):
            if text:
                progress.warn(f"{item.case.id}: {item.case.without_paths(text)}{' (left out)' if item.error else ''}")
    usable = [item for item in seen if item.labels is not None]
    if not usable:
        raise DataError(
            f"no series of '{root}' can be used; {seen[0].case.id}: {seen[0].case.without_paths(seen[0].error)}"
        )
    labels = declared or _common([item.labels for item in usable if item.labels])
    _say(labels, usable)
    return tuple(_named(item.case, labels) for item in usable), labels


def _choose(drawn: dict[Series, Structures], modality: str | None) -> list[Series]:
    """The series of one modality, in the order of their identifiers.

    Raises:
        ConfigError: there is none of the one that was asked for, or several and none was.
    """
    counts = Counter(series.modality for series in drawn)
    wanted = volume.modality(modality) if modality else next(iter(counts))
    if (modality is None and len(counts) > 1) or wanted not in counts:
        known = ", ".join(f"{name} ({count} series)" for name, count in sorted(counts.items()))
        raise ConfigError(f"structures were drawn on {known}; a model learns from one. Choose with --modality.")
    return sorted((series for series in drawn if series.modality == wanted), key=lambda series: series.uid)


def _warn_of_several(chosen: Sequence[Series]) -> None:
    """Warn of series that give several cases: their structures do not say to which volume they belong."""
    several = {uid: count for uid, count in Counter(series.uid for series in chosen).items() if count > 1}
    if several:
        progress.warn(
            f"{counted(len(several), 'series holds', 'series hold')} several volumes (echoes, times ...), {sum(several.values())} in all, and one mask: each "
            "volume is a case with that mask. List those that you want in a CSV, or their volumes as its channels"
        )


def _case(series: Series, structures: Structures, secret: bytes) -> Case:
    group = pseudonym.group(series.patient, secret)
    return Case(series.id, (series.path,), structures.files[0], group, structures=structures)


def _look(case: Case) -> _Seen:
    try:
        own = dicom_references.in_its_frames(case)
        assert own.structures is not None
        mask = dicom_structures.read(
            own.structures.files, io.read_geometry(own.images[0]), frames=own.structures.frames
        )
    except MedsegError as error:
        return _Seen(case, None, error=str(error))
    return _Seen(own, mask.meta["labels"], mask.meta["left_out"], mask.meta["notes"])


def _complete(seen: _Seen, labels: Labels) -> _Seen:
    """A case, refused if it lacks a structure that was drawn, and that the others have."""
    lost = dicom_structures.unplaced(seen.left_out, labels)
    return seen._replace(labels=None, error=lost) if lost else seen


def _common(found: Sequence[Labels]) -> Labels:
    """One label for each name, as it is written first; colours and codes likewise."""
    items: dict[str, Label] = {}
    for labels in found:
        for item in labels:
            items.setdefault(dicom_structures.same_name(item.name), item)
    ordered = [items[name] for name in sorted(items)]
    numbered = tuple(item.model_copy(update={"values": (n,)}) for n, item in enumerate(ordered, 1))
    return Labels(items=numbered, exclusive=len(numbered) < 2 or all(labels.exclusive for labels in found))


def _say(labels: Labels, usable: Sequence[_Seen]) -> None:
    """Which structures are not in all cases: there they count as absent, and not as unknown."""
    counts = Counter(dicom_structures.same_name(name) for item in usable if item.labels for name in item.labels.names)
    if rare := [
        (name, counts[dicom_structures.same_name(name)])
        for name in labels.names
        if counts[dicom_structures.same_name(name)] < len(usable)
    ]:
        shown = few((f"'{name}' in {count}" for name, count in rare), 8)
        progress.warn(f"not drawn in all {len(usable)} cases, and taken as absent in the others: {shown}")
    if not labels.exclusive:
        progress.say("structures overlap: each is learned on its own")


def _named(case: Case, labels: Labels) -> Case:
    assert case.structures is not None
    return case.replace(structures=case.structures._replace(labels=labels))
