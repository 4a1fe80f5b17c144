"""What runs in the kernel of a graded exercise: answers of the solution are kept, those handed in compared."""

import copy
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

KEPT = "_examiner"


class Examiner:
    """In the kernel: keeps the answers of the solution, and compares with those that come after.

    Parameters
    ----------
    names : the names of the notebook. answers : those that count.
    """

    def __init__(self, names: dict[str, Any], answers: Sequence[str]) -> None:
        self.names, self.answers, self.before, self.expected = names, answers, dict(names), {}

    def keep(self) -> None:
        """The solution has run: keep its answers, and forget everything that it defined."""
        self.expected = {name: copy.deepcopy(self.names[name]) for name in self.answers}
        for name in set(self.names) - set(self.before) - {KEPT}:
            del self.names[name]
        self.names.update({name: value for name, value in self.before.items() if not name.startswith("_")})

    def judge(self, path: str) -> None:
        """The answer has run: write what is to be said of it."""
        words = [word for name in self.answers if (word := self._word(name))]
        verdict = {"right": not words, "words": "; ".join(words) or "right"}
        Path(path).write_text(json.dumps(verdict), encoding="utf-8")

    def _word(self, name: str) -> str:
        if name not in self.names:
            return f"not answered: {name} is not defined"
        found = self.names[name]
        if agree(self.expected[name], found):
            return ""
        return f"{name} (={' '.join(repr(found).split())[:80]}) is not what the solution gives"


def agree(expected: Any, found: Any) -> bool:
    """Whether two answers are the same: numbers, arrays and tensors within a thousandth, whatever holds them."""
    expected, found = _plain(expected), _plain(found)
    if isinstance(expected, Mapping):
        if not isinstance(found, Mapping) or len(expected) != len(found):
            return False
        return all(key in found and agree(value, found[key]) for key, value in expected.items())
    if isinstance(expected, str) or isinstance(found, str) or expected is None or found is None:
        return type(expected) is type(found) and expected == found
    try:
        one, other = np.asarray(expected, float), np.asarray(found, float)
    except (TypeError, ValueError):
        return bool(expected == found)
    return one.shape == other.shape and bool(np.allclose(one, other, rtol=1e-3, atol=1e-6, equal_nan=True))


def _plain(value: Any) -> Any:
    """Arrays for tensors, lists for what is iterated."""
    if hasattr(value, "detach"):
        return value.detach().cpu().numpy()
    if isinstance(value, set | frozenset):
        return sorted(value)
    if isinstance(value, tuple | list):
        return [_plain(part) for part in value]
    return value
