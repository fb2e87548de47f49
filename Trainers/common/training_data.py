"""Rows of JSONL as conversations to train on, and what was left out and why. Needs no model and no tokenizer."""

import hashlib
import json
import random
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import Evaluator
from Evaluator.errors import UsageError
from Evaluator.records import Message
from Evaluator.rows import BadLines, Row, rows_of

PROMPTS_FOLDER = Path(Evaluator.__file__).parent / "prompts"


@dataclass(frozen=True)
class Conversation:
    """Turns that end with the assistant's, its label (None: not labelled), the row it comes from, and the validator's
    codes for what is wrong, where the row tells them."""

    messages: Sequence[Message]
    label: bool | None
    where: str
    errors: Sequence[str] = ()

    @property
    def prompt_key(self) -> str:
        """The turns before the last: rows with the same key answer the same prompt."""
        return json.dumps([message.to_dict() for message in self.messages[:-1]], ensure_ascii=False)


@dataclass
class TrainingData:
    """Conversations in the order of the files. `left_out` counts rows by the reason they are not trained on,
    `sha256` is the digest of each file's bytes."""

    conversations: list[Conversation] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    num_bad_lines: int = 0
    sha256: dict[str, str] = field(default_factory=dict)

    def labels(self) -> Counter[bool | None]:
        return Counter(conversation.label for conversation in self.conversations)


def read_training_data(files: Sequence[str], *, allow_eval_prompts: bool = False) -> TrainingData:
    """Read JSONL files; `-` is stdin. A line that is no row is reported with its number and counted.

    Rows with a prompt of a bundled evaluation set are left out unless `allow_eval_prompts`: a model trained
    on them is measured on what it has seen. Raises UsageError for a file that cannot be read.
    """
    ids, questions = ((), ()) if allow_eval_prompts else evaluation_prompts()
    data, bad_lines = TrainingData(), BadLines()
    for name in files:
        content = _read(name)
        data.sha256[name] = hashlib.sha256(content).hexdigest()
        for row in bad_lines.without(rows_of("stdin" if name == "-" else name, content.split(b"\n"))):
            _add(data, row, ids, questions)
    data.num_bad_lines = bad_lines.num
    return data


def evaluation_prompts() -> tuple[frozenset[str], frozenset[str]]:
    """The ids and the questions of the bundled evaluation sets."""
    sets = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(PROMPTS_FOLDER.glob("*.json"))]
    prompts = [prompt for prompt_set in sets for prompt in prompt_set["prompts"]]
    return frozenset(prompt["id"] for prompt in prompts), frozenset(prompt["question"] for prompt in prompts)


def split_by_prompt(
    conversations: Sequence[Conversation], fraction: float, seed: int
) -> tuple[list[Conversation], list[Conversation]]:
    """(training, validation): about `fraction` of the prompts, with all their answers, go to validation."""
    keys = sorted({conversation.prompt_key for conversation in conversations})
    held_out = set(random.Random(f"{seed}:validation").sample(keys, round(fraction * len(keys))))
    training = [c for c in conversations if c.prompt_key not in held_out]
    return training, [c for c in conversations if c.prompt_key in held_out]


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def _read(name: str) -> bytes:
    if name == "-":
        return sys.stdin.buffer.read()
    try:
        return Path(name).read_bytes()
    except OSError as error:
        raise UsageError(f"cannot read {name}: {error.strerror}") from error


def _add(data: TrainingData, row: Row, ids: Sequence[str], questions: Sequence[str]) -> None:
    roles = [message.role for message in row.messages]
    messages = row.messages[: len(roles) - roles[::-1].index("assistant")]
    users = [message.content for message in messages if message.role == "user"]
    prompt_id = row.metadata.get("prompt_id")
    if (isinstance(prompt_id, str) and prompt_id in ids) or any(asked in questions for asked in users):
        data.left_out["answers an evaluation prompt"] += 1
    elif "user" not in roles[: len(messages) - 1]:
        data.left_out["no user turn before the answer"] += 1
    else:
        errors = row.metadata.get("errors")
        codes = [one for one in errors if isinstance(one, str)] if isinstance(errors, list) else []
        data.conversations.append(Conversation(messages, row.label, row.where, codes))
