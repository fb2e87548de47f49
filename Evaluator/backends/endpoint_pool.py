"""When a request is made, where, and when it is made again: retries, back-off and giving up, for all workers together.

A backend makes one attempt and says how it failed; everything else is decided here.

- Busy (429, 503): costs the sample nothing; all workers leave that endpoint alone for Retry-After, or a back-off.
- Unreachable (refused, not found): costs nothing; the endpoint is set aside, then tried by one request at a time
  until it answers.
- Faulty (500, garbage, timeout, connection lost under way): counts against the sample's `max_retries`; three in a row
  set the endpoint aside as well.
- Fruitless (an empty answer, HTTP 400 where others are taken): counts against the sample alone.
"""

import logging
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import TypeVar

from Evaluator.model_client import EndpointLost, SampleFailed, Stopped

log = logging.getLogger(__name__)

_Answer = TypeVar("_Answer")

FIRST_BACKOFF_S = 0.25
LONGEST_BACKOFF_S = 8.0
SHORTEST_WAIT_S = 0.1
FAULTS_BEFORE_SET_ASIDE = 3


@dataclass(frozen=True)
class Patience:
    """How long endpoints are borne with, in seconds: the longest silence of one request, and the longest time without
    any success; and how often one sample is tried again after a fault."""

    timeout_s: float = 120.0
    max_retries: int = 3
    give_up_after_s: float = 120.0


class Busy(Exception):
    """The endpoint asks to wait: `retry_after_s` seconds, or None if it does not say."""

    def __init__(self, sentence: str, retry_after_s: float | None = None) -> None:
        super().__init__(sentence)
        self.retry_after_s = retry_after_s


def retry_after_s(header: str | None) -> float | None:
    """Seconds of a Retry-After header, which holds seconds or a date (RFC 9110, 10.2.3); None without one."""
    if header is None:
        return None
    try:
        return max(0.0, float(header))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(header).timestamp() - time.time())
    except (ValueError, TypeError):
        return None


class Unreachable(Exception):
    """The request did not reach the endpoint."""


class Faulty(Exception):
    """The endpoint took the request and gave no usable answer. `reason` is a stable code."""

    def __init__(self, reason: str, sentence: str) -> None:
        super().__init__(sentence)
        self.reason = reason


class Fruitless(Faulty):
    """The endpoint is well, and has nothing for this one request."""


class _Endpoint:
    def __init__(self, url: str) -> None:
        self.url = url
        self.outstanding = 0
        self.failures = 0  # episodes since the last success
        self.failed_at = 0.0
        self.resume_at = 0.0
        self.is_set_aside = False

    def takes_requests(self, now: float) -> bool:
        return self.resume_at <= now and (not self.is_set_aside or self.outstanding == 0)


class EndpointPool:
    """Shares requests among `urls` by outstanding requests, and decides about every failure."""

    def __init__(self, urls: Sequence[str], patience: Patience) -> None:
        self._endpoints = [_Endpoint(url) for url in urls]
        self._max_retries = patience.max_retries
        self._give_up_after_s = patience.give_up_after_s
        self._changed = threading.Condition()
        self._stopped = threading.Event()
        self._failing_since: float | None = None
        self._last_failure = ""
        self._num_calls = 0
        self._idle_since = 0.0
        self._jitter = random.Random()

    def call(self, attempt: Callable[[str], _Answer]) -> _Answer:
        """attempt(url) until it succeeds. Raises SampleFailed, EndpointLost, Stopped, or what else `attempt` raises."""
        with self._under_way():
            return self._call(attempt)

    def _call(self, attempt: Callable[[str], _Answer]) -> _Answer:
        faults = 0
        while True:
            endpoint = self._take()
            started = time.monotonic()
            try:
                answer = attempt(endpoint.url)
            except (Busy, Unreachable, Faulty) as failure:
                if isinstance(failure, Fruitless):
                    self._note_success(endpoint)
                else:
                    self._note_failure(endpoint, failure, started)
                if isinstance(failure, Faulty):
                    faults += 1
                    if faults > self._max_retries:
                        raise SampleFailed(failure.reason, f"{failure} ({faults} tries)") from failure
                    self._stopped.wait(self._backoff_s(faults))
            except BaseException:
                self._give_back(endpoint)
                raise
            else:
                self._note_success(endpoint)
                return answer

    def stop(self) -> None:
        self._stopped.set()
        with self._changed:
            self._changed.notify_all()

    @contextmanager
    def _under_way(self) -> Iterator[None]:
        """Count a call. Time in which nobody asks is no time without success: a teacher is asked now and then."""
        with self._changed:
            if not self._num_calls and self._failing_since is not None:
                self._failing_since += time.monotonic() - self._idle_since
            self._num_calls += 1
        try:
            yield
        finally:
            with self._changed:
                self._num_calls -= 1
                self._idle_since = time.monotonic()

    def _take(self) -> _Endpoint:
        """The endpoint with the fewest outstanding requests, waiting until there is one to take."""
        with self._changed:
            while True:
                if self._stopped.is_set():
                    raise Stopped
                now = time.monotonic()
                ready = [endpoint for endpoint in self._endpoints if endpoint.takes_requests(now)]
                if ready:
                    endpoint = min(ready, key=lambda one: one.outstanding)
                    endpoint.outstanding += 1
                    return endpoint
                self._check_patience(now)
                until_next = min(endpoint.resume_at for endpoint in self._endpoints) - now
                self._changed.wait(min(until_next, 1.0) if until_next > 0 else 1.0)

    def _give_back(self, endpoint: _Endpoint) -> None:
        with self._changed:
            endpoint.outstanding -= 1
            self._changed.notify()

    def _note_success(self, endpoint: _Endpoint) -> None:
        with self._changed:
            endpoint.outstanding -= 1
            endpoint.failures = 0
            self._failing_since = None
            if endpoint.is_set_aside:
                endpoint.is_set_aside = False
                self._changed.notify_all()
                log.info("%s answers again", endpoint.url)

    def _note_failure(self, endpoint: _Endpoint, failure: Exception, started: float) -> None:
        with self._changed:
            now = time.monotonic()
            endpoint.outstanding -= 1
            if self._failing_since is None:
                self._failing_since = now
            if started >= endpoint.failed_at:  # else the request failed together with one already counted
                endpoint.failures += 1
                endpoint.failed_at = now
            self._set_aside(endpoint, failure, now)
            self._changed.notify()
            self._last_failure = str(failure)
            self._check_patience(now)

    def _set_aside(self, endpoint: _Endpoint, failure: Exception, now: float) -> None:
        if isinstance(failure, Busy):
            asked_s = failure.retry_after_s
            wait_s = self._backoff_s(endpoint.failures) if asked_s is None else max(asked_s, SHORTEST_WAIT_S)
        elif isinstance(failure, Unreachable) or endpoint.failures >= FAULTS_BEFORE_SET_ASIDE:
            wait_s = self._backoff_s(endpoint.failures)
            if not endpoint.is_set_aside:
                endpoint.is_set_aside = True
                log.info("%s; trying again for up to %g s", failure, self._give_up_after_s)
        else:
            return
        endpoint.resume_at = max(endpoint.resume_at, now + wait_s)

    def _backoff_s(self, failures: int) -> float:
        """Exponential with full-range jitter of one half: 0.25, 0.5, 1, ... 8 s, times 0.5 to 1.5."""
        return min(FIRST_BACKOFF_S * 2 ** min(failures - 1, 10), LONGEST_BACKOFF_S) * self._jitter.uniform(0.5, 1.5)

    def _check_patience(self, now: float) -> None:
        if self._failing_since is not None and now - self._failing_since > self._give_up_after_s:
            raise EndpointLost(
                f"no success for {self._give_up_after_s:g} s (last: {self._last_failure}). "
                "Is the server up? Run the same command again to continue. See --model, --base-url and --give-up-after."
            )
