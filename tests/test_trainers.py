"""SFT and KTO on tiny models: what is trained, that it goes on exactly, and what the commands say. Needs torch."""

import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

for package in ("torch", "trl", "peft", "datasets", "bitsandbytes"):
    pytest.importorskip(package, reason=f'training needs {package}: pip install torch, then -e ".[train]"')
# ruff: noqa: E402

import torch

from Evaluator.catalog import load_catalog
from Evaluator.errors import UsageError
from Evaluator.records import Message
from Evaluator.tool_calls import parse_text
from tests.tiny_models import CHATML, MISTRAL, tiny_model_folder, tiny_tokenizer
from Trainers.common import dry_run
from Trainers.common.answer_parts import CONTEXT_TEXTS, PARTS, SESSION_IDS, TEXT_FIELDS, WRONG_ENDS
from Trainers.common.base_models import find_base_model, load_tokenizer
from Trainers.common.flags import resolve_for
from Trainers.common.kto import KTO
from Trainers.common.rendering import CannotRender, Renderer
from Trainers.common.run_folder import RunFolder
from Trainers.common.sft import SFT
from Trainers.common.trainer_setup import is_out_of_memory, score_trained_tokens_only, training_arguments
from Trainers.common.training_data import read_training_data
from Trainers.common.training_run import out_of_memory
from Trainers.rtx3090_kto import train_kto
from Trainers.rtx3090_sft import train_sft

ROOT = Path(__file__).resolve().parents[1]
TRL_TEMPLATES = Path(importlib.util.find_spec("trl").submodule_search_locations[0]) / "chat_templates"
CALL = 'tool_call: vaultManager_createFolder\narguments: {"context": {"sessionId": "s"}, "path": "Gärten/東"}'


def tokenizer_of(name):
    """A tiny tokenizer with the chat template of a family, TRL's copies of the originals where it has them."""
    if name == "mistral":
        return tiny_tokenizer(MISTRAL, eos="</s>", bos="<s>")
    if name == "chatml":
        return tiny_tokenizer(CHATML)
    ends = {"qwen2_5": "<|im_end|>", "llama3": "<|eot_id|>", "phi3": "<|end|>", "gemma": "<end_of_turn>"}
    template = (TRL_TEMPLATES / f"{name}.jinja").read_text(encoding="utf-8")
    return tiny_tokenizer(template, eos=ends[name])


def turns(*contents):
    """A system prompt (unless None), then user and assistant in turn."""
    system, *rest = contents
    roles = ["user", "assistant"] * len(rest)
    messages = [Message(role, text) for role, text in zip(roles, rest, strict=False)]
    return [Message("system", system), *messages] if system else messages


def trained_texts(tokenizer, rendered):
    """The decoded runs of trained tokens."""
    texts, ids = [], []
    for token, is_answer in [*zip(rendered.input_ids, rendered.is_answer, strict=True), (0, False)]:
        if is_answer:
            ids.append(token)
        elif ids:
            texts.append(tokenizer.decode(ids))
            ids = []
    return texts


# -- rendering ----------------------------------------------------------------------------------------------------

FAMILIES = ("chatml", "mistral", "qwen2_5", "llama3", "phi3", "gemma")


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("system", [None, "Every call has a context."])
def test_trained_is_each_answer_with_its_end_and_nothing_else(family, system):
    if family == "gemma" and system:
        pytest.skip("Gemma's template takes no system prompt")
    tokenizer = tokenizer_of(family)
    messages = turns(system, "Make a folder.", CALL, "Danke  schön!", "You are welcome.")
    sequences = Renderer(tokenizer).all_turns(messages)
    texts = [text.lstrip(" ") for sequence in sequences for text in trained_texts(tokenizer, sequence)]
    assert texts == [CALL + tokenizer.eos_token, "You are welcome." + tokenizer.eos_token]
    decoded = "".join(tokenizer.decode(sequence.input_ids) for sequence in sequences)
    assert "Make a folder." in decoded and "Danke  schön!" in decoded
    if system:
        assert system in decoded


@pytest.mark.parametrize("family", FAMILIES)
def test_the_text_before_an_answer_is_what_the_model_gets_at_inference(family):
    tokenizer = tokenizer_of(family)
    messages = turns(None, "Make a folder.", CALL)
    rendered = Renderer(tokenizer).last_turn(messages)
    prompt = [{"role": "user", "content": "Make a folder."}]
    served = tokenizer.apply_chat_template(prompt, add_generation_prompt=True, return_dict=True)["input_ids"]
    assert list(rendered.input_ids[: rendered.last_answer_start]) == served
    whole = tokenizer.apply_chat_template([*prompt, {"role": "assistant", "content": CALL}], return_dict=True)
    assert list(rendered.input_ids) == whole["input_ids"][: len(rendered.input_ids)]


def test_mistrals_system_prompt_is_kept_though_its_template_drops_it_before_an_answer():
    tokenizer = tokenizer_of("mistral")
    messages = turns("Be brief.", "Make a folder.", CALL)
    as_dicts = [message.to_dict() for message in messages]
    assert "Be brief." not in tokenizer.apply_chat_template(as_dicts, tokenize=False)
    rendered = Renderer(tokenizer).last_turn(messages)
    assert tokenizer.decode(rendered.input_ids).startswith("<s>[INST] Be brief.\n\nMake a folder.[/INST]")


@pytest.mark.parametrize(
    ("family", "expected"), [("chatml", "tool_call: f\narguments: {"), ("mistral", "[TOOL_CALLS]")]
)
def test_native_calls_are_rendered_by_the_template_or_as_text(family, expected):
    call = {"id": "call_abc", "type": "function", "function": {"name": "f", "arguments": '{"path": "A"}'}}
    tokenizer = tokenizer_of(family)
    messages = [Message("user", "Do it."), Message("assistant", None, [call])]
    (text,) = trained_texts(tokenizer, Renderer(tokenizer).last_turn(messages))
    assert text.startswith(expected) and '"path": "A"' in text


@pytest.mark.parametrize("template", ["llama3_1", "llama3_2", "glm4moe", "two templates"])
@pytest.mark.parametrize(("text", "num_calls"), [(None, 1), ("I make it.", 1), (None, 2)])
def test_native_calls_are_text_where_what_a_template_makes_of_them_cannot_be_read(template, text, num_calls):
    if template == "two templates":
        both = {"default": CHATML, "tool_use": (TRL_TEMPLATES / "qwen2_5.jinja").read_text(encoding="utf-8")}
        tokenizer = tiny_tokenizer(both)
    else:
        template = (TRL_TEMPLATES / f"{template}.jinja").read_text(encoding="utf-8")
        tokenizer = tiny_tokenizer(template, eos="<|eot_id|>")
    calls = [
        {"id": None, "type": "function", "function": {"name": f"f_{number}", "arguments": '{"path": "A"}'}}
        for number in range(num_calls)
    ]
    messages = [Message("user", "Do it."), Message("assistant", text, calls)]
    (trained,) = trained_texts(tokenizer, Renderer(tokenizer).last_turn(messages))
    answer = trained.removesuffix(tokenizer.eos_token).strip()
    assert [call.name for call in parse_text(answer).calls] == [f"f_{number}" for number in range(num_calls)]
    assert not parse_text(answer).findings and (text or "") in answer


def test_a_token_of_the_answers_own_is_not_taken_for_the_end_of_the_turn():
    mark = "[TOOL_CALLS]"  # as Cohere's <|END_RESPONSE|>
    template = CHATML.replace("'<|im_end|>", f"('{mark}' if message['role'] == 'assistant' else '') + '<|im_end|>")
    tokenizer = tiny_tokenizer(template)
    (text,) = trained_texts(tokenizer, Renderer(tokenizer).last_turn(turns(None, "Hi", "Hello")))
    assert text == f"Hello{mark}<|im_end|>"


def test_a_tools_turn_has_the_id_and_the_name_of_its_call():
    template = MISTRAL.replace(
        "{%- else %}{{- raise_exception('only user and assistant turns') }}",
        "{%- else %}{{- turn.name + '=' + turn.tool_call_id + turn.content }}",
    )
    tokenizer = tiny_tokenizer(template, eos="</s>", bos="<s>")
    calls = [{"id": "x", "type": "function", "function": {"name": "f", "arguments": "{}"}}]
    said = [Message("user", "Do it."), Message("assistant", None, calls), Message("tool", " Done")]
    text = tokenizer.decode(Renderer(tokenizer).last_turn([*said, Message("assistant", "Good.")]).input_ids)
    assert "f=call00000 Done Good.</s>" in text


def test_calls_of_an_earlier_turn_stand_as_the_template_shows_them_whatever_it_drops():
    template = MISTRAL.replace(
        "{%- else %}{{- raise_exception('only user and assistant turns') }}", "{%- else %}{{- turn.content }}"
    )
    tokenizer = tiny_tokenizer(template, eos="</s>", bos="<s>")
    calls = [{"id": "x", "type": "function", "function": {"name": "f", "arguments": '{"path": "A"}'}}]
    said = [Message("user", "Do it."), Message("assistant", "I do it.", calls), Message("tool", "Done")]
    rendered = Renderer(tokenizer).last_turn([*said, Message("assistant", "Good.")])
    text = tokenizer.decode(rendered.input_ids)
    assert '[TOOL_CALLS] [{"name": "f"' in text and "I do it." not in text, "as it is served"
    (trained,) = trained_texts(tokenizer, Renderer(tokenizer).last_turn(said[:2]))
    assert trained.strip().startswith("I do it.") and "tool_call: f" in trained


def test_native_calls_with_broken_arguments_stay_what_they_are():
    call = {"id": "call_abc", "type": "function", "function": {"name": "f", "arguments": '{"path": "A'}}
    tokenizer = tokenizer_of("mistral")
    messages = [Message("user", "Do it."), Message("assistant", None, [call])]
    (text,) = trained_texts(tokenizer, Renderer(tokenizer).last_turn(messages))
    assert text.strip() == 'tool_call: f\narguments: {"path": "A</s>'


def test_a_conversation_that_the_template_refuses_says_so():
    messages = [Message("user", "Do it."), Message("tool", "Done"), Message("assistant", "Good.")]
    with pytest.raises(CannotRender, match="only user and assistant"):
        Renderer(tokenizer_of("mistral")).last_turn(messages)


# -- rows for both trainers ---------------------------------------------------------------------------------------


def write_rows(path, num=40, both=True):
    """Requests with right answers, and as many with wrong ones, one prompt each."""
    rows = []
    for number in range(num):
        label = not both or number % 2 == 0
        answer = f'tool_call: f\narguments: {{"path": "N{number}"}}' if label else f"I cannot do {number}."
        conversation = [{"role": "user", "content": f"Make N{number}."}, {"role": "assistant", "content": answer}]
        rows.append({"conversations": conversation, "label": label})
    path.write_text("".join(json.dumps(one) + "\n" for one in rows), encoding="utf-8")
    return str(path)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return str(tiny_model_folder(tmp_path_factory.mktemp("models") / "tiny"))


def flags(parser, *more):
    return parser.build_parser().parse_args(["--model-name", "x", "--local-file", "y", *more])


@pytest.mark.parametrize("family", FAMILIES)
def test_sft_and_kto_make_the_same_tokens_of_a_conversation(family, tmp_path):
    tokenizer = tokenizer_of(family)
    data = read_training_data([write_rows(tmp_path / "a.jsonl", both=True)])
    sft = SFT().prepare(data, Renderer(tokenizer), flags(train_sft, "--no-packing"), 1)
    kto = KTO().prepare(data, Renderer(tokenizer), flags(train_kto), 1)
    of_kto = {
        tuple(prompt + answer): [-100] * len(prompt) + answer
        for prompt, answer, label in zip(
            kto.train["prompt_ids"], kto.train["completion_ids"], kto.train["label"], strict=True
        )
        if label
    }
    of_sft = {tuple(i): labels for i, labels in zip(sft.train["input_ids"], sft.train["labels"], strict=True)}
    assert len(of_sft) == 20 and len(of_kto) >= 12
    assert all(of_sft[ids] == labels for ids, labels in of_kto.items())


def test_the_kl_answer_is_another_prompts_in_the_same_batch(tmp_path):
    data = read_training_data([write_rows(tmp_path / "a.jsonl")])
    columns = KTO().prepare(data, Renderer(tokenizer_of("chatml")), flags(train_kto), 1).train
    for start in range(0, len(columns["label"]), 4):
        answers, others = (columns[n][start : start + 4] for n in ("completion_ids", "KL_completion_ids"))
        assert others == [answers[-1], *answers[:-1]]
        assert all(own != other for own, other in zip(answers, others, strict=True))
    assert all(isinstance(label, bool) for label in columns["label"])


def test_an_answer_that_would_share_a_token_with_its_prompt_has_its_own():
    tokenizer = tiny_tokenizer(CHATML, corpus=["assistant\n\n\nHello\n\n\nyou"] * 3)
    messages = turns(None, "Hello", "\n\nHello", "Again", "\nyou")
    (rendered,) = Renderer(tokenizer).all_turns(messages)
    assert trained_texts(tokenizer, rendered) == ["\n\nHello<|im_end|>", "\nyou<|im_end|>"]
    served = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Hello"}], add_generation_prompt=True, return_dict=True
    )["input_ids"]
    prompt = Renderer(tokenizer).last_turn(messages[:2])
    assert list(prompt.input_ids[: prompt.last_answer_start]) == served
    as_dicts = [message.to_dict() for message in messages[:2]]
    joint = tokenizer.apply_chat_template(as_dicts, return_dict=True)["input_ids"]
    assert joint[: len(served)] != served  # else this tests nothing


ID, OTHER_ID = "session_1733553943348_gx0lv61yh", "session_1733553943349_gx0lv61yh"


def with_id(text):
    return f'tool_call: f\narguments: {{"context": {{"sessionId": "{text}"}}}}'


@pytest.mark.parametrize(
    ("told", "answers", "invented"),
    [
        ("Go on", [with_id(ID)], [ID[8:]]),
        (f'sessionId: "{ID}"', [with_id(ID)], []),
        (f"- sessionId: `{OTHER_ID}`", [with_id(ID)], []),
        (f"List the states of {OTHER_ID}.", [with_id(ID)], [ID[8:]]),
        ("Go on", [with_id(ID) + "\n\n" + with_id(ID)], [ID[8:]]),
        ("Go on", [with_id(ID), with_id(ID)], [ID[8:]]),
        ("Go on", [with_id(ID), with_id(OTHER_ID)], [ID[8:]]),
        ("Go on", [with_id("session_1733553943348_GX")], ["1733553943348_GX"]),
    ],
    ids=["made up", "told", "another than told", "asked about", "twice", "in two turns", "changed", "of a wrong form"],
)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_session_id_is_made_up_where_nothing_before_tells_it(family, told, answers, invented):
    tokenizer = tokenizer_of(family)
    asked = [text for answer in answers for text in (told, answer)]
    found = []
    for rendered in Renderer(tokenizer).all_turns(turns(None, *asked)):
        found += [tokenizer.decode(rendered.input_ids[at]) for at in rendered.parts[SESSION_IDS]]
    text = "".join(found)
    assert text.strip('_"') == "".join(invented)


def test_the_texts_of_a_context_are_its_fields_that_are_no_ids():
    catalog = load_catalog()
    assert {*TEXT_FIELDS} == catalog.context["properties"].keys() - dict(catalog.id_patterns).keys()


CONTEXT = (
    '{"sessionId": "s", "workspaceId": "default", "sessionDescription": "A \\"big\\" tidy", "sessionMemory": "", '
    '"toolContext": "B {b}", "primaryGoal": "C", "subgoal": "D'
)


@pytest.mark.parametrize(
    ("said", "texts"),
    [
        (f'tool_call: f\narguments: {{"context": {CONTEXT}"}}, "subgoal": "no context"}}', True),
        (f'tool_call: f\narguments: {{"subgoal": "no context", "context": {CONTEXT}"}}}}', True),
        (f'tool_call: f\narguments: {{"context": {CONTEXT}", "more": [1', True),  # broken off: a wrong row
        ('The "subgoal": "D" is done.', False),
    ],
    ids=["first", "last", "broken", "plain"],
)
@pytest.mark.parametrize("family", FAMILIES)
def test_the_texts_in_a_context_are_a_part_without_their_names_and_quotation_marks(family, said, texts):
    tokenizer = tokenizer_of(family)
    rendered = Renderer(tokenizer).last_turn(turns(None, "Go on", said))
    found = "".join(tokenizer.decode(rendered.input_ids[at]) for at in rendered.parts[CONTEXT_TEXTS])
    wanted = 'A \\"big\\" tidyB {b}CD' if texts else ""
    assert found.replace(" ", "").replace('"', "").replace(",", "") == wanted.replace(" ", "").replace('"', "")


@pytest.mark.parametrize("family", FAMILIES)
def test_the_end_of_a_turn_is_a_part_of_one_token(family):
    tokenizer = tokenizer_of(family)
    for rendered in Renderer(tokenizer).all_turns(turns(None, "Go on", "Done.", "And now?", "Nothing.")):
        ends = [
            at for at, answer in enumerate(rendered.is_answer) if answer and not (*rendered.is_answer, False)[at + 1]
        ]
        assert list(rendered.parts[WRONG_ENDS]) == ends


def kto_rows(path, rows):
    """Rows of (request, answer, label), or with codes of what is wrong as well."""
    lines = []
    for asked, said, label, *errors in rows:
        conversation = [{"role": "user", "content": asked}, {"role": "assistant", "content": said}]
        lines.append(json.dumps({"conversations": conversation, "label": label, "metadata": {"errors": errors}}))
    path.write_text("\n".join(lines), encoding="utf-8")
    return read_training_data([str(path)])


def test_kto_leaves_rows_without_a_label_out_and_counts_them(tmp_path):
    data = kto_rows(tmp_path / "a.jsonl", [(f"q{n}", f"a{n}", (True, False, None)[n % 3]) for n in range(60)])
    prepared = KTO().prepare(data, Renderer(tokenizer_of("chatml")), flags(train_kto), 1)
    assert prepared.left_out["without a label"] == 20
    assert prepared.rows["training"] + prepared.left_out.total() == 60
    assert prepared.train["label"].count(False) <= 20


def test_rows_that_are_wrong_in_a_masked_part_alone_are_left_out_and_counted(tmp_path):
    bad_id = ["context.bad_format:sessionId"]
    rows = [(f"q{n}", with_id("s_x"), n % 2 == 0, *(bad_id if n in (1, 3) else [])) for n in range(40)]
    data, renderer = kto_rows(tmp_path / "a.jsonl", rows), Renderer(tokenizer_of("chatml"))
    prepared = KTO().prepare(data, renderer, flags(train_kto, "--mask", SESSION_IDS), 1)
    assert prepared.left_out["wrong in a part that is masked"] == 2
    assert not KTO().prepare(data, renderer, flags(train_kto), 1).left_out["wrong in a part that is masked"]


def test_masked_positions_go_with_the_answer_that_they_are_of(tmp_path):
    tokenizer = tokenizer_of("chatml")
    data = kto_rows(tmp_path / "a.jsonl", [(f"q{n}", "so " * n + with_id(ID), n % 2 == 0) for n in range(32)])
    columns = KTO().prepare(data, Renderer(tokenizer), flags(train_kto, "--mask", SESSION_IDS), 1).train
    for ids, masked in (("completion_ids", "masked"), ("KL_completion_ids", "KL_masked")):
        for answer, places in zip(columns[ids], columns[masked], strict=True):
            assert "".join(tokenizer.decode(answer[at]) for at in places).strip('_"') == ID[8:]


def test_a_row_that_the_template_refuses_is_left_out_counted_and_told(tmp_path, caplog):
    file = Path(write_rows(tmp_path / "a.jsonl", num=4, both=False))
    odd = [("user", "Do it."), ("user", "Do it now."), ("assistant", "Good.")]
    turns_ = [{"role": role, "content": content} for role, content in odd]
    file.write_text(file.read_text("utf-8") + json.dumps({"conversations": turns_, "label": True}) + "\n", "utf-8")
    template = CHATML.replace("{% for", "{% if messages|length == 3 %}{{ raise_exception('odd') }}{% endif %}{% for", 1)
    data, renderer = read_training_data([str(file)]), Renderer(tiny_tokenizer(template))
    prepared = SFT().prepare(data, renderer, flags(train_sft, "--no-packing"), 1)
    assert prepared.left_out == {"refused by the chat template": 1} and prepared.rows["training"] == 4
    assert "a.jsonl:5" in caplog.text


def test_the_flags_of_sft_and_kto_reach_trl(tmp_path, monkeypatch):
    monkeypatch.setattr("Trainers.common.kto_trainer.PreparedKTOTrainer", lambda **given: given["args"])
    monkeypatch.setattr("trl.SFTTrainer", lambda **given: given["args"])
    data = read_training_data([write_rows(tmp_path / "a.jsonl")])
    weights_ = ("--desirable-weight", "2", "--undesirable-weight", "0.5")
    made = []
    for script, method, more in (
        (train_kto, KTO(), ("--beta", "0.3", *weights_)),
        (train_sft, SFT(), ("--packing",)),
    ):
        args = flags(
            script, "--max-length", "1500", "--seed", "7", "--lr-scheduler", "linear", "--num-epochs", "2", *more
        )
        resolve_for(args, "cpu")
        args.warmup_steps = 3
        prepared = method.prepare(data, Renderer(tokenizer_of("chatml")), args, 1)
        common = training_arguments(args, RunFolder(tmp_path), has_validation=False)
        made.append(method.trainer(args, prepared, common))
    kto, sft = made
    assert (kto.max_length, kto.beta, kto.desirable_weight, kto.undesirable_weight) == (1500, 0.3, 2.0, 0.5)
    assert (sft.max_length, sft.packing, sft.shuffle_dataset) == (1500, True, True)
    for one in made:
        assert (one.seed, one.data_seed, one.num_train_epochs, one.warmup_steps) == (7, 7, 2, 3)
        assert one.lr_scheduler_type == "linear"


def test_the_rate_warms_up_for_a_twentieth_of_the_steps_and_five_at_most():
    steps = (19, 40, 100, 1000)
    assert [dry_run.warmup_steps(flags(train_sft), one) for one in steps] == [0, 2, 5, 5]
    assert dry_run.warmup_steps(flags(train_sft, "--warmup-steps", "0"), 1000) == 0


def test_ktos_weights_are_those_of_the_rows_that_are_trained(tmp_path):
    data = kto_rows(tmp_path / "a.jsonl", [(f"q{n}", f"a{n}", n < 7) for n in range(31)])
    args = flags(train_kto, "--gradient-accumulation-steps", "1")
    for seed in range(20):
        args.seed = seed
        prepared = KTO().prepare(data, Renderer(tokenizer_of("chatml")), args, 1)
        right = sum(prepared.train["label"])
        wrong = len(prepared.train["label"]) - right
        weight = prepared.settings["desirable_weight"] / prepared.settings["undesirable_weight"]
        assert 1 <= weight * right / wrong <= 4 / 3
        assert prepared.rows["training"] + prepared.left_out.total() == 31


def test_ktos_validation_needs_no_class_in_every_batch_and_counts_every_row(tmp_path):
    data = kto_rows(tmp_path / "a.jsonl", [(f"q{n}", f"a{n}", n % 10 == 0) for n in range(200)])
    args = flags(train_kto, "--validation-fraction", "0.1")
    prepared = KTO().prepare(data, Renderer(tokenizer_of("chatml")), args, 1)
    assert prepared.rows["validation"] == 20
    assert prepared.rows.total() + prepared.left_out.total() == 200


def test_a_prompt_with_a_crowd_of_answers_costs_only_its_own_rows(tmp_path):
    rows = [("crowd" if n < 130 else f"q{n}", f"a{n}", n % 2 == 0) for n in range(400)]
    data = kto_rows(tmp_path / "a.jsonl", rows)
    prepared = KTO().prepare(data, Renderer(tokenizer_of("chatml")), flags(train_kto), 1)
    assert prepared.rows["training"] >= 336  # 90 of the crowd stand in as many batches as 270 others fill
    assert prepared.left_out["too many answers to one prompt"] >= 40


def test_a_validation_set_that_fills_no_batch_is_a_sentence(tmp_path):
    data = kto_rows(tmp_path / "a.jsonl", [(f"q{n}", f"a{n}", n % 2 == 0) for n in range(60)])
    args = flags(train_kto, "--validation-fraction", "0.05")
    with pytest.raises(UsageError, match=r"--validation-fraction 0.05 keeps 3 rows, which do not fill a batch of 4"):
        KTO().prepare(data, Renderer(tokenizer_of("chatml")), args, 1)


def test_rows_that_are_too_long_are_left_out_whole_and_counted(tmp_path):
    file = tmp_path / "a.jsonl"
    long = {"conversations": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y" * 3000}]}
    file.write_text(json.dumps(long) + "\n" + Path(write_rows(tmp_path / "b", both=False)).read_text("utf-8"), "utf-8")
    prepared = SFT().prepare(
        read_training_data([str(file)]), Renderer(tokenizer_of("chatml")), flags(train_sft, "--no-packing"), 1
    )
    assert prepared.left_out == {"rows longer than 2048 tokens": 1}
    assert prepared.rows["training"] == 40


def test_kto_says_which_label_the_rows_that_are_too_long_have(tmp_path, caplog):
    long = ["y" * 4000 if n in (1, 2, 3) else f"a{n}" for n in range(40)]
    data = kto_rows(tmp_path / "a.jsonl", [(f"q{n}", long[n], n % 2 == 0) for n in range(40)])
    prepared = KTO().prepare(data, Renderer(tokenizer_of("chatml")), flags(train_kto), 1)
    told = {reason: count for reason, count in prepared.left_out.items() if "longer" in reason}
    assert told == {
        "rows with label true longer than 2048 tokens": 1,
        "rows with label false longer than 2048 tokens": 2,
    }
    (warning,) = [one.message for one in caplog.records if one.levelname == "WARNING"]
    said = "too long, so that they teach nothing: 2 of 20 rows with label false and 1 of 20 rows with label true; "
    assert said in warning and re.search(r"--max-length 40\d\d takes all", warning)


def test_a_tokenizer_cuts_numbers_as_its_file_says_whatever_class_it_names(tmp_path):
    from tokenizers import pre_tokenizers
    from transformers import AutoTokenizer

    own = tiny_tokenizer(corpus=["2024 2024 2024"])
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False)
    digits = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), byte_level])
    own.backend_tokenizer.pre_tokenizer = digits
    own.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "tokenizer_config.json").read_text("utf-8"))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config | {"tokenizer_class": "GPT2Tokenizer"}), "utf-8")
    loaded, wanted = load_tokenizer(find_base_model(str(tmp_path))), own("in 2024").input_ids
    assert loaded("in 2024").input_ids == wanted
    assert (loaded.chat_template, loaded.eos_token, loaded.pad_token) == (
        own.chat_template,
        "<|im_end|>",
        "<|endoftext|>",
    )
    assert AutoTokenizer.from_pretrained(tmp_path)("in 2024").input_ids != wanted, "else this tests nothing"


def test_a_template_under_which_everything_would_be_trained_is_an_error(tmp_path):
    template = "{% for m in messages %}{% if m.role == 'assistant' %}{{ m.content }}{% endif %}{% endfor %}"
    data = read_training_data([write_rows(tmp_path / "a.jsonl")])
    with pytest.raises(UsageError, match="every token counts as the assistant's"):
        SFT().prepare(data, Renderer(tiny_tokenizer(template)), flags(train_sft, "--no-packing"), 1)


# -- training -----------------------------------------------------------------------------------------------------


def train(script, model, rows, output, *more):
    """Run a trainer in this process; (status, run record, lines of metrics)."""
    base = ["--model-name", model, "--local-file", rows, "--output", str(output), "--learning-rate", "5e-3"]
    batches = ["--batch-size", "4", "--gradient-accumulation-steps", "2", "--device", "cpu"]
    status = script.main([*base, *batches, *more])
    return status, json.loads((output / "run.json").read_text("utf-8")), metrics(output)


def metrics(output):
    return [json.loads(line) for line in (output / "metrics.jsonl").read_text("utf-8").splitlines()]


def losses(output):
    return {line["step"]: line["loss"] for line in metrics(output) if "loss" in line}


def weights(output):
    from safetensors.torch import load_file

    return load_file(output / "adapter_model.safetensors")


def test_sft_learns_and_leaves_an_adapter_with_its_record(tiny, tmp_path, capfd):
    rows = write_rows(tmp_path / "a.jsonl")
    output = tmp_path / "run"
    status, record, lines = train(
        train_sft, tiny, rows, output, "--num-epochs", "4", "--validation-fraction", "0.2", "--eval-steps", "2"
    )
    out, err = capfd.readouterr()
    assert status == 0 and out == f"{output}\n" and "Traceback" not in err
    assert record["is_complete"] and record["data"]["rows"] == {"training": 16, "validation": 4}
    assert record["data"]["left_out"] == {"label false": 20} and record["versions"]["trl"]
    assert losses(output)[8] < losses(output)[1] - 0.05
    evaluations = [line["eval_loss"] for line in lines if "eval_loss" in line]
    assert len(evaluations) == 4 and evaluations[-1] < evaluations[0]
    assert (output / "chat_template.jinja").read_text("utf-8") == CHATML
    before = (output / "adapter_model.safetensors").stat().st_mtime_ns
    assert train(train_sft, tiny, rows, output, "--num-epochs", "4", "--validation-fraction", "0.2")[0] == 0
    assert (output / "adapter_model.safetensors").stat().st_mtime_ns == before


def test_kto_goes_on_from_the_sft_adapter_and_tells_right_from_wrong(tiny, tmp_path, capfd):
    rows = write_rows(tmp_path / "a.jsonl")
    assert train(train_sft, tiny, rows, tmp_path / "sft", "--max-steps", "2")[0] == 0
    more = ("--adapter", str(tmp_path / "sft"), "--num-epochs", "6")
    status, record, lines = train(train_kto, tiny, rows, tmp_path / "kto", *more)
    assert status == 0
    margins = [line["rewards/margins"] for line in lines if "rewards/margins" in line]
    assert abs(margins[0]) < 0.01 and margins[-1] > 0.5
    assert record["resolved"]["labels"] == {"true": 20, "false": 20}
    assert "labels: 20 true, 20 false; weights: desirable 1.167" in capfd.readouterr().err
    start, end = weights(tmp_path / "sft"), weights(tmp_path / "kto")
    assert start.keys() == end.keys()
    assert max((start[name] - end[name]).abs().max().item() for name in start) > 1e-3


def test_saving_an_adapter_asks_no_hub_for_a_base_that_it_names_otherwise(tiny, tmp_path, monkeypatch):
    import peft.utils.save_and_load

    asked = []
    monkeypatch.setattr(peft.utils.save_and_load, "check_file_exists_on_hf_hub", lambda *place: asked.append(place))
    rows = write_rows(tmp_path / "a.jsonl")
    assert train(train_sft, tiny, rows, tmp_path / "sft", "--max-steps", "1")[0] == 0
    config = tmp_path / "sft" / "adapter_config.json"
    named = json.loads(config.read_text("utf-8")) | {"base_model_name_or_path": "embedded"}
    config.write_text(json.dumps(named), "utf-8")
    more = ("--adapter", str(tmp_path / "sft"), "--max-steps", "2", "--save-steps", "1")
    assert train(train_kto, tiny, rows, tmp_path / "kto", *more)[0] == 0
    assert asked == []
    saved = json.loads((tmp_path / "kto" / "adapter_config.json").read_text("utf-8"))
    assert saved["base_model_name_or_path"] == str(tiny) and saved["inference_mode"]


def test_kto_does_not_score_the_parts_that_it_is_told_to_mask(tiny, tmp_path):
    rows = [(f"Make N{n}.", with_id(f"session_{1733553943348 + n}_gx0lv61y{n}"), n % 2 == 0) for n in range(8)]
    kto_rows(tmp_path / "a.jsonl", rows)
    first = {}
    for mask in ((), ("--mask", SESSION_IDS), ("--mask", *PARTS)):
        more = ("--max-steps", "1", *mask)
        _, record, lines = train(train_kto, tiny, str(tmp_path / "a.jsonl"), tmp_path / "-".join(mask), *more)
        first[mask] = lines[0]
        first[mask]["tokens"] = record["data"]["trained_tokens"]
    all_scored, without_ids, without_ends = first.values()
    a_token = all_scored["logps/chosen"] / all_scored["tokens"]  # weights are random: all tokens are as likely
    assert without_ids["tokens"] < all_scored["tokens"] / 1.2
    assert without_ids["logps/chosen"] / without_ids["tokens"] == pytest.approx(a_token, rel=0.1)
    assert without_ends["tokens"] == without_ids["tokens"] - 4, "one for each wrong row"
    assert without_ends["logps/chosen"] == pytest.approx(without_ids["logps/chosen"])
    assert without_ends["logps/rejected"] > without_ids["logps/rejected"]


def test_a_masked_position_beyond_a_cut_off_kl_answer_is_no_error():
    from Trainers.common.kto_trainer import MaskingCollator

    answers = {"completion_ids": [5, 6], "KL_completion_ids": [7, 8, 9], "masked": [0], "KL_masked": [1, 2]}
    batch = MaskingCollator(pad_token_id=0, max_length=4)([{"prompt_ids": [1, 2], **answers, "label": True}])
    assert batch["completion_mask"].tolist() == [[0, 0, 0, 1]]
    assert batch["KL_completion_mask"].tolist() == [[0, 0, 1, 0]]


def interrupt_at(output, step):
    """Send this process SIGINT once a run has told the metrics of a step."""

    def wait():
        while not (output / "metrics.jsonl").exists() or step not in losses(output):
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=wait, daemon=True).start()


@pytest.mark.parametrize(
    ("script", "more"),
    [
        (train_sft, ("--max-steps", "12")),
        (train_sft, ("--num-epochs", "3", "--validation-fraction", "0.2", "--eval-steps", "2")),
        (train_sft, ("--num-epochs", "12", "--packing", "--max-length", "256")),
        (train_sft, ("--max-steps", "12", "--quantization", "nf4")),
        (train_kto, ("--max-steps", "12", "--validation-fraction", "0.2", "--eval-steps", "2")),
        (train_kto, ("--max-steps", "12", "--quantization", "nf4")),
    ],
)
def test_a_run_that_was_interrupted_goes_on_as_if_it_had_not_been(script, more, tiny, tmp_path, capfd):
    rows = write_rows(tmp_path / "a.jsonl", num=64)
    more = (*more, "--save-steps", "100")
    assert train(script, tiny, rows, tmp_path / "whole", *more)[0] == 0
    output = tmp_path / "cut"
    interrupt_at(output, 4)
    status, record, _ = train(script, tiny, rows, output, *more)
    assert status == 130 and not record["is_complete"]
    assert 4 <= max(losses(output)) < max(losses(tmp_path / "whole"))
    assert train(script, tiny, rows, output, *more)[0] == 2
    assert "--resume goes on with it" in capfd.readouterr().err
    with (output / "metrics.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"step": 5, "lo')  # as a kill leaves it
    status, record, _ = train(script, tiny, rows, output, *more, "--resume")
    assert status == 0 and record["is_complete"]
    whole, cut = losses(tmp_path / "whole"), losses(output)
    assert whole.keys() == cut.keys()
    assert all(abs(whole[step] - cut[step]) < 5e-4 for step in whole)
    first, second = weights(tmp_path / "whole"), weights(output)
    assert all(torch.allclose(first[name], second[name], atol=1e-6) for name in first)


def test_a_packed_run_goes_on_to_trls_last_step_whatever_was_estimated(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr("Trainers.common.sft.num_packed", lambda lengths, size: 1)
    rows = write_rows(tmp_path / "a.jsonl", num=240, both=False)
    more = ("--num-epochs", "2", "--packing", "--max-length", "256", "--save-steps", "100")
    whole = train(train_sft, tiny, rows, tmp_path / "whole", *more)[1]["steps"]
    interrupt_at(tmp_path / "cut", 4)  # behind the 2 of the estimate
    assert train(train_sft, tiny, rows, tmp_path / "cut", *more)[0] == 130
    assert train(train_sft, tiny, rows, tmp_path / "cut", *more, "--resume")[1]["steps"] == whole > 5


def test_the_seed_decides_on_the_fresh_adapter(tiny, tmp_path):
    rows = write_rows(tmp_path / "a.jsonl")
    for name, seed in (("a", "0"), ("again", "0"), ("b", "1")):
        assert train(train_sft, tiny, rows, tmp_path / name, "--max-steps", "1", "--seed", seed)[0] == 0
    first, again, other = (weights(tmp_path / name) for name in ("a", "again", "b"))
    assert all(torch.equal(first[name], again[name]) for name in first)
    one_step = 0.005
    assert all((first[name] - other[name]).abs().max() > 10 * one_step for name in first if "lora_A" in name)


@pytest.mark.parametrize("script", [train_sft, train_kto])
def test_a_run_that_was_cut_short_after_its_last_step_trains_no_more(script, tiny, tmp_path):
    rows, output = write_rows(tmp_path / "a.jsonl", num=64), tmp_path / "run"
    more = ("--max-steps", "3", "--lr-scheduler", "constant", "--save-steps", "3")
    assert train(script, tiny, rows, output, *more)[0] == 0
    before, logged = weights(output), losses(output)
    record = json.loads((output / "run.json").read_text("utf-8"))
    (output / "run.json").write_text(json.dumps(record | {"is_complete": False}), "utf-8")
    for path in output.glob("adapter_*"):
        path.unlink()
    status, record, _ = train(script, tiny, rows, output, *more, "--resume")
    assert (status, record["steps"], record["is_complete"]) == (0, 3, True)
    after = weights(output)
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)
    assert losses(output) == logged


def test_a_run_does_not_go_on_where_the_machine_would_compute_it_in_another_way(tiny, tmp_path, capfd):
    rows, output = write_rows(tmp_path / "a.jsonl", num=64), tmp_path / "run"
    interrupt_at(output, 2)
    more = ("--max-steps", "12", "--save-steps", "100")
    assert train(train_sft, tiny, rows, output, *more)[0] == 130
    record = json.loads((output / "run.json").read_text("utf-8"))
    record["resolved"] |= {"device": "cuda", "quantization": "nf4"}
    (output / "run.json").write_text(json.dumps(record), "utf-8")
    assert train(train_sft, tiny, rows, output, *more, "--resume")[0] == 1
    assert "(device was cuda, is cpu; quantization was nf4, is none): go on where it began" in capfd.readouterr().err
    assert json.loads((output / "run.json").read_text("utf-8")) == record


@pytest.mark.parametrize("script", [train_sft, train_kto])
def test_nf4_weights_with_lora_train_on_a_cpu_too(script, tiny, tmp_path):
    rows = write_rows(tmp_path / "a.jsonl")
    status, record, _ = train(
        script, tiny, rows, tmp_path / "run", "--quantization", "nf4", "--max-steps", "6", "--gradient-checkpointing"
    )
    assert status == 0 and record["resolved"]["quantization"] == "nf4"
    assert losses(tmp_path / "run")[6] < losses(tmp_path / "run")[1]


def test_at_ktos_learning_rate_every_weight_of_a_4_bit_models_adapter_moves(tiny, tmp_path):
    rows = write_rows(tmp_path / "a.jsonl")
    nf4 = ("--quantization", "nf4", "--max-steps", "3")
    assert train(train_sft, tiny, rows, tmp_path / "sft", *nf4)[0] == 0
    more = ("--adapter", str(tmp_path / "sft"), "--learning-rate", "5e-6", "--lr-scheduler", "constant")
    assert train(train_kto, tiny, rows, tmp_path / "kto", *nf4, *more)[0] == 0
    start, end = weights(tmp_path / "sft"), weights(tmp_path / "kto")
    assert all((start[name] != end[name]).float().mean() > 0.95 for name in start)
    first = metrics(tmp_path / "kto")[0]
    assert first["rewards/chosen"] == first["rewards/rejected"] == 0, "it begins as its reference, not rounded to bf16"


def test_packed_rows_do_not_see_each_other(tiny, tmp_path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny)
    data = read_training_data([write_rows(tmp_path / "a.jsonl", num=12, both=False)])
    args = flags(train_sft, "--packing", "--max-length", "512")
    resolve_for(args, "cpu")
    prepared = SFT().prepare(data, Renderer(tokenizer), args, 1)
    model = AutoModelForCausalLM.from_pretrained(tiny, attn_implementation="sdpa").eval()
    arguments = training_arguments(args, RunFolder(tmp_path), has_validation=False)
    trainer = SFT().trainer(args, prepared, arguments, model=model, processing_class=tokenizer)
    batch = next(iter(trainer.get_train_dataloader()))
    starts = [at for at, position in enumerate(batch["position_ids"][0].tolist()) if position == 0]
    assert len(starts) > 3
    with torch.no_grad():
        packed = model(input_ids=batch["input_ids"], position_ids=batch["position_ids"]).logits[0]
        for start, end in zip(starts, [*starts[1:], None], strict=True):
            alone = model(input_ids=batch["input_ids"][:, start:end]).logits[0]
            assert torch.allclose(packed[start:end], alone, atol=1e-4)


@pytest.mark.parametrize(("is_main", "times"), [(True, 1), (False, 0)])
def test_a_fall_of_both_rewards_is_told_once_by_the_main_process(is_main, times, caplog):
    from transformers import TrainerControl, TrainerState

    from Trainers.common.callbacks import RewardWatch

    watch, state = RewardWatch(), TrainerState(is_world_process_zero=is_main)
    for step in range(1, 30):
        logs = {"rewards/chosen": 0.1 - 0.02 * step, "rewards/rejected": -0.05 * step}
        watch.on_log(None, state, TrainerControl(), logs=logs)
    assert caplog.text.count("rewards of both classes fall") == times
    healthy = RewardWatch()
    for step in range(1, 30):
        healthy.on_log(None, state, TrainerControl(), logs={"rewards/chosen": 0.01, "rewards/rejected": -0.05 * step})
    assert not healthy.has_warned


@pytest.mark.slow
@pytest.mark.parametrize("script", ["rtx3090_sft/train_sft.py", "rtx3090_kto/train_kto.py"])
def test_two_processes_train_one_adapter(script, tiny, tmp_path):
    rows, output = write_rows(tmp_path / "a.jsonl"), tmp_path / "run"
    command = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
    command += ["--main_process_port", "0", str(ROOT / "Trainers" / script), "--model-name", tiny, "--device", "cpu"]
    learns = ["--learning-rate", "5e-3", "--max-steps", "8"]
    command += ["--local-file", rows, "--batch-size", "2", "--gradient-accumulation-steps", "2", *learns]
    result = subprocess.run(
        [*command, "--output", str(output)], capture_output=True, text=True, timeout=300, check=False
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout == f"{output}\n"
    assert result.stderr.count("rows: ") == 1
    assert json.loads((output / "run.json").read_text("utf-8"))["settings"]["processes"] == 2
    alone = ["--local-file", rows, "--batch-size", "2", "--gradient-accumulation-steps", "4", *learns]
    main = (train_sft if "sft" in script else train_kto).main
    assert main(["--model-name", tiny, "--device", "cpu", *alone, "--output", str(tmp_path / "alone")]) == 0
    one, two = losses(tmp_path / "alone"), losses(output)
    learnt = one[1] - one[8]
    assert one.keys() == two.keys() and learnt > 0.05, "else this tests nothing"
    assert all(abs(one[step] - two[step]) < learnt / 4 for step in one), (one, two)
    first, second = weights(tmp_path / "alone"), weights(output)
    assert all((first[name] - second[name]).norm() < 0.3 * first[name].norm() for name in first if "lora_B" in name)


# -- the commands -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("script", ["rtx3090_sft/train_sft.py", "rtx3090_kto/train_kto.py"])
def test_a_dry_run_needs_no_weights_and_no_five_seconds(script, tiny, tmp_path):
    folder = tmp_path / "no-weights"
    shutil.copytree(tiny, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    rows = write_rows(tmp_path / "a.jsonl", num=400)
    command = [sys.executable, str(ROOT / "Trainers" / script), "--local-file", rows, "--dry-run", "--model-name"]
    started = time.monotonic()
    result = subprocess.run([*command, str(folder)], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    for said in ("for training", "tokens: ", "trained", "steps: ", "weights", "optimizer", "of 24 GB", "RTX 3090"):
        assert said in result.stdout
    assert time.monotonic() - started < 10  # 5 s where nothing else runs


@pytest.mark.parametrize("size", ["135m", "0.5b", "1.5b", "3b", "7b", "13b"])
@pytest.mark.parametrize("script", [train_sft, train_kto])
def test_every_size_fits_a_24_gb_card_with_the_defaults(script, size, tmp_path, capfd):
    rows = write_rows(tmp_path / "a.jsonl")
    assert script.main(["--model-size", size, "--local-file", rows, "--dry-run"]) == 0
    assert "of 24 GB" in capfd.readouterr().out


@pytest.mark.parametrize(("processes", "warns"), [("1", False), ("2", True)])
def test_what_may_not_fit_into_this_machine_is_a_warning_on_a_cpu(processes, warns, tmp_path, capfd, monkeypatch):
    monkeypatch.setattr(dry_run, "machine_bytes", lambda: 3e9)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", processes)
    rows = write_rows(tmp_path / "a.jsonl")
    command = ["--model-name", "embedded", "--device", "cpu", "--batch-size", "2", "--local-file", rows, "--dry-run"]
    assert train_kto.main(command) == 0
    said = f"in each of {processes} processes, and this machine has 3.00 GB, so it may end them"
    assert (said in capfd.readouterr().err) == warns


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (("--model-size", "7b", "--model-name", "x"), "give a model"),
        ((), "give a model"),
        (("--model-size", "7b", "--adapter", "nowhere"), "there is no adapter in nowhere"),
        (("--model-name", "./nowhere"), "there is no model folder ./nowhere"),
        (("--model-name", "nowhere.gguf"), "cannot read"),
        (("--model-size", "7b", "--resume", "--overwrite"), "give one of them"),
        (("--model-size", "13b", "--dry-run", "--no-gradient-checkpointing"), "needs some"),
    ],
)
def test_a_wrong_command_is_one_sentence_and_status_2(more, sentence, tmp_path, capfd):
    rows = write_rows(tmp_path / "a.jsonl")
    assert train_sft.main(["--local-file", rows, "--output", str(tmp_path / "run"), *more]) == 2
    assert sentence in capfd.readouterr().err
    assert not (tmp_path / "run").exists()


def test_files_that_are_cut_off_are_one_sentence(tiny, tmp_path, capfd):
    rows = write_rows(tmp_path / "a.jsonl")
    (tmp_path / "cut.gguf").write_bytes(b"GGUF\x03\x00\x00")
    (tmp_path / "text.gguf").write_bytes(b"no weights at all, but a text of some length")
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text('{"r": ', encoding="utf-8")
    (adapter / "adapter_model.safetensors").write_bytes(b"")
    other = tmp_path / "other"
    other.mkdir()
    (other / "run.json").write_text("{}", encoding="utf-8")
    for more, said in (
        (("--model-name", str(tmp_path / "cut.gguf")), "cut.gguf"),
        (("--model-name", str(tmp_path / "text.gguf")), "text.gguf"),
        (("--model-name", tiny, "--adapter", str(adapter)), "cannot read"),
        (("--model-name", tiny, "--output", str(other)), "is no record of a run"),
    ):
        assert train_sft.main(["--local-file", rows, "--output", str(tmp_path / "run"), "--device", "cpu", *more]) == 2
        captured = capfd.readouterr()
        assert said in captured.err and "Traceback" not in captured.err


def test_an_adapter_is_never_written_over_by_the_run_that_starts_from_it(tiny, tmp_path, capfd):
    rows = write_rows(tmp_path / "a.jsonl")
    assert train(train_sft, tiny, rows, tmp_path / "sft", "--max-steps", "1", "--lora-rank", "4")[0] == 0
    more = ("--adapter", str(tmp_path / "sft"), "--max-steps", "1")
    checkpoint = next((tmp_path / "sft" / "checkpoints").glob("checkpoint-*"))
    for adapter in (tmp_path / "sft", checkpoint):
        again = ("--adapter", str(adapter), "--max-steps", "1", "--overwrite")
        assert train(train_kto, tiny, rows, tmp_path / "sft", *again)[0] == 2
        assert "choose another --output" in capfd.readouterr().err
    assert (checkpoint / "adapter_model.safetensors").is_file()
    status, record, _ = train(train_kto, tiny, rows, tmp_path / "kto", *more)
    assert status == 0 and record["settings"]["lora_rank"] == 4
    assert len(record["data"]["sha256"]) == 2  # of the rows, and of the adapter


def test_a_model_that_cannot_be_exported_is_told_before_it_is_trained(tmp_path, capfd):
    rows = write_rows(tmp_path / "a.jsonl", num=8)
    model = str(tiny_model_folder(tmp_path / "tiny", family="Qwen3"))
    train(train_sft, model, rows, tmp_path / "run", "--max-steps", "1")
    assert "is of type qwen3, which Trainers.export does not write" in capfd.readouterr().err


def test_an_adapter_of_another_model_is_one_sentence(tiny, tmp_path, capfd):
    rows = write_rows(tmp_path / "a.jsonl")
    other = tiny_model_folder(tmp_path / "other", hidden_size=32)
    assert train(train_sft, tiny, rows, tmp_path / "sft", "--max-steps", "1")[0] == 0
    more = ("--adapter", str(tmp_path / "sft"), "--max-steps", "1", "--device", "cpu")
    assert (
        train_sft.main(["--model-name", str(other), "--local-file", rows, "--output", str(tmp_path / "b"), *more]) == 2
    )
    assert "does not fit" in capfd.readouterr().err


@pytest.mark.parametrize("more", [(), ("--resume",), ("--overwrite",)])
def test_a_second_run_in_a_folder_is_refused_and_leaves_it_alone(tiny, tmp_path, capfd, more):
    rows, output = write_rows(tmp_path / "a.jsonl"), tmp_path / "run"
    with RunFolder(output).held():
        record = {"method": "sft", "settings": {}, "data": {"sha256": {}}, "is_complete": False}
        RunFolder(output).write_record(record)  # what --resume would help with, once the other one is gone
        base = ["--model-name", tiny, "--local-file", rows, "--output", str(output), "--device", "cpu"]
        assert train_sft.main([*base, "--max-steps", "1", *more]) == 2
        assert {path.name for path in output.iterdir()} == {"run.lock", "run.json"}
        assert RunFolder(output).record() == record
    assert "another run is at work" in capfd.readouterr().err


def test_overwrite_loses_nothing_until_the_new_run_can_begin(tiny, tmp_path, capfd):
    rows, output = write_rows(tmp_path / "a.jsonl"), tmp_path / "run"
    assert train(train_sft, tiny, rows, output, "--max-steps", "1")[0] == 0
    assert train(train_sft, "./gone", rows, output, "--max-steps", "1", "--overwrite")[0] == 2
    assert json.loads((output / "run.json").read_text("utf-8"))["is_complete"] and weights(output)
    assert train(train_sft, tiny, rows, output, "--max-steps", "2", "--overwrite")[1]["steps"] == 2


def test_overwrite_forgets_the_checkpoints_of_the_run_before(tiny, tmp_path):
    rows, output = write_rows(tmp_path / "a.jsonl"), tmp_path / "run"
    assert train(train_sft, tiny, rows, output, "--max-steps", "3", "--save-steps", "1")[0] == 0
    assert train(train_sft, tiny, rows, output, "--max-steps", "1", "--overwrite")[0] == 0
    assert [path.name for path in output.glob("checkpoints/checkpoint-*")] == ["checkpoint-1"]


def test_rows_of_one_class_are_one_sentence(tiny, tmp_path, capfd):
    rows = write_rows(tmp_path / "a.jsonl", both=False)
    assert train_kto.main(["--model-name", tiny, "--local-file", rows, "--output", str(tmp_path / "run")]) == 2
    assert "no row has the label false" in capfd.readouterr().err


def test_out_of_memory_is_a_sentence_that_says_what_to_lower(tmp_path):
    error = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
    assert is_out_of_memory(error) and not is_out_of_memory(RuntimeError("shapes do not fit"))
    assert is_out_of_memory(RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"))
    (tmp_path / "checkpoints" / "checkpoint-50").mkdir(parents=True)
    (tmp_path / "checkpoints" / "checkpoint-50" / "trainer_state.json").write_text("{}", encoding="utf-8")
    sentence = str(out_of_memory(error, RunFolder(tmp_path)))
    assert "again with --resume" in sentence and "a lower --batch-size" in sentence
    assert "Tried to allocate 2.00 GiB" in sentence
    assert f"--adapter {tmp_path / 'checkpoints' / 'checkpoint-50'}" in sentence


def test_trl_still_has_what_scores_trained_tokens_only_on_a_cpu(monkeypatch):
    utils = pytest.importorskip("trl.trainer.utils")
    assert callable(utils._use_triton), "score_trained_tokens_only() would do nothing: training takes twice as long"
    kernels = pytest.importorskip("trl.kernels.chunked_logprob")
    monkeypatch.setattr(utils, "_use_triton", lambda device: False)
    monkeypatch.setattr(kernels, "_use_triton", lambda device: True)
    score_trained_tokens_only(has_triton=True)
    assert utils._use_triton("cpu") and kernels._use_triton("cuda")
    score_trained_tokens_only(has_triton=False)
    assert utils._use_triton("cpu") and not kernels._use_triton("cuda")


@pytest.mark.skipif(torch.cuda.is_available(), reason="torch finds the GPU that is told of here")
def test_a_gpu_that_torch_cannot_use_is_told_and_not_passed_over(tiny, tmp_path, monkeypatch, capfd):
    tool = tmp_path / "bin" / "nvidia-smi"
    tool.parent.mkdir()
    tool.write_text("#!/bin/sh\necho 'GPU 0: NVIDIA GeForce RTX 3090 (UUID: x)'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tool.parent}{os.pathsep}{os.environ['PATH']}")
    base = ["--model-name", tiny, "--local-file", write_rows(tmp_path / "a.jsonl"), "--max-steps", "1"]
    assert train_sft.main([*base, "--output", str(tmp_path / "run")]) == 2
    assert "there is an NVIDIA GPU, which torch" in capfd.readouterr().err and not (tmp_path / "run").exists()
    assert train_sft.main([*base, "--output", str(tmp_path / "run"), "--device", "cpu"]) == 0
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert train_sft.main([*base, "--output", str(tmp_path / "hidden")]) == 0
