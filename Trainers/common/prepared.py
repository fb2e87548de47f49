"""What a trainer is given: rows as columns of token ids, and the counts that tell what became of the files."""

import argparse
import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from Evaluator.errors import UsageError
from Evaluator.records import Message
from Trainers.common.launch import is_main_process
from Trainers.common.rendering import CannotRender, Rendered
from Trainers.common.training_data import Conversation, TrainingData

if TYPE_CHECKING:
    from transformers import Trainer

log = logging.getLogger(__name__)

CHARACTERS_A_TOKEN = 3.3
"""Of tool calls in JSON, as SmolLM2's tokenizer cuts them; for counts where no tokenizer is at hand."""

Columns = dict[str, list[Any]]


class RendersTurns(Protocol):
    def all_turns(self, messages: Sequence[Message]) -> list[Rendered]: ...

    def last_turn(self, messages: Sequence[Message]) -> Rendered: ...


@dataclass
class Prepared:
    """Columns for training and validation, `steps` optimizer steps an epoch, `longest` the tokens of the
    longest sequence, `notes` what a person should know."""

    train: Columns
    validation: Columns | None
    steps: float
    rows: Counter[str]
    left_out: Counter[str]
    tokens: int
    answer_tokens: int
    longest: int
    settings: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def datasets(self) -> dict[str, Any]:
        """The columns as TRL's trainers take them."""
        from datasets import Dataset

        return {
            "train_dataset": Dataset.from_dict(self.train),
            "eval_dataset": Dataset.from_dict(self.validation) if self.validation else None,
        }


def described_rows(data: TrainingData, prepared: Prepared) -> list[str]:
    """Lines for a person: rows kept and left out, tokens, and what the method adds."""
    rows = ", ".join(f"{count} for {use}" for use, count in prepared.rows.items() if count)
    lines = [f"rows: {rows}"]
    lines += [f"left out: {count} {why}" for why, count in sorted(prepared.left_out.items())]
    if data.num_bad_lines:
        lines.append(f"left out: {data.num_bad_lines} lines that hold no row")
    share = prepared.answer_tokens / prepared.tokens
    lines.append(f"tokens: {prepared.tokens} an epoch, {prepared.answer_tokens} of them trained ({share:.0%})")
    return lines + prepared.notes


def rendered_rows(
    conversations: Sequence[Conversation],
    render: Callable[[Sequence[Message]], list[Rendered]],
    max_length: int,
    left_out: Counter[str],
) -> list[tuple[Conversation, Rendered]]:
    """Each conversation with its sequences; those that do not fit are left out whole, and counted by the reason."""
    rows = []
    refusals: dict[str, str] = {}
    too_long: list[tuple[str, int]] = []
    kinds = Counter(_kind(conversation) for conversation in conversations)
    for conversation in conversations:
        try:
            sequences = render(conversation.messages)
        except CannotRender as why:
            left_out["refused by the chat template"] += 1
            refusals.setdefault(str(why), conversation.where)
            continue
        longest = max(len(sequence.input_ids) for sequence in sequences)
        if longest > max_length:
            too_long.append((_kind(conversation), longest))
        else:
            rows += [(conversation, sequence) for sequence in sequences]
    for why, where in refusals.items():
        log.warning("warning: %s: %s", where, why)
    left_out += Counter(f"{kind} longer than {max_length} tokens" for kind, _ in too_long)
    if too_long and is_main_process():
        lost = Counter(kind for kind, _ in too_long)
        shares = " and ".join(f"{count} of {kinds[kind]} {kind}" for kind, count in sorted(lost.items()))
        needed = max(length for _, length in too_long)
        log.warning("warning: too long, so that they teach nothing: %s; --max-length %d takes all", shares, needed)
    _check_shares(rows)
    return rows


def _kind(conversation: Conversation) -> str:
    return "rows" if conversation.label is None else f"rows with label {str(conversation.label).lower()}"


def _check_shares(rows: Sequence[tuple[Conversation, Rendered]]) -> None:
    """Raise UsageError where nothing, or everything, would be trained: then the mask is wrong, whatever the loss."""
    for conversation, sequence in rows:
        if not any(sequence.is_answer) or all(sequence.is_answer):
            share = "no" if not any(sequence.is_answer) else "every"
            raise UsageError(
                f"{conversation.where}: with this chat template {share} token counts as the assistant's, so training "
                f"would teach nothing of use. Take an instruct model with a chat template of its own"
            )


class Method(Protocol):
    """What SFT and KTO differ in."""

    name: str

    def check(self, data: TrainingData) -> None: ...

    def prepare(
        self, data: TrainingData, renderer: RendersTurns, args: argparse.Namespace, processes: int
    ) -> Prepared: ...

    def trainer(
        self,
        args: argparse.Namespace,
        prepared: Prepared,
        training_arguments: dict[str, Any],
        **trainer_arguments: Any,
    ) -> "Trainer": ...


def num_characters(message: Message) -> int:
    """Of a turn with its native calls, about as they are rendered."""
    return len(message.content or "") + sum(len(str(call)) for call in message.tool_calls)


class EstimatingRenderer:
    """Renders to sequences of about the right length, for a dry run where the tokenizer is not at hand or too slow."""

    def __init__(self, characters_a_token: float = CHARACTERS_A_TOKEN) -> None:
        self._characters_a_token = characters_a_token

    def all_turns(self, messages: Sequence[Message]) -> list[Rendered]:
        return [self._rendered(messages, every_turn=True)]

    def last_turn(self, messages: Sequence[Message]) -> Rendered:
        return self._rendered(messages, every_turn=False)

    def _rendered(self, messages: Sequence[Message], *, every_turn: bool) -> Rendered:
        is_answer = [False] * 4
        for message in messages:
            length = num_characters(message)
            counts = message.role == "assistant" and (every_turn or message is messages[-1])
            is_answer += [False] * 4 + [counts] * (round(length / self._characters_a_token) + 1)
        return Rendered([0] * len(is_answer), is_answer)
