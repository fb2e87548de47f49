"""What programs exchange: messages, tool calls, prompts and samples, as values and as JSONL lines.

The one place that knows the field names. Standard library only.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from Evaluator.vault.changes import Changes
    from Evaluator.vault.state import Vault

CHECKS = ("parse", "tool", "context", "parameters", "relevance", "grounding", "execution")
"""The checks of a label in their order: a later one is made only when the former passed."""


@dataclass(frozen=True)
class Message:
    """One turn of a conversation. `tool_calls` holds OpenAI's native calls as the endpoint sent them."""

    role: str
    content: str | None
    tool_calls: Sequence[Any] = ()

    def to_dict(self) -> dict[str, Any]:
        data: dict[str, Any] = {"role": self.role, "content": self.content}
        if self.tool_calls:
            data["tool_calls"] = list(self.tool_calls)
        return data


@dataclass(frozen=True)
class ToolCall:
    """A tool's name and its decoded arguments (the context is one of them)."""

    name: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True)
class Finding:
    """One fault of a completion: a stable code such as `context.missing_field:sessionMemory`, and a sentence."""

    code: str
    sentence: str


@dataclass(frozen=True)
class Prompt:
    """What a model is asked, and what is known about the right answer.

    `expected_tools` names the tools to be called, a tool twice if it is to be called twice (empty: not known).
    `expects_call` is False where an answer without any tool call is the right one. `vault` is what the calls are run
    on, `goal` (see goals) what they must have done there, `earlier` the turns before the question. `behavior` is what
    a right answer does (see behavior) where calling at once may be wrong, `expected_answer` a text that does it.
    """

    id: str
    question: str
    system: str | None = None
    tags: Sequence[str] = ()
    expected_tools: Sequence[str] = ()
    expects_call: bool = True
    expected_call: ToolCall | None = None
    vault: "Vault | None" = None
    goal: Mapping[str, Any] | None = None
    earlier: Sequence[Message] = ()
    behavior: str | None = None
    expected_answer: str | None = None

    def messages(self) -> list[Message]:
        system = [Message("system", self.system)] if self.system else []
        return [*system, *self.earlier, Message("user", self.question)]


@dataclass(frozen=True)
class SampleMetadata:
    """Where a sample comes from and how it was judged. Every line has every key, null where unknown."""

    sample_id: str
    slot: int
    attempt: int
    prompt_id: str
    source: str
    prompt_method: str
    prompt_model: str | None
    round: int | None
    cell: str | None
    template: str | None
    persona: str | None
    phrasing: str | None
    target_tool: str | None
    expected_tools: Sequence[str]
    vault: str | None
    goal: str | None
    called_tools: Sequence[str]
    expected_behavior: str | None
    behavior: str | None
    model: str
    tools_told: bool
    seed: int
    sampling_seed: int | None
    temperature: float | None
    top_p: float | None
    max_tokens: int | None
    checks: Mapping[str, bool | None]
    errors: Sequence[str]
    prompt_tokens: int | None
    completion_tokens: int | None
    latency_s: float
    catalog: str
    generator: str


@dataclass(frozen=True)
class Sample:
    """A prompt, its completion and the label: one JSONL line."""

    conversations: Sequence[Message]
    label: bool
    metadata: SampleMetadata

    def to_dict(self) -> dict[str, Any]:
        return {
            "conversations": [message.to_dict() for message in self.conversations],
            "label": self.label,
            "metadata": self.metadata.__dict__,
        }


@dataclass(frozen=True)
class Reject:
    """An attempt that gave no sample, and no label: the answer is not to blame.

    `cell` is what the prompt was drawn for, where that is known and the endpoint is not to blame either; `written_by`
    the model that wrote the prompt, None where none did.
    """

    slot: int
    attempt: int
    reason: str
    sentence: str
    text: str | None = None
    prompt: str | None = None
    cell: str | None = None
    written_by: str | None = None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Verdict:
    """What the validator says: `label` is True when no check failed; a check is None where it was not made.

    `calls` are the tool calls that could be read, `results` what they gave back where they were run on the prompt's
    vault, `changes` what they did to it; `behavior` is what the answer does where the prompt says what is right.
    """

    label: bool
    checks: Mapping[str, bool | None]
    findings: Sequence[Finding] = ()
    calls: Sequence[ToolCall] = ()
    results: Sequence[Mapping[str, Any]] = ()
    changes: "Changes | None" = None
    behavior: str | None = None

    @property
    def codes(self) -> list[str]:
        return [finding.code for finding in self.findings]


def to_json_line(data: Mapping[str, Any]) -> bytes:
    """One JSON object as UTF-8 with its newline. A lone surrogate, which UTF-8 cannot hold, becomes `?`."""
    return json.dumps(data, ensure_ascii=False).encode("utf-8", errors="replace") + b"\n"
