"""Data out of a pickle, by a reader that cannot run anything.

A pickle is a program for a small machine with a stack. Python's own machine imports what the program names and calls it. This
one knows a dozen names, all of them data, and has a line of its own for each; any other name ends the reading.
"""

from __future__ import annotations

import pickletools
import re
from collections.abc import Callable
from typing import IO, Any, NamedTuple

import numpy as np

from medseg.errors import BundleError


class Stored(NamedTuple):
    """A tensor that is not read yet: where its values lie, and how they are arranged."""

    storage: tuple[Any, ...]
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


class Name(str):
    """A name in a module that a pickle speaks of."""


def _tensor(storage: Any, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any) -> Stored:
    return Stored(storage, offset, size, stride)


def _scalar(kind: str, data: bytes) -> int | float | bool:
    if np.dtype(kind).kind not in "biuf":
        raise ValueError
    value: int | float | bool = np.frombuffer(data, kind, 1)[0].item()
    return value


# What each name that a file of weights may call is here. Types of storages end in one word and are never called.
_MADE: dict[str, Callable[..., Any]] = {
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": lambda tensor, *_: tensor,
    "collections.OrderedDict": lambda items=(): dict(items),
    "torch.Size": tuple,
    "torch.device": lambda *words: ":".join(map(str, words)),
    "numpy.dtype": lambda kind, *_: str(kind),
    "numpy.core.multiarray.scalar": _scalar,
    "numpy._core.multiarray.scalar": _scalar,
    "_codecs.encode": lambda text, _: text.encode("latin-1"),
}
_STORAGE = "Storage"
_VALUES = re.compile(
    r"(SHORT_)?BIN(STRING|BYTES8?)|(SHORT_)?BINUNICODE8?|UNICODE|STRING|(BIN)?FLOAT|INT|BININT[12]?|LONG[14]?"
)
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_EMPTY = {"EMPTY_LIST": list, "EMPTY_DICT": dict, "EMPTY_TUPLE": tuple, "EMPTY_SET": set}
_FEW = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_MARK = object()


def load(source: bytes | IO[bytes]) -> tuple[Any, list[tuple[Any, ...]]]:
    """The value that a pickle stands for, and every storage that it speaks of: type, key, place, elements.

    Values are tensors, numbers, texts, lists, tuples, dictionaries. A stream is left after the pickle.

    Raises:
        BundleError: it holds anything else, or is damaged.
    """
    machine = _Machine()
    try:
        for step, argument, _ in pickletools.genops(source):
            machine.take(step.name, argument)
        (value,) = machine.stack
    except (ArithmeticError, AttributeError, LookupError, MemoryError, StopIteration, TypeError, ValueError) as error:
        raise BundleError("a file of weights is damaged, or is none. Copy it again.") from error
    return value, machine.storages


class _Machine:
    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self.storages: list[tuple[Any, ...]] = []

    def take(self, step: str, argument: Any) -> None:
        """One instruction, in the order of how often they come."""
        stack = self.stack
        if _VALUES.fullmatch(step):
            stack.append(argument)
        elif step in ("BINGET", "LONG_BINGET", "GET"):
            stack.append(self.memo[int(argument)])
        elif step in ("BINPUT", "LONG_BINPUT", "PUT", "MEMOIZE"):
            self.memo[len(self.memo) if argument is None else int(argument)] = stack[-1]
        elif step in _CONSTANTS:
            stack.append(_CONSTANTS[step])
        elif step in _EMPTY:
            stack.append(_EMPTY[step]())
        elif step == "MARK":
            stack.append(_MARK)
        elif step in ("GLOBAL", "STACK_GLOBAL"):
            stack.append(_known(argument.replace(" ", ".") if argument else ".".join(self._last(2))))
        elif step == "BINPERSID":
            _, *facts = self._last(1)[0]
            self.storages.append(tuple(facts))
            stack.append(tuple(facts))
        elif step == "REDUCE":
            name, arguments = self._last(2)
            stack.append(_MADE[name](*arguments))
        elif step == "BUILD":  # what torch and numpy add to a value: it describes, and is not needed
            stack.pop()
        else:
            self._gather(step)

    def _gather(self, step: str) -> None:
        """What puts values together, or takes one away."""
        stack = self.stack
        if step in _FEW:
            stack.append(tuple(self._last(_FEW[step])))
        elif step in ("TUPLE", "LIST"):
            items = self._since_mark()
            stack.append(tuple(items) if step == "TUPLE" else items)
        elif step == "DICT":
            items = self._since_mark()
            stack.append(dict(zip(items[::2], items[1::2], strict=True)))
        elif step in ("SETITEM", "SETITEMS"):
            items = self._last(2) if step == "SETITEM" else self._since_mark()
            stack[-1].update(zip(items[::2], items[1::2], strict=True))
        elif step in ("APPEND", "APPENDS", "ADDITEMS"):
            items = self._last(1) if step == "APPEND" else self._since_mark()
            (stack[-1].update if step == "ADDITEMS" else stack[-1].extend)(items)
        elif step not in ("PROTO", "FRAME", "STOP"):
            raise BundleError(f"a file of weights holds more than weights ({step}). Save its state dict alone.")

    def _last(self, count: int) -> list[Any]:
        if len(self.stack) < count:
            raise IndexError
        items = self.stack[-count:]
        del self.stack[-count:]
        return items

    def _since_mark(self) -> list[Any]:
        place = next(n for n in reversed(range(len(self.stack))) if self.stack[n] is _MARK)
        items = self.stack[place + 1 :]
        del self.stack[place:]
        return items


def _known(name: str) -> Name:
    module, _, last = name.rpartition(".")
    if name in _MADE or (module in ("torch", "torch.storage") and last.endswith(_STORAGE)):
        return Name(name)
    raise BundleError(
        f"a file of weights asks for '{name[:80]}', which is no weight; nothing was run. Save its state dict alone, best as .safetensors."
    )
