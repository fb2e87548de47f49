"""Where the prompts of self-play come from: the model itself, templates, or a teacher model.

choose a method -> seed text or template -> written text -> clean_request() -> Prompt, or UnusablePrompt
"""

import argparse
import random
import re
from collections.abc import Mapping, Sequence
from typing import Any

from Evaluator.catalog import Catalog
from Evaluator.decontamination import EvaluationPrompts
from Evaluator.model_client import ModelClient, SamplingOptions
from Evaluator.records import Message, Prompt
from Evaluator.runs.attempts import UnusablePrompt, WrittenPrompt
from Evaluator.tool_calls import parse_text
from Evaluator.vault.state import Vault
from Tools.templates import Templates, prompt_id

SEED_TEXT = (
    "Generate a realistic user request for an Obsidian vault assistant. "
    "Make it specific, actionable, and varied in complexity."
)
TEACHER_TEXT = SEED_TEXT + " It comes from somebody whose vault is about {topic}. Answer with the request alone."
METHODS = ("self", "template", "teacher")

MIN_WORDS, MAX_WORDS = 3, 80


# -- text -> request ----------------------------------------------------------------------------------------------

_LABEL = re.compile(
    r"^[\s*_#>-]*(?:(?:(?:sure|certainly|of course|okay|ok|great)[,!.]?\s*)?here(?:'s| is| are)\b[^:\n]{0,60}"
    r"\b(?:one|examples?|requests?|prompts?|query|queries|questions?|tasks?)\b[^:\n]{0,60}"
    r"|(?:an? |the |your )?(?:realistic |example |sample )?(?:user )?(?:request|prompt|query|question|task)(?: ?\d+)?"
    r"|(?:an? |the )?user)"
    r"[\s*_]*:[\s*_]*",
    re.IGNORECASE,
)
_CHATTER = re.compile(r"^(?:sure|certainly|of course|okay|ok|great)[,!.]*(?:\s*\n|$)", re.IGNORECASE)
_LIST_MARK = re.compile(r"^\s*(?:[-*\u2022]|\d{1,2}[.)])\s+", re.MULTILINE)
_QUOTES = {'"': '"', "'": "'", "`": "`", "\u201c": "\u201d", "\u2018": "\u2019", "**": "**"}
_ABOUT_PROMPTS = re.compile(
    r"\b(?:user|realistic|sample|example)\s+requests?\b|\brequests? for an? (?:obsidian|vault)\b|\bvault assistant\b"
    r"|\b(?:generate|write|create|make|come up with)\s+(?:an?\s+|the\s+|some\s+|\d+\s+)?(?:\w+\s+){0,2}requests?\b"
    r"|\b(?:generate|write|come up with)\s+(?:\w+\s+){1,3}prompts?\s+(?:that|which|for|to|asking)\b|\bas an ai\b"
    r"|\bvaried in complexity\b|\bspecific and actionable\b",
    re.IGNORECASE,
)


_ANSWER = re.compile(
    r"^(?:sure|certainly|of course)\b[,!.]|^i(?:'m| am) (?:an? (?:ai|assistant|language)|your|here to|happy to|sorry)\b"
    r"|\bi can(?:not|'t)? (?:help|assist)\b|^(?:assistant|ai|user|human)\s*:",
    re.IGNORECASE | re.MULTILINE,
)


def clean_request(text: str) -> str:
    """The request in what a model wrote, without labels and quotes around it. Raises UnusablePrompt."""
    request = text.strip()
    turn = parse_text(request)
    if turn.calls or turn.findings:
        raise UnusablePrompt("prompt.tool_call", "a tool call instead of a request", text)
    request = _unwrapped(request)
    if not request:
        raise UnusablePrompt("prompt.empty", "nothing was written", text)
    if len(_LIST_MARK.findall(request)) > 1:
        raise UnusablePrompt("prompt.several", "a list instead of one request", text)
    if _ABOUT_PROMPTS.search(request):
        raise UnusablePrompt("prompt.about_prompts", "a text about requests instead of a request", text)
    if _ANSWER.search(request):
        raise UnusablePrompt("prompt.answer", "an answer or a dialogue instead of a request", text)
    words = len(request.split())
    if words < MIN_WORDS:
        raise UnusablePrompt("prompt.too_short", f"{words} words; a request has {MIN_WORDS} or more", text)
    if words > MAX_WORDS:
        raise UnusablePrompt("prompt.too_long", f"{words} words; a request has {MAX_WORDS} at most", text)
    return request


def _unwrapped(text: str) -> str:
    """Take labels, a list mark and quotes off, as often as they stand around each other."""
    before = None
    while text != before:
        before = text
        text = _CHATTER.sub("", text, count=1).strip()
        text = _LABEL.sub("", text, count=1).strip()
        if len(_LIST_MARK.findall(text)) == 1:
            text = _LIST_MARK.sub("", text, count=1) if _LIST_MARK.match(text) else text
        for opening, closing in _QUOTES.items():
            inner = text[len(opening) : -len(closing)]
            if len(text) > 2 * len(opening) and text == f"{opening}{inner}{closing}" and opening not in inner:
                text = inner.strip()
    return text


# -- the writer ---------------------------------------------------------------------------------------------------


class PromptWriter:
    """A prompt source: writes one prompt for each attempt, by a method drawn with the given weights."""

    def __init__(
        self,
        methods: Mapping[str, float],
        templates: Templates | None,
        *,
        vaults: Sequence[Vault],
        catalog: Catalog,
        avoided: EvaluationPrompts,
        writers: Mapping[str, tuple[str, ModelClient]],
        max_tokens: int,
        temperature: tuple[float, float],
    ) -> None:
        """`writers`: for the methods self and teacher, as far as used, the name of the model and its client.

        The methods template and teacher need `templates`, the teacher for its topics; templates are filled from one
        of the `vaults`. What overlaps one of the `avoided` prompts is unusable.
        """
        self._methods = methods
        self._templates = templates
        self._vaults = vaults
        self._catalog = catalog
        self._avoided = avoided
        self._writers = writers
        self._max_tokens = max_tokens
        self._temperature = temperature

    def prompt_for(self, slot: int, attempt: int, rng: random.Random) -> WrittenPrompt:
        """Write a prompt. Raises UnusablePrompt, and whatever the writing model's client raises."""
        written = self._write(rng)
        overlap = self._avoided.overlap(written.prompt.question)
        if overlap:
            why = f"it overlaps an evaluation prompt ({overlap.sign}): {overlap.prompt}"
            raise UnusablePrompt("prompt.evaluation", why, written.prompt.question)
        return written

    def _write(self, rng: random.Random) -> WrittenPrompt:
        method = rng.choices(list(self._methods), weights=list(self._methods.values()))[0]
        if method == "template":
            return WrittenPrompt(self._templates.write(rng, rng.choice(self._vaults), self._catalog), method)
        text = SEED_TEXT if method == "self" else TEACHER_TEXT.format(topic=rng.choice(self._templates.topics))
        options = SamplingOptions(
            max_tokens=self._max_tokens,
            temperature=round(rng.uniform(*self._temperature), 3),
            seed=rng.getrandbits(31),
        )
        name, client = self._writers[method]
        completion = client.complete([Message("user", text)], options)
        if completion.is_truncated:
            raise UnusablePrompt("prompt.truncated", "cut off at --prompt-max-tokens", completion.message.content)
        request = clean_request(completion.message.content or "")
        return WrittenPrompt(Prompt(prompt_id(request), request), method, name)


def parse_methods(text: str) -> dict[str, float]:
    """An argparse type: `self`, `self,template`, or with weights `self:3,template:1`."""
    methods: dict[str, float] = {}
    for part in text.split(","):
        name, _, weight = part.partition(":")
        if name not in METHODS or name in methods:
            raise argparse.ArgumentTypeError(f"{part!r} is none of {', '.join(METHODS)}, each once, with :WEIGHT")
        try:
            methods[name] = float(weight or 1)
        except ValueError:
            methods[name] = 0
        if not 0 < methods[name] < float("inf"):
            raise argparse.ArgumentTypeError(f"the weight in {part!r} is not a number above 0")
    return {name: methods[name] for name in METHODS if name in methods}  # the order they are drawn in


def describe_methods(methods: Mapping[str, float]) -> dict[str, Any]:
    """The methods with their shares, for the settings of a run."""
    total = sum(methods.values())
    return {name: round(weight / total, 4) for name, weight in methods.items()}
