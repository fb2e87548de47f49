"""How many tokens a teacher may cost, over all runs that share a prompts file: reserved before a call, then settled."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from Evaluator.errors import STOPPED_EARLY, ReportedError
from Tools.prompts.prompts_file import PromptsFile


class BudgetSpent(ReportedError):
    """The next call might cost more than is left of the budget."""

    status = STOPPED_EARLY


class TokenBudget:
    """`limit` tokens for all that `kept` counts, input and output together; None: as many as it takes."""

    def __init__(self, kept: PromptsFile, limit: int | None) -> None:
        self._kept = kept
        self._limit = limit
        self._reserved = 0
        self._settled = threading.Condition()

    @property
    def left(self) -> float:
        """Tokens that are neither spent, nor reserved, nor what open batches may cost; infinite without a limit."""
        return float("inf") if self._limit is None else self._limit - self._kept.most_tokens - self._reserved

    @contextmanager
    def reserved(self, tokens: int) -> Iterator[None]:
        """Hold `tokens` while the block makes its call and notes in the prompts file what that cost.

        Where they fit only once other calls cost less than they reserved, this waits for those. Raises BudgetSpent.
        """
        with self._settled:
            while tokens > self.left:
                if tokens > self.left + self._reserved:
                    raise BudgetSpent(self._spent(tokens))
                self._settled.wait()
            self._reserved += tokens
        try:
            yield
        finally:
            with self._settled:
                self._reserved -= tokens
                self._settled.notify_all()

    def _spent(self, tokens: int) -> str:
        return (
            f"the teacher has cost {self._kept.most_tokens:,} tokens, and the next call may cost {tokens:,}: more than "
            f"--max-teacher-tokens {self._limit:,}. Run the same command again with a higher one to continue"
        )
