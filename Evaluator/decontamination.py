"""Does a request overlap a prompt of an evaluation set?

A model must not be trained on what it is measured with, nor on a near copy. Requests have 8 to 15 words, for which the
usual 8- and 13-grams are too long. Four signs, one is enough:

- the same words (case, punctuation and order do not count);
- the same skeleton: equal words, in any order, after names, paths, ids, numbers and quoted texts are masked and
  courtesies are left out, so that only the slots differ;
- containment: half of the shorter one's 5-grams of words, or more, stand in the other;
- edits: a fifth of the masked words, or less, has to be changed (Levenshtein distance, also after sorting).
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

NGRAM = 5
LEAST_CONTAINMENT = 0.5
LEAST_SIMILARITY = 0.8
LEAST_WORDS = 3
"""A skeleton of fewer words besides its slots is shared by unrelated requests ("Open X", "Delete X")."""

_SLOT = "\x00"
_MASKED = re.compile(
    r"\"[^\"]*\"|\u201c[^\u201d]{0,2000}\u201d|(?<!\w)'[^']+'(?!\w)"  # quoted texts
    r"|\b[a-z]+_\d{6,}\w*"  # ids
    r"|[^\s\"]{0,200}/[^\"\n]{1,60}?\.(?:md|png|jpe?g|webp)\b|\S{0,200}/\S+(?: [A-Z&\d][\w'&-]*)*"  # paths
    r"|\S{1,200}\.(?:md|png|jpe?g|webp)\b"
    r"|(?<=[\w,;:] )(?:[A-Z][\w'&-]*)(?:\s(?:[A-Z&][\w'&-]*|\d+))*"  # names inside a sentence
    r"|\b\d[\w.:-]*\b"  # numbers, dates
)
"""Repetitions have bounds where a text without spaces would be read to its end from every character."""
_COURTESIES = frozenset(
    re.findall(r"\w+", "please could can would you kindly just now hey hi thanks me for the a an my of to i want need")
)
_WORD = re.compile(rf"{_SLOT}|[^\W_]+(?:'[a-z]+)?")
Words = tuple[str, ...]


class Request:
    """A request as far as it is compared: its words, and its skeleton with neighbouring slots joined."""

    def __init__(self, text: str) -> None:
        self.text = text
        masked = [word for word in _WORD.findall(_MASKED.sub(_SLOT, text).lower()) if word not in _COURTESIES]
        self.skeleton: Words = tuple(w for i, w in enumerate(masked) if w != _SLOT or i == 0 or masked[i - 1] != _SLOT)

    @cached_property
    def words(self) -> Words:
        return tuple(_WORD.findall(self.text.lower()))

    @cached_property
    def sorted_words(self) -> Words:
        return tuple(sorted(self.words))

    @cached_property
    def sorted_skeleton(self) -> Words:
        return tuple(sorted(self.skeleton))

    @cached_property
    def skeleton_words(self) -> frozenset[str]:
        return frozenset(self.skeleton) - {_SLOT}

    @cached_property
    def num_words(self) -> int:
        """Words of the skeleton without its slots."""
        return sum(word != _SLOT for word in self.skeleton)

    @cached_property
    def ngrams(self) -> frozenset[Words]:
        return frozenset(self.words[i : i + NGRAM] for i in range(len(self.words) - NGRAM + 1))


@dataclass(frozen=True)
class Overlap:
    """Which evaluation prompt a request overlaps, and by which sign: words, skeleton, containment or edits."""

    prompt: str
    sign: str


class EvaluationPrompts:
    """The prompts to stay away from, indexed so that one look costs a fraction of a millisecond."""

    def __init__(self, questions: Iterable[str]) -> None:
        self._requests = [Request(question) for question in dict.fromkeys(questions)]
        self._lengths = [len(one.skeleton) for one in self._requests]
        self._by_words = {one.sorted_words: one for one in self._requests}
        self._by_skeleton = {one.sorted_skeleton: one for one in self._requests if one.num_words >= LEAST_WORDS}
        self._by_ngram: dict[Words, list[int]] = defaultdict(list)
        self._by_word: dict[str, list[int]] = defaultdict(list)
        for index, one in enumerate(self._requests):
            for ngram in one.ngrams:
                self._by_ngram[ngram].append(index)
            for word in one.skeleton_words:
                self._by_word[word].append(index)

    def overlap(self, text: str) -> Overlap | None:
        """The first overlap found, or None."""
        return self.overlap_of(Request(text))

    def overlap_of(self, request: Request) -> Overlap | None:
        """The same for a request whose words are known already."""
        if found := self._by_words.get(request.sorted_words):
            return Overlap(found.text, "words")
        if found := self._by_skeleton.get(request.sorted_skeleton):
            return Overlap(found.text, "skeleton")
        return self._contained(request) or self._edited(request)

    def _contained(self, request: Request) -> Overlap | None:
        known = self._by_ngram.keys() & request.ngrams
        shared = Counter(index for ngram in known for index in self._by_ngram[ngram])
        for index, count in shared.items():
            other = self._requests[index]
            if count >= LEAST_CONTAINMENT * min(len(request.ngrams), len(other.ngrams)):
                return Overlap(other.text, "containment")
        return None

    def _edited(self, request: Request) -> Overlap | None:
        """A request with so few other words that one of its rarest is in both."""
        if request.num_words < LEAST_WORDS:
            return None
        words, length = request.skeleton_words, len(request.skeleton)
        most_other = int((1 - LEAST_SIMILARITY) * length / LEAST_SIMILARITY)
        rarest = sorted(words, key=lambda word: (len(self._by_word.get(word, ())), word))[: most_other + 1]
        found = {index for word in rarest for index in self._by_word.get(word, ())}
        for index in sorted(index for index in found if abs(self._lengths[index] - length) <= most_other):
            other = self._requests[index]
            is_candidate = len(words - other.skeleton_words) <= most_other and other.num_words >= LEAST_WORDS
            if is_candidate and _similarity(request, other) >= LEAST_SIMILARITY:
                return Overlap(other.text, "edits")
        return None


def _similarity(one: Request, other: Request) -> float:
    """1 - Levenshtein distance over words / length of the longer one; of the sorted words if that is nearer."""
    longest = max(len(one.skeleton), len(other.skeleton))
    most = (1 - LEAST_SIMILARITY) * longest
    if abs(len(one.skeleton) - len(other.skeleton)) > most:
        return 0.0
    nearest = min(_distance(one.skeleton, other.skeleton), _distance(one.sorted_skeleton, other.sorted_skeleton))
    return 1 - nearest / longest


def _distance(one: Words, other: Words) -> int:
    row = list(range(len(other) + 1))
    for i, left in enumerate(one, start=1):
        previous, row[0] = row[0], i
        for j, right in enumerate(other, start=1):
            previous, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, previous + (left != right))
    return row[-1]
