"""How often each tool and each behaviour is asked for: quotas that every beginning of a run keeps.

A group is what a quota is for: the name of a tool, or `behavior:` and one of the behaviours.
"""

import heapq
import json
import random
import threading
from array import array
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path

from Evaluator.errors import UsageError
from Evaluator.judging.behavior import BEHAVIOR_CELL

BALANCED, NATURAL = "balanced", "natural"
NATURAL_COVERAGE = Path(__file__).parent / "natural_coverage.json"


def shares_of(coverage: str, tools: Iterable[str], behaviors: Iterable[str], behavior_share: float) -> dict[str, float]:
    """The share of each group that is to be asked for; together 1.

    `coverage` is "balanced" (each tool as often as any other), "natural" (as often as people ask for it), or a file
    {"tools": {NAME: WEIGHT}, "behaviors": {NAME: WEIGHT}}; what it leaves out is not asked for; without "tools",
    or without "behaviors", each of them alike. The behaviours get `behavior_share` of the whole. Raises UsageError.
    """
    tools, behaviors = list(tools), list(behaviors)
    weights = _read(Path(coverage), tools, behaviors) if coverage not in (BALANCED, NATURAL) else {}
    if coverage == NATURAL:
        natural = json.loads(NATURAL_COVERAGE.read_text(encoding="utf-8"))["tools"]
        weights = {"tools": {name: natural.get(name, 1) for name in tools}}
    of_tools = weights.get("tools") or dict.fromkeys(tools, 1)
    of_behaviors = weights.get("behaviors") or dict.fromkeys(behaviors, 1)
    behavior_share = behavior_share if of_behaviors else 0.0
    return {
        **_scaled(of_tools, 1 - behavior_share),
        **_scaled({BEHAVIOR_CELL + name: weight for name, weight in of_behaviors.items()}, behavior_share),
    }


def _scaled(weights: Mapping[str, float], total: float) -> dict[str, float]:
    """Weights as shares that add up to `total`; groups without a share are left out."""
    whole = sum(weights.values())
    return {name: total * weight / whole for name, weight in weights.items() if total * weight > 0}


def _read(path: Path, tools: list[str], behaviors: list[str]) -> Mapping[str, Mapping[str, float]]:
    try:
        data = json.loads(path.read_bytes())
    except OSError as error:
        raise UsageError(f"cannot read --coverage {path}: {error.strerror}; or say {BALANCED} or {NATURAL}") from error
    except ValueError as error:
        raise UsageError(f"--coverage {path} is no JSON: {error}") from error
    if not isinstance(data, dict) or not data or not data.keys() <= {"tools", "behaviors"}:
        raise UsageError(f'--coverage {path} is no object with "tools", "behaviors" or both')
    for kind, known in (("tools", tools), ("behaviors", behaviors)):
        weights = data.get(kind, {})
        if not isinstance(weights, dict) or not all(_is_weight(one) for one in weights.values()):
            raise UsageError(f'the "{kind}" of --coverage {path} are no names with numbers of 0 or more')
        unknown = sorted(weights.keys() - set(known))
        if unknown:
            near = get_close_matches(unknown[0], known, 1) or known[:1]
            raise UsageError(
                f"--coverage {path} names {unknown[0]}, for which there is no template among the {kind}"
                + (f" (nearest: {near[0]})" if near else "")
            )
        if kind in data and not sum(weights.values()):
            raise UsageError(f'all "{kind}" of --coverage {path} have the weight 0')
    return data


def _is_weight(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < float("inf")


class Turns:
    """Whose turn it is: each group comes up in even distances, shuffled a little, from the first slot on.

    The j-th turn of a group with share s is due at the time (j + u) / s, u drawn from [0, 1): of n slots a group has
    n * s, give or take one or two. The turns do not depend on how many slots a run has.
    """

    def __init__(self, shares: Mapping[str, float], seed: int) -> None:
        self.shares = dict(shares)
        self._names = list(shares)
        self._rng = random.Random(f"{seed}:turns")
        self._taken = array("H")  # slot -> index of the group
        self._due = [(self._rng.random() / share, index, 0) for index, share in enumerate(shares.values())]
        heapq.heapify(self._due)
        self._taking = threading.Lock()

    def group_of(self, slot: int) -> str:
        with self._taking:
            while len(self._taken) <= slot:
                _, index, turns = self._due[0]
                self._taken.append(index)
                due = (turns + 1 + self._rng.random()) / self.shares[self._names[index]]
                heapq.heapreplace(self._due, (due, index, turns + 1))
        return self._names[self._taken[slot]]
