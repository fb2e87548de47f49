"""Mixing: curated rows are their share of the text, whatever there is more of."""

import json

import pytest

from Evaluator.rows import rows_of
from tests.datasets import write_lines
from Tools.mix_datasets import main, mix, num_characters


def row(text, label=True, **more):
    turns = [{"role": "user", "content": "Do it."}, {"role": "assistant", "content": text}]
    return {"conversations": turns, "label": label, **more}


def read(*rows):
    return list(rows_of("row", [json.dumps(one).encode() for one in rows]))


def share_of(taken, right):
    sizes = [sum(map(num_characters, some)) for some in (taken, right)]
    return sizes[1] / sum(sizes)


PLAYED = read(*(row(f"played {at} " + "x" * (at % 7 * 20), at % 2 == 0) for at in range(200)))
CURATED = read(*(row(f"curated {at} " + "y" * (at % 5 * 30)) for at in range(400)))


@pytest.mark.parametrize("share", [0.1, 0.3, 0.6])
@pytest.mark.parametrize("num_curated", [20, 100, 400])
def test_curated_rows_have_at_least_their_share_and_little_more(share, num_curated):
    taken, right = mix(PLAYED, CURATED[:num_curated], share, 0)
    assert share <= share_of(taken, right) < share + 0.03
    assert len(taken) == 200 or len(right) == num_curated, "nothing is left out without need"
    labels = [one.label for one in taken]
    assert 0.3 < labels.count(True) / len(labels) < 0.7


def test_no_share_takes_no_curated_rows():
    assert mix(PLAYED, CURATED, 0.0, 0) == (PLAYED, [])


def test_what_is_drawn_depends_on_the_seed_and_changes_little_with_more_rows():
    of_part = mix(PLAYED[:100], CURATED, 0.3, 0)[1]
    of_all = mix(PLAYED, CURATED, 0.3, 0)[1]
    assert {one.where for one in of_part} <= {one.where for one in of_all}
    assert mix(PLAYED, CURATED, 0.3, 1)[1] != of_all == mix(PLAYED, CURATED, 0.3, 0)[1]


def test_rows_go_to_stdout_and_curated_ones_without_a_label_are_right(tmp_path, capsys):
    played = write_lines(tmp_path / "played.jsonl", [row("No.", False, metadata={"round": 1}), row("Yes.")])
    curated = write_lines(tmp_path / "curated.jsonl", [row("Right.", None)])
    assert main([played, "--curated", curated]) == 0
    captured = capsys.readouterr()
    rows = [json.loads(line) for line in captured.out.splitlines()]
    assert rows == [row("No.", False, metadata={"round": 1}), row("Yes."), row("Right.")]
    assert "2 rows and 1 curated ones, which are 3" in captured.err


def test_too_few_curated_rows_are_told(tmp_path, capsys):
    played = write_lines(tmp_path / "played.jsonl", [row(f"Number {at}.") for at in range(50)])
    curated = write_lines(tmp_path / "curated.jsonl", [row("Right.")])
    assert main([played, "--curated", curated]) == 0
    assert "49 of 50 rows are left out" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "status", "said"),
    [
        ([], 2, "there are no curated rows"),
        (["--curated", "gone.jsonl"], 2, "gone.jsonl"),
        (["--curated-share", "0"], 1, "no JSON"),
    ],
)
def test_what_is_wrong_is_told(tmp_path, capsys, flags, status, said):
    assert main([write_lines(tmp_path / "bad.jsonl", [row("One."), "{"]), *flags]) == status
    assert said in capsys.readouterr().err


def test_no_rows_are_a_warning(tmp_path, capsys):
    assert main([write_lines(tmp_path / "empty.jsonl", []), "--curated-share", "0"]) == 0
    captured = capsys.readouterr()
    assert captured.out == "" and "warning: there are no rows in" in captured.err
