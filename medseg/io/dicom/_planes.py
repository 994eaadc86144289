"""The small records that headers become: one file, and each image plane in it. All that follows knows nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from medseg.io.dicom._sources import Source

Header = Any  # pydicom's Dataset; pydicom is imported when a file is read
Numbers = tuple[float, ...]


@dataclass(frozen=True, slots=True)
class File:
    """What a file says of itself.

    Args:
        source: where its bytes are.
        instance: its SOPInstanceUID.
        series: its SeriesInstanceUID; empty where a file is cut off before it.
        modality: CT, MR, PT ...
        number: SeriesNumber.
        description: SeriesDescription; to be picked by, and never shown: people write names into it.
        aside: what it is where it is no image of a volume ("report", "localizer" ...).
        problem: why it cannot be read.
    """

    source: Source
    instance: str = ""
    series: str = ""
    modality: str = ""
    number: int | None = None
    description: str = ""
    aside: str = ""
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Plane:
    """One image: a file of its own, a frame of a multi-frame file, or a tile of a mosaic.

    Args:
        file: where it lies.
        frame: its number in the file, from 0.
        corner: row and column of its first pixel in the frame; not (0, 0) in mosaics only.
        size: rows and columns.
        position: of the first pixel's centre, in mm, LPS; None where the file does not say, like the next two.
        axes: directions along a row and along a column, six numbers.
        pixel_mm: distance from row to row and from column to column.
        thickness_mm: what the header says of the extent across, with the name of the tag.
        rescale: slope and intercept that make its stored values physical ones; None where nothing is said.
        study: its UID; who takes names out may give series of two patients one UID.
        frame_of_reference: its UID; planes of another one lie in another world.
        stack: name of the stack within a multi-frame file.
        traits: what tells volumes of one series apart, in the order of `TRAITS`; None where nothing is said.
        order: InstanceNumber and frame.
        copies: the same image in other files.
    """

    file: File
    frame: int
    corner: tuple[int, int]
    size: tuple[int, int]
    position: Numbers | None
    axes: Numbers | None
    pixel_mm: Numbers | None
    thickness_mm: tuple[float, str] | None
    rescale: tuple[float, float] | None
    study: str
    frame_of_reference: str
    stack: str
    traits: tuple[Any, ...]
    order: tuple[int, int]
    copies: tuple[Plane, ...] = ()


@dataclass(frozen=True, slots=True)
class Trait:
    """What may differ between the volumes of one series.

    Args:
        name: for people.
        unit: likewise.
        keyword: of the tag in a plain file.
        group: the functional group, and the tag in it, of a multi-frame file.
    """

    name: str
    unit: str
    keyword: str
    group: tuple[str, str]


# First what a plane shows, then when it was taken: the order in which a series is divided.
TRAITS = (
    Trait("kind", "", "ImageType", ("", "")),  # see _tags.kind
    Trait("echo", "", "EchoNumbers", ("", "")),
    Trait("echo time", "ms", "EchoTime", ("MREchoSequence", "EffectiveEchoTime")),
    Trait("inversion time", "ms", "InversionTime", ("MRModifierSequence", "InversionTimes")),
    Trait("flip angle", "degrees", "FlipAngle", ("MRTimingAndRelatedParametersSequence", "FlipAngle")),
    Trait("tube voltage", "kV", "KVP", ("CTXRayDetailsSequence", "KVP")),
    Trait("kernel", "", "ConvolutionKernel", ("CTReconstructionSequence", "ConvolutionKernel")),
    Trait("b-value", "s/mm2", "DiffusionBValue", ("MRDiffusionSequence", "DiffusionBValue")),
    Trait(
        "direction", "", "DiffusionGradientOrientation", ("MRDiffusionSequence", "DiffusionGradientDirectionSequence")
    ),
    Trait("sequence", "", "SequenceName", ("", "")),  # Siemens: *ep_b50t, *ep_b800t
    Trait("time", "", "TemporalPositionIdentifier", ("FrameContentSequence", "TemporalPositionIndex")),
    Trait("phase", "ms", "TriggerTime", ("CardiacSynchronizationSequence", "NominalCardiacTriggerDelayTime")),
    Trait(
        "cardiac phase",
        "%",
        "NominalPercentageOfCardiacPhase",
        ("CardiacSynchronizationSequence", "NominalPercentageOfCardiacPhase"),
    ),
    Trait(
        "respiratory phase",
        "%",
        "NominalPercentageOfRespiratoryPhase",
        ("RespiratorySynchronizationSequence", "NominalPercentageOfRespiratoryPhase"),
    ),
    Trait("reference time", "ms", "FrameReferenceTime", ("", "")),
    Trait("acquisition", "", "AcquisitionNumber", ("FrameContentSequence", "FrameAcquisitionNumber")),
    Trait("acquired", "", "AcquisitionDateTime", ("", "")),  # see _tags.acquired
    Trait("dimension", "", "", ("FrameContentSequence", "DimensionIndexValues")),
)
CONTENT = 8  # so many of them say what a plane shows
