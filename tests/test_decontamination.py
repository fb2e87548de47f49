"""Requests that overlap an evaluation prompt are found, and others are left alone."""

import json
import random
import re
import time
from collections import Counter

import pytest

from Evaluator.decontamination import EvaluationPrompts
from Evaluator.prompt_sets import EVALUATION_SETS, load_prompt_sets
from Evaluator.vault.loading import load_fixture
from tests.vaults import CATALOG, any_request
from Tools.prompts.templates import DEFAULT_TEMPLATES, TRAINING_VAULTS, load_templates
from Tools.selfplay_generator_v2 import main as v2

QUESTIONS = [prompt.question for prompt in load_prompt_sets(EVALUATION_SETS).prompts]
AVOIDED = EvaluationPrompts(QUESTIONS)
WORDS = ("Harbour", "Quince", "Lantern", "Tuba", "Meadow", "Osprey")
SYNONYMS = {"create": "make", "show": "display", "delete": "remove", "add": "append", "list": "show", "change": "alter"}


def other_slots(text: str, rng: random.Random) -> str:
    text = re.sub(
        r"[^\s\"]*/[^\"\n]{1,40}?\.(?:md|png|jpg)\b", lambda _: "/".join(rng.sample(WORDS, 2)) + " plan.md", text
    )
    text = re.sub(r"[\w-]+/[\w-]+(?![\w/. ]*\.md)", lambda _: "/".join(rng.sample(WORDS, 2)), text)
    text = re.sub(r'"[^"]*"', lambda _: '"' + " ".join(rng.sample(WORDS, 3)) + '"', text)
    text = re.sub(r"\b([a-z]+)_\d{6,}\w*", r"\1_1799999999999_zzzzzzzzz", text)
    return re.sub(r"\b\d+\b", lambda _: str(rng.randint(2, 99)), text)


def reordered(text: str, rng: random.Random) -> str:
    parts = re.split(r"(?<=[.!?,]) ", text)
    rng.shuffle(parts)
    return " ".join(parts)


def reworded(text: str, rng: random.Random) -> str:
    words = text.split()
    for index, word in enumerate(words):
        if word.lower() in SYNONYMS:
            words[index] = SYNONYMS[word.lower()]
            break
    return f"{rng.choice(['Please ', 'Hey, could you ', ''])}{' '.join(words)}{rng.choice([' Thanks!', '', ' please'])}"


LEAKS = {
    "verbatim": lambda text, rng: text,
    "upper case": lambda text, rng: text.upper(),
    "other slots": other_slots,
    "reordered": reordered,
    "reworded": reworded,
}


@pytest.mark.parametrize("kind", LEAKS)
def test_planted_leaks_are_caught(kind):
    leaks = [LEAKS[kind](text, random.Random(text)) for text in QUESTIONS]
    changed = [leak for leak, text in zip(leaks, QUESTIONS, strict=True) if leak != text or kind == "verbatim"]
    caught = Counter(bool(AVOIDED.overlap(leak)) for leak in changed)
    assert caught.total() >= 150
    assert caught[True] / caught.total() >= 0.95


def test_unrelated_requests_are_left_alone():
    templates = load_templates(DEFAULT_TEMPLATES, CATALOG)
    vaults = [load_fixture(name) for name in TRAINING_VAULTS]
    alarms = Counter(
        bool(AVOIDED.overlap(any_request(templates, random.Random(index), vaults[index % 2]).question))
        for index in range(1500)
    )
    assert alarms[True] / alarms.total() <= 0.01


def test_v2_rejects_what_overlaps_and_says_so(tmp_path):
    leak = QUESTIONS[0]
    (tmp_path / "r.jsonl").write_text(
        json.dumps({"content": leak, "contains": "Generate a realistic"}) + '\n{"content": "No."}\n'
    )
    flags = ["--model", f"scripted:{tmp_path / 'r.jsonl'}", "--prompt-method", "free", "--no-distinct", "--output"]
    assert v2([*flags, str(tmp_path / "a.jsonl")]) == 3
    reject = json.loads((tmp_path / "a.rejects.jsonl").read_text().splitlines()[0])
    assert reject["reason"] == "prompt.evaluation" and reject["text"] == leak
    assert v2([*flags, str(tmp_path / "b.jsonl"), "--avoid-prompt-set"]) == 0


@pytest.mark.parametrize("text", ["a", "\u6f22", "\u201ca", "'a", "a_"])
def test_a_long_text_without_spaces_is_no_long_work(text):
    start = time.perf_counter()
    assert AVOIDED.overlap(text * 20_000) is None
    assert time.perf_counter() - start < 3  # 8 to 45 s with a look to the end from every character
