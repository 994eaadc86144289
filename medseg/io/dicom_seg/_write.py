"""Labels as a DICOM Segmentation, frame by frame on the planes of the source's slices."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from medseg.arrays import Array
from medseg.io import _codes, _colour, _common
from medseg.io._source import DESCRIPTION, MAKER, Source, checked_name
from medseg.labels import Label, Labels

_MANY = 32  # structures: from here on one map of numbers, which fewer viewers know, instead of a frame each
_NETWORK = _codes.Code("DCM", "123110", "Artificial Intelligence")  # PS3.16, CID 7162


def write(numbers: Array, labels: Labels, source: Source, path: Path, codes: _codes.Table) -> None:
    """Write labels on the grid of their series: BINARY, or LABELMAP for many structures that exclude each other.

    Args:
        numbers: of the labels in their order from 1 on, `(1, I, J, K)`; or `(labels, I, J, K)` of 0 and 1.
        labels: what they mean.
        source: the series, on whose grid they lie.
        path: of the file.
        codes: see `_codes.table`.

    Raises:
        DataError: a name that DICOM cannot hold.
    """
    import highdicom
    from highdicom import PixelMeasuresSequence, PlaneOrientationSequence, PlanePositionSequence
    from pydicom.uid import RLELossless

    as_map = len(numbers) == 1 and len(labels) >= _MANY
    planes = numbers[0].T if len(numbers) == 1 else numbers.T  # (K, J, I), or (K, J, I, segments)
    shown = np.flatnonzero(planes.any(axis=tuple(range(1, planes.ndim))))
    shown = shown if shown.size else np.array([0])  # an object needs a frame, and all of them would be many
    spacing_mm, gap_mm = source.geometry.spacing_mm[1::-1], source.gap_mm
    measures = PixelMeasuresSequence(spacing_mm, gap_mm, spacing_between_slices=gap_mm)
    with _common.writing(path):
        segmentation = highdicom.seg.Segmentation(
            source_images=list(source.headers),
            pixel_array=np.ascontiguousarray(planes[shown]),
            omit_empty_frames=bool(planes.any()),
            segmentation_type="LABELMAP" if as_map else "BINARY",
            segment_descriptions=[_description(n, item, codes) for n, item in enumerate(labels, 1)],
            series_instance_uid=highdicom.UID(),
            series_number=source.series_number,
            sop_instance_uid=highdicom.UID(),
            instance_number=1,
            manufacturer=MAKER,
            manufacturer_model_name=MAKER,
            software_versions=version("medseg"),
            device_serial_number="0",
            content_label="SEGMENTATION",
            content_description=DESCRIPTION,
            pixel_measures=measures,
            plane_orientation=PlaneOrientationSequence("PATIENT", np.concatenate(source.directions_lps).tolist()),
            plane_positions=[PlanePositionSequence("PATIENT", p) for p in source.positions_lps[shown]],
            specific_character_set="ISO_IR 192",
            series_description=MAKER,
        )
        source.mark(segmentation)
        _refer_to(source.frames, segmentation)
        segmentation.ContentCreatorName = ""  # of type 2 (PS3.3, table 10-12): highdicom leaves it out
        # highdicom 0.28 puts the source's thickness, and the distance of the frames that are shown, in their place
        segmentation.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence = measures
        if as_map:  # by pydicom: gdcm's encoder aborts the process
            segmentation.compress(RLELossless, encoding_plugin="pydicom", generate_instance_uid=False)
        segmentation.save_as(path)


def _refer_to(frames: Sequence[int], segmentation: Any) -> None:
    """Leave out references to frames of other volumes: highdicom refers to all of a file that lie in one place, every echo's."""
    for group in segmentation.PerFrameFunctionalGroupsSequence if frames else ():
        for derivation in group.get("DerivationImageSequence", ()):
            images = derivation.SourceImageSequence
            derivation.SourceImageSequence = [image for image in images if int(image.ReferencedFrameNumber) in frames]


def _description(number: int, item: Label, codes: _codes.Table) -> Any:
    from highdicom import AlgorithmIdentificationSequence
    from highdicom.color import CIELabColor
    from highdicom.seg import SegmentDescription

    found = _codes.coded(item, codes)
    category, kind = (_concept(code) for code in found[:2])
    how = AlgorithmIdentificationSequence(MAKER, _concept(_NETWORK), version("medseg"))
    colour = CIELabColor(*_colour.lab(item.colour))
    described = SegmentDescription(number, checked_name(item), category, kind, "AUTOMATIC", how, display_color=colour)
    if found.side:
        described.SegmentedPropertyTypeCodeSequence[0].SegmentedPropertyTypeModifierCodeSequence = [
            _concept(found.side)
        ]
    return described


def _concept(code: _codes.Code) -> Any:
    from highdicom.sr import CodedConcept

    return CodedConcept(code.value, code.scheme, code.meaning)
