"""What a person sees of a run on stderr: a bar on a terminal, else a line a minute, and a summary at the end."""

import logging
import sys
import time
from collections import Counter
from typing import TYPE_CHECKING

from Evaluator.console import printable
from Evaluator.runs.clients import Meter
from Evaluator.runs.sinks import Tally

if TYPE_CHECKING:
    from tqdm import tqdm

log = logging.getLogger(__name__)

LINE_EVERY_S = 60.0


class Progress:
    """Shows how far a run is. Call update() a few times a second; it costs workers nothing."""

    def __init__(self, tally: Tally, num_examples: int, meter: Meter) -> None:
        self._tally = tally
        self._num_examples = num_examples
        self._meter = meter
        self._samples_before = tally.samples
        self._started = self._last_line = time.monotonic()
        self._bar: tqdm | None = None

    def __enter__(self) -> "Progress":
        if sys.stderr.isatty():
            from tqdm import tqdm

            self._bar = tqdm(total=self._num_examples, initial=self._samples_before, unit="row", file=sys.stderr)
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def update(self) -> None:
        if self._bar is not None:
            self._bar.set_postfix_str(f"{self._counts()}, {self._tokens_per_s():.0f} tok/s", refresh=False)
            self._bar.update(self._tally.samples - self._bar.n)
        elif time.monotonic() - self._last_line >= LINE_EVERY_S:
            self._last_line = time.monotonic()
            log.info("%d of %d rows: %s", self._tally.samples, self._num_examples, self._counts())

    def summary(self, concurrency: int, num_tools: int) -> str:
        """A few lines: labels, top error codes, tools, tokens, time, and the share of worker slots on the wire."""
        tally, elapsed_s = self._tally, self._elapsed_s()
        busy = self._meter.wire_s / (elapsed_s * concurrency)
        lines = [
            f"{tally.samples} of {self._num_examples} samples: {self._counts()}",
            f"most frequent errors: {_top(tally.errors)}" if tally.errors else "",
            f"rejected for: {_top(tally.rejects)}" if tally.rejects else "",
            f"tools: {len(tally.tools)} of {num_tools} asked for, {len(tally.tools_true)} called in true samples",
            f"tokens: {tally.prompt_tokens} prompt, {tally.completion_tokens} completion in the samples; "
            f"{self._tokens_per_s():.0f} tok/s",
            f"time: {elapsed_s:.1f} s, {(tally.samples - self._samples_before) / elapsed_s:.1f} rows/s, "
            f"worker slots busy {busy:.0%}",
        ]
        return "\n".join(line for line in lines if line)

    def _counts(self) -> str:
        tally = self._tally
        return f"{tally.labels[True]} true, {tally.labels[False]} false, {tally.rejects.total()} rejected"

    def _elapsed_s(self) -> float:
        """Seconds since the first request could start."""
        return max(time.monotonic() - self._started, 1e-6)

    def _tokens_per_s(self) -> float:
        return self._meter.completion_tokens / self._elapsed_s()


def _top(counts: Counter[str]) -> str:
    return ", ".join(f"{printable(code)} {count}" for code, count in counts.most_common(5))
