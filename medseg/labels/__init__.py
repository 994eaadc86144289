"""What the numbers in a mask mean: the only place that knows what 3 is."""

from __future__ import annotations

import html
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from pydantic import ValidationError, model_validator

from medseg import picture
from medseg.arrays import Array
from medseg.errors import ConfigError, DataError
from medseg.labels import declaration, laterality
from medseg.settings import Settings
from medseg.wording import repeated

if TYPE_CHECKING:
    from torch import Tensor


class Label(Settings):
    """One structure.

    Args:
        name: how people call it.
        values: the values in files that belong to it; several make a region (`whole tumour: [1, 2, 3]`).
        colour: RGB, 0 to 255.
        code: a coded concept `SCHEME:VALUE` (`SCT:10200004`), if one is known.
    """

    name: str
    values: tuple[int, ...]
    colour: tuple[int, int, int]
    code: str | None = None


class Labels(Settings):
    """The structures of a dataset. Background (0) is not among them.

    In files a structure has its value; in tensors classes are numbered 0 (background), 1, 2, ... in the order of `items`.
    Overlapping labels have one channel each instead, without background; so have written masks, unless there is an `order`.

    Args:
        items: the structures, in order.
        exclusive: a voxel belongs to one structure at most. Regions overlap.
        ignore: the value of voxels that nobody annotated; they are left out of loss and metrics.
        order: which of its own values is written for each structure, later structures over earlier ones; by default its first.
    """

    items: tuple[Label, ...]
    exclusive: bool = True
    ignore: int | None = None
    order: tuple[int, ...] | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        values = [v for item in self.items for v in item.values]
        if twice := repeated(item.name for item in self.items):
            raise ValueError(f"two labels share a name: {sorted(twice)}")
        if 0 in values or self.ignore == 0:
            raise ValueError("0 is background and cannot be a label of its own")
        if any(not item.values for item in self.items) or self.ignore in values:
            raise ValueError("every label needs a value, and the ignored value may not be one of them")
        if len(self.items) == 1 and not self.exclusive:
            raise ValueError("a single label has nothing to overlap with: leave it exclusive")
        if self.exclusive and repeated(values):
            raise ValueError("a value belongs to two labels: declare them as overlapping (exclusive: false)")
        if len(self.written) != len(self.items) or any(
            value not in item.values for value, item in zip(self.written, self.items, strict=True)
        ):
            raise ValueError(
                f"the order of regions needs one value for each, out of its own; it is {list(self.written)}"
            )
        return self

    @classmethod
    def of(cls, names: Mapping[str, Any] | Iterable[int], order: Sequence[int] | None = None) -> Labels:
        """From `{"background": 0, "liver": 1, "tumour": [2, 3]}`, its reverse `{"1": "liver"}`, or bare values.

        A value may be a colour of masks that are pictures, `"#ff0000"`; see `picture.numbered`.

        `ignore` names the value of voxels to leave out, as nnU-Net writes it. Labels overlap where two share a value; `order` is
        nnU-Net's `regions_class_order`, which counts where there are regions alone.

        Raises:
            ConfigError: the declaration contradicts itself.
        """
        try:
            found = declaration.read(names)
            ignore = next((values[0] for name, values in found if name.lower() == "ignore"), None)
            kept = [(name, values) for name, values in found if values != (0,) and name.lower() != "ignore"]
            used = [v for _, values in kept for v in values]
            items = tuple(
                Label(name=name, values=values, colour=picture.colour(declaration.coloured(values) or n))
                for n, (name, values) in enumerate(kept, 1)
            )
            values = (
                tuple(declaration.whole(v) for v in order)
                if order and any(len(values) > 1 for _, values in kept)
                else None
            )
            return cls(items=items, exclusive=len(set(used)) == len(used), ignore=ignore, order=values)
        except (TypeError, ValueError) as error:
            reason = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
            given = dict(names) if isinstance(names, Mapping) else names
            raise ConfigError(f"labels: {reason.removeprefix('Value error, ')}, got {given}") from error

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[Label]:  # type: ignore[override]
        return iter(self.items)

    @property
    def names(self) -> tuple[str, ...]:
        """Names in order."""
        return tuple(item.name for item in self.items)

    @property
    def twins(self) -> str:
        """A warning about labels that have the very same values; empty where there are none."""
        known: dict[tuple[int, ...], str] = {}
        for item in self.items:
            if (other := known.setdefault(item.values, item.name)) != item.name:
                values = ", ".join(map(str, item.values))
                return f"'{other}' and '{item.name}' have the same value ({values}): they are learned as structures that overlap"
        return ""

    @property
    def channels(self) -> int:
        """Number of a network's output channels: with background where labels exclude each other."""
        return len(self.items) + int(self.exclusive)

    @property
    def background_logits(self) -> list[float]:
        """Logit of each of a network's channels where there is only background."""
        return [0.0 if self.exclusive and n == 0 else -1e4 for n in range(self.channels)]

    @property
    def values(self) -> tuple[int, ...]:
        """Every value that a file may hold besides 0 (and `ignore`)."""
        return tuple(sorted({v for item in self.items for v in item.values}))

    @property
    def written(self) -> tuple[int, ...]:
        """The value of each label in a map of values."""
        return self.order or tuple(item.values[0] for item in self.items)

    @property
    def allowed_channels(self) -> tuple[int, ...]:
        """How many channels a written mask may have: one, or one per label where they overlap."""
        return (1,) if self.exclusive else (1, len(self))

    @property
    def colours(self) -> dict[int, tuple[int, int, int]]:
        """RGB by the value that is written for each label."""
        return {value: item.colour for value, item in zip(self.written, self.items, strict=True)}

    def undeclared(self, array: Array) -> tuple[int, ...]:
        """Values of a mask that no label declares, sorted."""
        known = {0, *self.values} | ({self.ignore} if self.ignore is not None else set())
        return tuple(int(v) for v in np.unique(array) if int(v) not in known)

    def encode(self, array: Array) -> Array:
        """File values `(I, J, K)` -> classes `(1, I, J, K)`, or one channel per label where they overlap; int16.

        Voxels to ignore become -1.

        Raises:
            DataError: a value that no label declares.
        """
        if unknown := self.undeclared(array):
            raise DataError(f"label values {list(unknown)} are not declared; declared are {[0, *self.values]}")
        if self.exclusive:
            classes = np.zeros((1, *array.shape), np.int16)
            for index, item in enumerate(self.items, 1):
                classes[0][np.isin(array, item.values)] = index
        else:
            classes = np.stack([np.isin(array, item.values) for item in self.items]).astype(np.int16)
        if self.ignore is not None:
            classes[:, array == self.ignore] = -1
        return classes

    def of_logits(self, logits: Tensor) -> Tensor:
        """Logits `(channels, ...)` -> the likeliest class `(1, ...)`, or which of the overlapping labels are likely `(channels, ...)`."""
        from medseg.logits import best_class

        return best_class(logits)[None] if self.exclusive else logits > 0

    def decode(self, classes: Array) -> Array:
        """Classes `(1, ...)` -> file values `(1, ...)` in the smallest integer type; without `order` channels stay channels."""
        if not self.exclusive and self.order is None:
            return classes.astype(np.uint8)
        table = np.array([0, *self.written])
        table = table.astype(np.result_type(*(np.min_scalar_type(int(value)) for value in table)))
        if self.exclusive:
            return table[classes]
        flat = np.zeros((1, *classes.shape[1:]), table.dtype)
        for channel, value in zip(classes, table[1:], strict=True):
            flat[0][channel > 0] = value
        return flat

    def without(self, values: Array, item: Label) -> Array:
        """What file values become where a label is taken away: those of the last other label that lies there, or background."""
        left = np.zeros_like(values)
        for other, value in zip(self.items, self.written, strict=True):
            if value not in item.values:
                left[np.isin(values, other.values)] = value
        return left

    def mask(self, array: Array, item: Label) -> Array:
        """Where a written mask `(C, I, J, K)` shows one label, as booleans `(I, J, K)`."""
        if self.exclusive or array.shape[0] == 1:
            return np.asarray(array[0] == item.values[0] if len(item.values) == 1 else np.isin(array[0], item.values))
        channel = array[self.items.index(item)]
        return np.asarray((channel > 0) & (channel != self.ignore))

    def anywhere(self, array: Array) -> Array:
        """Where a written mask `(C, I, J, K)` shows any label, as booleans `(I, J, K)`."""
        shown = array != 0 if self.ignore is None else (array != 0) & (array != self.ignore)
        return np.asarray(shown.any(axis=0))

    def known(self, array: Array) -> Array:
        """Where a written mask `(C, I, J, K)` is annotated, as booleans `(I, J, K)`: not marked as to be ignored."""
        return np.ones(array.shape[1:], bool) if self.ignore is None else (array != self.ignore).all(axis=0)

    def _repr_html_(self) -> str:
        rows = (
            f'<tr><td style="background:rgb{item.colour}">&emsp;</td><td>{", ".join(map(str, item.values))}</td>'
            f"<td>{html.escape(item.name)}</td></tr>"
            for item in self.items
        )
        return f"<table>{''.join(rows)}</table>{'' if self.exclusive else 'overlapping'}"

    def sides(self) -> tuple[tuple[int, int], ...]:
        """Pairs of labels that name the left and the right of one thing, as positions in `items`."""
        return laterality.pairs(self.names)
