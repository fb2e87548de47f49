"""A server that speaks the Messages, Message Batches and Models APIs, for the real anthropic SDK to talk to."""

import json
import re
import threading
import time
from collections import deque
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Reply = str | dict | tuple[int, dict[str, str]] | tuple[int, dict[str, str], str, str] | Callable[[dict], str | dict]


class _Server(ThreadingHTTPServer):
    request_queue_size = 128  # on a busy machine connections of many threads wait


class FakeAnthropicServer:
    """Says `replies` one by one, then the last again.

    A reply is a text, fields of a message, (status, headers[, type, message]) for an error, or a function of the
    request that gives one of the first two. `requests` are the bodies of messages, whether they came alone or in a
    batch.

    A batch is in progress for `polls` questions after its state; its results come in reverse order. `endings` are
    taken by its requests one by one, then all succeed: "canceled", "expired", or the error type of one that errored.
    `batch_faults` spoil the next requests to the batches' addresses: a status, or "close" to take the request in and
    drop the connection. `broken_transfers` times results are broken off half way.
    """

    def __init__(
        self,
        *replies: Reply,
        models: tuple[str, ...] = ("claude-test-1",),
        latency_s: float = 0.0,
        usage: tuple[int, int] = (11, 7),
        polls: int = 0,
        endings: tuple[str, ...] = (),
        batch_faults: tuple[int | str, ...] = (),
        broken_transfers: int = 0,
        batches_check_models: bool = False,
    ) -> None:
        self.replies = deque(replies)
        self.models = models
        self.latency_s = latency_s
        self.usage = usage
        self.polls = polls
        self.endings = deque(endings)
        self.batch_faults = deque(batch_faults)
        self.broken_transfers = broken_transfers
        self.batches_check_models = batches_check_models
        self.requests: list[dict] = []
        self.headers: list[dict[str, str]] = []
        self.batches: dict[str, dict] = {}
        self._lock = threading.Lock()
        self._server = _Server(("127.0.0.1", 0), self._handler())

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> "FakeAnthropicServer":
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _answer(self, request: dict) -> dict | tuple[int, dict[str, str], str]:
        """A message, or an error as (status, headers, type)."""
        with self._lock:
            self.requests.append(request)
            if request["model"] not in self.models:
                return 404, {}, "not_found_error"
            if not _is_enforceable(request.get("output_config", {}).get("format", {}).get("schema")):
                return 400, {}, "invalid_request_error"
            reply = self.replies.popleft() if len(self.replies) > 1 else self.replies[0]
        if isinstance(reply, tuple):
            return reply if len(reply) > 2 else (*reply, "api_error")
        return _message(request, reply(request) if callable(reply) else reply, self.usage)

    def _take_batch(self, entries: list[dict]) -> dict | tuple[int, dict[str, str], str]:
        ids = [entry["custom_id"] for entry in entries]
        if len(set(ids)) < len(ids) or not all(re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", one) for one in ids):
            return 400, {}, "invalid_request_error"
        if self.batches_check_models and any(entry["params"]["model"] not in self.models for entry in entries):
            return 404, {}, "not_found_error"
        with self._lock:
            batch_id = f"msgbatch_{len(self.batches) + 1}"
            self.batches[batch_id] = {"entries": entries, "polls": self.polls, "lines": None}
        return self._state_of(batch_id)

    def _poll(self, batch_id: str) -> dict | tuple[int, dict[str, str], str]:
        if batch_id not in self.batches:
            return 404, {}, "not_found_error"
        batch = self.batches[batch_id]
        if batch["polls"] > 0:
            batch["polls"] -= 1
        elif batch["lines"] is None:
            batch["lines"] = [self._result(entry) for entry in reversed(batch["entries"])]
        return self._state_of(batch_id)

    def end_batches(self) -> None:
        """Let every batch end when it is asked for next."""
        self.polls = 0
        for batch in self.batches.values():
            batch["polls"] = 0

    def _result(self, entry: dict) -> dict:
        ending = self.endings.popleft() if self.endings else "succeeded"
        result: dict = {"type": ending}
        if ending == "succeeded":
            answer = self._answer(entry["params"])
            ending = answer[2] if isinstance(answer, tuple) else ending
            result = {"type": "succeeded", "message": answer}
        if ending.endswith("_error"):
            error = {"type": ending, "message": f"made to fail with {ending}"}
            result = {"type": "errored", "error": {"type": "error", "error": error, "request_id": None}}
        return {"custom_id": entry["custom_id"], "result": result}

    def _state_of(self, batch_id: str) -> dict:
        batch = self.batches[batch_id]
        has_ended = batch["lines"] is not None
        counts = dict.fromkeys(("canceled", "errored", "expired", "processing", "succeeded"), 0)
        if has_ended:
            for line in batch["lines"]:
                counts[line["result"]["type"]] += 1
        else:
            counts["processing"] = len(batch["entries"])
        return {
            "id": batch_id,
            "type": "message_batch",
            "processing_status": "ended" if has_ended else "in_progress",
            "request_counts": counts,
            "created_at": _DATE,
            "expires_at": _DATE,
            "ended_at": _DATE if has_ended else None,
            "archived_at": _DATE if batch.get("is_archived") else None,
            "cancel_initiated_at": None,
            "results_url": f"{self.url}/v1/messages/batches/{batch_id}/results" if has_ended else None,
        }

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        fake = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True  # head and body go in two pieces; the second would wait for 40 ms

            def do_GET(self) -> None:
                if batch := re.fullmatch(r"/v1/messages/batches/(\w+)(/results)?", self.path):
                    self._get_batch(batch[1], has_results=bool(batch[2]))
                    return
                data = [
                    {"type": "model", "id": name, "display_name": name, "created_at": _DATE} for name in fake.models
                ]
                self._reply(200, {"data": data, "has_more": False, "first_id": None, "last_id": None})

            def _get_batch(self, batch_id: str, *, has_results: bool) -> None:
                if self._is_spoilt():
                    return
                if not has_results:
                    self._say(fake._poll(batch_id))
                    return
                lines = "".join(f"{json.dumps(line)}\n" for line in fake.batches[batch_id]["lines"])
                self._send(200, lines.encode(), {"Content-Type": "application/x-jsonl"}, may_break=True)

            def do_POST(self) -> None:
                request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                fake.headers.append(dict(self.headers))
                time.sleep(fake.latency_s)
                if self.path == "/v1/messages/batches":
                    if not self._is_spoilt(lambda: fake._take_batch(request["requests"])):
                        self._say(fake._take_batch(request["requests"]))
                else:
                    self._say(fake._answer(request))

            def _is_spoilt(self, take_in: Callable[[], object] = lambda: None) -> bool:
                fault = fake.batch_faults.popleft() if fake.batch_faults else None
                if fault == "close":
                    take_in()
                    self.close_connection = True
                elif fault is not None:
                    self._error(fault, {"retry-after": "0"}, "api_error")
                return fault is not None

            def _say(self, answer: dict | tuple[int, dict[str, str], str]) -> None:
                if isinstance(answer, tuple):
                    self._error(*answer)
                else:
                    self._reply(200, answer)

            def _error(self, status: int, headers: dict[str, str], kind: str, message: str = "") -> None:
                error = {"type": kind, "message": message or f"made to fail with {status}"}
                self._reply(status, {"type": "error", "error": error}, headers)

            def _reply(self, status: int, payload: dict, headers: dict[str, str] | None = None) -> None:
                self._send(
                    status, json.dumps(payload).encode(), {"Content-Type": "application/json", **(headers or {})}
                )

            def _send(self, status: int, body: bytes, headers: dict[str, str], *, may_break: bool = False) -> None:
                self.send_response(status)
                for name, value in {"Content-Length": str(len(body)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                if may_break and fake.broken_transfers:
                    fake.broken_transfers -= 1
                    body, self.close_connection = body[: len(body) // 2], True
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        return Handler


_DATE = "2026-01-01T00:00:00Z"


def write_all(request: dict) -> str:
    """A reply: `written: ...` for each order in a request, as JSON where a schema asks for it."""
    asked = request["messages"][-1]["content"]
    if "output_config" not in request:
        return f"written: {asked.splitlines()[0]}"
    texts = re.findall(r"^Order \d+:\n(.*)$", asked, re.MULTILINE)
    return json.dumps({"requests": [f"written: {text}" for text in texts]})


def _is_enforceable(schema: dict | None) -> bool:
    """Whether the service takes a schema: every object closed, no count of items above 1."""
    if schema is None:
        return True
    is_closed = schema.get("type") != "object" or schema.get("additionalProperties") is False
    has_counts = schema.get("minItems", 0) > 1 or "maxItems" in schema
    parts = [*schema.get("properties", {}).values(), *([schema["items"]] if "items" in schema else [])]
    return is_closed and not has_counts and all(_is_enforceable(part) for part in parts)


def _message(request: dict, reply: str | dict, usage: tuple[int, int]) -> dict:
    fields = {"content": [{"type": "text", "text": reply}] if reply else []} if isinstance(reply, str) else reply
    return {
        "id": "msg_test",
        "type": "message",
        "role": "assistant",
        "model": request["model"],
        "stop_reason": "max_tokens" if request["max_tokens"] < 5 else "end_turn",
        "stop_sequence": None,
        "usage": {"input_tokens": usage[0], "output_tokens": usage[1]},
        **fields,
    }
