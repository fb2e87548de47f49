"""Log-probabilities of answers by part are those that the model with the adapter gives."""

import json

import pytest

WHY = "needs the training packages: pip install -e '.[train]'"
torch = pytest.importorskip("torch", reason=WHY)
peft = pytest.importorskip("peft", reason=WHY)
transformers = pytest.importorskip("transformers", reason=WHY)

from tests.tiny_models import tiny_model_folder  # noqa: E402
from Trainers.experiments.__main__ import main  # noqa: E402

SESSION = "session_1733553943348_gx0lv61yh"
CONTEXT = f'{{"sessionId": "{SESSION}", "sessionDescription": "Tidying up", "subgoal": "Make it"}}'
SAID = f'tool_call: f\narguments: {{"context": {CONTEXT}, "path": "A/B"}}'


def adapter_folder(folder, base, seed):
    torch.manual_seed(seed)
    config = peft.LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False)
    peft.get_peft_model(transformers.AutoModelForCausalLM.from_pretrained(base), config).save_pretrained(folder)
    return folder


def nats_of(base, adapter, prompt, answer):
    """By the model with its adapter, merged, of the whole text at once."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(base)
    model = peft.PeftModel.from_pretrained(
        transformers.AutoModelForCausalLM.from_pretrained(base), adapter
    ).merge_and_unload()
    start, ids = (tokenizer(text, return_tensors="pt")["input_ids"] for text in (prompt, prompt + answer))
    with torch.no_grad():
        likely = model(ids).logits[0, :-1].log_softmax(-1).gather(1, ids[0, 1:, None])[:, 0]
    return likely[start.shape[1] - 1 :].sum().item()


def test_the_parts_of_answers_add_up_to_their_log_probability_for_each_adapter(tmp_path, capsys):
    base = tiny_model_folder(tmp_path / "tiny")
    adapters = [adapter_folder(tmp_path / f"adapter.{seed}", base, seed) for seed in (1, 2)]
    rows = [(f"Make {n}.", SAID if n % 2 else "Done.", bool(n % 2)) for n in range(4)]
    lines = [
        {"conversations": [{"role": "user", "content": asked}, {"role": "assistant", "content": said}], "label": label}
        for asked, said, label in rows
    ]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    arguments = ["logprobs", str(path), "--model", str(base), "--adapters", *map(str, adapters)]
    assert main(arguments) == 0
    head, _, *table = [
        [cell.strip() for cell in line.split("|")[1:-1]] for line in capsys.readouterr().out.splitlines()
    ]
    assert head == ["rows", "part", "tokens a row", *map(str, adapters)]
    assert [(rows, part) for rows, part, *_ in table] == [
        *[("2 true", part) for part in ("made-up session ids", "texts of contexts", "end of turn", "all else")],
        *[("2 false", part) for part in ("end of turn", "all else")],
    ]
    for column, adapter in enumerate(adapters, start=3):
        for label in (True, False):
            some = [(asked, said) for asked, said, one in rows if one is label]
            wanted = [
                nats_of(base, adapter, f"<|im_start|>user\n{a}<|im_end|>\n<|im_start|>assistant\n", f"{s}<|im_end|>")
                for a, s in some
            ]
            shown = [float(line[column]) for line in table if line[0] == f"2 {str(label).lower()}"]
            assert sum(shown) == pytest.approx(sum(wanted) / 2, abs=0.05)
    assert main([*arguments, "--rows-a-label", "1"]) == 0
    assert "| 1 true |" in capsys.readouterr().out


def test_an_adapter_that_does_not_fit_is_one_sentence(tmp_path, capsys):
    base = tiny_model_folder(tmp_path / "tiny")
    other = adapter_folder(tmp_path / "adapter", tiny_model_folder(tmp_path / "other", hidden_size=32), 1)
    (tmp_path / "rows.jsonl").write_text("")
    for adapter in (other, tmp_path / "none"):
        arguments = ["logprobs", str(tmp_path / "rows.jsonl"), "--model", str(base), "--adapters", str(adapter)]
        assert main(arguments) == 2
        error = capsys.readouterr().err
        assert f"the adapter {adapter} cannot be put on the model" in error and "Traceback" not in error
