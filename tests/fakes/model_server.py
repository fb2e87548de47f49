"""A model endpoint for tests and benchmarks: OpenAI chat completions with a set latency, slots and faults.

    python -m tests.fakes.model_server --latency 0.1 --slots 64 --fault 500:20 --fault 429:7

prints its base URL, then serves until it is killed. `--fault KIND:N` spoils every N-th request: an HTTP status,
`context` (400, it does not fit), `garbage`, `empty`, `never` (no answer) or `close` (the connection is dropped).

Known questions of the prompt set get their expected call, every third one without its context; the seed text, and an
order to write a request, get one; anything else gets a call that moves a note.
"""

import argparse
import asyncio
import json
import random
import threading
from collections import deque
from collections.abc import Mapping, Sequence

from Evaluator.prompt_sets import TOOL_PROMPTS, load_prompt_sets
from Evaluator.records import Prompt, ToolCall
from Evaluator.tool_calls import render_turn
from tests.fakes.ordered_requests import written_to
from Tools.prompts.cells import ORDER_HEAD
from Tools.prompts.methods import SEED_TEXT

CONTEXT = {
    "sessionId": "session_1767312345678_ab12cd34e",
    "workspaceId": "default",
    "sessionDescription": "Filing notes",
    "sessionMemory": "",
    "toolContext": "The note is in the wrong folder",
    "primaryGoal": "Keep the vault tidy",
    "subgoal": "Move the note",
}
_REASONS = {200: "OK", 400: "Bad Request", 401: "Unauthorized", 404: "Not Found", 429: "Too Many Requests"}


class Answers:
    """What the fake model says, by the last message of a request."""

    def __init__(self) -> None:
        prompts = load_prompt_sets([TOOL_PROMPTS]).prompts
        self._known = {prompt.question: _answer_to(prompt, index) for index, prompt in enumerate(prompts)}
        move = {"context": CONTEXT, "path": "Inbox/Plan.md", "newPath": "Garden/Plan.md"}
        self._other = render_turn([ToolCall("vaultManager_moveNote", move)]).content

    def to(self, question: str, number: int) -> str:
        if question == SEED_TEXT:
            return f"{_chatter(number)} Please move the note Inbox/Plan {number}.md to Garden/Plan {number}.md."
        if ORDER_HEAD in question:
            return written_to(question, number)
        return self._known.get(question, self._other)


def _chatter(number: int) -> str:
    """A sentence that makes each request another one."""
    return " ".join(random.Random(number).choices("abcdefghijklmnopqrstuvwxyz", k=12)).title() + "."


def _answer_to(prompt: Prompt, index: int) -> str:
    arguments = dict(prompt.expected_call.arguments)
    if index % 3 == 2:
        del arguments["context"]
    return render_turn([ToolCall(prompt.expected_call.name, arguments)]).content


class FakeModelServer:
    """Serves from a thread of its own while the `with` block runs. `requests` are the decoded bodies, latest last."""

    def __init__(
        self,
        *,
        latency_s: float = 0.0,
        slots: int = 64,
        faults: Mapping[str, int] | None = None,
        replies: Sequence[str] = (),
        port: int = 0,
        retry_after: str | None = "0.05",
        keep_requests: int = 200,
    ) -> None:
        self.latency_s = latency_s
        self.slots = slots
        self.faults = dict(faults or {})
        self.retry_after = retry_after
        self.replies = deque(replies)  # said before anything else, one by one
        self.port = port
        self.count = 0
        self.most_at_once = 0
        self.requests: deque[dict] = deque(maxlen=keep_requests)
        self.headers: deque[str] = deque(maxlen=keep_requests)
        self.answers = Answers()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def __enter__(self) -> "FakeModelServer":
        ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self.serve(ready)), daemon=True)
        self._thread.start()
        ready.wait()
        return self

    def __exit__(self, *_: object) -> None:
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._finished.set)
            self._thread.join()

    async def serve(self, ready: threading.Event | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        self._finished = asyncio.Event()
        self._free = asyncio.Semaphore(self.slots)
        self._in_progress = 0
        self._connections: set[_Connection] = set()
        server = await self._loop.create_server(lambda: _Connection(self), "127.0.0.1", self.port, backlog=512)
        self.port = server.sockets[0].getsockname()[1]
        if ready:
            ready.set()
        else:
            print(self.url, flush=True)
        await self._finished.wait()
        server.close()
        for connection in list(self._connections):
            connection.transport.abort()

    async def answer(self, connection: "_Connection", head: str, body: bytes) -> None:
        if head.startswith("GET"):
            connection.reply(200, {"data": [{"id": "fake-model"}, {"id": "other-model"}]})
            return
        self.count += 1
        number = self.count
        request = json.loads(body)
        self.requests.append(request)
        self.headers.append(head)
        fault = next((kind for kind, every in self.faults.items() if number % every == 0), None)
        async with self._free:
            answer_at = self._loop.time() + self.latency_s
            self._in_progress += 1
            self.most_at_once = max(self.most_at_once, self._in_progress)
            await asyncio.sleep(answer_at - self._loop.time())
            self._in_progress -= 1
        if fault is None:
            connection.reply(200, self.completion(request, number))
        else:
            self._spoil(connection, fault)

    def completion(self, request: dict, number: int) -> dict:
        question = request["messages"][-1]["content"]
        content = self.replies.popleft() if self.replies else self.answers.to(question, number)
        choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": content}}
        usage = {"prompt_tokens": len(question) // 4, "completion_tokens": len(content) // 4}
        return {"id": f"fake-{number}", "object": "chat.completion", "choices": [choice], "usage": usage}

    def _spoil(self, connection: "_Connection", fault: str) -> None:
        if fault == "close":
            connection.transport.abort()
        elif fault == "garbage":
            connection.reply(200, "<html>this is no JSON</html>")
        elif fault == "empty":
            connection.reply(200, {"choices": [{"finish_reason": "stop", "message": {"content": ""}}], "usage": {}})
        elif fault == "context":
            connection.reply(400, {"error": {"message": "the request exceeds the available context size"}})
        elif fault != "never":
            busy = fault in ("429", "503") and self.retry_after is not None
            headers = f"Retry-After: {self.retry_after}\r\n" if busy else ""
            connection.reply(int(fault), {"error": {"message": f"made to fail with {fault}"}}, headers)


class _Connection(asyncio.Protocol):
    """One keep-alive connection: HTTP/1.1 with Content-Length, which is all that clients of this send."""

    def __init__(self, server: FakeModelServer) -> None:
        self._server = server
        self._received = b""
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self._server._connections.add(self)

    def connection_lost(self, _error: Exception | None) -> None:
        self._server._connections.discard(self)

    def data_received(self, data: bytes) -> None:
        self._received += data
        while (end := self._received.find(b"\r\n\r\n")) >= 0:
            head = self._received[:end].decode("latin-1")
            length = next(
                (int(line[15:]) for line in head.split("\r\n") if line.lower().startswith("content-length:")), 0
            )
            if len(self._received) < end + 4 + length:
                return
            body = self._received[end + 4 : end + 4 + length]
            self._received = self._received[end + 4 + length :]
            asyncio.ensure_future(self._server.answer(self, head, body))  # noqa: RUF006  # the loop keeps it alive

    def reply(self, status: int, payload: dict | str, headers: str = "") -> None:
        body = (payload if isinstance(payload, str) else json.dumps(payload)).encode()
        head = f"HTTP/1.1 {status} {_REASONS.get(status, 'Error')}\r\nContent-Type: application/json\r\n{headers}"
        self.transport.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--latency", type=float, default=0.1, help="seconds")
    parser.add_argument("--slots", type=int, default=64)
    parser.add_argument("--fault", action="append", default=[], metavar="KIND:N")
    args = parser.parse_args()
    faults = {kind: int(every) for kind, _, every in (fault.partition(":") for fault in args.fault)}
    server = FakeModelServer(latency_s=args.latency, slots=args.slots, faults=faults, port=args.port, keep_requests=0)
    asyncio.run(server.serve())


if __name__ == "__main__":
    main()
