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
from Evaluator.judging.execution import can_run, execute
from Evaluator.prompt_sets import PromptSet
from Evaluator.records import Message, Prompt
from Evaluator.reports.summary import cost, summarize
from Evaluator.runs.output_files import OutputFiles
from Evaluator.tool_calls import parse_turn
from Evaluator.vault.changes import to_dict

FORMAT = 1
LONGEST_TEXT = 4000
"""Characters of a text that a report keeps."""
_ROOT = Path(__file__).parents[1]
_JUDGING = ("judging/**/*.py", "vault/**/*.py", "vault/**/*.json")
_JUDGING_STANDS_ON = ("records.py", "catalog.py", "tool_calls.py", "prompt_sets.py", "runs/attempts.py")
"""Modules elsewhere on which labels depend too."""


def judging_files() -> list[Path]:
    """The code that judges, and the bundled vaults."""
    found = [*(path for pattern in _JUDGING for path in _ROOT.glob(pattern)), *map(_ROOT.joinpath, _JUDGING_STANDS_ON)]
    return sorted(found, key=lambda path: path.relative_to(_ROOT).as_posix())


@lru_cache(maxsize=1)
def validator_fingerprint() -> str:
    """A hash of what judges: reports are compared only where it is the same."""
    digest = hashlib.sha256()
    for path in judging_files():
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
        "summary": summarize(outcomes, catalog.tools),
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
    """What the calls of an answer do to the vault, run for this alone; None where they cannot be run."""
    turn = parse_turn(Message("assistant", answer["content"], tuple(answer.get("tool_calls") or ())))
    if prompt.vault is None or not turn.calls or turn.findings or not can_run(turn.calls, catalog):
        return None
    changes = to_dict(execute(turn.calls, prompt.vault, catalog).changes)
    written = json.dumps(changes, ensure_ascii=False)
    if len(written) > 2 * LONGEST_TEXT:
        return {"much": f"{len(changes)} tables changed"}
    return json.loads(written.encode("utf-8", "replace"))  # half a character of an escape cannot be written


def rows_of_run(files: OutputFiles, settings: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The judged rows that a run with these settings has written so far; none where the files are of another run."""
    try:
        if json.loads(files.run.read_bytes())["settings"] != json.loads(json.dumps(settings)):
            return []
        with files.samples.open(encoding="utf-8") as lines:
            return [json.loads(line) for line in lines]
    except (FileNotFoundError, ValueError, KeyError):
        return []


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
