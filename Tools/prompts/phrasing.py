"""How a request is said: who says it, and in what manner, drawn apart from what is wanted.

Personas and manners are data (phrasings.json). A manner has an instruction for a model that words a request, and
frames for a template's own words: `{request}` is the template's text, `{action}` the same as a clause without its
full stop ("move the note"), `{line}` a sentence of the persona, `{first}` and `{second}` are two requests.
"""

import hashlib
import json
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from Tools.prompts.slots import SLOT

PHRASINGS = Path(__file__).parent / "phrasings.json"
STEPS, TYPO = "steps", "typo"
"""The manner that asks for two things one after the other, and the one with a typing mistake."""

_VERBS = frozenset(
    re.findall(
        r"\w+",
        "add append archive ask book bring call change check clear close copy create cut delete disable drop "
        "duplicate email empty enable erase execute export fetch find generate get give go hand insert list "
        "load look make move open order overwrite paste post prepend print publish put read remove rename "
        "replace restore run save search send set show start store switch take tell toggle translate turn "
        "update upload use wipe write ",
    )
)
_SENTENCE_END = re.compile(r"[.?!:]")


@dataclass(frozen=True)
class Persona:
    """Somebody who asks: "a beekeeper who logs every hive", with things that this person may say beside a request."""

    who: str
    lines: Sequence[str]


@dataclass(frozen=True)
class Phrasing:
    """A manner of asking. `weight` is how often it comes up beside the others."""

    name: str
    instruction: str
    frames: Sequence[str]
    weight: float

    def frame_for(self, text: str, rng: random.Random) -> str:
        """A frame into which a template's text fits."""
        fitting = [frame for frame in self.frames if "{action}" not in frame or is_action(text)]
        return rng.choice(fitting)


@dataclass(frozen=True)
class Manners:
    """All personas and manners of asking; `sha256` is that of their file."""

    personas: Sequence[Persona]
    phrasings: Sequence[Phrasing]
    sha256: str


def load_manners() -> Manners:
    raw = PHRASINGS.read_bytes()
    data = json.loads(raw)
    return Manners(
        personas=[Persona(one["who"], one["lines"]) for one in data["personas"]],
        phrasings=[Phrasing(name, **one) for name, one in data["phrasings"].items()],
        sha256=hashlib.sha256(raw).hexdigest(),
    )


def worded(text: str, phrasing: Phrasing, persona: Persona, rng: random.Random, *, kept: str = "") -> str:
    """A template's text, slots unfilled, in a manner of asking; a word that stands in `kept` has no typing mistake."""
    if phrasing.name == TYPO:
        text = with_typo(text, kept, rng)
    return framed(phrasing.frame_for(text, rng), {"request": text, "action": _clause(text)}, persona, rng)


def framed(frame: str, parts: Mapping[str, str], persona: Persona, rng: random.Random) -> str:
    """A frame with its parts put in. A text that ends without a full stop gets one inside a frame."""
    values = {name: part if part[-1:] in ".?!" or name == "action" else f"{part}." for name, part in parts.items()}
    if frame == "{request}":
        return parts["request"]
    values["line"] = rng.choice(persona.lines)
    return SLOT.sub(lambda slot: values.get(slot.group(1), slot.group()), frame)


def is_action(text: str) -> bool:
    """Whether a template's text is one imperative sentence: "Move {note} to {folder}."."""
    bare = SLOT.sub("x", text)
    return bare.split(" ", 1)[0].lower() in _VERBS and bare.endswith(".") and not _SENTENCE_END.search(bare[:-1])


def _clause(text: str) -> str:
    return text[:1].lower() + text[1:].removesuffix(".")


_TAKEN_AS_IT_IS = re.compile(r'\{\w+\}|"[^"]*"')


def with_typo(text: str, kept: str, rng: random.Random) -> str:
    """The text with one slip of the finger in an ordinary word: not in a slot, a quoted text, or one of `kept`."""
    spans = [match.span() for match in _TAKEN_AS_IT_IS.finditer(text)]
    words = [
        match
        for match in re.finditer(r"(?<![\w/.-])[a-z]{4,}(?![\w/.-]\w)", text)
        if match.group() not in kept and not any(start < match.end() and match.start() < end for start, end in spans)
    ]
    if not words:
        return text
    match = rng.choice(words)
    return text[: match.start()] + _slip(match.group(), rng) + text[match.end() :]


def _slip(word: str, rng: random.Random) -> str:
    """Two letters swapped, one left out, or one doubled, inside the word."""
    at = rng.randrange(1, len(word) - 1)
    kinds = [word[:at] + word[at + 1 :], word[:at] + word[at] + word[at:]]
    if word[at] != word[at + 1]:
        kinds.append(word[:at] + word[at + 1] + word[at] + word[at + 2 :])
    return rng.choice(kinds)
