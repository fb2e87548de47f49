"""Anthropic's Message Batches: many requests handed in at once, answered within a day, at half the price."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from Evaluator.backends.anthropic_sdk import AnthropicService, completion_of, request_parameters
from Evaluator.backends.endpoint_pool import Faulty
from Evaluator.errors import STOPPED_EARLY, ReportedError
from Evaluator.model_client import Completion, ConfigurationRefused, SamplingOptions
from Evaluator.records import Message

if TYPE_CHECKING:
    import anthropic

_NOT_SENT = ("ConnectError", "ConnectTimeout")
"""Names of the transport's errors that come before a request is sent; its package differs between SDKs."""


class BatchInDoubt(ReportedError):
    """A batch was handed in and no answer came: whether it was taken is not known, so it is not handed in again."""

    status = STOPPED_EARLY


@dataclass(frozen=True)
class BatchState:
    """How far a batch is. Its results are there from its end on, until it is archived a month later."""

    has_ended: bool
    has_results: bool


@dataclass(frozen=True)
class BatchRequest:
    """One request of a batch; `id` is unique in it: letters, digits, `-` and `_`, 64 at most."""

    id: str
    messages: Sequence[Message]
    options: SamplingOptions


@dataclass(frozen=True)
class BatchResult:
    """What became of one request: `ending` is succeeded, errored, canceled or expired; only the first has an answer.

    `error_type` and `error` are the service's, of a request that errored.
    """

    id: str
    ending: str
    completion: Completion | None = None
    error_type: str | None = None
    error: str | None = None


class AnthropicBatches(AnthropicService):
    """Batches of requests to one Claude model. All methods raise what a client's complete() raises."""

    def submit(self, requests: Sequence[BatchRequest]) -> str:
        """Hand in a batch and return its id. Raises BatchInDoubt where the service may or may not have taken it."""
        entries = [
            {"custom_id": one.id, "params": request_parameters(self._model, one.messages, one.options)}
            for one in requests
        ]
        return self._call(lambda url: self._create(url, entries))

    def _create(self, url: str, entries: Sequence[Mapping[str, Any]]) -> str:
        import anthropic

        try:
            batch_id = self._sdk.messages.batches.create(requests=entries).id
            if not isinstance(batch_id, str):
                raise ValueError("the reply has no id")
            return batch_id
        except UnicodeEncodeError:  # nothing was sent
            raise
        except (anthropic.APIError, ValueError, AttributeError) as error:
            if _was_not_taken(error):
                raise
            raise BatchInDoubt(
                f"{url} may have taken a batch of {len(entries)} requests, but did not say so ({error}): look at the "
                "account's batches before the same command is run again"
            ) from error

    def state(self, batch_id: str) -> BatchState:
        """Raises ConfigurationRefused for a batch that this account does not have."""
        return self._call(lambda _url: self._state(batch_id), _missing(batch_id))

    def _state(self, batch_id: str) -> BatchState:
        batch = self._sdk.messages.batches.retrieve(batch_id)
        try:
            return BatchState(batch.processing_status == "ended", bool(batch.results_url) and not batch.archived_at)
        except AttributeError as error:
            raise ValueError("it holds no batch") from error

    def results(self, batch_id: str) -> list[BatchResult]:
        """The results of a batch that has ended, in no order."""
        return self._call(lambda url: self._results(url, batch_id), _missing(batch_id))

    def _results(self, url: str, batch_id: str) -> list[BatchResult]:
        try:
            stream = self._sdk.messages.batches.results(batch_id)
        except AttributeError as error:  # it asks for the batch first
            raise ValueError("it holds no batch") from error
        try:
            return [_result(line) for line in stream]
        except Exception as error:  # while a body is read, the SDK lets errors of its transport and of JSON through
            raise Faulty("endpoint.broken_reply", f"{url} broke off the results of {batch_id} ({error})") from error
        finally:
            stream.close()

    def unknown_model(self) -> ConfigurationRefused:
        """The error for a model that the service found missing only when it processed a batch."""
        return self._no_such_model("not_found_error")


def _was_not_taken(error: Exception) -> bool:
    """Whether it is sure that the service does not know what it was sent."""
    import anthropic

    if isinstance(error, anthropic.APIStatusError):
        return error.status_code in (503, 529) or (error.status_code < 500 and error.status_code != 408)
    return type(error.__cause__).__name__ in _NOT_SENT


def _missing(batch_id: str) -> str:
    return (
        f"this account has no batch {batch_id}: use the key that it was handed in with, or, if the batch was deleted, "
        "take its line out of the file of written requests"
    )


def _result(line: "anthropic.types.messages.MessageBatchIndividualResponse") -> BatchResult:
    result = line.result
    if result.type == "succeeded":
        return BatchResult(line.custom_id, result.type, completion_of(result.message, 0.0))
    if result.type == "errored":
        return BatchResult(line.custom_id, result.type, None, result.error.error.type, result.error.error.message)
    return BatchResult(line.custom_id, result.type)
