"""The formulas of the report against values worked out by hand or by other programs."""

import math
from collections import Counter

import pytest

from Tools.report import measures


def test_effective_number_counts_equally_common_kinds():
    assert measures.effective_number([5, 5, 5, 5]) == pytest.approx(4)
    assert measures.effective_number([7, 0]) == pytest.approx(1)
    assert measures.effective_number([1, 1, 2]) == pytest.approx(2**1.5)
    assert measures.effective_number([]) is None


def test_mutual_information_is_0_for_a_constant_and_1_for_a_mapping():
    same = {("a", "x"): 3, ("b", "y"): 5}
    assert measures.normalized_mutual_information(same) == pytest.approx(1)
    assert measures.normalized_mutual_information({("a", "x"): 3, ("b", "x"): 5}) == pytest.approx(0)
    mixed = {("a", "x"): 3, ("a", "y"): 1, ("b", "x"): 1, ("b", "y"): 3}
    information = math.log(2) - (-(0.75 * math.log(0.75) + 0.25 * math.log(0.25)))
    assert measures.normalized_mutual_information(mixed) == pytest.approx(information / math.log(2))
    assert measures.normalized_mutual_information({("a", "x"): 3}) is None


@pytest.mark.parametrize(
    ("higher", "lower", "expected"),
    [
        ([3, 4], [1, 2], 1.0),
        ([1, 2], [3, 4], 0.0),
        ([1, 2], [1, 2], 0.5),
        ([2, 5, 9], [1, 5], 4.5 / 6),
        ([1], [], None),
    ],
)
def test_auc_is_the_share_of_pairs_in_order(higher, lower, expected):
    assert measures.auc(Counter(higher), Counter(lower)) == expected


@pytest.mark.parametrize(
    ("values", "expected"), [([3], 3), ([1, 2], 1.5), ([1, 1, 9], 1), ([5, 1, 3, 2], 2.5), ([], None)]
)
def test_median_of_a_histogram(values, expected):
    assert measures.median(Counter(values)) == expected


def test_self_bleu_is_that_of_nltk():
    """The mean of nltk 3.9's sentence_bleu with SmoothingFunction().method1, each text against the four others."""
    texts = [
        "rename the folder admin to photo index",
        "rename the note plan to garden plan",
        "delete the old note in admin",
        "which notes are about the garden",
        "rename the folder admin to garden index now",
    ]
    assert measures.self_bleu([text.split() for text in texts]) == pytest.approx(0.2889590685462471, abs=1e-12)
    assert measures.self_bleu([["a", "b", "c", "d"]] * 3) == pytest.approx(1)
    assert measures.self_bleu([["a"], ["b"], []]) == 0
    assert measures.self_bleu([["a"]]) is None


def test_repeated_words_compress_and_are_not_distinct():
    assert measures.distinct_ngrams([["a", "b", "a", "b"], ["a", "b"]], 2) == 0.5
    assert measures.compression_ratio(["open the note"] * 50) > 10
    assert measures.compression_ratio([]) is None
