"""What a teacher wrote is kept, whatever dies in between."""

import json
import threading

import pytest

from Evaluator.errors import UsageError
from Tools.prompts.prompts_file import Kept, OpenBatch, PromptsFile

BATCH = OpenBatch("msgbatch_1", "claude-a", {"call-0": ["o1", "o2"], "call-1": ["o3"]}, most_tokens=500)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "prompts.jsonl"


def lines(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_the_next_run_finds_texts_and_tokens(path):
    with PromptsFile(path) as kept:
        kept.add({"o1": "Open my note.", "o2": "Zürich\u2028 \n\ud800"}, "claude-a", (100, 20))
        kept.spend("claude-b", (5, 1))
        now = [kept.text(name) for name in ("o1", "o2", "o3")]
    with PromptsFile(path) as kept:
        assert [kept.text(name) for name in ("o1", "o2", "o3")] == now
        assert now == [Kept("Open my note.", "claude-a"), Kept("Zürich\u2028 \n?", "claude-a"), None]
        assert (kept.num_texts, kept.tokens, kept.most_tokens) == (2, (105, 21), 126)


@pytest.mark.parametrize("text", ['{"my": "settings"}', "a note", '{"order": 3}'])
def test_a_file_of_somebody_else_is_left_alone(path, text):
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UsageError, match="no file of a teacher's requests"):
        PromptsFile(path)
    assert path.read_text("utf-8") == text


@pytest.mark.parametrize("text", ["", '{"tok', '{"order": "o1", "te'])
def test_a_file_that_was_torn_in_its_first_line_begins_anew(path, text):
    path.write_text(text, encoding="utf-8")
    with PromptsFile(path) as kept:
        kept.add({"o1": "Open my note."}, "claude-a", (100, 20))
    assert len(lines(path)) == 2


def test_lines_explain_themselves(path):
    with PromptsFile(path) as kept:
        kept.add({"o1": "Open it."}, "claude-a", (100, 20))
        kept.add_batch(BATCH)
        kept.close_batch(BATCH.id, {"o3": "Close it."}, (7, 3))
    assert lines(path) == [
        {"tokens": [100, 20], "model": "claude-a"},
        {"order": "o1", "text": "Open it.", "model": "claude-a"},
        {"batch": "msgbatch_1", "model": "claude-a", "orders": BATCH.orders, "most_tokens": 500},
        {"order": "o3", "text": "Close it.", "model": "claude-a"},
        {"batch_done": "msgbatch_1", "tokens": [7, 3], "model": "claude-a"},
    ]


def test_a_cost_that_could_not_be_read_again_is_not_written(path):
    with PromptsFile(path) as kept:
        kept.add({"o1": "One."}, "m", (1, 1))
        with pytest.raises(ValueError):
            kept.add({"o2": "Two."}, "m", (-1, 1))
    with PromptsFile(path) as kept:
        assert (kept.num_texts, kept.tokens) == (1, (1, 1))


def test_a_torn_last_line_is_cut_off_and_writing_goes_on(path):
    with PromptsFile(path) as kept:
        kept.add({"o1": "One."}, "m", (1, 1))
    whole = path.read_bytes()
    for torn in (b'{"order": "o2", "te', b"{", b'{"order": "o2", "text": "Two.", "model": "m"}'):
        path.write_bytes(whole + torn)
        with PromptsFile(path) as kept:
            assert kept.text("o2") is None
            kept.add({"o3": "Three."}, "m", (1, 1))
        with PromptsFile(path) as kept:
            assert kept.text("o3") == Kept("Three.", "m") and kept.num_texts == 2


@pytest.mark.parametrize(
    "line",
    [
        "no json",
        "[]",
        "7",
        "null",
        "{}",
        '{"order": 7, "text": "x", "model": "m"}',
        '{"order": "o", "model": "m"}',
        '{"tokens": [1], "model": "m"}',
        '{"tokens": [1, -2], "model": "m"}',
        '{"batch": "b", "model": "m", "orders": [], "most_tokens": 1}',
        '{"batch": "b", "model": "m", "orders": {"c": 1}, "most_tokens": 1}',
        "\ufeff{}",
    ],
)
def test_a_damaged_file_is_one_sentence_with_its_line(path, line):
    path.write_text(f'{{"tokens": [1, 1], "model": "m"}}\n{line}\n', encoding="utf-8")
    with pytest.raises(UsageError, match=r"prompts\.jsonl is damaged in line 2"):
        PromptsFile(path)
    path.write_text("", encoding="utf-8")
    PromptsFile(path).close()  # it was let go of


def test_a_second_run_on_the_same_file_is_refused(path):
    with PromptsFile(path), pytest.raises(UsageError, match="another run"):
        PromptsFile(path)


def test_a_file_without_entries_does_not_stay(path):
    PromptsFile(path).close()
    assert not path.exists()


def test_an_open_batch_counts_with_what_it_may_cost_until_it_is_closed(path):
    with PromptsFile(path) as kept:
        kept.add_batch(BATCH)
    with PromptsFile(path) as kept:
        assert kept.open_batches() == [BATCH]
        assert (sum(kept.tokens), kept.most_tokens) == (0, 500)
        kept.close_batch(BATCH.id, {"o1": "One."}, (60, 40))
    with PromptsFile(path) as kept:
        assert not kept.open_batches()
        assert (kept.tokens, kept.most_tokens) == ((60, 40), 100)


def test_a_kill_while_a_batch_is_collected_counts_nothing_twice(path):
    with PromptsFile(path) as kept:
        kept.add_batch(BATCH)
        kept.close_batch(BATCH.id, {"o1": "One.", "o3": "Three."}, (60, 40))
    whole = path.read_bytes()
    for end in range(whole.index(b"\n") + 1, len(whole)):
        path.write_bytes(whole[:end])
        with PromptsFile(path) as kept:
            assert len(kept.open_batches()) == 1
            kept.close_batch(BATCH.id, {"o1": "One.", "o3": "Three."}, (60, 40))
        assert path.read_bytes() == whole


def test_many_threads_write_whole_lines(path):
    with PromptsFile(path) as kept:
        threads = [
            threading.Thread(target=lambda n=n: [kept.add({f"{n}-{i}": "x" * 50}, "m", (2, 1)) for i in range(50)])
            for n in range(16)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    with PromptsFile(path) as kept:
        assert (kept.num_texts, kept.tokens) == (800, (1600, 800))


def test_a_full_disk_leaves_no_half_line(path, monkeypatch):
    kept = PromptsFile(path)
    kept.add({"o1": "One."}, "m", (1, 1))
    whole = path.read_bytes()

    class Full:
        def __init__(self, file):
            self.file = file
            self.is_half_written = False

        def write(self, data):
            if self.is_half_written:
                raise OSError(28, "No space left on device")
            self.is_half_written = True
            return self.file.write(data[:5])

        def __getattr__(self, name):
            return getattr(self.file, name)

    monkeypatch.setattr(kept, "_file", Full(kept._file))
    with pytest.raises(OSError, match="No space left") as error:
        kept.add({"o2": "Two."}, "m", (1, 1))
    assert error.value.filename == str(path)
    assert path.read_bytes() == whole and kept.text("o2") is None
    kept.close()


def test_without_a_path_all_stays_in_memory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with PromptsFile(None) as kept:
        kept.add({"o1": "One."}, "m", (1, 1))
        assert kept.text("o1") == Kept("One.", "m")
    assert not list(tmp_path.iterdir())
