"""Threads that fill slots with samples.

Workers run freely: each takes the next slot, gets a prompt and asks the model. One more thread judges the answers and
writes them down, so that the next request is sent before the last answer is judged. At most a few answers a worker
wait for it, so memory does not grow with the number of samples.
"""

import logging
import queue
import threading
import time
from collections.abc import Callable, Iterator

from Evaluator.errors import STOPPED_EARLY, ReportedError
from Evaluator.model_client import Stopped
from Evaluator.runs.attempts import GIVEN_UP, Answered, Generation
from Evaluator.runs.progress import Progress
from Evaluator.runs.signals import Signals
from Evaluator.runs.sinks import Sink

log = logging.getLogger(__name__)

GRACE_S = 5.0
"""How long requests under way may still finish after a signal, in seconds."""
WAITING_ANSWERS = 4
"""Answers a worker that may wait to be judged; then workers wait."""
HOPELESS_REJECTS = 200
"""So many rejects in a row (or 20 for each worker, if that is more) end a run: more of the same would follow."""


class NothingUsable(ReportedError):
    """Only rejects come: more of the same would not help."""

    status = STOPPED_EARLY


class Workers:
    """Threads that fill slots until all are filled, stop() is called, or one of them fails."""

    def __init__(
        self,
        generation: Generation,
        slots: Iterator[tuple[int, int]],
        sink: Sink,
        concurrency: int,
        stop_clients: Callable[[], None],
    ) -> None:
        self.failure: BaseException | None = None
        self._generation = generation
        self._slots = slots
        self._sink = sink
        self._stop_clients = stop_clients
        self._has_failed_to_write = False
        self._rejects_in_a_row = 0
        self._hopeless_after = max(HOPELESS_REJECTS, 20 * concurrency)
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._answers: queue.Queue[Answered | None] = queue.Queue(WAITING_ANSWERS * concurrency)
        self._askers_left = concurrency
        self._threads = [threading.Thread(target=self._work, daemon=True) for _ in range(concurrency)]
        self._threads.append(threading.Thread(target=self._judge, daemon=True))

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def are_done(self, within_s: float) -> bool:
        """Wait for the end of all workers, `within_s` seconds at most."""
        deadline = time.monotonic() + within_s
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    def stop(self) -> None:
        """No new work: what waits for an endpoint gives up, what is under way may finish."""
        self._stopping.set()
        self._stop_clients()

    def _work(self) -> None:
        try:
            while not self._stopping.is_set():
                with self._lock:
                    place = next(self._slots, None)
                if place is None:
                    break
                self._fill(*place)
        except Stopped:
            pass
        except BaseException as error:
            self._fail(error)
        with self._lock:
            self._askers_left -= 1
            is_last = not self._askers_left
        if is_last:
            self._answers.put(None)

    def _fill(self, slot: int, attempt: int) -> None:
        """Attempts for one slot until one gives an answer, or the slot is given up."""
        while not self._stopping.is_set():
            got = self._generation.ask(slot, attempt)
            if isinstance(got, Answered):
                self._answers.put(got)
                self._rejects_in_a_row = 0
                return
            if self._sink.add_reject(got):
                return
            with self._lock:
                self._rejects_in_a_row += got.reason != GIVEN_UP
                rejects = self._rejects_in_a_row
            if rejects >= self._hopeless_after:
                raise NothingUsable(
                    f"{rejects} attempts in a row gave no sample, the last for {got.reason} ({got.sentence}). "
                    "The rejects file has their texts; run the same command again to continue"
                )
            attempt += 1

    def _judge(self) -> None:
        """Judge the answers as they come until the last worker has ended; after a failure they are passed over."""
        while (answered := self._answers.get()) is not None:
            if self._has_failed_to_write:
                continue
            try:
                self._sink.add_sample(self._generation.judging.judge(answered))
            except BaseException as error:
                self._has_failed_to_write = True
                self._fail(error)

    def _fail(self, error: BaseException) -> None:
        with self._lock:
            self.failure = self.failure or error
        self.stop()


def work_until_done(workers: Workers, signals: Signals, progress: Progress) -> None:
    """Wait for the end of started workers; after a signal or a failure for GRACE_S at most.

    A second signal ends that too.
    """
    while not workers.are_done(within_s=0.2) and not signals.received and not workers.failure:
        progress.update()
    if not workers.are_done(within_s=0):
        log.info("stopping: up to %g s for the requests under way", GRACE_S)
        workers.stop()
        deadline = time.monotonic() + GRACE_S
        while not workers.are_done(within_s=0.1) and time.monotonic() < deadline and len(signals.received) < 2:
            pass
    progress.update()
