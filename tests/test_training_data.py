"""What the trainers make of files before any model is loaded: rows, order, weights, sizes, memory. Needs no torch."""

import io
import json
import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from Evaluator.errors import UsageError
from Evaluator.label_balance import kto_weights
from Evaluator.records import Message
from Trainers.common.answer_parts import PARTS, is_wrong_there
from Trainers.common.kto_batches import BatchSizes, Orderable, kto_order
from Trainers.common.memory import Load, memory_parts
from Trainers.common.model_sizes import MODEL_SIZES, shape_from_config, shape_of
from Trainers.common.prepared import num_characters
from Trainers.common.run_folder import RunFolder
from Trainers.common.sft import num_packed
from Trainers.common.training_data import PROMPTS_FOLDER, read_training_data, split_by_prompt


def row(question, answer="Done.", **more):
    turns = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return {"conversations": turns, **more}


def write_rows(path, rows):
    path.write_text("".join(json.dumps(one) + "\n" for one in rows), encoding="utf-8")
    return str(path)


# -- reading ------------------------------------------------------------------------------------------------------


def test_several_files_are_read_in_order_and_bad_lines_are_told_by_number(tmp_path, caplog):
    first = write_rows(tmp_path / "a.jsonl", [row("one", label=True), row("two", label=False)])
    second = tmp_path / "b.jsonl"
    second.write_text('{"conversations": []}\n\nnonsense\n' + json.dumps(row("three")) + "\n", encoding="utf-8")
    data = read_training_data([first, str(second)])
    assert [c.messages[0].content for c in data.conversations] == ["one", "two", "three"]
    assert [c.label for c in data.conversations] == [True, False, None]
    assert data.num_bad_lines == 2
    assert f"{second}:1" in caplog.text and f"{second}:3" in caplog.text
    assert len(data.sha256) == 2


def test_a_conversation_ends_with_its_last_answer_and_keeps_all_turns_before(tmp_path):
    turns = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Hi."},
        {"role": "user", "content": "Bye"},
    ]
    data = read_training_data([write_rows(tmp_path / "a.jsonl", [{"conversations": turns}])])
    assert [m.role for m in data.conversations[0].messages] == ["system", "user", "assistant"]


def test_rows_of_evaluation_prompts_are_left_out_unless_allowed(tmp_path):
    prompts = json.loads((PROMPTS_FOLDER / "tool_prompts.json").read_text(encoding="utf-8"))
    prompt = prompts["prompts"][0]
    guided = row("Reworded since", metadata={"source": "guided", "prompt_id": prompt["id"]})
    file = write_rows(tmp_path / "a.jsonl", [row(prompt["question"], label=True), guided, row("My own request")])
    data = read_training_data([file])
    assert [c.messages[0].content for c in data.conversations] == ["My own request"]
    assert data.left_out == {"answers an evaluation prompt": 2}
    assert len(read_training_data([file], allow_eval_prompts=True).conversations) == 3
    earlier = row(prompt["question"])["conversations"] + row("And then?")["conversations"]
    data = read_training_data([write_rows(tmp_path / "b.jsonl", [{"conversations": earlier}])])
    assert not data.conversations, "SFT trains all turns"


def test_rows_come_from_stdin(monkeypatch, caplog):
    lines = json.dumps(row("one", label=True)) + "\nnonsense\n"
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(lines.encode())))
    data = read_training_data(["-"])
    assert [one.where for one in data.conversations] == ["stdin:1"] and list(data.sha256) == ["-"]
    assert "stdin:2" in caplog.text


@pytest.mark.parametrize("metadata", [{"prompt_id": ["x"]}, {"prompt_id": {"a": 1}}, {"errors": 7}, 3])
def test_metadata_of_others_is_no_reason_to_end(metadata, tmp_path):
    file = write_rows(tmp_path / "a.jsonl", [row("My own request", label=True, metadata=metadata)])
    assert len(read_training_data([file]).conversations) == 1


_CALL = 'tool_call: f\narguments: {"a": 1}'


@pytest.mark.parametrize(
    ("said", "errors", "parts", "is_so"),
    [
        (_CALL, ["context.bad_format:sessionId"], ["session-ids"], True),
        (_CALL, ["context.bad_format:sessionId", "tool.unknown:f"], ["session-ids"], False),
        (_CALL, ["context.placeholder:subgoal"], ["session-ids"], False),
        (_CALL, ["context.placeholder:subgoal"], ["context-texts"], True),
        (_CALL, [], PARTS, False),
        ("I cannot.", ["parse.no_tool_call"], ["wrong-texts"], True),
        ("I cannot.", ["parse.no_tool_call"], ["session-ids"], False),
        ('tool_call: f\narguments: {"a', ["parse.truncated_json"], ["wrong-texts"], False),
    ],
)
def test_an_answer_is_wrong_in_a_masked_part_alone(said, errors, parts, is_so):
    assert is_wrong_there(Message("assistant", said), errors, parts) is is_so


def test_validation_takes_whole_prompts(tmp_path):
    rows = [row(f"request {number % 20}", f"answer {number}") for number in range(100)]
    data = read_training_data([write_rows(tmp_path / "a.jsonl", rows)])
    training, validation = split_by_prompt(data.conversations, 0.25, seed=0)
    assert len(validation) == 25 and len(training) == 75
    assert not {c.prompt_key for c in training} & {c.prompt_key for c in validation}
    assert split_by_prompt(data.conversations, 0.25, seed=0)[1] == validation
    assert split_by_prompt(data.conversations, 0.25, seed=1)[1] != validation


# -- the order of KTO ---------------------------------------------------------------------------------------------


def assert_rules(rows, order, sizes):
    assert len(set(order)) == len(order) and len(order) % sizes.rows_a_step == 0
    for start in range(0, len(order), sizes.rows):
        prompts = [rows[position].prompt for position in order[start : start + sizes.rows]]
        assert len(set(prompts)) == sizes.rows
    for start in range(0, len(order), sizes.rows_a_step):
        assert len({rows[position].label for position in order[start : start + sizes.rows_a_step]}) == 2


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 12), st.booleans(), st.integers(10, 900)), min_size=4, max_size=120),
    st.integers(2, 5),
    st.integers(1, 4),
    st.integers(0, 3),
)
def test_any_rows_are_ordered_by_the_rules_or_refused(drawn, batch, accumulation, seed):
    rows = [Orderable(str(prompt), label, length) for prompt, label, length in drawn]
    sizes = BatchSizes(batch, accumulation)
    try:
        order = kto_order(rows, sizes, seed)
    except UsageError:
        return
    assert_rules(rows, order, sizes)
    assert kto_order(rows, sizes, seed) == order


@pytest.mark.parametrize(("num_rows", "num_prompts", "share"), [(470, 47, 0.1), (2000, 2000, 0.3), (2000, 47, 0.5)])
def test_hardly_a_row_is_lost_and_hardly_a_token_is_padding(num_rows, num_prompts, share):
    rng = random.Random(0)
    rows = []
    for _ in range(num_rows):
        prompt = rng.randrange(num_prompts)
        rows.append(Orderable(str(prompt), rng.random() < share, 100 + prompt % 300 + rng.randrange(60)))
    sizes = BatchSizes(4, 4)
    order = kto_order(rows, sizes, seed=0)
    assert_rules(rows, order, sizes)
    assert len(rows) - len(order) < sizes.rows_a_step
    batches = [[rows[at].length for at in order[start : start + 4]] for start in range(0, len(order), 4)]
    assert sum(4 * max(lengths) for lengths in batches) < 1.05 * sum(map(sum, batches))


def test_a_class_too_rare_for_every_step_is_an_error_that_says_what_to_do():
    rows = [Orderable(str(number), number > 1, 100) for number in range(160)]
    with pytest.raises(UsageError, match="--gradient-accumulation-steps 21"):
        kto_order(rows, BatchSizes(4, 4), seed=0)
    assert_rules(rows, kto_order(rows, BatchSizes(4, 20), seed=0), BatchSizes(4, 20))


@given(st.integers(1, 10**6), st.integers(1, 10**6))
def test_weights_lie_where_the_paper_has_them(desirable, undesirable):
    w_d, w_u = kto_weights(desirable, undesirable)
    assert 1 <= w_d * desirable / (w_u * undesirable) <= 4 / 3
    assert min(w_d, w_u) == 1


@pytest.mark.parametrize("counts", [(0, 5), (5, 0)])
def test_one_class_only_is_an_error_that_says_what_to_do(counts):
    with pytest.raises(UsageError, match="generate answers from the current model"):
        kto_weights(*counts)


# -- sizes --------------------------------------------------------------------------------------------------------


def test_packing_fills_sequences_and_never_overfills():
    assert num_packed([50, 50, 50, 50], 100) == 2
    assert num_packed([60, 60, 60], 100) == 3
    assert num_packed([90, 70, 30, 10], 100) == 2
    rng = random.Random(0)
    lengths = [rng.randrange(20, 400) for _ in range(5000)]
    assert sum(lengths) / 2048 <= num_packed(lengths, 2048) < 1.01 * sum(lengths) / 2048 + 1


@pytest.mark.parametrize(
    ("size", "parameters"),
    [
        ("135m", 134_515_008),
        ("0.5b", 494_032_768),
        ("1.5b", 1_543_714_304),
        ("3b", 3_085_938_688),
        ("7b", 7_248_023_552),
        ("13b", 12_247_782_400),
    ],
)
def test_the_shapes_in_the_table_give_the_published_parameters(size, parameters):
    assert MODEL_SIZES[size].shape.parameters == parameters
    assert shape_of(MODEL_SIZES[size].name) == MODEL_SIZES[size].shape


def test_memory_grows_with_what_it_is_made_of():
    shape = MODEL_SIZES["7b"].shape

    def needed(**changes):
        load = {"rows": 1, "length": 2048, "lora_rank": 32, "is_nf4": True, "checkpointing": True, "is_kto": False}
        return sum(memory_parts(shape, Load(**{**load, **changes})).values())

    assert needed() < 24e9 < needed(rows=4, checkpointing=False)
    assert needed(is_nf4=False) > needed() + 10e9
    assert needed(length=4096) > needed()
    assert needed(is_kto=True, has_reference_adapter=True) > needed()
    assert needed(rows=4, is_packed=True) > needed(rows=4)
    assert needed(has_triton=False) > needed() + 1e9
    lora = shape.lora_parameters(32)
    assert needed(processes=2) == needed() + 4 * lora, "the buckets of gradients"
    parts = memory_parts(shape, Load(1, 2048, 32, True, True, False))
    assert parts["LoRA and its gradients"] == 10 * lora, "with its gradient in float32, and a copy in bf16"
    assert memory_parts(shape, Load(1, 2048, 32, True, True, False))["weights"] == pytest.approx(4.14e9, rel=0.01)


# -- the folder of a run ------------------------------------------------------------------------------------------


def a_run(folder, *, is_complete, seed=0):
    record = {"method": "sft", "settings": {"seed": seed}, "data": {"sha256": {"a": "x"}}, "is_complete": is_complete}
    folder.write_record(record)


def test_the_same_command_again_does_nothing_when_the_run_is_complete(tmp_path):
    folder = RunFolder(tmp_path / "run")
    assert not folder.is_complete("sft", {"seed": 0}, {"a": "x"}, resume=False, overwrite=False)
    a_run(folder, is_complete=True)
    assert folder.is_complete("sft", {"seed": 0}, {"b": "x"}, resume=False, overwrite=False)


@pytest.mark.parametrize(("settings_", "data"), [({"seed": 1}, {"a": "x"}), ({"seed": 0}, {"a": "y"})])
def test_another_run_is_never_written_over(settings_, data, tmp_path):
    folder = RunFolder(tmp_path / "run")
    a_run(folder, is_complete=True)
    with pytest.raises(UsageError, match="other settings"):
        folder.is_complete("sft", settings_, data, resume=True, overwrite=False)
    assert not folder.is_complete("sft", settings_, data, resume=False, overwrite=True)
    assert folder.record() is not None
    folder.clear()
    assert folder.record() is None


def test_the_run_of_another_trainer_or_of_nobody_is_not_gone_on_with(tmp_path):
    folder = RunFolder(tmp_path / "run")
    a_run(folder, is_complete=True)
    with pytest.raises(UsageError, match="holds a run of SFT"):
        folder.is_complete("kto", {"seed": 0}, {"a": "x"}, resume=True, overwrite=False)
    (folder.checkpoints / "checkpoint-9").mkdir(parents=True)
    (folder.checkpoints / "checkpoint-9" / "trainer_state.json").write_text("{}", encoding="utf-8")
    folder.record_path.unlink()
    with pytest.raises(UsageError, match="says where they are from"):
        folder.is_complete("sft", {"seed": 0}, {"a": "x"}, resume=True, overwrite=False)
    assert not folder.is_complete("sft", {"seed": 0}, {"a": "x"}, resume=False, overwrite=True)


def test_a_run_that_was_cut_short_needs_resume(tmp_path):
    folder = RunFolder(tmp_path / "run")
    a_run(folder, is_complete=False)
    with pytest.raises(UsageError, match="--resume"):
        folder.is_complete("sft", {"seed": 0}, {"a": "x"}, resume=False, overwrite=False)
    assert not folder.is_complete("sft", {"seed": 0}, {"a": "x"}, resume=True, overwrite=False)


def test_two_runs_do_not_work_in_one_folder(tmp_path):
    folder = RunFolder(tmp_path / "run")
    with folder.held(), pytest.raises(UsageError, match="another run is at work"), RunFolder(folder.path).held():
        pass
    assert not folder.path.exists(), "neither has left anything"
    with folder.held():
        a_run(folder, is_complete=True)
    assert folder.record()["is_complete"]


def test_a_refused_run_leaves_a_folder_as_it_was(tmp_path):
    folder = RunFolder(tmp_path)
    with pytest.raises(UsageError), folder.held():
        raise UsageError("the settings are others")
    assert list(tmp_path.iterdir()) == [], "nothing new, and the folder is still there"
    (tmp_path / "mine.txt").write_text("x")
    with pytest.raises(UsageError), folder.held():
        raise UsageError("the folder is somebody's")
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_how_often_a_run_writes_may_change_while_it_goes_on(tmp_path):
    folder = RunFolder(tmp_path / "run")
    often = {"save_steps": 50, "eval_steps": 50, "logging_steps": 1, "report_to": []}
    record = {"method": "sft", "settings": {"seed": 0, **often}, "data": {"sha256": {"a": "x"}}, "is_complete": False}
    folder.write_record(record)
    other = {"seed": 0, "save_steps": 5, "eval_steps": 5, "logging_steps": 2, "report_to": ["wandb"]}
    assert not folder.is_complete("sft", other, {"a": "x"}, resume=True, overwrite=False)


def test_a_checkpoint_that_was_not_written_to_its_end_is_passed_over(tmp_path):
    folder = RunFolder(tmp_path)
    for step, state in ((9, "{}"), (10, '{"global_st'), (11, None)):
        checkpoint = folder.checkpoints / f"checkpoint-{step}"
        checkpoint.mkdir(parents=True)
        if state is not None:
            (checkpoint / "trainer_state.json").write_text(state, encoding="utf-8")
    assert folder.last_checkpoint() == folder.checkpoints / "checkpoint-9"


@pytest.mark.parametrize("key", ["num_experts", "num_local_experts"])
def test_a_mixture_of_experts_is_not_calculated_as_if_it_were_one_model(key):
    config = {"num_attention_heads": 4, "hidden_size": 64, "num_hidden_layers": 2, "intermediate_size": 9}
    config |= {"vocab_size": 99}
    assert shape_from_config(config) and shape_from_config(config | {key: 8}) is None


def test_native_calls_have_a_length_where_it_is_estimated():
    call = {"id": None, "type": "function", "function": {"name": "f", "arguments": "{}"}}
    native = Message("assistant", None, [call])
    assert num_characters(native) == len(str(call)) and num_characters(Message("user", "Hello")) == 5


def test_labels_are_counted(tmp_path):
    file = write_rows(tmp_path / "a.jsonl", [row("a", label=True), row("b", label=False), row("c")])
    assert read_training_data([file]).labels() == Counter({True: 1, False: 1, None: 1})
