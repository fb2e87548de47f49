"""Any endpoint that speaks OpenAI's chat completions: LM Studio, Ollama, vLLM, llama.cpp. Uses requests only."""

import contextlib
import json
import socket
import threading
import time
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any
from weakref import WeakSet

import requests
from requests.adapters import HTTPAdapter
from requests.exceptions import InvalidURL
from requests.utils import get_environ_proxies
from urllib3.exceptions import LocationValueError

from Evaluator.backends.endpoint_pool import (
    Busy,
    EndpointPool,
    Faulty,
    Fruitless,
    Patience,
    Unreachable,
    retry_after_s,
)
from Evaluator.model_client import (
    CONTEXT_OVERFLOW,
    EMPTY_ANSWER,
    Completion,
    ConfigurationRefused,
    SampleFailed,
    SamplingOptions,
    cut_at_stop,
)
from Evaluator.records import Message

CONNECT_TIMEOUT_S = 10.0


class OpenAICompatibleClient:
    """Answers from one model on one or several endpoints, each a base URL that ends in `/v1`.

    The timeout is the longest silence on the wire; waiting for a free endpoint does not count.
    """

    def __init__(
        self,
        model: str,
        base_urls: Sequence[str],
        *,
        api_key: str | None = None,
        api_key_env: str = "OPENAI_API_KEY",
        concurrency: int = 1,
        patience: Patience = Patience(),  # noqa: B008  # frozen
        use_proxy: bool = False,
        extra: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        """`extra` are fields of every request that OpenAI's own do not have."""
        self._model = model
        self._extra = extra
        self._api_key_env = api_key_env
        self._timeout = (min(CONNECT_TIMEOUT_S, patience.timeout_s), patience.timeout_s)
        self._headers = {"Content-Type": "application/json", "Accept-Encoding": "identity"}
        if api_key:
            self._headers["Authorization"] = f"Bearer {api_key}"
        self._proxies = {url: get_environ_proxies(url) if use_proxy else {} for url in base_urls}
        self._adapter = _InterruptibleAdapter(len(base_urls), concurrency)
        self._of_thread = threading.local()
        self._have_answered: set[str] = set()
        self._pool = EndpointPool(base_urls, patience)

    def complete(self, messages: Sequence[Message], options: SamplingOptions) -> Completion:
        body = json.dumps(self._request_body(messages, options)).encode()
        return self._pool.call(lambda url: self._attempt(url, body, options.stop))

    def stop(self) -> None:
        self._pool.stop()

    def close(self) -> None:
        """Break off what is still under way, so that the server need not go on with it, and free the connections."""
        self._pool.stop()
        self._adapter.interrupt()
        self._adapter.close()

    def _request_body(self, messages: Sequence[Message], options: SamplingOptions) -> dict[str, Any]:
        body: dict[str, Any] = {
            "model": self._model,
            "messages": [message.to_dict() for message in messages],
            "max_tokens": options.max_tokens,
            "stream": False,
            **self._extra,
        }
        optional = {"temperature": options.temperature, "top_p": options.top_p, "seed": options.seed}
        body.update({name: value for name, value in optional.items() if value is not None})
        if options.stop:
            body["stop"] = list(options.stop)
        if options.functions:
            body["tools"] = list(options.functions)
        if options.schema is not None:
            json_schema = {"name": "answer", "schema": dict(options.schema), "strict": True}
            body["response_format"] = {"type": "json_schema", "json_schema": json_schema}
        return body

    def _attempt(self, url: str, body: bytes, stop: Sequence[str]) -> Completion:
        started = time.perf_counter()
        response = self._send(url, body)
        latency_s = time.perf_counter() - started
        if response.status_code != 200:
            self._refuse(url, response)
        completion = _completion(url, response.content, stop, latency_s)
        self._have_answered.add(url)
        return completion

    def _send(self, url: str, body: bytes) -> requests.Response:
        """One request and its whole reply. Straight to the adapter: a session would look for cookies, netrc files,
        proxies and redirects, none of which an endpoint has, for a tenth of the client's whole CPU time."""
        prepared = self._prepared(url)
        prepared.body = body
        prepared.headers["Content-Length"] = str(len(body))
        try:
            response = self._adapter.send(prepared, timeout=self._timeout, proxies=self._proxies[url])
            _ = response.content  # read now, so that its faults count too
            return response
        except requests.ConnectTimeout as error:
            raise Unreachable(f"no connection to {url} within {self._timeout[0]:g} s") from error
        except requests.Timeout as error:
            raise Faulty("endpoint.timeout", f"no reply from {url} within {self._timeout[1]:g} s") from error
        except requests.ConnectionError as error:
            raise _connection_failure(url, error) from error
        except (InvalidURL, LocationValueError) as error:  # which requests lets through while it connects
            raise ConfigurationRefused(f"{url} is no address: {error}. See --base-url") from error
        except requests.RequestException as error:  # a reply that is no HTTP, a broken transfer
            raise Faulty("endpoint.broken_reply", f"{url} sent a broken reply ({type(error).__name__})") from error

    def _prepared(self, url: str) -> requests.PreparedRequest:
        """This thread's request to `url`: preparing one takes longer than sending it, so it is made once."""
        known = self._of_thread.__dict__
        if url not in known:
            request = requests.Request("POST", f"{url}/chat/completions", headers=self._headers, data=b"{}")
            try:
                known[url] = request.prepare()
            except ValueError as error:
                raise ConfigurationRefused(f"{url} is no address: {error}. See --base-url") from error
        return known[url]

    def _refuse(self, url: str, response: requests.Response) -> None:
        """Raise what a status other than 200 means."""
        status, said = response.status_code, _error_text(response)
        if status in (429, 503):
            raise Busy(f"{url} is busy (HTTP {status})", retry_after_s(response.headers.get("Retry-After")))
        if status >= 500 or status == 408:
            raise Faulty(f"endpoint.http_{status}", f"{url} failed with HTTP {status}: {said}")
        if status == 400 and _is_context_overflow(said):
            raise SampleFailed(CONTEXT_OVERFLOW, f"the prompt does not fit the model's context: {said}")
        if status == 400 and url in self._have_answered:  # a filter of contents, a model that is being loaded
            raise Fruitless("endpoint.http_400", f"{url} refuses this request (HTTP 400): {said}")
        raise ConfigurationRefused(self._advice(url, status, said))

    def _advice(self, url: str, status: int, said: str) -> str:
        if status in (401, 403):
            return (
                f"{url} refuses the API key (HTTP {status}): put a valid one into {self._api_key_env}. It said: {said}"
            )
        if status == 404:
            return f"{url} does not know the model {self._model} or the path (HTTP 404). {self._models_at(url)}"
        if 300 <= status < 400:
            return f"{url} redirects (HTTP {status}): give the final address as --base-url"
        return f"{url} refuses the request (HTTP {status}): {said}. Check --model and the sampling flags"

    def _models_at(self, url: str) -> str:
        try:
            request = requests.Request("GET", f"{url}/models", headers=self._headers).prepare()
            reply = self._adapter.send(request, timeout=CONNECT_TIMEOUT_S, proxies=self._proxies[url])
            names = [str(entry["id"]) for entry in reply.json()["data"]]
        except (requests.RequestException, ValueError, KeyError, TypeError):
            return "It lists no models either: does --base-url end in /v1?"
        return f"Its models: {', '.join(names[:20]) or 'none'}. See --model"


class _InterruptibleAdapter(HTTPAdapter):
    """An adapter that knows its connections, those of requests under way included."""

    def __init__(self, num_endpoints: int, concurrency: int) -> None:
        super().__init__(pool_connections=num_endpoints, pool_maxsize=concurrency, max_retries=0)
        self._connections: WeakSet[Any] = WeakSet()
        self._watched: WeakSet[Any] = WeakSet()

    def get_connection_with_tls_context(self, *args: Any, **options: Any) -> Any:
        pool = super().get_connection_with_tls_context(*args, **options)
        if pool not in self._watched:
            self._watch(pool)
        return pool

    def _watch(self, pool: Any) -> None:
        make_connection = pool.ConnectionCls

        def make_known_connection(*args: Any, **options: Any) -> Any:
            connection = make_connection(*args, **options)
            self._connections.add(connection)
            return connection

        pool.ConnectionCls = make_known_connection
        self._watched.add(pool)

    def interrupt(self) -> None:
        """End the reading and writing of every connection; the threads that wait for a reply get an error."""
        for connection in list(self._connections):
            if connection.sock is not None:
                with contextlib.suppress(OSError):
                    connection.sock.shutdown(socket.SHUT_RDWR)


def _connection_failure(url: str, error: requests.ConnectionError) -> Exception:
    """Refused or not found costs a sample nothing; a connection lost under way may be the request's fault."""
    text = str(error)
    if "Connection aborted" in text or "Read timed out" in text or "IncompleteRead" in text:
        return Faulty("endpoint.connection_lost", f"{url} closed the connection without an answer")
    refused = "connection refused" if "refused" in text.lower() else "cannot connect"
    return Unreachable(f"no reply from {url} ({refused})")


def _error_text(response: requests.Response) -> str:
    text = _error_in(response.content)
    if text is None:
        text = _one_line(response.content[:200].decode("utf-8", errors="replace"))
    return text or "nothing more"


def _error_in(body: bytes) -> str | None:
    """What a JSON reply says under `error`, None where it says nothing there."""
    try:
        error = json.loads(body)["error"]
        return _one_line(str(error["message"] if isinstance(error, dict) else error))
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def _one_line(text: str) -> str:
    return " ".join(text.split())[:300]


def _is_context_overflow(said: str) -> bool:
    lowered = said.lower()
    return "context" in lowered and any(word in lowered for word in ("exceed", "length", "too long"))


def _completion(url: str, body: bytes, stop: Sequence[str], latency_s: float) -> Completion:
    try:
        data = json.loads(body)
        choice = data["choices"][0]
        message, finish_reason = choice["message"], choice.get("finish_reason")
        content = message.get("content")
        tool_calls = tuple(_native_call(entry) for entry in message.get("tool_calls") or ())
        usage = data.get("usage") or {}
        tokens = (_count(usage.get("prompt_tokens")), _count(usage.get("completion_tokens")))
        if not isinstance(content, str | None):
            raise TypeError
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError) as error:
        said = _error_in(body)
        if said and "unexpected endpoint" in said.lower():  # LM Studio's status for a wrong path is 200
            raise ConfigurationRefused(f"{url} says: {said}. Does --base-url end in /v1?") from error
        more = f": {said}" if said else ""
        raise Faulty("endpoint.garbage", f"{url} sent a reply that is no chat completion{more}") from error
    if finish_reason in _BROKEN_OFF:
        raise Faulty("endpoint.broken_off", f"{url} broke the answer off ({finish_reason})")
    if content:
        content, was_cut = cut_at_stop(content, stop)
        finish_reason = "stop" if was_cut else finish_reason
    if not (content and content.strip()) and not tool_calls and finish_reason != "length":
        raise Fruitless(EMPTY_ANSWER, f"{url} sent an empty answer")
    return Completion(Message("assistant", content, tool_calls), finish_reason, *tokens, latency_s)


_BROKEN_OFF = ("abort", "aborted", "cancelled", "content_filter", "error", "timeout")
"""Finish reasons of answers that the server did not let the model end."""


def _native_call(entry: Any) -> dict[str, Any]:
    """A native call with OpenAI's keys alone and the arguments as a string, so that all rows have one schema."""
    function = entry["function"]
    arguments = function["arguments"]
    if not isinstance(arguments, str):
        arguments = json.dumps(arguments, ensure_ascii=False, allow_nan=False)
    call_id = entry.get("id")
    function = {"name": str(function["name"]), "arguments": arguments}
    return {"id": None if call_id is None else str(call_id), "type": "function", "function": function}


def _count(value: Any) -> int | None:
    return value if type(value) is int and value >= 0 else None
