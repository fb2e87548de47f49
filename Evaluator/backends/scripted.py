"""Deterministic answers from a JSONL file, for tests and dry runs: `--model scripted:replies.jsonl`.

Each line is {"content": TEXT}, with `tool_calls`, `finish_reason` and `contains` if wanted. A line with `contains`
answers only requests whose last message contains that text, and goes before those without. Among the lines that
fit, the seed and the text of the request choose, so that an answer depends neither on time nor on concurrency.
"""

import codecs
import json
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from Evaluator.errors import UsageError
from Evaluator.model_client import Completion, SamplingOptions, cut_at_stop
from Evaluator.records import Message


class ScriptedClient:
    """Answers from `path`. Token counts are words; latency is 0."""

    def __init__(self, path: Path) -> None:
        self._replies = _load(path)

    def complete(self, messages: Sequence[Message], options: SamplingOptions) -> Completion:
        asked = messages[-1].content or ""
        fitting = [reply for reply in self._replies if reply.get("contains") and reply["contains"] in asked]
        fitting = fitting or [reply for reply in self._replies if not reply.get("contains")] or self._replies
        reply = fitting[zlib.crc32(f"{options.seed}:{asked}".encode(errors="replace")) % len(fitting)]
        content, finish_reason = reply.get("content"), reply.get("finish_reason", "stop")
        if content:
            content, was_cut = cut_at_stop(content, options.stop)
            finish_reason = "stop" if was_cut else finish_reason
        message = Message("assistant", content, tuple(reply.get("tool_calls") or ()))
        return Completion(message, finish_reason, len(asked.split()), len((content or "").split()), 0.0)

    def stop(self) -> None:
        pass

    def close(self) -> None:
        pass


def _load(path: Path) -> list[dict[str, Any]]:
    try:
        lines = path.read_bytes().removeprefix(codecs.BOM_UTF8).split(b"\n")
    except OSError as error:
        raise UsageError(f"cannot read the scripted replies {path}: {error.strerror}") from error
    replies = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            reply = json.loads(line)
            if not isinstance(reply, dict) or not ({"content", "tool_calls"} & reply.keys()):
                raise ValueError
        except ValueError:
            raise UsageError(f"{path}, line {number}: no JSON object with content or tool_calls") from None
        replies.append(reply)
    if not replies:
        raise UsageError(f"{path} holds no replies")
    return replies
