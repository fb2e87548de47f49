"""One request for several answers, so that prompts have both labels."""

import random
import threading
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any

from Evaluator.runs.attempts import GIVEN_UP, PromptSource, UnusablePrompt, WrittenPrompt

_KEPT_PROMPTS = 8192
"""Many more than there are workers."""


class SeveralSamples:
    """A prompt source that gives each prompt of another one to `num_samples` slots that follow each other.

    The first of them that comes writes it, in `most_attempts` attempts that they share; the others wait for that.
    """

    def __init__(self, prompts: PromptSource, num_samples: int, seed: int, most_attempts: int) -> None:
        self._prompts = prompts
        self._num_samples = num_samples
        self._seed = seed
        self._most_attempts = most_attempts
        self._shared: OrderedDict[int, _SharedPrompt] = OrderedDict()
        self._lock = threading.Lock()

    def prompt_for(self, slot: int, attempt: int, rng: random.Random) -> WrittenPrompt:
        """As PromptWriter's; takes nothing from `rng`, whichever slot comes first."""
        number = slot // self._num_samples
        with self._lock:
            shared = self._shared.setdefault(number, _SharedPrompt())
            if len(self._shared) > _KEPT_PROMPTS:
                self._shared.popitem(last=False)
        with shared.lock:
            if shared.written is None:
                shared.written = self._write(number, shared)
            return shared.written

    def _write(self, number: int, shared: "_SharedPrompt") -> WrittenPrompt:
        last = shared.failures[-1] if shared.failures else None
        if len(shared.failures) >= self._most_attempts and last.cell is not None:  # without a cell no slot is given up
            why = f"the {self._most_attempts} attempts at the request that these answers share have failed: {last}"
            raise UnusablePrompt(GIVEN_UP, why, None, last.cell)
        attempt = len(shared.failures)
        try:
            return self._prompts.prompt_for(number, attempt, random.Random(f"{self._seed}:{number}:{attempt}:prompt"))
        except UnusablePrompt as unusable:
            shared.failures.append(unusable)
            raise


@dataclass
class _SharedPrompt:
    """The prompt of several slots, and the attempts at it that failed."""

    written: WrittenPrompt | None = None
    failures: list[UnusablePrompt] = field(default_factory=list)
    lock: Any = field(default_factory=threading.Lock)
