"""Which requests say the same: found as they come, and all at once."""

import random
import time

import pytest

from Evaluator.decontamination import Request
from tests.datasets import WORDS
from Tools.duplicates import SeenRequests, Twin, bigrams, clusters, folded, jaccard, signature

REQUEST = "Rename the folder Admin to Photo Index, please, and keep all of the notes that are in it where they are"


def seen(*texts):
    requests = SeenRequests()
    for text in texts:
        requests.add(Request(text))
    return requests


def test_case_and_space_do_not_tell_requests_apart():
    assert folded("  Open\tthe NOTE \n") == "open the note"
    assert seen("Open the note", "x").twin(" open  THE note") == Twin("exact", "Open the note")


def test_a_near_copy_is_found_with_the_earlier_text():
    requests = seen("Delete the old garden notes from last year", REQUEST)
    assert requests.twin(REQUEST.replace("Photo Index", "Photo Album")) == Twin("near", REQUEST)
    assert requests.twin(REQUEST.replace(",", "")) == Twin("near", REQUEST)
    assert requests.twin("Rename the folder Admin, it is a bad name") is None
    assert len(requests) == 2


def test_short_texts_are_the_same_or_not():
    requests = seen("Open it", "Stop")
    assert requests.twin("open it") == Twin("exact", "Open it")
    assert requests.twin("Open that") is None
    assert signature("Open it") == b""
    assert jaccard(b"", b"") == 0


def test_skeletons_do_not_count_names():
    requests = seen("Rename the folder Admin to Photos", "Rename the folder Garden to Beds", "Delete the folder Admin")
    assert requests.num_skeletons == 2


def test_a_sentence_wears_out_whatever_the_names():
    requests = seen(*(f"Delete the note Garden/Plan {number}.md" for number in range(4)))
    fifth, sixth = (Request(f"Delete the note Inbox/Idea {number}.md") for number in range(2))
    assert not requests.is_worn(fifth)
    requests.add(fifth)
    assert requests.is_worn(sixth)
    for number in range(600):
        requests.add(Request(f"word{number} is asked for, see word{number + 1} and word{number + 2}"))
    assert not requests.is_worn(sixth), "one percent of all is no wear"


def test_twins_are_found_after_the_tables_have_grown():
    rng = random.Random(0)
    texts = [" ".join(rng.choices(WORDS, k=12)) for _ in range(1500)]
    requests = seen(*texts)
    changed = [f"{text} now" for text in texts]
    assert sum(requests.twin(text) == Twin("near", old) for text, old in zip(changed, texts, strict=True)) >= 1490


@pytest.mark.parametrize("share", [0.3, 0.5, 0.7, 0.9])
def test_the_estimate_is_near_the_jaccard_similarity(share):
    rng, errors = random.Random(1), []
    for _ in range(100):
        one = [f"w{rng.randrange(10**6)}" for _ in range(41)]
        kept = round(40 * 2 * share / (1 + share))
        other = one[: kept + 1] + [f"v{rng.randrange(10**6)}" for _ in range(40 - kept)]
        first, second = " ".join(one), " ".join(other)
        true = len({*bigrams(first)} & {*bigrams(second)}) / len({*bigrams(first)} | {*bigrams(second)})
        errors.append(jaccard(signature(first), signature(second)) - true)
    assert abs(sum(errors) / 100) < 0.015
    assert max(map(abs, errors)) < 0.15


def test_clusters_do_not_depend_on_the_order():
    rng = random.Random(2)
    texts = [" ".join(rng.choices(WORDS, k=14)) for _ in range(200)]
    texts += [f"{text} again" for text in texts[:60]] + ["Hi", "Ho", *texts[:5]]
    signatures = [signature(text) for text in texts]
    numbers = clusters(signatures)
    assert len(set(numbers)) == 202
    for _ in range(3):
        order = rng.sample(range(len(texts)), len(texts))
        shuffled = dict(zip(order, clusters([signatures[at] for at in order]), strict=True))
        assert all(
            (numbers[a] == numbers[b]) == (shuffled[a] == shuffled[b]) for a in range(0, 267, 7) for b in range(267)
        )


@pytest.mark.slow
def test_a_look_up_does_not_get_slow_among_100_000():
    rng = random.Random(3)
    words = [f"word{n}" for n in range(3000)]
    texts = [" ".join(rng.choices(words, k=rng.randint(8, 20))) for _ in range(105_000)]
    requests = seen(*texts[:100_000])
    start = time.perf_counter()
    for text in texts[100_000:]:
        requests.twin(text)
        requests.add(Request(text))
    assert (time.perf_counter() - start) / 5000 < 300e-6, "some 60 microseconds on a quiet machine"
