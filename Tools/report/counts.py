"""What a report knows of the rows: counts that can be added up, so that parts give the same report as the whole.

No row is kept but a sample. A text that has to be told from others is kept as 64 bits, a request as its MinHash
signature too.
"""

import heapq
from array import array
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

SAMPLE_ROWS = 1000
EXAMPLES = 5
Key = tuple[str | int, ...]
"""What is counted, most general first: ("passed", "parse"), ("labels", "true")."""


class Smallest:
    """The `size` items with the smallest keys of all that were added; with `distinct` a key counts once.

    Items with the same key are the same.
    """

    def __init__(self, size: int, *, distinct: bool = False) -> None:
        self._size = size
        self._distinct = distinct
        self._heap: list[tuple[int, int, Any]] = []  # negative keys: the largest is the first to go
        self._added = 0

    def takes(self, key: int) -> bool:
        """Whether an item with this key would stay."""
        if self._distinct and any(key == known for known, _ in self.pairs()):
            return False
        return len(self._heap) < self._size or -key > self._heap[0][0]

    def add(self, key: int, item: Any) -> None:
        if not self.takes(key):
            return
        self._added += 1
        put = heapq.heappush if len(self._heap) < self._size else heapq.heapreplace
        put(self._heap, (-key, self._added, item))

    def pairs(self) -> list[tuple[int, Any]]:
        """(key, item), the smallest key first."""
        return [(-key, item) for key, _, item in sorted(self._heap, reverse=True)]

    def items(self) -> list[Any]:
        return [item for _, item in self.pairs()]


@dataclass
class Counts:
    """All that was counted.

    `tally` has small vocabularies, `hashes` for each kind of text one hash a row (of written prompts also one
    a reject), `signatures` those of the requests
    by their hash, `sample` rows whose hashes are the smallest, `overlaps` examples of requests like evaluation
    prompts. `made_with` names what was counted against: only counts with the same can be added.
    """

    made_with: Mapping[str, Any]
    tally: Counter[Key] = field(default_factory=Counter)
    hashes: defaultdict[str, array] = field(default_factory=lambda: defaultdict(lambda: array("Q")))
    signatures: dict[int, bytes] = field(default_factory=dict)
    sample: Smallest = field(default_factory=lambda: Smallest(SAMPLE_ROWS))
    overlaps: Smallest = field(default_factory=lambda: Smallest(EXAMPLES, distinct=True))

    def merge(self, other: "Counts") -> None:
        self.tally.update(other.tally)
        for name, values in other.hashes.items():
            self.hashes[name].extend(values)
        self.signatures.update(other.signatures)
        for mine, others in ((self.sample, other.sample), (self.overlaps, other.overlaps)):
            for key, item in others.pairs():
                mine.add(key, item)

    def grouped(self) -> dict[str | int, Counter[Any]]:
        """The tally by the first part of its keys; what is left of a key of two parts is no tuple."""
        groups: dict[str | int, Counter[Any]] = defaultdict(Counter)
        for (first, *rest), count in self.tally.items():
            groups[first][rest[0] if len(rest) == 1 else tuple(rest)] += count
        return groups


def commonest(counter: Mapping[Any, int], most: int | None = None) -> Sequence[tuple[Any, int]]:
    """By count, then by name: an order that does not depend on which came first."""
    return sorted(counter.items(), key=lambda item: (-item[1], str(item[0])))[:most]
