"""How a layout names its tensors in medseg's words.

medseg's words for a tensor are its name in the network, less what carries no weights: the children of a `Sequential` are counted
without those that have none, and a residual's `body` is left out. Poolings that come and go with the stride change no name.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence

from torch import Tensor, nn

Tensors = Mapping[str, Tensor]
Rule = tuple[str, Callable[..., str]]  # a pattern of their name, and ours from its groups, whole numbers as numbers
_AHEAD = r"(?:module\.|_orig_mod\.|model\.)*(?:backbone\.|encoder\.|trunk\.)?"  # where a trunk was part of more


def by_rules(tensors: Tensors, rules: Sequence[Rule]) -> dict[str, Tensor]:
    """Tensors by our names; those of which no rule speaks are left out."""
    compiled = [(re.compile(_AHEAD + pattern), named) for pattern, named in rules]
    found = {}
    for name, tensor in tensors.items():
        for pattern, named in compiled:
            if match := pattern.fullmatch(name):
                found[named(*(int(g) if g.isdecimal() else g for g in match.groups()))] = tensor
                break
    return found


def words(network: nn.Module) -> dict[str, str]:
    """Names of a network's tensors, by our words for them."""
    return dict(_words(network, "", ""))


def _words(module: nn.Module, said: str, name: str) -> Iterator[tuple[str, str]]:
    own = itertools.chain(module.named_parameters(recurse=False), module.named_buffers(recurse=False))
    yield from ((said + part, name + part) for part, _ in own)
    holding = [(part, child) for part, child in module.named_children() if _holds(child)]
    for rank, (part, child) in enumerate(holding):
        shown = str(rank) if isinstance(module, nn.Sequential) else part
        yield from _words(child, said if shown == "body" else f"{said}{shown}.", f"{name}{part}.")


def _holds(module: nn.Module) -> bool:
    return any(True for _ in itertools.chain(module.parameters(), module.buffers()))
