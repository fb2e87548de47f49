"""The files that are made from a journal: the output, the rejects and run.json, each in one atomic step.

data.jsonl           the samples, true and false interleaved
data.rejects.jsonl   attempts that gave no sample, with the reason
data.run.json        settings, versions, counts
data.journal         the journal itself; with it the same command goes on or tops up
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from Evaluator.errors import UsageError
from Evaluator.runs.atomic_files import write_atomically, write_json
from Evaluator.runs.journal import Journal
from Evaluator.runs.sinks import Tally


@dataclass(frozen=True)
class OutputFiles:
    """The files of one run, all named after its --output."""

    samples: Path

    @property
    def journal(self) -> Path:
        return self.samples.with_suffix(".journal")

    @property
    def rejects(self) -> Path:
        return self.samples.with_suffix(".rejects.jsonl")

    @property
    def run(self) -> Path:
        return self.samples.with_suffix(".run.json")

    def check(self, *, overwrite: bool) -> None:
        """Raise UsageError where this run must not write: no folder, or files that no journal vouches for."""
        if not self.samples.parent.is_dir():
            raise UsageError(f"there is no folder {self.samples.parent} for the output {self.samples.name}")
        strangers = [path.name for path in (self.samples, self.rejects, self.run) if path.exists()]
        if strangers and not self.journal.exists() and not overwrite:
            raise UsageError(
                f"{' and '.join(strangers)} in {self.samples.parent} can't be continued without {self.journal.name}: "
                "give another --output, or --overwrite to replace what is there"
            )

    def are_made_from(self, journal: Journal) -> bool:
        """Whether the output on disk was made from all that the journal holds, by a run with its settings."""
        try:
            run = json.loads(self.run.read_bytes())
            is_of_it = run["journal_bytes"] == journal.size and run["settings"] == journal.settings
            return self.samples.is_file() and is_of_it
        except (OSError, ValueError, KeyError, TypeError):
            return False

    def write(self, journal: Journal, settings: Mapping[str, Any], about: Mapping[str, Any]) -> None:
        """Make all files from the journal; run.json comes last, so that it vouches for the others."""
        order = interleave(journal.offsets(True), journal.offsets(False))
        write_atomically(self.samples, journal.sample_lines(order))
        write_atomically(self.rejects, journal.reject_lines())
        run = {**about, "settings": settings, "counts": _counts(journal.tally), "journal_bytes": journal.size}
        write_json(self.run, run)


def interleave(true: Sequence[int], false: Sequence[int]) -> Iterator[int]:
    """All of both in their order, alternating in proportion: any stretch holds about the share of the whole."""
    taken = 0
    for index in range(len(true) + len(false)):
        due = (index + 1) * len(true) // (len(true) + len(false))
        if due > taken:
            yield true[taken]
            taken += 1
        else:
            yield false[index - taken]


def _counts(tally: Tally) -> dict[str, Any]:
    return {
        "samples": tally.samples,
        "true": tally.labels[True],
        "false": tally.labels[False],
        "rejects": dict(sorted(tally.rejects.items())),
        "holes": dict(sorted(tally.holes.items())),
        "errors": dict(tally.errors.most_common()),
        "tools": dict(sorted(tally.tools.items())),
        "prompt_tokens": tally.prompt_tokens,
        "completion_tokens": tally.completion_tokens,
    }
