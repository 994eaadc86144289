"""PET as standardised uptake values by body weight (SUVbw): activity in a voxel, by the injected activity per gram.

The rule is the vendor-neutral one of the Quantitative Imaging Biomarkers Alliance (QIBA, "SUV calculation"), whose variables are
tags of PS3.3, C.8.9. Weight and times are the patient's: they are used, and only the names of the tags are told.
"""

from __future__ import annotations

import datetime
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from medseg.errors import DataError
from medseg.io import _common
from medseg.io.dicom import _datasets, _tags
from medseg.io.dicom._planes import Header, Plane

_MOMENT = re.compile(r"(\d{8})(\d\d)(\d\d)?(\d\d(?:\.\d+)?)?")
_LONGEST_S, _HALF_LIVES = 24 * 3600.0, 10  # from injection to scan, whichever is longer; more is a wrong date
_OVERNIGHT_S = 12 * 3600.0  # a time of the day alone is that of the day before, if so little lies between
_SLOW_S = 6 * 3600.0  # a half-life from which on scans are made days later
_LEAST_BQ = 1e4  # less is no dose of Bq: some write MBq
_HEAVIEST_KG = 700.0  # more is no weight in kg: some write g
_OF_ALL = (  # what one factor takes to be the same in every image
    "Units",
    "SUVType",
    "CorrectedImage",
    "DecayCorrection",
    "PatientWeight",
    "RadiopharmaceuticalInformationSequence",
)


@dataclass(frozen=True)
class Suv:
    """What makes SUV of the values of a series.

    Args:
        factor: by which they are multiplied.
        rule: in words.
        tags: that were used, by keyword.
        decay_s: for which the dose was decayed, in seconds.
    """

    factor: float
    rule: str
    tags: tuple[str, ...]
    decay_s: float = 0.0


def of(planes: Sequence[Plane]) -> Suv:
    """What makes SUV of a volume.

    Units GML are SUV already. CNTS of Philips have a private factor, to SUV or to Bq/ml. BQML is multiplied by the weight in
    grams and divided by the dose, decayed from injection to the start of the scan where the images are corrected to the latter
    (DecayCorrection START), as it is where they are corrected to injection (ADMIN).

    Raises:
        DataError: no PET, or a tag is missing, differs between images, or says that values are not corrected.
    """
    with _common.quiet(), _common.guarded():
        headers = [_datasets.header(source) for source in dict.fromkeys(plane.file.source for plane in planes)]
        data = headers[0]
        if unlike := [name for name in _OF_ALL if any(header.get(name) != data.get(name) for header in headers)]:
            raise DataError(f"differs from image to image in {', '.join(unlike)}; which counts cannot be known")
        units = str(data.get("Units") or "")
        if units == "GML":
            if data.get("SUVType") not in (None, "", "BW"):
                raise DataError(f"holds SUV by {data.SUVType} already, not by body weight; it cannot be changed")
            return Suv(1.0, "values are SUV by body weight already", ("Units", "SUVType"))
        if units == "CNTS":
            return _of_counts(headers)
        if units != "BQML":
            raise DataError(f"has values in '{units or 'no unit'}'; SUV needs a PET series in BQML, CNTS or GML")
        return _of_activity(headers)


def _of_counts(headers: Sequence[Header]) -> Suv:
    to_suv, to_activity = (_philips(headers[0], element) for element in (0x00, 0x09))
    if to_suv:
        return Suv(to_suv, "counts times Philips' own factor", ("Units", "(7053,xx00) SUV Scale Factor"))
    if not to_activity:
        raise DataError("counts without Philips' private factors (7053,xx00) and (7053,xx09); SUV cannot be had")
    suv = _of_activity(headers)
    return Suv(suv.factor * to_activity, suv.rule, (*suv.tags, "(7053,xx09) Activity Concentration"), suv.decay_s)


def _philips(data: Header, element: int) -> float | None:
    try:
        return _tags.number(data.private_block(0x7053, "Philips PET Private Group")[element].value)
    except KeyError:
        return None


def _of_activity(headers: Sequence[Header]) -> Suv:
    data = headers[0]
    corrected, decay = set(_tags.words(data.get("CorrectedImage"))), str(data.get("DecayCorrection") or "")
    if not {"ATTN", "DECY"} <= corrected or decay not in ("START", "ADMIN"):
        raise DataError(
            f"is corrected for {', '.join(sorted(corrected)) or 'nothing'} with decay correction '{decay}'; SUV needs ATTN and "
            "DECY, and START or ADMIN"
        )
    drug: Any = next(iter(data.get("RadiopharmaceuticalInformationSequence") or ()), {})
    weight_kg = _positive(data, "PatientWeight")
    dose_bq, half_life_s = _positive(drug, "RadionuclideTotalDose"), _positive(drug, "RadionuclideHalfLife")
    if weight_kg > _HEAVIEST_KG:
        raise DataError(f"has a PatientWeight above {_HEAVIEST_KG:g} kg: it seems to be in g, and is to be in kg")
    if dose_bq < _LEAST_BQ:
        raise DataError("has a RadionuclideTotalDose of less than 10 kBq: it seems to be in MBq, and is to be in Bq")
    tags = (
        "Units",
        "CorrectedImage",
        "DecayCorrection",
        "PatientWeight",
        "RadionuclideTotalDose",
        "RadionuclideHalfLife",
    )
    if decay == "ADMIN":
        return Suv(1000 * weight_kg / dose_bq, "body weight by dose at injection", tags)
    started, how = _start(headers, half_life_s)
    injected, injection = _injection(drug, started, half_life_s)
    decay_s, longest_s = (started - injected).total_seconds(), max(_LONGEST_S, _HALF_LIVES * half_life_s)
    if not 0 <= decay_s <= longest_s:
        raise DataError(
            f"has {decay_s:.0f} s from injection to scan; expected 0 to {longest_s:.0f}. Its times are wrong."
        )
    left = dose_bq * 2 ** (-decay_s / half_life_s)
    rule = "body weight by dose, decayed from injection to the start of the scan"
    return Suv(1000 * weight_kg / left, rule, (*tags, *injection, *how), decay_s)


def _positive(data: Any, keyword: str) -> float:
    value = _tags.number(data.get(keyword))
    if not value or value <= 0:
        raise DataError(f"lacks {keyword}, without which there is no SUV")
    return value


def _injection(drug: Any, started: datetime.datetime, half_life_s: float) -> tuple[datetime.datetime, tuple[str, ...]]:
    """When the dose was given: by date and time, or by the time of the day of the scan, or of the one before if it was at night."""
    if (whole := _moment(drug.get("RadiopharmaceuticalStartDateTime"))) is not None:
        return whole, ("RadiopharmaceuticalStartDateTime",)
    at = _moment(f"{started:%Y%m%d}{drug.get('RadiopharmaceuticalStartTime') or 'x'}")
    if at is None:
        raise DataError("lacks RadiopharmaceuticalStartTime, without which there is no SUV")
    if half_life_s > _SLOW_S:
        raise DataError(
            "lacks RadiopharmaceuticalStartDateTime: scans of so slow a nuclide are made days after injection"
        )
    before = at - datetime.timedelta(days=1)
    overnight = (started - before).total_seconds() <= _OVERNIGHT_S
    return before if at > started and overnight else at, ("RadiopharmaceuticalStartTime",)


def _start(headers: Sequence[Header], half_life_s: float) -> tuple[datetime.datetime, tuple[str, ...]]:
    """The time that the images are corrected to.

    That is the series' time, unless the series was made anew later: then the time to which the first image is corrected, from
    its acquisition, its reference time, and the moment within the frame at which the mean activity is reached.
    """
    acquired = [_moment(_joined(header, "Acquisition")) for header in headers]
    series = _moment(_joined(headers[0], "Series"))
    first = min((moment for moment in acquired if moment), default=None)
    if series and (first is None or series <= first):
        return series, ("SeriesDate", "SeriesTime")
    if first is None:
        raise DataError("lacks SeriesTime and AcquisitionTime, without which there is no SUV")
    header = headers[acquired.index(first)]
    reference_s, frame_s = (
        _positive(header, "FrameReferenceTime") / 1000,
        _positive(header, "ActualFrameDuration") / 1000,
    )
    decay = math.log(2) / half_life_s
    mean_s = math.log(decay * frame_s / -math.expm1(-decay * frame_s)) / decay
    moment = first - datetime.timedelta(seconds=reference_s - mean_s)
    return moment, ("AcquisitionDate", "AcquisitionTime", "FrameReferenceTime", "ActualFrameDuration")


def _joined(header: Header, what: str) -> str:
    return str(header.get(f"{what}DateTime") or f"{header.get(f'{what}Date') or 'x'}{header.get(f'{what}Time') or 'x'}")


def _moment(text: Any) -> datetime.datetime | None:
    """`20201231235959.9`, by the scanner's own clock, of which hours and days must be there."""
    found = _MOMENT.match(str(text or ""))
    if found is None:
        return None
    try:
        day = datetime.datetime.strptime(found[1], "%Y%m%d")
    except ValueError:
        return None
    hours, minutes, seconds = (float(part or 0) for part in found.groups()[1:])
    return day + datetime.timedelta(hours=hours, minutes=minutes, seconds=seconds)
