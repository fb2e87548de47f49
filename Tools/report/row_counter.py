"""What is counted of one row: its label, checks, tools, texts, and where it comes from, as far as it says so."""

import json
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from Evaluator.catalog import CONTEXT, Catalog
from Evaluator.console import printable
from Evaluator.decontamination import EvaluationPrompts, Overlap, Request
from Evaluator.judging.behavior import BEHAVIOR_CELL, BEHAVIORS, WRITING_CELL
from Evaluator.records import CHECKS, Message, ToolCall, to_json_line
from Evaluator.reports.summary import NO_CALL, NO_SUCH_TOOL
from Evaluator.rows import Row
from Evaluator.tool_calls import ParsedTurn, parse_turn, without_results
from Evaluator.vault.state import DEFAULT_WORKSPACE
from Tools.duplicates import folded, hash_of, signature, skeleton_hash
from Tools.report.counts import Counts

WRITTEN = "written_prompts"
"""The hashes of prompts that a model wrote, once for each row and reject that has one."""
LABELS = {True: "true", False: "false", None: "none"}
PROVENANCE = (
    "source", "prompt_method", "model", "prompt_model", "generator", "catalog", "round", "tools_told", "phrasing",
    "persona", "template",
)  # fmt: skip
"""Metadata keys whose values are counted."""
COPY_WORDS = 4
"""An answer that has a request of fewer words in it may have it by rights."""
_LONGEST_NAME = 120
_OWN_WORDS = ("tool.unknown", "context.unknown_field", "parameters.unknown_field")
"""Codes whose detail is whatever a model wrote."""
_WORD = re.compile(r"\w+")
_BRACKET = re.compile(r"[\[{<]")


class Asked(NamedTuple):
    """What depends on the text of a request alone."""

    key: int
    signed: bytes
    skeleton: int
    overlap: Overlap | None
    words: str


class RowCounter:
    """Counts rows against a catalog and the prompts that models are measured with."""

    def __init__(self, catalog: Catalog, evaluation: EvaluationPrompts) -> None:
        self._catalog = catalog
        self._fields = tuple((catalog.context or {}).get("properties", {}))
        self._evaluation = evaluation
        self._asked = lru_cache(maxsize=4096)(self._look_at_request)

    def count(self, row: Row, counts: Counts) -> None:
        add, metadata = counts.tally, row.metadata
        label = LABELS[row.label]
        answer_at, turn = _answer_of(row.messages)
        request, answer = next(iter(_asked_in(row.messages[:answer_at])), ""), row.messages[answer_at]
        call = turn.calls[0] if turn.calls and not turn.findings else None
        add["rows",] += 1
        if _text(metadata.get("prompt_model")):
            counts.hashes[WRITTEN].append(hash_of(request))
        add["labels", label] += 1
        add["lengths", label, _length(answer)] += 1
        _count_checks(metadata, counts)
        self._count_tools(metadata, call, label, counts)
        _count_behavior(metadata, counts)
        _count_provenance(metadata, label, counts)
        context = self._count_context(call, counts)
        if not _text(metadata.get("cell")).startswith(WRITING_CELL):
            if request.strip():
                self._count_request(request, answer, turn, metadata, counts)
            self._count_overlap([request, *_asked_in(row.messages)], counts)
        prompt = _text(metadata.get("prompt_id")) or folded(request)
        if prompt and row.label is not None:
            counts.hashes["prompts"].append(hash_of(prompt) & ~1 | row.label)
        counts.sample.add(hash_of(to_json_line(row.data).decode()), {"request": request, "context": context})

    # -- the tools

    def _count_tools(self, metadata: Mapping[str, Any], call: ToolCall | None, label: str, counts: Counts) -> None:
        add, cell, asked = counts.tally, _text(metadata.get("cell")), _asked_tool(metadata)
        called = self._called_tool(metadata, call)
        if asked:
            add["asked", asked] += 1
            if not _asks_for_several(metadata):
                add["answered", asked, called] += 1
        if not cell:
            behavior = _text(metadata.get("expected_behavior"))
            cell = asked or (f"{BEHAVIOR_CELL}{behavior}" if behavior else "")
        if cell:
            add["cells", cell] += 1
        if called not in (NO_CALL, NO_SUCH_TOOL):
            add["called", called, label] += 1
        if asked or called != NO_CALL:
            add["tool_labels", asked or called, label] += 1

    def _called_tool(self, metadata: Mapping[str, Any], call: ToolCall | None) -> str:
        """The first tool that the answer calls; names that are no tool's are one."""
        called = metadata.get("called_tools")
        name = called[0] if isinstance(called, list) and called else call.name if call else None
        if name is None:
            return NO_CALL
        return name if isinstance(name, str) and name in self._catalog.tools else NO_SUCH_TOOL

    # -- the context

    def _count_context(self, call: ToolCall | None, counts: Counts) -> dict[str, str]:
        """Count the values in the context of a call and return them. The ones that are no choice are passed over."""
        if call is None:
            return {}
        counts.tally["calls",] += 1
        context = call.arguments.get(CONTEXT)
        values = {}
        for name in self._fields if isinstance(context, dict) else ():
            text = context.get(name)
            if not isinstance(text, str) or text == DEFAULT_WORKSPACE:
                continue
            if text or name not in self._catalog.fields_that_may_be_empty:
                counts.hashes[f"context.{name}"].append(hash_of(text))
                values[name] = _writable(text)
        return values

    # -- the request

    def _look_at_request(self, text: str) -> Asked:
        request, same = Request(text), folded(text)
        overlap = self._evaluation.overlap_of(request)
        return Asked(hash_of(same), signature(same), skeleton_hash(request), overlap, _words(text))

    def _count_request(
        self, text: str, answer: Message, turn: ParsedTurn, metadata: Mapping[str, Any], counts: Counts
    ) -> None:
        add, asked = counts.tally, self._asked(text)
        add["requests",] += 1
        counts.hashes["requests"].append(asked.key)
        counts.hashes["skeletons"].append(asked.skeleton)
        counts.signatures.setdefault(asked.key, asked.signed)
        copied = any(code.startswith("grounding.copied_request") for code in _codes(metadata))
        if copied or _repeats(answer, turn, asked.words):
            add["copied",] += 1

    def _count_overlap(self, texts: Sequence[str], counts: Counts) -> None:
        """Count a row of which one of the user's turns is like an evaluation prompt: SFT trains all turns."""
        for text in texts:
            if text.strip() and (overlap := self._asked(text).overlap):
                counts.tally["overlap", overlap.sign] += 1
                counts.overlaps.add(hash_of(text), {"request": text, "prompt": overlap.prompt, "sign": overlap.sign})
                return


def _answer_of(messages: Sequence[Message]) -> tuple[int, ParsedTurn]:
    """The position of the turn that a row is about, and what it says: its last call, or where there is none its last
    answer, as rows are judged."""
    turns = {at: parse_turn(message) for at, message in enumerate(messages) if message.role == "assistant"}
    at = next((at for at in reversed(turns) if turns[at].calls), max(turns))
    return at, turns[at]


def _asked_in(messages: Sequence[Message]) -> list[str]:
    """What the user's turns say, the last first."""
    return [_writable(message.content or "") for message in reversed(messages) if message.role == "user"]


def _count_checks(metadata: Mapping[str, Any], counts: Counts) -> None:
    add, codes, checks = counts.tally, _codes(metadata), metadata.get("checks")
    if codes:
        add["codes", _without_own_words(codes[0])] += 1
    if any(code.startswith("context.placeholder") for code in codes):
        add["placeholders",] += 1
    if not isinstance(checks, dict):
        return
    add["judged",] += 1
    for name in CHECKS:
        if isinstance(checks.get(name), bool):
            add["passed" if checks[name] else "failed", name] += 1


def _count_behavior(metadata: Mapping[str, Any], counts: Counts) -> None:
    expected, behavior = metadata.get("expected_behavior"), metadata.get("behavior")
    is_known = isinstance(expected, str) and expected in BEHAVIORS
    if is_known or _text(metadata.get("cell")).startswith(BEHAVIOR_CELL):
        counts.tally["behavior_rows",] += 1
    if is_known:
        counts.tally["behaviors", expected, "met" if behavior == expected else "missed"] += 1


def _count_provenance(metadata: Mapping[str, Any], label: str, counts: Counts) -> None:
    add = counts.tally
    for name in PROVENANCE:
        value = _text(metadata.get(name))
        if value:
            add[name, value] += 1
    if value := _text(metadata.get("round")):
        add["round_labels", value, label] += 1
    for name in ("prompt_tokens", "completion_tokens"):
        num_tokens = metadata.get(name)
        if isinstance(num_tokens, int) and not isinstance(num_tokens, bool):
            add[name, num_tokens] += 1


def _asked_tool(metadata: Mapping[str, Any]) -> str:
    expected, cell = metadata.get("expected_tools"), _text(metadata.get("cell"))
    first = expected[0] if isinstance(expected, list) and expected else None
    return (
        _text(metadata.get("target_tool"))
        or _text(first)
        or ("" if cell.startswith((BEHAVIOR_CELL, WRITING_CELL)) else cell)
    )


def _asks_for_several(metadata: Mapping[str, Any]) -> bool:
    expected = metadata.get("expected_tools")
    return isinstance(expected, list) and len(expected) > 1


def _codes(metadata: Mapping[str, Any]) -> list[str]:
    errors = metadata.get("errors")
    return [code for code in errors if isinstance(code, str)] if isinstance(errors, list) else []


def _without_own_words(code: str) -> str:
    kind = code.partition(":")[0]
    return kind if kind in _OWN_WORDS else _text(code)


def _text(value: Any) -> str:
    """A metadata value as a name to count under; empty where there is none, or it is no plain value."""
    if isinstance(value, bool):
        return str(value).lower()
    return printable(str(value)[:_LONGEST_NAME]) if isinstance(value, str | int) else ""


def _writable(text: str) -> str:
    """A text as it comes back from a file: without lone surrogates."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def _length(answer: Message) -> int:
    """Characters of an answer, native calls as JSON."""
    native = len(json.dumps(answer.tool_calls, ensure_ascii=False)) if answer.tool_calls else 0
    return len(answer.content or "") + native


def _words(text: str) -> str:
    return " ".join(_WORD.findall(text.lower()))


def _repeats(answer: Message, turn: ParsedTurn, request: str) -> bool:
    """Whether the whole request stands in what an answer says outside its calls."""
    if request.count(" ") < COPY_WORDS - 1 or not answer.content:
        return False
    return f" {request} " in f" {_words(_outside_calls(answer, turn))} "


def _outside_calls(answer: Message, turn: ParsedTurn) -> str:
    """The text before the first bracket, with which all calls begin or soon go on, and after the last call."""
    content = answer.content or ""
    if not turn.ends or turn.findings:
        return content
    bracket = _BRACKET.search(content)
    before = content[: bracket.start()] if bracket else content
    return f"{before}\n{without_results(Message('assistant', content[turn.ends[-1] :])).content}"


# -- what lies beside a file --------------------------------------------------------------------------------------


def count_rejects(rows_path: Path, num_written_before: int, counts: Counts) -> None:
    """Count how many of the prompts that models wrote could be used, where the rejects of a file lie beside it.

    Usable are those of its rows, which are counted already, and those whose answer was rejected later, each once
    however many answers it has. Without its rejects a file does not tell, and its rows are forgotten again: all
    after the first `num_written_before`.
    """
    try:
        lines = rows_path.with_suffix(".rejects.jsonl").read_bytes().splitlines()
    except OSError:
        del counts.hashes[WRITTEN][num_written_before:]
        return
    for line in lines:
        try:
            reject = json.loads(line)
            reason = reject["reason"]
        except (ValueError, KeyError, TypeError):
            continue
        if not reject.get("written_by"):
            continue
        if str(reason).startswith("prompt."):
            counts.tally["rejected_prompts",] += 1
            counts.tally["prompt_rejects", str(reason)[:_LONGEST_NAME]] += 1
        elif isinstance(reject.get("prompt"), str):
            counts.hashes[WRITTEN].append(hash_of(reject["prompt"]))
