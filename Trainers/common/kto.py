"""KTO: answers with label true are made likelier, those with label false less so, each against a reference model."""

import argparse
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from Evaluator.errors import UsageError
from Evaluator.label_balance import kto_weights
from Trainers.common.answer_parts import WRONG_ENDS, is_wrong_there
from Trainers.common.kto_batches import BatchSizes, Orderable, kto_order, without_crowds
from Trainers.common.prepared import Columns, Prepared, RendersTurns, rendered_rows
from Trainers.common.rendering import Rendered
from Trainers.common.training_data import Conversation, TrainingData, split_by_prompt

if TYPE_CHECKING:
    from transformers import Trainer


@dataclass(frozen=True)
class LabelledRow:
    """A conversation and its tokens, of whose answer those at `masked` are read and not scored."""

    conversation: Conversation
    sequence: Rendered
    masked: Sequence[int]

    @property
    def label(self) -> bool:
        return bool(self.conversation.label)

    @property
    def scored_tokens(self) -> int:
        return len(self.sequence.input_ids) - self.sequence.last_answer_start - len(self.masked)


class KTO:
    """What the KTO trainer does with rows and model."""

    name = "kto"

    def check(self, data: TrainingData) -> None:
        """Raise UsageError, before anything is loaded, when a class has no row."""
        labels = data.labels()
        kto_weights(labels[True], labels[False])

    def prepare(self, data: TrainingData, renderer: RendersTurns, args: argparse.Namespace, processes: int) -> Prepared:
        """Rows with a label, in the order of kto_batches; the last assistant turn is scored. Raises UsageError."""
        left_out = Counter(data.left_out)
        labelled = [c for c in data.conversations if c.label is not None]
        if len(labelled) < len(data.conversations):
            left_out["without a label"] += len(data.conversations) - len(labelled)
        training, validation = split_by_prompt(labelled, args.validation_fraction, args.seed)

        def rendered(conversations: Sequence[Conversation]) -> list[LabelledRow]:
            scored = [c for c in conversations if c.label or not is_wrong_there(c.messages[-1], c.errors, args.mask)]
            if len(scored) < len(conversations):
                left_out["wrong in a part that is masked"] += len(conversations) - len(scored)
            found = rendered_rows(scored, lambda turns: [renderer.last_turn(turns)], args.max_length, left_out)
            return [LabelledRow(one, sequence, _masked(one, sequence, args.mask)) for one, sequence in found]

        rows = rendered(training)
        kto_weights(*_labels(rows).values())  # refuses rows of one class
        sizes = BatchSizes(args.batch_size, args.gradient_accumulation_steps * processes)
        rows_a_step = sizes.rows_a_step
        ordered = _in_order(rows, sizes, args.seed, left_out, "do not fill a step")
        labels = _labels(ordered)
        weights = self._weights(args, labels)
        held_out = rendered(validation)
        if held_out:
            sizes = BatchSizes(args.batch_size, processes)
            if len(held_out) < sizes.rows_a_step:
                raise UsageError(
                    f"--validation-fraction {args.validation_fraction:g} keeps {len(held_out)} rows, which do not fill "
                    f"a batch of {sizes.rows_a_step}: give a larger one, or none"
                )
            held_out = _in_order(held_out, sizes, args.seed, left_out, "do not fill a validation batch", both=False)
        balance = weights[0] * labels[True] / (weights[1] * labels[False])
        return Prepared(
            _columns(ordered, args.batch_size),
            _columns(held_out, args.batch_size) if held_out else None,
            steps=len(ordered) // rows_a_step,
            rows=Counter({"training": len(ordered), "validation": len(held_out)}),
            left_out=left_out,
            tokens=sum(len(row.sequence.input_ids) for row in ordered),
            answer_tokens=sum(row.scored_tokens for row in ordered),
            longest=max(len(row.sequence.input_ids) for row in ordered),
            settings={
                "desirable_weight": weights[0],
                "undesirable_weight": weights[1],
                "labels": {"true": labels[True], "false": labels[False]},
            },
            notes=[
                f"labels: {labels[True]} true, {labels[False]} false; weights: desirable {weights[0]:.3f}, "
                f"undesirable {weights[1]:.3f}; (w_D n_D)/(w_U n_U) = {balance:.3f}, advised 1 to 1.333"
            ],
        )

    def _weights(self, args: argparse.Namespace, labels: Mapping[bool, int]) -> tuple[float, float]:
        calculated = kto_weights(labels[True], labels[False])
        given = (args.desirable_weight, args.undesirable_weight)
        if given == (None, None):
            return calculated
        return given[0] or 1.0, given[1] or 1.0

    def trainer(
        self,
        args: argparse.Namespace,
        prepared: Prepared,
        training_arguments: dict[str, Any],
        **trainer_arguments: Any,
    ) -> "Trainer":
        from trl import KTOConfig

        from Trainers.common.kto_trainer import PreparedKTOTrainer

        config = KTOConfig(
            **training_arguments,
            max_length=args.max_length,
            beta=args.beta,
            desirable_weight=prepared.settings["desirable_weight"],
            undesirable_weight=prepared.settings["undesirable_weight"],
        )
        return PreparedKTOTrainer(
            args=config,
            **prepared.datasets(),
            **trainer_arguments,
        )


def _labels(rows: Sequence[LabelledRow]) -> dict[bool, int]:
    return {label: sum(row.label is label for row in rows) for label in (True, False)}


def _in_order(
    rows: Sequence[LabelledRow],
    sizes: BatchSizes,
    seed: int,
    left_out: Counter[str],
    why: str,
    *,
    both: bool = True,
) -> list[LabelledRow]:
    """Rows in the order of kto_batches; those that it leaves out are counted."""
    orderable = [Orderable(row.conversation.prompt_key, row.label, len(row.sequence.input_ids)) for row in rows]
    spread = without_crowds(orderable, sizes, seed)
    ordered = kto_order([orderable[at] for at in spread], sizes, seed, both_labels=both)
    left_out += Counter({"too many answers to one prompt": len(rows) - len(spread), why: len(spread) - len(ordered)})
    return [rows[spread[position]] for position in ordered]


def _masked(conversation: Conversation, sequence: Rendered, parts: Sequence[str]) -> list[int]:
    """Positions of the tokens in these parts of an answer."""
    names = {name for name in parts if name != WRONG_ENDS or not conversation.label}
    return sorted({at for name in names for at in sequence.parts.get(name, ())})


def _columns(rows: Sequence[LabelledRow], batch_size: int) -> Columns:
    """TRL's columns. Each row's KL answer is its neighbour's before it in the batch, the first row's the last one's."""
    starts = [row.sequence.last_answer_start for row in rows]
    answers = [list(row.sequence.input_ids[start:]) for row, start in zip(rows, starts, strict=True)]
    masked = [[at - start for at in row.masked] for row, start in zip(rows, starts, strict=True)]
    neighbours = [at - 1 if at % batch_size else min(at + batch_size, len(rows)) - 1 for at in range(len(rows))]
    return {
        "prompt_ids": [list(row.sequence.input_ids[:start]) for row, start in zip(rows, starts, strict=True)],
        "completion_ids": answers,
        "KL_completion_ids": [answers[neighbour] for neighbour in neighbours],
        "label": [row.label for row in rows],
        "masked": masked,
        "KL_masked": [masked[neighbour] for neighbour in neighbours],
    }
