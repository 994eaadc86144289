"""Whether references and a model mean the same: by the names of structures, or by their values."""

from __future__ import annotations

from collections.abc import Sequence

from medseg import progress
from medseg.data import dicom_structures, pairing
from medseg.data.pairing import Pair
from medseg.errors import DataError
from medseg.labels import Labels
from medseg.wording import few


def check(pairs: Sequence[Pair], labels: Labels) -> None:
    """See that references which say what structures are called mean the same as a model; say which they do not know.

    Raises:
        DataError: they know none, so that each would be measured against nothing, or give a structure another value.
    """
    if not pairs or (known := pairs[0].declared) is None:
        return
    if pairing.by_name(pairs[0].reference) is None:
        return _check_values(known, labels)
    drawn = {dicom_structures.same_name(name) for name in known.names}
    lost = [name for name in labels.names if dicom_structures.same_name(name) not in drawn]
    if len(lost) == len(labels):
        raise DataError(
            f"the references hold {few(known.names, 8)}, and the model knows {few(lost, 8)}: no name is the same. Rename the "
            "structures in either."
        )
    if lost:
        progress.warn(f"drawn in no reference: {few(lost, 8)}; the references hold {few(known.names, 8)}")


def _check_values(declared: Labels, labels: Labels) -> None:
    ours = {dicom_structures.same_name(item.name): item.values for item in labels}
    for item in declared:
        values = ours.get(dicom_structures.same_name(item.name), item.values)
        if set(values) != set(item.values):
            raise DataError(
                f"the references hold '{item.name}' as {few(item.values)}, and the model as {few(values)}: other structures would be "
                "compared. Renumber the references."
            )
