"""From bytes to pydicom's datasets: no more of them than is needed, and none that the memory cannot hold."""

from __future__ import annotations

import functools
import zlib
from collections.abc import Iterator, Mapping
from typing import IO, Any

from medseg.errors import DataError
from medseg.io.dicom import _private, _tags
from medseg.io.dicom._planes import TRAITS, Header
from medseg.io.dicom._sources import START, Source

_META = 2048  # bytes in which the meta information ends
_IMPLICIT, _DEFLATED, _BIG_ENDIAN = (f"1.2.840.10008.1.2{end}" for end in ("", ".1.99", ".2"))
_MOST_INFLATED = 1 << 30
_ENHANCED = tuple(f"1.2.840.10008.5.1.4.1.1.{end}" for end in ("2.1", "2.2", "4.1", "4.3", "4.4", "128.1", "130"))
_PLAIN: tuple[str | int, ...] = (  # all that a listing needs to know of a plain image, besides its traits
    "ImageType",
    "ComplexImageComponent",
    "SOPClassUID",
    "SOPInstanceUID",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "SeriesNumber",
    "SeriesDescription",
    "Modality",
    "FrameOfReferenceUID",
    "StackID",
    "InstanceNumber",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "PixelSpacing",
    "Rows",
    "Columns",
    "SpacingBetweenSlices",
    "SliceThickness",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "NumberOfFrames",
    "AcquisitionDate",
    "AcquisitionTime",
    "RescaleSlope",
    "RescaleIntercept",
    "ModalityLUTSequence",
    *(trait.keyword for trait in TRAITS if trait.keyword),
    *_private.TAGS,
)


def header(source: Source) -> Header:
    """All of a file before its pixels."""
    import pydicom

    with source.open() as stream:
        check_deflated(stream)
        data = pydicom.dcmread(stream, stop_before_pixels=True, force=True)
    for keyword, value in _private.told(data).items():
        if keyword not in data:
            setattr(data, keyword, value)
    return data


def of_plain_image(source: Source) -> Mapping[str, Any] | None:
    """The few tags of a plain image that a listing needs; None for any other file."""
    found, _ = selected(source, _PLAIN)
    data = _private.told(found) | dict(_values(found))
    one = "NumberOfFrames" not in data or ("ImagePositionPatient" in data and _tags.whole(data["NumberOfFrames"]) == 1)
    grouped = data.get("SOPClassUID") in _ENHANCED  # what counts is in its functional groups, were it a single frame
    return data if one and not grouped and "Rows" in data and not _tags.is_tiled(data) else None


def _values(found: Header) -> Iterator[tuple[str, Any]]:
    """The values of standard tags by keyword."""
    from pydicom.dataelem import RawDataElement

    encodings = found.original_character_set
    encodings = encodings if isinstance(encodings, str | None) else tuple(encodings)
    for tag in [tag for tag in found.keys() if not tag.is_private]:  # noqa: SIM118, a dataset yields elements
        element = found.get_item(tag)
        if isinstance(element, RawDataElement):
            yield _converted(element._replace(value_tell=0), encodings)
        else:
            yield element.keyword, element.value


@functools.lru_cache(maxsize=1 << 13)
def _converted(raw: Any, encodings: Any) -> tuple[str, Any]:
    """Keyword and value of the bytes of an element. Most are equal in all files of a series, and to convert them takes longest."""
    from pydicom.dataelem import convert_raw_data_element

    element = convert_raw_data_element(raw, encoding=list(encodings) if isinstance(encodings, tuple) else encodings)
    return element.keyword, element.value


def selected(source: Source, keywords: tuple[str | int, ...]) -> tuple[Header, str]:
    """Some tags of a file, by keyword or number, and its transfer syntax: half of the time that all of them take."""
    import pydicom
    from pydicom.filereader import read_dataset
    from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

    wanted = _numbers(keywords)
    last = int(wanted[-1])
    with source.open_anywhere() if "PixelData" in keywords else source.open() as stream:
        syntax, end = _meta(stream.read(_META))
        if syntax in ("", _DEFLATED, _BIG_ENDIAN):
            check_deflated(stream)
            data = pydicom.dcmread(stream, specific_tags=wanted, force=True)
            guess = ImplicitVRLittleEndian if data.original_encoding[0] else ExplicitVRLittleEndian
            return data, str(data.file_meta.get("TransferSyntaxUID") or guess)
        stream.seek(end)
        parsed = read_dataset(
            stream,  # type: ignore[arg-type]
            syntax == _IMPLICIT,
            True,
            stop_when=lambda tag, *_: not 0 < int(tag) <= last,  # none is 0, as padding is
            specific_tags=wanted,
        )
    return parsed, syntax


@functools.cache
def _numbers(keywords: tuple[str | int, ...]) -> list[Any]:
    from pydicom.datadict import tag_for_keyword
    from pydicom.tag import Tag

    tags = (tag_for_keyword(word) if isinstance(word, str) else word for word in keywords)
    return sorted({Tag(tag) for tag in tags if tag is not None})


def check_deflated(stream: IO[bytes]) -> None:
    """Refuse a deflated file that would fill the memory, before pydicom unpacks all of it; else go back to its beginning.

    Raises:
        DataError: there is more than a gigabyte in it.
    """
    stream.seek(0)
    syntax, end = _meta(stream.read(_META))
    if syntax == _DEFLATED:
        stream.seek(end)
        inflate, total = zlib.decompressobj(-zlib.MAX_WBITS), 0
        while total <= _MOST_INFLATED and (block := stream.read(1 << 16)):
            total += len(inflate.decompress(block))  # a thousand times as much at most
        if total > _MOST_INFLATED:
            raise DataError(f"is deflated and holds more than {_MOST_INFLATED:,} bytes. Store it anew if you trust it")
    stream.seek(0)


def _meta(start: bytes) -> tuple[str, int]:
    """Transfer syntax and end of the meta information: group 2, always in explicit VR and little endian.

    The syntax is empty where it is not said, or where a file cannot be right.
    """
    at, syntax = START, ""
    while start[at : at + 2] == b"\2\0":
        long = start[at + 4 : at + 6] in (b"OB", b"UN")
        begin, value = (at + 8, at + 12) if long else (at + 6, at + 8)
        end = value + int.from_bytes(start[begin:value], "little")
        if start[at + 2 : at + 4] == b"\x10\0":
            syntax = start[value:end].rstrip(b"\0 ").decode("latin-1")
        at = end
    return (syntax, at) if at <= len(start) else ("", 0)
