"""Supervised fine-tuning: right answers, loss on the assistant's tokens only, several rows packed into a sequence."""

import argparse
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from Evaluator.errors import UsageError
from Trainers.common.prepared import Columns, Prepared, RendersTurns, rendered_rows
from Trainers.common.rendering import Rendered
from Trainers.common.training_data import Conversation, TrainingData, split_by_prompt

if TYPE_CHECKING:
    from transformers import Trainer

PACKED_AT_ONCE = 1000
IGNORED = -100
"""The label of a token without loss, PyTorch's default for cross entropy."""


class SFT:
    """What the SFT trainer does with rows and model."""

    name = "sft"

    def check(self, data: TrainingData) -> None:
        """Raise UsageError, before anything is loaded, when there is nothing to learn from."""
        if all(conversation.label is False for conversation in data.conversations):
            left_out = data.left_out + Counter({"with label false": len(data.conversations)})
            raise UsageError(
                f"no row is left to train on ({_counted(left_out) or 'the files hold none'}): SFT needs rows with "
                f"label true, from a model that knows the tools, or written by hand (Datasets/README.md shows one)"
            )

    def prepare(self, data: TrainingData, renderer: RendersTurns, args: argparse.Namespace, processes: int) -> Prepared:
        """Rows with label true or none, all their assistant turns. Raises UsageError when there are none."""
        left_out = Counter(data.left_out)
        right = [c for c in data.conversations if c.label is not False]
        if len(right) < len(data.conversations):
            left_out["label false"] += len(data.conversations) - len(right)
        training, validation = split_by_prompt(right, args.validation_fraction, args.seed)
        rows = rendered_rows(training, renderer.all_turns, args.max_length, left_out)
        if not rows:
            raise UsageError(f"no row is left to train on ({_counted(left_out)})")
        held_out = rendered_rows(validation, renderer.all_turns, args.max_length, left_out)
        lengths = [len(sequence.input_ids) for _, sequence in rows]
        sequences = num_packed(lengths, args.max_length) if args.packing else len(rows)
        a_step = args.batch_size * args.gradient_accumulation_steps * processes
        return Prepared(
            _columns([sequence for _, sequence in rows]),
            _columns([sequence for _, sequence in held_out]) if held_out else None,
            steps=max(1, -(-sequences // a_step)),
            rows=Counter({"training": _rows(rows), "validation": _rows(held_out)}),
            left_out=left_out,
            tokens=sum(lengths),
            answer_tokens=sum(sum(sequence.is_answer) for _, sequence in rows),
            longest=args.max_length if args.packing else max(lengths),
        )

    def trainer(
        self,
        args: argparse.Namespace,
        prepared: Prepared,
        training_arguments: dict[str, Any],
        **trainer_arguments: Any,
    ) -> "Trainer":
        from trl import SFTConfig, SFTTrainer

        config = SFTConfig(
            **training_arguments,
            packing=args.packing,
            max_length=args.max_length,
            shuffle_dataset=args.packing,  # else rows of one kind, which stand together, would be packed together
        )
        return SFTTrainer(
            args=config,
            **prepared.datasets(),
            **trainer_arguments,
        )


def num_packed(lengths: Sequence[int], size: int) -> int:
    """Sequences of `size` tokens that rows of these lengths fill, packed best fit, longest first, PACKED_AT_ONCE rows
    at a time as TRL does (which shuffles them first, so its count may differ a little)."""
    return sum(_num_packed(lengths[at : at + PACKED_AT_ONCE], size) for at in range(0, len(lengths), PACKED_AT_ONCE))


def _num_packed(lengths: Sequence[int], size: int) -> int:
    """Rooms are kept by how many tokens they have left: the time is lengths times different rooms at most."""
    room: Counter[int] = Counter()
    packed = 0
    for length in sorted(lengths, reverse=True):
        left = min((free for free in room if free >= length), default=None)
        if left is None:
            packed, left = packed + 1, size
        elif room[left] == 1:
            del room[left]
        else:
            room[left] -= 1
        room[left - length] += 1
    return packed


def _columns(sequences: Sequence[Rendered]) -> Columns:
    return {
        "input_ids": [list(sequence.input_ids) for sequence in sequences],
        "labels": [
            [token if answer else IGNORED for token, answer in zip(s.input_ids, s.is_answer, strict=True)]
            for s in sequences
        ],
    }


def _rows(rows: Sequence[tuple[Conversation, Rendered]]) -> int:
    return len({conversation.where for conversation, _ in rows})


def _counted(counter: Counter[str]) -> str:
    return ", ".join(f"{count} {why}" for why, count in counter.items())
