"""The raw outcomes of an experiment: one line for each prompt that an arm was asked, made from the reports.

{"arm": "A4", "seed": 0, "set": "heldout", "prompt": "...", "tool": "...", "behavior": null, "strict": false,
 "failed": "relevance", "codes": ["relevance.missing_tool:..."], "called": "...", "did": null, "validator": "..."}

`tool` and `behavior` are what was right, `called` and `did` what the answer was, `failed` the check that it failed:
the checks come in their order and end there. `validator` is the fingerprint of the code that judged.
"""

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from Evaluator.errors import UsageError
from Evaluator.records import CHECKS, to_json_line

Outcome = Mapping[str, Any]
KEYS = ("arm", "seed", "set", "prompt", "tool", "behavior", "strict", "failed", "codes", "called", "did", "validator")


def outcomes_of(report: Mapping[str, Any], arm: str, seed: int, set_name: str) -> Iterable[dict[str, Any]]:
    """The outcomes in a report of `python -m Evaluator` with one sample a prompt."""
    for prompt in report["prompts"]:
        (sample,) = prompt["samples"]
        yield {
            "arm": arm,
            "seed": seed,
            "set": set_name,
            "prompt": prompt["id"],
            "tool": (prompt["expected_tools"] or [None])[0],
            "behavior": prompt["behavior"],
            "strict": sample["label"],
            "failed": next((check for check in CHECKS if sample["checks"][check] is False), None),
            "codes": sample["errors"],
            "called": (sample["called_tools"] or [None])[0],
            "did": sample["behavior"],
            "validator": report["validator"]["fingerprint"],
        }


def outcome_lines(outcomes: Iterable[Outcome]) -> Iterable[bytes]:
    return [to_json_line(outcome) for outcome in outcomes]


def read_outcomes(path: Path) -> Sequence[Outcome]:
    """The outcomes in a file; `-` is stdin. Raises UsageError where it cannot be read, or says something twice."""
    try:
        content = sys.stdin.buffer.read() if str(path) == "-" else path.read_bytes()
        outcomes = [json.loads(line) for line in content.split(b"\n") if line.strip()]
    except OSError as error:
        raise UsageError(f"cannot read the outcomes {path}: {error.strerror}") from error
    except ValueError as error:
        raise UsageError(f"{path} holds no outcomes: {error}") from error
    for outcome in outcomes:
        if not isinstance(outcome, dict) or not set(KEYS) <= outcome.keys():
            raise UsageError(f"{path} holds a line that is no outcome: {json.dumps(outcome)[:80]}")
    if not outcomes:
        raise UsageError(f"{path} holds no outcomes")
    seen = {(one["arm"], one["seed"], one["set"], one["prompt"]) for one in outcomes}
    if len(seen) < len(outcomes):
        raise UsageError(f"{path} has the same prompt of an arm more than once")
    if len({one["validator"] for one in outcomes}) > 1:
        raise UsageError(f"{path} has outcomes that different versions of the validator have judged")
    return outcomes
