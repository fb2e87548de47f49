"""The methods by which requests are written, and which one writes the request of a slot."""

import argparse
import random
from collections.abc import Mapping
from typing import Any

METHODS = ("self", "free", "template", "teacher")
FREE = "free"
"""The method without cells: this text asks for any request."""
SEED_TEXT = (
    "Generate a realistic user request for an Obsidian vault assistant. "
    "Make it specific, actionable, and varied in complexity."
)


class MethodOfSlot:
    """Which method writes the prompt of a slot, drawn with the methods' weights; no other one steps in for it."""

    def __init__(self, methods: Mapping[str, float], seed: int) -> None:
        self._methods = methods
        self._seed = seed

    def method_of(self, slot: int) -> str:
        if len(self._methods) == 1:
            return next(iter(self._methods))
        rng = random.Random(f"{self._seed}:{slot}:method")
        return rng.choices(list(self._methods), weights=list(self._methods.values()))[0]


def parse_methods(text: str) -> dict[str, float]:
    """An argparse type: `self`, `self,template`, or with weights `self:3,template:1`."""
    methods: dict[str, float] = {}
    for part in text.split(","):
        name, _, weight = part.partition(":")
        if name not in METHODS or name in methods:
            raise argparse.ArgumentTypeError(f"{part!r} is none of {', '.join(METHODS)}, each once, with :WEIGHT")
        try:
            methods[name] = float(weight or 1)
        except ValueError:
            methods[name] = 0
        if not 0 < methods[name] < float("inf"):
            raise argparse.ArgumentTypeError(f"the weight in {part!r} is not a number above 0")
    return {name: methods[name] for name in METHODS if name in methods}  # the order they are drawn in


def describe_methods(methods: Mapping[str, float]) -> dict[str, Any]:
    """The methods with their shares, for the settings of a run."""
    total = sum(methods.values())
    return {name: round(weight / total, 4) for name, weight in methods.items()}
