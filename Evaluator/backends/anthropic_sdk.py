"""The anthropic SDK as its users here share it: what a request is made of, what an answer and an error mean.

The key comes from ANTHROPIC_API_KEY, another address from ANTHROPIC_BASE_URL, both read by the SDK. Sampling
parameters are not sent: the SDK's messages.create has had none since 2.0, and current models refuse them.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from Evaluator.backends.endpoint_pool import (
    Busy,
    EndpointPool,
    Faulty,
    Fruitless,
    Patience,
    Unreachable,
    retry_after_s,
)
from Evaluator.model_client import Completion, ConfigurationRefused, SampleFailed, SamplingOptions
from Evaluator.records import Message

if TYPE_CHECKING:
    import anthropic

_FINISH_REASONS = {"max_tokens": "length", "end_turn": "stop", "stop_sequence": "stop"}
_KEY_ADVICE = "Put a valid key into ANTHROPIC_API_KEY"
_Answer = TypeVar("_Answer")


class AnthropicService:
    """Anthropic's service for one Claude model, reached with our patience instead of the SDK's own retries."""

    def __init__(
        self,
        model: str,
        *,
        patience: Patience = Patience(),  # noqa: B008  # frozen
        use_proxy: bool = False,
    ) -> None:
        import anthropic  # takes a second: only where it is used

        self._model = model
        http_client = anthropic.DefaultHttpxClient(trust_env=use_proxy)
        self._sdk = anthropic.Anthropic(timeout=patience.timeout_s, max_retries=0, http_client=http_client)
        self._pool = EndpointPool([str(self._sdk.base_url)], patience)

    def stop(self) -> None:
        self._pool.stop()

    def close(self) -> None:
        self._sdk.close()

    def _call(self, ask: Callable[[str], _Answer], missing: str | None = None) -> _Answer:
        """ask(url), which uses the SDK once, until it succeeds; `missing` says what HTTP 404 means, if not the model.

        Raises SampleFailed, ConfigurationRefused, EndpointLost or Stopped.
        """
        return self._pool.call(lambda url: self._attempt(url, ask, missing))

    def _attempt(self, url: str, ask: Callable[[str], _Answer], missing: str | None) -> _Answer:
        import anthropic

        try:
            return ask(url)
        except anthropic.APITimeoutError as error:
            raise Faulty("endpoint.timeout", f"no reply from {url} in time") from error
        except UnicodeEncodeError as error:  # half a character; nothing was sent
            raise SampleFailed("endpoint.not_sent", f"the request cannot be sent: {error.reason}") from error
        except (ValueError, anthropic.APIResponseValidationError) as error:  # a proxy's page, a body that is cut off
            raise Faulty("endpoint.garbage", f"{url} sent a reply that is none of the service's ({error})") from error
        except anthropic.APIConnectionError as error:
            raise Unreachable(f"no reply from {url} ({error.__cause__ or error})") from error
        except anthropic.APIStatusError as error:
            raise self._meaning_of(url, error, missing) from error
        except (anthropic.AnthropicError, TypeError) as error:  # the SDK raises TypeError when it has no key
            raise ConfigurationRefused(f"the anthropic SDK cannot ask {self._model}: {error}. {_KEY_ADVICE}") from error

    def _meaning_of(self, url: str, error: "anthropic.APIStatusError", missing: str | None) -> Exception:
        """What to make of a status that is no success."""
        status = error.status_code
        if status in (429, 503, 529):
            return Busy(f"{url} is busy (HTTP {status})", retry_after_s(error.response.headers.get("retry-after")))
        if status >= 500 or status == 408:
            return Faulty(f"endpoint.http_{status}", f"{url} failed with HTTP {status}")
        if status in (401, 403):
            return ConfigurationRefused(f"{url} refuses the API key (HTTP {status}). {_KEY_ADVICE}")
        if status == 404:
            return ConfigurationRefused(f"{missing} (HTTP 404)") if missing else self._no_such_model("HTTP 404")
        said = f"{url} refuses the request (HTTP {status}): {error.message[:300]}"
        if "content filtering" in error.message.lower():  # of what it wrote: the account and the others are well
            return Fruitless("endpoint.filtered", said)
        return ConfigurationRefused(f"{said}. {self._models()}" if self._model in error.message else said)

    def _no_such_model(self, sign: str) -> ConfigurationRefused:
        return ConfigurationRefused(f"there is no model {self._model} ({sign}). {self._models()}")

    def _models(self) -> str:
        import anthropic

        try:
            names = [model.id for model in self._sdk.models.list(limit=50).data]
        except (anthropic.AnthropicError, ValueError, AttributeError, TypeError):
            return "See --prompt-generator-model"
        return f"This account has: {', '.join(names) or 'none'}. See --prompt-generator-model"


def request_parameters(model: str, messages: Sequence[Message], options: SamplingOptions) -> dict[str, Any]:
    """What messages.create and one request of a batch are given."""
    parameters: dict[str, Any] = {
        "model": model,
        "max_tokens": options.max_tokens,
        "messages": [
            {"role": "assistant" if message.role == "assistant" else "user", "content": message.content or ""}
            for message in messages
            if message.role != "system"
        ],
    }
    system = "\n\n".join(message.content or "" for message in messages if message.role == "system")
    if system:
        parameters["system"] = system
    if options.stop:
        parameters["stop_sequences"] = list(options.stop)
    if options.schema is not None:
        import anthropic

        # the service refuses what it cannot enforce, counts of items for one: the SDK makes words of it
        schema = anthropic.transform_schema(dict(options.schema))
        parameters["output_config"] = {"format": {"type": "json_schema", "schema": schema}}
    return parameters


def completion_of(reply: "anthropic.types.Message", latency_s: float) -> Completion:
    """The service's answer as everybody else's; a refusal has the finish reason `refusal`.

    Raises ValueError where it is none: the SDK checks no reply.
    """
    try:
        text = "".join(block.text for block in reply.content if block.type == "text")
        finish_reason = _FINISH_REASONS.get(reply.stop_reason or "", reply.stop_reason)
        tokens = (reply.usage.input_tokens, reply.usage.output_tokens)
    except (AttributeError, TypeError) as error:
        raise ValueError("it holds no message") from error
    return Completion(Message("assistant", text), finish_reason, *tokens, latency_s)
