"""The order of KTO's rows: which stand together in a batch decides what TRL measures.

TRL keeps the order of the file and estimates the KL term by giving each prompt of a per-device batch the answer of
its neighbour there (KTO, arXiv:2402.01306, section 4.1). So two rows of one prompt must not meet in such a batch, and
each optimizer step should see both classes.
"""

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from Evaluator.errors import UsageError

MOST_TRIES = 200


@dataclass(frozen=True)
class BatchSizes:
    """Rows in a per-device batch, and how many of those make one optimizer step (accumulation times processes)."""

    rows: int
    batches_a_step: int

    @property
    def rows_a_step(self) -> int:
        return self.rows * self.batches_a_step


@dataclass(frozen=True)
class Orderable:
    """What the order depends on: the row's prompt, its label and its length in tokens."""

    prompt: str
    label: bool
    length: int


def without_crowds(rows: Sequence[Orderable], sizes: BatchSizes, seed: int) -> list[int]:
    """Positions of `rows` without those answers that a prompt has too many of to be spread over all batches."""
    kept = list(range(len(rows)))
    random.Random(f"{seed}:crowds").shuffle(kept)
    while True:
        most = len(kept) // sizes.rows_a_step * sizes.batches_a_step  # one in each batch
        seen: Counter[str] = Counter()
        fitting = []
        for position in kept:
            seen[rows[position].prompt] += 1
            if seen[rows[position].prompt] <= max(most, 1):
                fitting.append(position)
        if len(fitting) == len(kept):
            return sorted(kept)
        kept = fitting


def kto_order(rows: Sequence[Orderable], sizes: BatchSizes, seed: int, *, both_labels: bool = True) -> list[int]:
    """Positions of `rows` in the order of training: whole steps, each with both classes (unless not `both_labels`),
    batches of like lengths without two rows of one prompt. What does not fill a step is left out.

    Raises UsageError when the rarer class has fewer rows than there are steps, or nothing fills a step.
    """
    rng = random.Random(f"{seed}:kto")
    shuffled = list(range(len(rows)))
    rng.shuffle(shuffled)
    steps = _whole_steps(rows, shuffled, sizes, both_labels)
    _spread_prompts(rows, steps, sizes, rng)
    ordered = [_without_repeats(rows, step, sizes) for step in steps]
    kept = [step for step in ordered if step is not None]
    rng.shuffle(kept)
    if not kept:
        raise UsageError(
            f"{len(rows)} rows do not fill a step of {sizes.rows_a_step} rows without two answers to one prompt in a "
            f"batch of {sizes.rows}: give more prompts, or try --gradient-accumulation-steps "
            f"{max(1, len(rows) // sizes.rows)}"
        )
    return [position for step in kept for position in step]


def _whole_steps(
    rows: Sequence[Orderable], shuffled: Sequence[int], sizes: BatchSizes, both_labels: bool
) -> list[list[int]]:
    """Rows dealt to steps: each class sorted by length and cut into as many even parts as there are steps."""
    num_steps = len(rows) // sizes.rows_a_step
    classes = [[at for at in shuffled if rows[at].label is label] for label in (True, False)]
    rarer, commoner = sorted(classes, key=len)
    left_over = len(rows) - num_steps * sizes.rows_a_step
    from_rarer = left_over * len(rarer) // max(len(rows), 1)
    rarer, commoner = rarer[from_rarer:], commoner[left_over - from_rarer :]
    if both_labels and len(rarer) < num_steps:
        fits = len(rows) // (max(len(rarer), 1) * sizes.rows) + 1
        raise UsageError(
            f"{num_steps} steps of {sizes.rows_a_step} rows cannot each have both labels: there are {len(rarer)} rows "
            f"of the rarer one. Try --gradient-accumulation-steps {fits}, or make more of those rows"
        )
    rarer, commoner = (sorted(part, key=lambda at: rows[at].length) for part in (rarer, commoner))
    steps, taken = [], 0
    for number in range(num_steps):
        some = rarer[number * len(rarer) // num_steps : (number + 1) * len(rarer) // num_steps]
        rest = sizes.rows_a_step - len(some)
        steps.append([*some, *commoner[taken : taken + rest]])
        taken += rest
    return steps


def _spread_prompts(rows: Sequence[Orderable], steps: list[list[int]], sizes: BatchSizes, rng: random.Random) -> None:
    """Exchange rows between steps until no prompt has more rows in a step than the step has batches, where it can be.

    An exchange is between rows of one label, so the classes stay where they are, and near in length first.
    """
    counts = [Counter(rows[at].prompt for at in step) for step in steps]
    for number, step in enumerate(steps):
        for place, at in enumerate(step):
            if counts[number][rows[at].prompt] <= sizes.batches_a_step:
                continue
            partner = _partner(rows, steps, counts, sizes, number, at, rng)
            if partner:
                other, there = partner
                step[place], steps[other][there] = steps[other][there], at
                for changed in (number, other):
                    counts[changed] = Counter(rows[position].prompt for position in steps[changed])


def _partner(
    rows: Sequence[Orderable],
    steps: Sequence[Sequence[int]],
    counts: Sequence[Counter[str]],
    sizes: BatchSizes,
    number: int,
    at: int,
    rng: random.Random,
) -> tuple[int, int] | None:
    """(step, place in it) of a row that may change places with row `at` of step `number`, from the nearest step."""

    def has_room(step: int, prompt: str) -> bool:
        return counts[step][prompt] < sizes.batches_a_step

    others = [step for step in range(len(steps)) if step != number and has_room(step, rows[at].prompt)]
    for other in sorted(others, key=lambda step: abs(step - number))[:MOST_TRIES]:
        places = [
            place
            for place, there in enumerate(steps[other])
            if rows[there].label is rows[at].label and has_room(number, rows[there].prompt)
        ]
        if places:
            return other, rng.choice(places)
    return None


def _without_repeats(rows: Sequence[Orderable], step: Sequence[int], sizes: BatchSizes) -> list[int] | None:
    """The rows of a step, batch after batch, no prompt twice in a batch; None where a prompt has too many rows.

    Rows dealt in turn, those of one prompt one after the other, never meet while there are enough batches.
    """
    counts = Counter(rows[at].prompt for at in step)
    if max(counts.values()) > sizes.batches_a_step:
        return None
    by_prompt = sorted(step, key=lambda at: (-counts[rows[at].prompt], rows[at].prompt))
    batches = [by_prompt[number :: sizes.batches_a_step] for number in range(sizes.batches_a_step)]
    return [at for batch in batches for at in batch]
