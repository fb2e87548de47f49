"""Answers in plain text are told apart: ask, refuse, confirm, other."""

import json
from pathlib import Path

import pytest

from Evaluator.judging.behavior import behavior_of

ANSWERS = [json.loads(line) for line in (Path(__file__).parent / "data" / "answers.jsonl").read_text().splitlines()]


def share_right(name: str) -> float:
    rows = [one for one in ANSWERS if name in ("all", one["set"])]
    return sum(behavior_of(one["text"]) == one["behavior"] for one in rows) / len(rows)


def test_hand_written_answers_are_told_apart():
    """402 answers in four sets by four writers; the rule was made on A to C, D was looked at only to count."""
    assert len(ANSWERS) >= 400
    assert share_right("all") >= 0.95
    assert share_right("D") >= 0.90


@pytest.mark.parametrize(
    ("text", "behavior"),
    [
        ("Which note do you mean?", "ask"),
        ("Tell me which note you mean.", "ask"),
        ("I cannot send e-mail from here. Shall I write a draft instead?", "refuse"),
        ("That would delete 14 notes for good. Shall I go ahead?", "confirm"),
        ("Done. Anything else?", "other"),
        ('I opened the note "Tea or coffee?".', "other"),
        ("", "other"),
    ],
)
def test_a_question_mark_or_an_or_is_not_an_ask(text, behavior):
    assert behavior_of(text) == behavior
