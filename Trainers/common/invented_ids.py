"""The session id that an answer makes up, since nothing before it says one.

Self-play has no system prompt, so each answer has a session id of its own: some 22 random digits and letters. They are
most of the log-probability of a right answer (35 of 42 nats, mean of the right rows that the experiment's A4 trains,
SmolLM2-135M after SFT), and no label is about them. KTO's rewards are sums over all tokens of an answer.
"""

import re
from collections.abc import Iterator

_SESSION_ID = re.compile(r"\bsession_([0-9]{13}_[0-9a-z]{9})(?![0-9A-Za-z_])")
"""As the catalog's schema has it; an id of another form is a reason for a label, so it counts."""


def invented_ids(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """From where to where `text[start:end]` has the digits and letters of a session id, if it is the first in `text`.

    After another id it is that one's copy, or wrong, which is a reason for a label.
    """
    found = _SESSION_ID.search(text)
    if found and start <= found.start() < end:
        yield found.span(1)
