"""What a model client is: complete(messages, options) -> Completion, and how it says that there is none."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from Evaluator.errors import STOPPED_EARLY, ReportedError, UsageError
from Evaluator.records import Message

RESULT_MARK = "\nResult:"
"""Generation stops here: a tool's result comes from a vault, never from a model."""


@dataclass(frozen=True)
class SamplingOptions:
    """How an answer is drawn. None leaves the choice to the endpoint.

    `functions` are tools in OpenAI's form that are sent along; `stop` texts end the answer; with a `schema` the answer
    is to be JSON of it, as far as the endpoint can enforce that.
    """

    max_tokens: int
    temperature: float | None = None
    top_p: float | None = None
    seed: int | None = None
    stop: Sequence[str] = ()
    functions: Sequence[Mapping[str, Any]] = ()
    schema: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Completion:
    """What the model produced. `latency_s` is the time of the successful request on the wire, in seconds."""

    message: Message
    finish_reason: str | None
    prompt_tokens: int | None
    completion_tokens: int | None
    latency_s: float

    @property
    def is_truncated(self) -> bool:
        return self.finish_reason == "length"


class ModelClient(Protocol):
    """Anything that answers. Clients are shared by all workers: complete() is called from many threads at once."""

    def complete(self, messages: Sequence[Message], options: SamplingOptions) -> Completion:
        """Raises SampleFailed, ConfigurationRefused, EndpointLost or Stopped."""
        ...

    def stop(self) -> None:
        """Make every complete() that waits for an endpoint raise Stopped."""
        ...

    def close(self) -> None:
        """Free everything; requests still under way are broken off."""
        ...


CONTEXT_OVERFLOW = "endpoint.context_overflow"
"""The reason of a SampleFailed when the prompt is too long for the model: no other try would help."""

EMPTY_ANSWER = "endpoint.empty"
"""The reason of a SampleFailed when the answer is empty, however often it is asked for."""


class SampleFailed(ReportedError):
    """This one request cannot be had; others may. `reason` is a stable code."""

    def __init__(self, reason: str, sentence: str) -> None:
        super().__init__(sentence)
        self.reason = reason


class ConfigurationRefused(UsageError):
    """The endpoint answers, but will not serve such requests: asking again is useless."""


class EndpointLost(ReportedError):
    """No endpoint gave any success for --give-up-after seconds."""

    status = STOPPED_EARLY


class Stopped(Exception):
    """The client was told to stop while this request waited."""


def cut_at_stop(content: str, stop: Sequence[str]) -> tuple[str, bool]:
    """(content up to the first stop text, whether there was one), for endpoints that ignore `stop`."""
    cut = min((at for at in (content.find(text) for text in stop) if at >= 0), default=-1)
    return (content[:cut], True) if cut >= 0 else (content, False)
