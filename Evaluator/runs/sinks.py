"""Where judged attempts go: what a sink is, how it counts, and the one that streams to stdout."""

import sys
import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from Evaluator.records import Reject, Sample, to_json_line


@dataclass
class Tally:
    """What a sink has taken, counted. `tools` counts target tools, `tools_true` tools called by true samples."""

    labels: Counter[bool] = field(default_factory=Counter)
    rejects: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    tools: Counter[str] = field(default_factory=Counter)
    tools_true: Counter[str] = field(default_factory=Counter)
    prompt_tokens: int = 0
    completion_tokens: int = 0

    @property
    def samples(self) -> int:
        return self.labels.total()

    def count(self, label: bool, metadata: Mapping[str, Any]) -> None:
        self.labels[label] += 1
        self.errors.update(code.partition(":")[0] for code in metadata["errors"][:1])
        if tool := metadata["target_tool"]:
            self.tools[tool] += 1
        if label:
            self.tools_true.update(metadata["called_tools"])
        self.prompt_tokens += metadata["prompt_tokens"] or 0
        self.completion_tokens += metadata["completion_tokens"] or 0


class Sink(Protocol):
    """Where judged attempts go, and their tally."""

    tally: Tally

    def add_sample(self, sample: Sample) -> None: ...

    def add_reject(self, reject: Reject) -> None: ...

    def seal(self) -> None: ...


class StdoutSink:
    """Samples straight to stdout as they come, flushed one by one; rejects are only counted."""

    def __init__(self) -> None:
        self.tally = Tally()
        self._writing = threading.Lock()
        self._is_open = True

    def add_sample(self, sample: Sample) -> None:
        data = sample.to_dict()
        with self._writing:
            if not self._is_open:
                return
            sys.stdout.buffer.write(to_json_line(data))
            sys.stdout.buffer.flush()
            self.tally.count(sample.label, data["metadata"])

    def add_reject(self, reject: Reject) -> None:
        with self._writing:
            self.tally.rejects[reject.reason] += 1

    def seal(self) -> None:
        """Take nothing more: what is still under way comes too late."""
        with self._writing:
            self._is_open = False
