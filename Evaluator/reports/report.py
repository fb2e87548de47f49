"""The report of an evaluation: made from the judged rows, written as JSON, read again for comparing and showing."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from Evaluator import __version__
from Evaluator.catalog import Catalog
from Evaluator.errors import UsageError
from Evaluator.execution import can_run, execute
from Evaluator.prompt_sets import PromptSet
from Evaluator.records import Message, Prompt
from Evaluator.reports.summary import cost, summarize
from Evaluator.tool_calls import parse_turn
from Evaluator.vault.changes import to_dict

FORMAT = 1
LONGEST_TEXT = 4000
"""Characters of a text that a report keeps."""
_JUDGING = ("validator.py", "grounding.py", "goals.py", "execution.py", "arguments.py", "behavior.py", "tool_calls.py")
_JUDGING_FOLDERS = ("vault",)


@lru_cache(maxsize=1)
def validator_fingerprint() -> str:
    """A hash of the code that judges: reports are compared only where it is the same."""
    root = Path(__file__).parents[1]
    files = [root / name for name in (*_JUDGING, "words.py", "schemas.py")]
    files += [path for folder in _JUDGING_FOLDERS for path in sorted((root / folder).rglob("*.py"))]
    digest = hashlib.sha256()
    for path in files:
        digest.update(path.read_bytes().replace(b"\r\n", b"\n"))
    return digest.hexdigest()[:16]


def make_report(
    rows: Iterable[Mapping[str, Any]],
    prompt_set: PromptSet,
    catalog: Catalog,
    about: Mapping[str, Any],
    num_samples: int,
) -> dict[str, Any]:
    """The report over judged rows, `num_samples` for each prompt of the set when it is complete."""
    by_prompt: dict[str, list[Mapping[str, Any]]] = {prompt.id: [] for prompt in prompt_set.prompts}
    for row in rows:
        by_prompt[row["metadata"]["prompt_id"]].append(row)
    for found in by_prompt.values():
        found.sort(key=lambda row: row["metadata"]["slot"])
    outcomes = [
        _outcome(prompt, by_prompt[prompt.id], catalog) for prompt in prompt_set.prompts if by_prompt[prompt.id]
    ]
    metadata = [row["metadata"] for found in by_prompt.values() for row in found]
    return {
        "format": FORMAT,
        "is_complete": all(len(found) == num_samples for found in by_prompt.values()),
        **about,
        "prompt_set": prompt_set.sha256,
        "catalog": {"name": catalog.label, "sha256": catalog.sha256},
        "validator": {"version": __version__, "fingerprint": validator_fingerprint()},
        "summary": summarize(outcomes),
        "cost": cost(metadata),
        "prompts": outcomes,
    }


def _outcome(prompt: Prompt, rows: Sequence[Mapping[str, Any]], catalog: Catalog) -> dict[str, Any]:
    """One prompt with its samples, without anything that differs from run to run, such as times."""
    return {
        "id": prompt.id,
        "question": prompt.question,
        "tags": list(prompt.tags),
        "expected_tools": list(prompt.expected_tools),
        "manager": catalog.tools[prompt.expected_tools[0]].manager if prompt.expected_tools else None,
        "behavior": prompt.behavior,
        "samples": [_sample(row, prompt, catalog) for row in rows],
    }


def _sample(row: Mapping[str, Any], prompt: Prompt, catalog: Catalog) -> dict[str, Any]:
    metadata, answer = row["metadata"], row["conversations"][-1]
    text = answer["content"] or ""
    if answer.get("tool_calls"):
        text = f"{text}\n{json.dumps(answer['tool_calls'], ensure_ascii=False, indent=1)}".strip()
    return {
        "label": row["label"],
        "checks": metadata["checks"],
        "errors": metadata["errors"],
        "called_tools": metadata["called_tools"],
        "behavior": metadata["behavior"],
        "answer": text[:LONGEST_TEXT],
        "changes": _changes(answer, prompt, catalog),
    }


def _changes(answer: Mapping[str, Any], prompt: Prompt, catalog: Catalog) -> dict[str, Any] | None:
    """What the calls of an answer did to the vault, run once more; None where nothing was run."""
    turn = parse_turn(Message("assistant", answer["content"], tuple(answer.get("tool_calls") or ())))
    if prompt.vault is None or not turn.calls or turn.findings or not can_run(turn.calls, catalog):
        return None
    changes = to_dict(execute(turn.calls, prompt.vault, catalog).changes)
    return changes if len(json.dumps(changes)) <= 2 * LONGEST_TEXT else {"much": f"{len(changes)} tables changed"}


def read_rows_of(path: Path) -> list[dict[str, Any]]:
    """The judged rows of a run; none where it has no file yet."""
    if not path.exists():
        return []
    with path.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def load_report(path: Path) -> dict[str, Any]:
    """Read a report. Raises UsageError where the file holds none."""
    try:
        data = json.loads(path.read_bytes())
    except OSError as error:
        raise UsageError(f"cannot read the report {path}: {error.strerror}") from error
    except ValueError as error:
        raise UsageError(f"{path} is no report: {error}") from error
    if not _is_report(data):
        raise UsageError(f"{path} is no whole report of `python -m Evaluator` in format {FORMAT}")
    return {**data, "file": path.name}


_KEYS = ("is_complete", "model", "adapter", "prompt_set", "catalog", "validator", "summary", "cost", "prompts")


def _is_report(data: Any) -> bool:
    if not isinstance(data, dict) or data.get("format") != FORMAT or not set(_KEYS) <= data.keys():
        return False
    return all(isinstance(one, dict) and one.get("id") and one.get("samples") for one in data["prompts"])
