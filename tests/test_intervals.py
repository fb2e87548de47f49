"""Tests of paired differences and of several hypotheses, by hand."""

import pytest

from Evaluator.intervals import holm, mcnemar_p, sign_flip_p


@pytest.mark.parametrize(("gained", "lost"), [(0, 0), (1, 0), (5, 1), (32, 15), (120, 60)])
def test_the_randomisation_test_is_mcnemars_where_differences_are_of_one(gained, lost):
    assert sign_flip_p([1] * gained + [-1] * lost + [0] * 7) == pytest.approx(mcnemar_p(gained, lost), rel=1e-12)


def test_the_randomisation_test_weighs_how_much_each_prompt_gained():
    # 3 and -1: of the sums 4, 2, -2, -4 all are as far from 0 as 2
    assert sign_flip_p([3, -1]) == 1.0
    # 3, 3, -1: of the 8 sums 7, 5, 1, -1, 1, -1, -5, -7 four are as far as 5
    assert sign_flip_p([3, 3, -1]) == 0.5
    assert sign_flip_p([3, 3, 3, 3]) == 2 / 16
    assert sign_flip_p([]) == 1.0


def test_holm_multiplies_by_what_is_left_and_never_falls():
    # 0.01 x 4; 0.015 x 3 = 0.045; 0.02 x 2 = 0.04, not below 0.045; 0.5 x 1
    assert holm([0.02, 0.01, 0.5, 0.015]) == pytest.approx([0.045, 0.04, 0.5, 0.045])
    assert holm([0.9, 0.6]) == [1.0, 1.0]
