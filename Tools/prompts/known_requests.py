"""Requests that a new one must not repeat."""

import threading

from Evaluator.decontamination import EvaluationPrompts, Request
from Evaluator.runs.attempts import UnusablePrompt
from Tools.duplicates import SeenRequests


class Known:
    """Those of this run, of other files, and of evaluation sets."""

    def __init__(self, avoided: EvaluationPrompts, *, is_distinct: bool) -> None:
        self._avoided = avoided
        self._seen = SeenRequests() if is_distinct else None
        self._taken: dict[int, str] = {}  # slot -> its request
        self._lock = threading.Lock()

    def add(self, request: str, slot: int | None = None) -> None:
        """Add a request that was there before, that of a `slot` if it is one of this run."""
        if self._seen is not None:
            with self._lock:
                self._seen.add(Request(request))
                if slot is not None:
                    self._taken[slot] = request

    def take(self, slot: int, request: str, plain: str | None = None) -> None:
        """Add the request of a slot, `plain` without its phrasing, which would hide how near it is to an evaluation
        prompt.

        Raises UnusablePrompt where it overlaps one, or repeats the request of another slot.
        """
        words = Request(request)
        overlap = self._avoided.overlap_of(words)
        if not overlap and plain not in (None, request):
            overlap = self._avoided.overlap(plain)
        if overlap:
            why = f"it overlaps an evaluation prompt ({overlap.sign}): {overlap.prompt}"
            raise UnusablePrompt("prompt.evaluation", why, request)
        if self._seen is None:
            return
        with self._lock:
            twin = self._seen.twin(request)
            if twin and twin.text != self._taken.get(slot):  # its own, which may have had no answer
                why = f"it is {'nearly ' if twin.kind == 'near' else ''}the same as: {twin.text}"
                raise UnusablePrompt(f"prompt.{twin.kind}_duplicate", why, request)
            if twin:
                return
            if self._seen.is_worn(words):
                raise UnusablePrompt("prompt.worn_skeleton", "a sentence that came often, with other names", request)
            self._seen.add(words)
            self._taken[slot] = request
