"""A server that speaks the Messages and Models APIs, for the real anthropic SDK to talk to."""

import json
import threading
from collections import deque
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class FakeAnthropicServer:
    """Says `replies` one by one, then the last again. A reply is a text, or (status, headers) for an error."""

    def __init__(
        self, *replies: str | tuple[int, dict[str, str]], models: tuple[str, ...] = ("claude-test-1",)
    ) -> None:
        self.replies = deque(replies)
        self.models = models
        self.requests: list[dict] = []
        self.headers: list[dict[str, str]] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> "FakeAnthropicServer":
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        fake = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                data = [
                    {"type": "model", "id": name, "display_name": name, "created_at": _DATE} for name in fake.models
                ]
                self._reply(200, {"data": data, "has_more": False, "first_id": None, "last_id": None})

            def do_POST(self) -> None:
                request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                fake.requests.append(request)
                fake.headers.append(dict(self.headers))
                if request["model"] not in fake.models:
                    self._error(404, {}, "not_found_error")
                    return
                reply = fake.replies.popleft() if len(fake.replies) > 1 else fake.replies[0]
                if isinstance(reply, str):
                    self._reply(200, _message(request, reply))
                else:
                    self._error(*reply, "api_error")

            def _error(self, status: int, headers: dict[str, str], kind: str) -> None:
                error = {"type": kind, "message": f"made to fail with {status}"}
                self._reply(status, {"type": "error", "error": error}, headers)

            def _reply(self, status: int, payload: dict, headers: dict[str, str] | None = None) -> None:
                body = json.dumps(payload).encode()
                self.send_response(status)
                extra = {"Content-Type": "application/json", "Content-Length": str(len(body)), **(headers or {})}
                for name, value in extra.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        return Handler


_DATE = "2026-01-01T00:00:00Z"


def _message(request: dict, text: str) -> dict:
    return {
        "id": "msg_test",
        "type": "message",
        "role": "assistant",
        "model": request["model"],
        "content": [{"type": "text", "text": text}] if text else [],
        "stop_reason": "max_tokens" if request["max_tokens"] < 5 else "end_turn",
        "stop_sequence": None,
        "usage": {"input_tokens": 11, "output_tokens": 7},
    }
