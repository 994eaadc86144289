"""Multi-frame files: each frame becomes the record that a file of its own would be (PS3.3, C.7.6.16)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from medseg.io.dicom import _tags
from medseg.io.dicom._planes import File, Header, Plane
from medseg.wording import counted

# Pointers of dimensions that count along a stack, or name it: they tell slices apart, not volumes.
_ALONG = (
    "InStackPositionNumber",
    "StackID",
    "ImagePositionPatient",
    "PlanePositionSequence",
    "PlanePositionSlideSequence",
)
_TYPES = (
    "MRImageFrameTypeSequence",
    "CTImageFrameTypeSequence",
    "PETFrameTypeSequence",
    "ParametricMapFrameTypeSequence",
)


def split(file: File, data: Header, count: int) -> tuple[File, tuple[Plane, ...]]:
    """The planes of a file with functional groups.

    A tag is taken from the frame's own group, else from the shared one, else from the file, as some scanners write it.
    """
    own = data.PerFrameFunctionalGroupsSequence
    if len(own) != count:
        return replace(file, problem=f"promises {counted(count, 'frame')} and describes {len(own)}"), ()
    shared: Any = next(iter(data.get("SharedFunctionalGroupsSequence") or ()), {})
    along = _between_volumes(data)
    frames = (_Look(data, shared, groups, along) for groups in own)
    return file, tuple(_tags.plane(file, data, look, n) for n, look in enumerate(frames))


def _between_volumes(data: Header) -> list[int]:
    """Which of a frame's dimension indices tell volumes apart."""
    from pydicom.datadict import keyword_for_tag

    pointers = [item.get("DimensionIndexPointer") for item in data.get("DimensionIndexSequence") or ()]
    return [n for n, tag in enumerate(pointers) if tag is not None and keyword_for_tag(tag) not in _ALONG]


class _Look:
    """The tags of one frame."""

    def __init__(self, data: Header, shared: Any, own: Any, along: list[int]) -> None:
        self.data, self.levels, self.along = data, (own, shared), along

    def __call__(self, keyword: str, group: str = "", inner: str = "") -> Any:
        if keyword == "ImageType":
            return self._kind()
        if keyword in _tags.MADE:
            return _tags.MADE[keyword](self.data)
        value = self._grouped(group, inner or keyword) if group else None
        if inner == "DimensionIndexValues":
            values = _several(value)
            return tuple(values[n] for n in self.along if n < len(values))
        if inner == "DiffusionGradientDirectionSequence":
            value = value[0].get("DiffusionGradientOrientation") if value else None
        return self.data.get(keyword) if value is None and keyword else value

    def _grouped(self, group: str, keyword: str) -> Any:
        for level in self.levels:
            if (items := level.get(group)) and (value := items[0].get(keyword)) is not None:
                return value
        return None

    def _kind(self) -> tuple[str, ...]:
        for group in _TYPES:
            if words := _tags.words(self._grouped(group, "FrameType")):
                return (*words, *_tags.words(self._grouped(group, "ComplexImageComponent")))
        return _tags.kind(self.data)


def _several(value: Any) -> list[Any]:
    return [] if value is None else [value] if isinstance(value, int) else list(value)
