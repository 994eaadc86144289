"""A tree of DICOM studies as a dataset: series, and the structures that were drawn on them as DICOM SEG or RTSTRUCT."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from medseg import drawings, io, progress, pseudonym, volume
from medseg.cases import Case, Dataset, Structures, few
from medseg.errors import ConfigError, DataError, MedsegError
from medseg.labels import Label, Labels
from medseg.plural import counted
from medseg.reading import each
from medseg.series import Series, listing

LAYOUT = "DICOM studies with SEG or RTSTRUCT"


class _Seen(NamedTuple):
    """What is known of a case once its structures were read: their labels, how many voxels lie in several; or why not."""

    case: Case
    labels: Labels | None
    notes: tuple[str, ...] = ()
    error: str = ""


def find(root: Path, modality: str | None, keys: Path | None) -> Dataset | None:
    """The dataset of a tree of DICOM files, in any folders; None where no file holds structures.

    A structure set belongs to the series that it names, by SeriesInstanceUID or else by its images; where those are not here, to
    all series in its frame of reference, by place. Of a series of several volumes (echoes, times) it belongs to those whose
    images it names, and else to each, which is then a case of its own. Several objects of a series make one mask. Structures of one name (letters
    may be large or small) are one label; where any two share a voxel in any case, labels overlap. A series whose structures
    cannot be read is left out, and said.

    Args:
        root: of the tree.
        modality: of the series to take, where there are several.
        keys: see `pseudonym.key`.

    Raises:
        ConfigError: no or several modalities have structures, and `modality` does not choose.
        DataError: no series with structures can be used.
    """
    listed, files = listing(root)
    if not files:
        return None
    drawn = _matched(listed, files)
    chosen = _choose(drawn, modality)
    _say_several(chosen)
    secret = pseudonym.key(keys)
    cases = [_case(series, drawn[series], secret) for series in chosen]
    known, labels = _resolved(cases, root)
    return Dataset(few(labels.names), LAYOUT, known, labels, (chosen[0].modality,), root)


def by_name(dataset: Dataset) -> Dataset:
    """A dataset of another layout whose masks are DICOM objects, with what their names mean; any other as it is.

    Raises:
        DataError: some masks are objects and some have values, or none can be used.
    """
    objects_ = [case for case in dataset.labelled if case.label and io.holds_structures(case.label)]
    if not objects_:
        return dataset
    if other := [case.id for case in dataset.labelled if case not in objects_]:
        raise DataError(f"some masks are DICOM objects and others are not ({few(other)}): give all in one form.")
    cases = [case.replace(structures=Structures((case.label,))) for case in objects_ if case.label]
    known, labels = _resolved(cases, dataset.root, dataset.labels)
    bare = tuple(case for case in dataset.cases if not case.label)
    return dataset.replace(cases=(*known, *bare), labels=labels)


def _resolved(cases: Sequence[Case], root: Path, declared: Labels | None = None) -> tuple[tuple[Case, ...], Labels]:
    """The cases whose structures can be read, each with the labels that all have in common, and those labels.

    Raises:
        DataError: there are no such cases.
    """
    seen = each(_look, cases, "reading structures")
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


def _matched(listed: Sequence[Series], files: Sequence[Path]) -> dict[Series, Structures]:
    """The objects of each series that has some."""
    drawn: dict[Series, Structures] = {}
    lost = 0
    for file in files:
        try:
            refers = io.references(file)
        except MedsegError:
            lost += 1
            continue
        found = [(series, frame.frame) for frame in refers for series in _belonging(frame, listed)]
        lost += not found
        for series, frame in found:
            before = drawn.get(series, Structures(()))
            files_ = tuple(dict.fromkeys((*before.files, file)))
            drawn[series] = Structures(files_, frames=before.frames | {frame})
    if lost:
        progress.warn(
            f"{lost} of {len(files)} SEG or RTSTRUCT objects belong to no series here, or are damaged; not used"
        )
    if bare := len(listed) - len(drawn):
        progress.say(f"{bare} of {len(listed)} DICOM series have no structures; not used")
    if not drawn:
        raise DataError(
            "the SEG and RTSTRUCT objects belong to none of the DICOM series here. Put the series beside them."
        )
    return drawn


def _belonging(refers: io.References, listed: Sequence[Series]) -> list[Series]:
    """The series that structures in one frame of reference were drawn on."""
    named = [series for series in listed if series.uid in refers.series]
    imaged = [series for series in listed if series.instances & refers.instances]
    placed = [series for series in listed if refers.frame and series.frame == refers.frame]
    return [series for series in named if series in imaged] or named or imaged or placed


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


def _say_several(chosen: Sequence[Series]) -> None:
    """Which series give more cases than one: their volumes are not told apart by their structures."""
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
    assert case.structures is not None
    try:
        mask = drawings.read(case.structures.files, io.read_geometry(case.images[0]), frames=case.structures.frames)
    except MedsegError as error:
        return _Seen(case, None, error=str(error))
    return _Seen(case, mask.meta["labels"], mask.meta["notes"])


def _common(found: Sequence[Labels]) -> Labels:
    """One label for each name, as it is written first; colours and codes likewise."""
    items: dict[str, Label] = {}
    for labels in found:
        for item in labels:
            items.setdefault(drawings.same_name(item.name), item)
    ordered = [items[name] for name in sorted(items)]
    numbered = tuple(item.model_copy(update={"values": (n,)}) for n, item in enumerate(ordered, 1))
    return Labels(items=numbered, exclusive=len(numbered) < 2 or all(labels.exclusive for labels in found))


def _say(labels: Labels, usable: Sequence[_Seen]) -> None:
    """Which structures are not in all cases: there they count as absent, and not as unknown."""
    counts = Counter(drawings.same_name(name) for item in usable if item.labels for name in item.labels.names)
    if rare := [
        (name, counts[drawings.same_name(name)])
        for name in labels.names
        if counts[drawings.same_name(name)] < len(usable)
    ]:
        shown = few((f"'{name}' in {count}" for name, count in rare), 8)
        progress.warn(f"not drawn in all {len(usable)} cases, and taken as absent in the others: {shown}")
    if not labels.exclusive:
        progress.say("structures overlap: each is learned on its own")


def _named(case: Case, labels: Labels) -> Case:
    assert case.structures is not None
    return case.replace(structures=case.structures._replace(labels=labels))
