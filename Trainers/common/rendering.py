"""Conversations as token ids, with the tokens that the model itself would have to write marked: the one way in.

A model is served with its own chat template, so that is what it is trained with: the text before an answer is what
the template makes of the turns before it, as at inference, and the answer ends with the token that ends a turn.
Where each answer begins and ends is read off what the template renders. So it needs no copy of a template with
generation markers, which could drift from the original or get into an exported tokenizer, and works where those
fail: Mistral's template drops the system prompt when the last turn is the assistant's.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise, takewhile
from typing import TYPE_CHECKING, Any

from Evaluator.errors import ReportedError
from Evaluator.records import Message, ToolCall
from Evaluator.tool_calls import parse_turn
from Trainers.common.answer_parts import CONTEXT_TEXTS, SESSION_IDS, WRONG_ENDS, context_texts, invented_ids

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


_USER = {"role": "user", "content": "-"}


class CannotRender(ReportedError):
    """The model's chat template does not take this conversation."""


@dataclass(frozen=True)
class Rendered:
    """Token ids of one sequence, and for each whether the model is to write it: answers with their end of turn.

    `parts` are positions of tokens in answers, by the name of the part that they belong to (see answer_parts).
    """

    input_ids: Sequence[int]
    is_answer: Sequence[bool]
    parts: Mapping[str, Sequence[int]] = field(default_factory=dict)

    @property
    def last_answer_start(self) -> int:
        """The position of the first token of the last answer; everything after it belongs to it too."""
        return max(position for position, answer in enumerate(self.is_answer) if not answer) + 1


@dataclass(frozen=True)
class _Answer:
    """An answer's text with its end of turn, and the text that the model has before it."""

    prompt: str
    text: str


class Renderer:
    """Renders conversations with the chat template of `tokenizer`, which has to be a fast one."""

    def __init__(self, tokenizer: "PreTrainedTokenizerBase") -> None:
        self._tokenizer = tokenizer
        marked = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
        self._end_mark = re.compile("|".join(re.escape(mark) for mark in {*tokenizer.all_special_tokens, *marked}))
        self._end_of_turn = self._found_end_of_turn()

    def all_turns(self, messages: Sequence[Message]) -> list[Rendered]:
        """Every assistant turn of a conversation: one sequence, or several where the template renders an earlier
        turn otherwise once others follow (then each is trained as it is written). Raises CannotRender."""
        answers = [self._answer(messages, at) for at, turn in enumerate(messages) if turn.role == "assistant"]
        sequences: list[list[_Answer]] = []
        for answer in answers:
            if sequences and answer.prompt.startswith(sequences[-1][-1].prompt + sequences[-1][-1].text):
                sequences[-1].append(answer)
            else:
                sequences.append([answer])
        return [self._tokens(sequence) for sequence in sequences]

    def last_turn(self, messages: Sequence[Message]) -> Rendered:
        """The last assistant turn, with all before it as the prompt. Raises CannotRender."""
        return self._tokens([self._answer(messages, len(messages) - 1)])

    def _tokens(self, answers: Sequence[_Answer]) -> Rendered:
        text = answers[-1].prompt + answers[-1].text
        ids, offsets = self._encoded(text)
        spans = [(len(answer.prompt), len(answer.prompt) + len(answer.text)) for answer in answers]
        if any(first < start < last for first, last in offsets for start, _ in spans):
            ids, offsets = self._tokens_apart(text, spans)
        is_answer = [any(start <= first and last <= end for start, end in spans) for first, last in offsets]
        parts = {
            SESSION_IDS: [part for span in spans for part in invented_ids(text, *span)],
            CONTEXT_TEXTS: [part for span in spans for part in context_texts(text, *span)],
            WRONG_ENDS: [(end - 1, end) for _, end in spans],
        }
        return Rendered(ids, is_answer, {name: _within(offsets, some) for name, some in parts.items()})

    def _tokens_apart(self, text: str, spans: Sequence[tuple[int, int]]) -> tuple[list[int], list[tuple[int, int]]]:
        """Where a token would reach from a prompt into an answer: at inference none does, so each has its own."""
        ids: list[int] = []
        offsets: list[tuple[int, int]] = []
        for first, last in pairwise([0, *(edge for span in spans for edge in span)]):
            some_ids, some_offsets = self._encoded(text[first:last])
            ids += some_ids
            offsets += [(first + start, first + end) for start, end in some_offsets]
        return ids, offsets

    def _encoded(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """Token ids, and for each from where to where it stands in the text."""
        encoded = self._tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        return encoded["input_ids"], encoded["offset_mapping"]

    def _answer(self, messages: Sequence[Message], at: int) -> _Answer:
        turns = self._turns(messages[: at + 1])
        prompt = self._render(turns[:-1], add_generation_prompt=True)
        text = _after(prompt, self._render(turns))
        if text is None:  # the template shows earlier turns otherwise, or not at all, when an answer follows
            text = _after(self._render([_USER], add_generation_prompt=True), self._render([_USER, turns[-1]]))
        if text is None:
            raise CannotRender("the chat template does not render an answer after its generation prompt")
        return _Answer(prompt, self._with_end(text))

    def _with_end(self, text: str) -> str:
        """The text of an answer up to the token that ends the turn, which is appended where a template has none.

        After it a template may write a line break, or one more token that ends the whole conversation; before it a
        token that is the answer's own. So it is the one that ends any turn or, where that is not known, the first.
        """
        marks = [
            mark for mark in self._end_mark.finditer(text) if not self._end_mark.sub("", text[mark.start() :]).strip()
        ]
        end = next((mark for mark in marks if mark.group() == self._end_of_turn), marks[0] if marks else None)
        return text[: end.end()] if end else text + str(self._tokenizer.eos_token)

    def _found_end_of_turn(self) -> str | None:
        """The token that stands after an answer whether or not another turn follows; None where that is not seen."""
        user, turns = [_USER], [_USER, {"role": "assistant", "content": "OK"}]
        try:
            prompt = self._render(user, add_generation_prompt=True)
            texts = [_after(prompt, self._render(some)) for some in (turns, [*turns, _USER])]
        except CannotRender:
            return None
        alike = takewhile(lambda pair: pair[0] == pair[1], zip(*(text or "" for text in texts), strict=False))
        marks = [mark.group() for mark in self._end_mark.finditer("".join(one for one, _ in alike))]
        return marks[-1] if marks else None

    def _render(self, turns: Sequence[Mapping[str, Any]], *, add_generation_prompt: bool = False) -> str:
        from jinja2.exceptions import TemplateError

        try:
            return self._tokenizer.apply_chat_template(
                turns, tokenize=False, add_generation_prompt=add_generation_prompt
            )
        except (TemplateError, TypeError, ValueError, KeyError) as error:
            raise CannotRender(f"the chat template refuses it: {error}") from error

    def _turns(self, messages: Sequence[Message]) -> list[dict[str, Any]]:
        """Turns as templates take them, of which the last is trained; a tool's has the id and the name of the call that
        it answers."""
        turns = []
        unanswered: list[dict[str, Any]] = []
        for message in messages:
            turn: dict[str, Any] = {"role": message.role, "content": message.content or ""}
            if message.tool_calls:
                turn, calls = self._with_calls(turn, message, is_trained=message is messages[-1])
                unanswered = list(calls)
            elif message.role == "tool":
                call = unanswered.pop(0) if unanswered else _native(0, "tool", {})
                turn |= {"tool_call_id": call["id"], "name": call["function"]["name"]}
            turns.append(turn)
        return turns

    def _with_calls(
        self, turn: dict[str, Any], message: Message, *, is_trained: bool
    ) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """(the turn with its calls, these calls as a template takes them): native where the template renders them, else
        as text. Calls with broken arguments stay text: they have to be learnt from, as what not to write."""
        parsed = parse_turn(message)
        calls = [_native(number, call.name, dict(call.arguments)) for number, call in enumerate(parsed.calls)]
        native = turn | {"tool_calls": calls}
        if not parsed.findings and self._renders_calls(native, parsed.calls, is_trained=is_trained):
            return native, calls
        texts = [*filter(None, [message.content]), *map(_as_text, message.tool_calls)]
        return turn | {"content": "\n\n".join(texts)}, calls

    def _renders_calls(self, turn: Mapping[str, Any], calls: Sequence[ToolCall], *, is_trained: bool) -> bool:
        """Whether the template makes an answer of native calls. One that is trained has to be read as the same calls,
        with the text beside them: a right answer in a form that is judged wrong would teach the wrong thing."""
        try:
            text = _after(self._render([_USER], add_generation_prompt=True), self._render([_USER, turn])) or ""
        except CannotRender:
            return False
        if not is_trained:
            return all(call.name in text for call in calls)
        ended = self._with_end(text)
        ends = [mark.start() for mark in self._end_mark.finditer(ended) if mark.end() == len(ended)]
        answer = ended[: ends[0]] if ends else ended
        found = parse_turn(Message("assistant", answer))
        alike = [(call.name, call.arguments) for call in found.calls] == [(call.name, call.arguments) for call in calls]
        return alike and not found.findings and turn["content"].strip() in answer


def _within(offsets: Sequence[tuple[int, int]], spans: Sequence[tuple[int, int]]) -> list[int]:
    """Positions of the tokens that have a character of one of `spans`."""
    return [at for at, (first, last) in enumerate(offsets) if any(first < end and start < last for start, end in spans)]


def _after(prompt: str, text: str) -> str | None:
    return text[len(prompt) :] if text.startswith(prompt) else None


def _native(number: int, name: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    call_id = f"call{number:05d}"  # Mistral's template wants 9 characters
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


def _as_text(call: Any) -> str:
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict):
        return json.dumps(call, ensure_ascii=False)
    arguments = function.get("arguments", "")
    return f"tool_call: {function.get('name')}\narguments: " + (
        arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
    )
