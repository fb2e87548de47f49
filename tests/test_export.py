"""The exporter: what llama.cpp computes from its files is what transformers and peft compute from theirs."""

import json
import re
import stat
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

WHY = "needs the training packages: pip install -e '.[train]'"
torch = pytest.importorskip("torch", reason=WHY)
peft = pytest.importorskip("peft", reason=WHY)
transformers = pytest.importorskip("transformers", reason=WHY)
gguf = pytest.importorskip("gguf", reason=WHY)
tokenizers = pytest.importorskip("tokenizers", reason=WHY)

from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers, processors, trainers  # noqa: E402

from Evaluator.errors import UsageError  # noqa: E402
from Trainers.common.base_models import find_base_model  # noqa: E402
from Trainers.export.__main__ import main  # noqa: E402
from Trainers.export.chat_turns import turns_of  # noqa: E402
from Trainers.export.modelfile import Source, modelfile  # noqa: E402
from Trainers.export.tokenizer_gguf import strip_training_tags  # noqa: E402

TEXTS = [
    "The quick brown fox jumps over 12345 lazy dogs, doesn't it? Yes!",
    "Create a folder named Projects/2024 and move note-7.md into it.\n\n  Then stop.",
    'tool_call: vaultManager_createFolder\narguments: {"path": "Reports", "count": 10}',
    "Grüße aus Köln: naïve café, 日本語, emoji \U0001f600 and tabs\tor   spaces.",
]
QWEN_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
TEKKEN_SPLIT = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
CHATML = (
    "{% for m in messages %}{% if loop.first and m.role != 'system' %}<|im_start|>system\nBe helpful.<|im_end|>\n"
    "{% endif %}{% if m.role == 'assistant' %}<|im_start|>assistant\n{% generation %}{{ m.content }}<|im_end|>\n"
    "{%- endgeneration %}{{ '\n' }}{% else %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
MISTRAL = (
    "{{ bos_token }}{% if messages[0].role == 'system' %}{% set s = messages[0].content + '\n\n' %}"
    "{% set messages = messages[1:] %}{% else %}{% set s = '' %}{% endif %}{% for m in messages %}"
    "{% if m.role == 'user' %}[INST] {{ (s if loop.last else '') + m.content }}[/INST]"
    "{% else %} {{ m.content }}</s>{% endif %}{% endfor %}"
)
LLAMA3 = (
    "{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n"
    "{{ m.content | trim }}<|eot_id|>{% endfor %}{% if add_generation_prompt %}"
    "<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
LLAMA2 = (
    "{% if messages[0].role == 'system' %}{% set s = '<<SYS>>\n' + messages[0].content + '\n<</SYS>>\n\n' %}"
    "{% set messages = messages[1:] %}{% else %}{% set s = '' %}{% endif %}{% for m in messages %}"
    "{% if m.role == 'user' %}{{ bos_token }}[INST] {{ (s if loop.first else '') + m.content }} [/INST]"
    "{% else %} {{ m.content }} </s>{% endif %}{% endfor %}"
)

TOLERANCE = 0.1  # of a log-probability: llama.cpp rounds activations to float16


@dataclass(frozen=True)
class Kind:
    """A tiny model: its family, how its tokenizer cuts texts, its special tokens, its template."""

    family: str
    split: str
    template: str
    specials: Sequence[str]
    eos: str
    bos: str | None = None
    rope: Mapping[str, object] | None = None
    is_tied: bool = False


PIECES = ("<unk>", "<s>", "</s>")
KINDS = {
    "llama": Kind(
        "llama", "smollm", CHATML, ("<|endoftext|>", "<|im_start|>", "<|im_end|>"), "<|im_end|>", is_tied=True
    ),
    "llama3": Kind(
        "llama",
        "llama-bpe",
        LLAMA3,
        ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
        "<|eot_id|>",
        "<|begin_of_text|>",
        {
            "rope_type": "llama3",
            "rope_theta": 10000.0,
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 64,
        },
    ),
    "mistral": Kind("mistral", "pieces-first", MISTRAL, (*PIECES, "[INST]", "[/INST]"), "</s>", "<s>"),
    "qwen2": Kind("qwen2", "qwen2", CHATML, ("<|endoftext|>", "<|im_start|>", "<|im_end|>"), "<|im_end|>"),
}
TOKENIZER_KINDS = {
    "pieces-always": Kind("llama", "pieces-always", LLAMA2, PIECES, "</s>", "<s>"),
    "pieces-normalised": Kind("llama", "pieces-normalised", LLAMA2, PIECES, "</s>", "<s>"),
    "gpt-2": Kind("llama", "gpt-2", LLAMA2, PIECES, "</s>", "<s>"),
    "tekken": Kind("mistral", "tekken", MISTRAL, (*PIECES, "[INST]", "[/INST]"), "</s>", "<s>"),
}


def byte_level_tokenizer(split: str, specials: Sequence[str]) -> "tokenizers.Tokenizer":
    tokenizer = tokenizers.Tokenizer(models.BPE())
    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=split in ("gpt-2", "smollm"))
    before = {
        "gpt-2": [],
        "smollm": [pre_tokenizers.Digits(individual_digits=True)],
        "qwen2": [pre_tokenizers.Split(Regex(QWEN_SPLIT), "isolated")],
        "tekken": [pre_tokenizers.Split(Regex(TEKKEN_SPLIT), "isolated")],
        "llama-bpe": [pre_tokenizers.Split(Regex(QWEN_SPLIT.replace(r"\p{N}|", r"\p{N}{1,3}|")), "isolated")],
    }[split]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*before, level]) if before else level
    tokenizer.normalizer = normalizers.NFC() if split == "qwen2" else None
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=list(specials), initial_alphabet=alphabet)
    tokenizer.train_from_iterator(TEXTS, trainer)
    return tokenizer


def pieces_tokenizer(split: str, specials: Sequence[str]) -> "tokenizers.Tokenizer":
    """BPE over characters with bytes to fall back to, as Llama 2 and Mistral have it."""
    trained = tokenizers.Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    trained.train_from_iterator([text.replace("\n", " ") for text in TEXTS[:3]], trainers.BpeTrainer(vocab_size=200))
    model = json.loads(trained.to_str())["model"]
    tokens = [*specials, *(f"<0x{i:02X}>" for i in range(256)), *model["vocab"]]
    merges = [tuple(merge) for merge in model["merges"]]
    vocabulary = {token: i for i, token in enumerate(tokens)}
    tokenizer = tokenizers.Tokenizer(
        models.BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    )
    if split == "pieces-normalised":
        steps = [normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")]
        tokenizer.normalizer = normalizers.Sequence(steps)
    else:
        scheme = split.removeprefix("pieces-")
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=False)
    steps = [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()]
    tokenizer.decoder = decoders.Sequence(steps)
    tokenizer.add_special_tokens(list(specials))
    return tokenizer


def make_tokenizer(kind: Kind) -> "transformers.PreTrainedTokenizerFast":
    make = pieces_tokenizer if kind.split.startswith("pieces") else byte_level_tokenizer
    raw = make(kind.split, kind.specials)
    if kind.bos:
        post = processors.TemplateProcessing(
            single=f"{kind.bos} $A", special_tokens=[(kind.bos, raw.token_to_id(kind.bos))]
        )
        raw.post_processor = post
    unk = "<unk>" if "<unk>" in kind.specials else None
    made = transformers.PreTrainedTokenizerFast(
        tokenizer_object=raw, bos_token=kind.bos, eos_token=kind.eos, pad_token=kind.eos, unk_token=unk
    )
    made.chat_template = kind.template
    return made


def make_base(folder: Path, kind: Kind) -> Path:
    """A random model of 2 layers, 4 heads and 2 key-value heads of 16; its weights fit into float16."""
    tokenizer = make_tokenizer(kind)
    options = {"head_dim": 16} if kind.family != "qwen2" else {}
    config = transformers.AutoConfig.for_model(
        kind.family,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=len(tokenizer) + 3,
        max_position_embeddings=512,
        rms_norm_eps=1e-5,
        rope_parameters=dict(kind.rope or {"rope_type": "default", "rope_theta": 10000.0}),
        tie_word_embeddings=kind.is_tied,
        initializer_range=0.2,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        **options,
    )
    torch.manual_seed(1)
    model = transformers.AutoModelForCausalLM.from_config(config)
    for name, weight in model.named_parameters():
        if weight.ndim == 1:  # norms and biases start as ones and zeros, which hide mistakes
            torch.nn.init.normal_(weight, mean=1.0 if "norm" in name else 0.0, std=0.3)
    model.half().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def make_adapter(folder: Path, base: Path, *, size: float = 0.3, **options) -> Path:
    """A LoRA adapter of random matrices on all seven kinds of layers; `size` 0 changes nothing."""
    torch.manual_seed(2)
    model = transformers.AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    targets = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    config = peft.LoraConfig(**{"r": 4, "lora_alpha": 6, "target_modules": targets, "task_type": "CAUSAL_LM"} | options)
    model = peft.get_peft_model(model, config)
    for name, weight in model.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(weight, std=size if "lora_B" in name else 0.2)
    model.save_pretrained(folder)
    return folder


@dataclass
class Made:
    """A tiny base model, an adapter for it, everything exported, and the base alone as GGUF."""

    base: Path
    adapter: Path
    exported: Path
    base_gguf: Path


@pytest.fixture(scope="module")
def made(request, tmp_path_factory):
    kind = KINDS[request.param]
    folder = tmp_path_factory.mktemp(request.param)
    base = make_base(folder / "base", kind)
    nothing = make_adapter(folder / "nothing", base, size=0.0)
    adapter = make_adapter(folder / "adapter", base)
    assert main([str(nothing), "--output", str(folder / "plain"), "--format", "gguf"]) == 0
    assert main([str(adapter), "--output", str(folder / "out"), "--format", "lora", "safetensors", "gguf"]) == 0
    return Made(base, adapter, folder / "out", folder / "plain" / "model-f16.gguf")


each_kind = pytest.mark.parametrize("made", KINDS, indirect=True)


class Served:
    """A GGUF model in llama.cpp with its HTTP endpoints."""

    def __init__(self, path: Path, adapter: Path | None = None) -> None:
        xllamacpp = pytest.importorskip("xllamacpp", reason="needs llama.cpp: pip install -e '.[embedded]'")
        params = xllamacpp.CommonParams()
        params.model.path = str(path)
        if adapter:
            params.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(str(adapter), 1.0)]
        params.n_parallel, params.n_ctx, params.verbosity = 1, 512, 0
        params.warmup = params.fit_params = False
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
        params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
        params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
        self._server = xllamacpp.Server(params)

    def post(self, endpoint: str, **body) -> dict:
        import requests

        reply = requests.post(f"{self._server.listening_address}/{endpoint}", json=body, timeout=30)
        reply.raise_for_status()
        return reply.json()

    def tokens(self, text: str) -> list[int]:
        return self.post("tokenize", content=text, add_special=True, parse_special=True)["tokens"]

    def next_log_probs(self, ids: Sequence[int], vocab_size: int) -> "torch.Tensor":
        reply = self.post("completion", prompt=list(ids), n_predict=1, temperature=0, n_probs=vocab_size)
        log_probs = torch.full((vocab_size,), -float("inf"))
        for entry in reply["completion_probabilities"][0]["top_logprobs"]:
            log_probs[entry["id"]] = entry["logprob"]
        return log_probs


def expected_log_probs(base: Path, ids: Sequence[int], adapter: Path | None = None) -> "torch.Tensor":
    """After each of the tokens: (tokens, vocabulary)."""
    model = transformers.AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    if adapter:
        model = peft.PeftModel.from_pretrained(model, adapter)
    with torch.no_grad():
        return torch.log_softmax(model(torch.tensor([list(ids)])).logits[0], dim=-1)


def difference(one: "torch.Tensor", other: "torch.Tensor") -> float:
    """The largest difference of log-probabilities among tokens that are not all but impossible."""
    likely = (one > -12) | (other > -12)
    return (one - other)[likely].abs().max().item()


def check_same(
    gguf_path: Path,
    base: Path,
    adapter: Path | None = None,
    served_adapter: Path | None = None,
    tolerance: float = TOLERANCE,
) -> None:
    """Compare at six places of a text whose likeliest next token is whole text: llama.cpp tells nothing of others."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(base)
    ids = tokenizer(TEXTS[1]).input_ids
    wanted = expected_log_probs(base, ids, adapter)
    said = [tokenizer.decode(token, skip_special_tokens=True) for token in wanted.argmax(dim=-1)]
    places = [i for i, text in enumerate(said) if i > 2 and text and "\ufffd" not in text][::2][:6]
    assert len(places) > 3
    served = Served(gguf_path, served_adapter)
    differences = [difference(served.next_log_probs(ids[: i + 1], wanted.shape[1]), wanted[i]) for i in places]
    assert max(differences) < tolerance


@each_kind
def test_the_tiny_adapters_change_what_is_computed(made):
    ids = range(10, 40)
    assert difference(expected_log_probs(made.base, ids), expected_log_probs(made.base, ids, made.adapter)) > 1


@each_kind
def test_a_base_written_as_gguf_computes_what_transformers_computes(made):
    check_same(made.base_gguf, made.base)


@each_kind
def test_a_served_adapter_computes_what_peft_computes(made):
    check_same(made.base_gguf, made.base, made.adapter, made.exported / "adapter.gguf")


@each_kind
def test_adapters_of_half_the_size_compute_nearly_the_same(made, tmp_path):
    assert main([str(made.adapter), "--output", str(tmp_path), "--format", "lora-f16", "peft-f16"]) == 0
    half, whole = tmp_path / "adapter-f16.gguf", made.exported / "adapter.gguf"
    assert half.stat().st_size < 0.75 * whole.stat().st_size  # of tiny matrices; the rest are names
    check_same(made.base_gguf, made.base, made.adapter, half)
    check_same(made.base_gguf, made.base, tmp_path / "adapter-f16", half)
    assert main([str(tmp_path / "adapter-f16"), "--output", str(tmp_path / "again"), "--format", "lora-f16"]) == 0
    assert (tmp_path / "again" / "adapter-f16.gguf").read_bytes() == half.read_bytes()


@pytest.mark.parametrize("made", ["llama"], indirect=True)
@pytest.mark.parametrize(
    ("formats", "source"),
    [
        (["lora-f16"], "ADAPTER ./adapter-f16.gguf"),
        (["lora", "lora-f16"], "ADAPTER ./adapter.gguf"),
        (["peft-f16"], "ADAPTER ./adapter-f16"),
        (["peft-f16", "safetensors"], "FROM ./merged"),
    ],
)
def test_what_the_modelfile_takes(made, tmp_path, formats, source):
    assert main([str(made.adapter), "--output", str(tmp_path), "--format", *formats]) == 0
    assert source in (tmp_path / "Modelfile").read_text(encoding="utf-8").splitlines()


@each_kind
def test_a_merged_gguf_computes_what_peft_computes(made):
    check_same(made.exported / "model-f16.gguf", made.base, made.adapter)


def test_a_rank_stabilised_adapter_keeps_its_scale(tmp_path):
    base = make_base(tmp_path / "base", KINDS["qwen2"])
    adapter = make_adapter(tmp_path / "adapter", base, size=0.1, use_rslora=True)
    assert main([str(adapter), "--output", str(tmp_path), "--format", "lora", "gguf"]) == 0
    check_same(tmp_path / "model-f16.gguf", base, adapter)
    assert read_field(tmp_path / "adapter.gguf", "adapter.lora.alpha") == pytest.approx(6 * 4**0.5)


def read_field(path: Path, key: str):
    return gguf.GGUFReader(path).get_field(key).contents()


@pytest.fixture(scope="module", params=KINDS | TOKENIZER_KINDS)
def tokenised(request, tmp_path_factory):
    """A tokenizer, and a GGUF file with it."""
    folder = tmp_path_factory.mktemp(request.param)
    base = make_base(folder / "base", (KINDS | TOKENIZER_KINDS)[request.param])
    nothing = make_adapter(folder / "nothing", base, size=0.0)
    assert main([str(nothing), "--output", str(folder), "--format", "gguf"]) == 0
    return transformers.AutoTokenizer.from_pretrained(base), Served(folder / "model-f16.gguf")


def test_llama_cpp_cuts_conversations_into_the_same_tokens(tokenised):
    tokenizer, served = tokenised
    for text in TEXTS:
        messages = [{"role": "user", "content": text}, {"role": "assistant", "content": text[::-1]}]
        messages += [{"role": "user", "content": "Yes?"}]
        ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True)["input_ids"]
        prompt = served.post("apply-template", messages=messages)["prompt"]
        assert served.tokens(prompt) == ids


def test_llama_cpp_cuts_bare_texts_into_the_same_tokens(tokenised):
    tokenizer, served = tokenised
    if '"prepend_scheme":"first"' in tokenizer.backend_tokenizer.to_str():
        pytest.skip("a space at the very start only is unknown to llama.cpp; conversations have none there")
    for text in TEXTS:
        assert served.tokens(text) == tokenizer(text).input_ids


@each_kind
def test_merged_safetensors_compute_what_peft_computes(made):
    merged, ids = made.exported / "merged", range(10, 40)
    config = json.loads((merged / "config.json").read_text(encoding="utf-8"))
    assert config["dtype"] == "float16" and "quantization_config" not in config
    assert (merged / "generation_config.json").is_file()
    tokenizer = transformers.AutoTokenizer.from_pretrained(merged)
    assert not re.search(r"\{%[-+]?\s*(end)?generation", tokenizer.chat_template)
    wanted = expected_log_probs(made.base, ids, made.adapter)
    assert difference(expected_log_probs(merged, ids), wanted) < TOLERANCE


def test_a_sharded_bfloat16_base_stays_sharded_and_bfloat16(tmp_path):
    base = make_base(tmp_path / "base", KINDS["mistral"])
    model = transformers.AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16)
    (base / "model.safetensors").unlink()
    model.save_pretrained(base, max_shard_size="100KB")
    adapter = make_adapter(tmp_path / "adapter", base)
    assert main([str(adapter), "--output", str(tmp_path / "out"), "--format", "safetensors", "gguf"]) == 0
    merged = tmp_path / "out" / "merged"
    assert len(list(merged.glob("*.safetensors"))) == len(list(base.glob("*.safetensors"))) > 1
    loaded = transformers.AutoModelForCausalLM.from_pretrained(merged)
    assert loaded.dtype == torch.bfloat16
    check_same(tmp_path / "out" / "model-f16.gguf", base, adapter)


@pytest.mark.parametrize("made", ["llama", "qwen2"], indirect=True)
def test_a_base_from_a_gguf_file_gives_the_same_merged_file(made, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    flags = ["--model-name", str(made.base_gguf), "--output", str(tmp_path), "--format", "lora", "gguf"]
    assert main([str(made.adapter), *flags]) == 0
    one, other = (gguf.GGUFReader(folder / "model-f16.gguf") for folder in (made.exported, tmp_path))
    assert contents(one) == contents(other)
    wanted, got = ({tensor.name: tensor.data for tensor in reader.tensors} for reader in (one, other))
    assert wanted.keys() == got.keys()
    assert all((wanted[name] == got[name]).all() for name in wanted)
    assert main([*flags[:2], str(made.adapter), "--output", str(tmp_path / "lora")]) == 0
    lines = (tmp_path / "lora" / "Modelfile").read_text(encoding="utf-8").splitlines()
    assert f"FROM {made.base_gguf.resolve()}" in lines and "ADAPTER ./adapter.gguf" in lines


@pytest.mark.parametrize("made", ["llama3"], indirect=True)
def test_a_base_from_a_gguf_file_with_scaled_positions_is_refused(made, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with pytest.raises(UsageError, match="scales its positions, which cannot be read from a GGUF file"):
        find_base_model(str(made.exported / "model-f16.gguf"))


def contents(reader: "gguf.GGUFReader") -> dict:
    left_out = ("GGUF.", "general.name")
    return {key: field.contents() for key, field in reader.fields.items() if not key.startswith(left_out)}


@pytest.mark.parametrize("made", ["mistral"], indirect=True)
def test_q8_0_is_half_the_size_and_close(made, tmp_path):
    assert main([str(made.adapter), "--output", str(tmp_path), "--format", "gguf", "--gguf-type", "q8_0"]) == 0
    path = tmp_path / "model-q8_0.gguf"
    kinds = {tensor.name: tensor.tensor_type.name for tensor in gguf.GGUFReader(path).tensors}
    assert kinds["blk.0.attn_q.weight"] == kinds["token_embd.weight"] == "Q8_0"
    assert kinds["blk.0.attn_norm.weight"] == "F32"
    assert read_field(path, "general.file_type") == 7
    check_same(path, made.base, made.adapter, tolerance=2.0)  # of a model that is all noise


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A base and an adapter; nothing exported."""
    folder = tmp_path_factory.mktemp("small")
    base = make_base(folder / "base", KINDS["llama"])
    return base, make_adapter(folder / "adapter", base)


def program(folder: Path, text: str) -> str:
    path = folder / "quantize"
    path.write_text(f"#!{sys.executable}\nimport sys\n{text}\n", encoding="utf-8")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def test_q4_k_m_is_written_by_llama_quantize(small, tmp_path, capsys):
    copies = program(tmp_path, "data = open(sys.argv[1], 'rb').read(); open(sys.argv[2], 'wb').write(data)")
    flags = ["--format", "gguf", "--gguf-type", "q4_k_m", "--llama-quantize", copies]
    assert main([str(small[1]), "--output", str(tmp_path / "out"), *flags]) == 0
    assert capsys.readouterr().out.split() == [
        str(tmp_path / "out" / name) for name in ("model-q4_k_m.gguf", "Modelfile")
    ]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["Modelfile", "model-q4_k_m.gguf"]


def test_a_failing_llama_quantize_leaves_nothing(small, tmp_path, capsys):
    fails = program(tmp_path, "sys.exit('no such type')")
    flags = ["--format", "gguf", "--gguf-type", "q4_k_m", "--llama-quantize", fails]
    assert main([str(small[1]), "--output", str(tmp_path / "out"), *flags]) == 1
    assert "no such type" in capsys.readouterr().err
    assert list((tmp_path / "out").iterdir()) == []


def test_without_llama_quantize_q8_0_is_suggested(small, tmp_path, capsys):
    flags = ["--format", "gguf", "--gguf-type", "q4_k_m", "--llama-quantize", "not-there"]
    assert main([str(small[1]), "--output", str(tmp_path / "out"), *flags]) == 2
    assert "--gguf-type q8_0" in capsys.readouterr().err


def test_what_is_there_is_replaced_only_when_told(small, tmp_path, capsys):
    (tmp_path / "merged").mkdir()
    (tmp_path / "merged" / "mine.txt").write_text("mine", encoding="utf-8")
    command = [str(small[1]), "--output", str(tmp_path), "--format", "lora", "safetensors"]
    assert main(command) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["merged"]
    assert main([*command, "--overwrite"]) == 0
    assert not (tmp_path / "merged" / "mine.txt").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["Modelfile", "adapter.gguf", "merged"]


def copied_adapter(folder: Path, adapter: Path, **changes) -> Path:
    """A copy whose adapter_config.json is changed."""
    folder.mkdir()
    config = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
    (folder / "adapter_config.json").write_text(json.dumps(config | changes), encoding="utf-8")
    (folder / "adapter_model.safetensors").write_bytes((adapter / "adapter_model.safetensors").read_bytes())
    return folder


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"peft_type": "LOHA"}, "LOHA"),
        ({"use_dora": True}, "use_dora"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"bias": "all"}, "bias 'all'"),
        ({"rank_pattern": {"q_proj": 2}}, "rank_pattern"),
        ({"alpha_pattern": {"q_proj": 2}}, "alpha_pattern"),
        ({"init_lora_weights": "pissa_niter_4"}, "pissa_niter_4"),
        ({"r": 8}, "rank 8"),
        ({"base_model_name_or_path": None}, "--model-name"),
        ({"base_model_name_or_path": "/not/there"}, "no model folder /not/there"),
    ],
)
def test_what_cannot_be_exported_is_one_sentence(small, tmp_path, capsys, changes, said):
    adapter = copied_adapter(tmp_path / "adapter", small[1], **changes)
    assert main([str(adapter), "--output", str(tmp_path / "out")]) == 2
    message = capsys.readouterr().err
    assert said in message and message.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_folder_without_an_adapter_is_told(tmp_path, capsys):
    assert main([str(tmp_path), "--output", str(tmp_path / "out")]) == 2
    assert "there is no adapter" in capsys.readouterr().err


def test_an_adapter_of_another_base_is_told(small, tmp_path, capsys):
    config = json.loads((small[0] / "config.json").read_text(encoding="utf-8"))
    other = tmp_path / "other"
    other.mkdir()
    (other / "config.json").write_text(json.dumps(config | {"intermediate_size": 128}), encoding="utf-8")
    assert main([str(small[1]), "--output", str(tmp_path / "out"), "--model-name", str(other)]) == 2
    assert "was trained on another model" in capsys.readouterr().err


def test_a_base_of_an_unknown_type_is_told(small, tmp_path, capsys):
    transformers.GPT2Config().save_pretrained(tmp_path / "other")
    assert main([str(small[1]), "--output", str(tmp_path / "out"), "--model-name", str(tmp_path / "other")]) == 2
    assert "of type gpt2; models that can be exported: llama, mistral, qwen2" in capsys.readouterr().err


def test_an_adapter_with_more_than_layers_is_told(small, tmp_path, capsys):
    targets = ["q_proj", "embed_tokens"]
    adapter = make_adapter(tmp_path / "adapter", small[0], target_modules=targets)
    assert main([str(adapter), "--output", str(tmp_path / "out")]) == 2
    assert "embed_tokens" in capsys.readouterr().err


def test_the_base_that_the_run_was_told_comes_first(small, tmp_path):
    adapter = copied_adapter(tmp_path / "adapter", small[1], base_model_name_or_path="not/this")
    record = {"settings": {"model_name": str(small[0])}}
    (adapter / "run.json").write_text(json.dumps(record), encoding="utf-8")
    assert main([str(adapter), "--output", str(tmp_path / "out")]) == 0
    lines = (tmp_path / "out" / "Modelfile").read_text(encoding="utf-8").splitlines()
    assert f"FROM {small[0]}" in lines and "ADAPTER ./adapter.gguf" in lines


def test_help_loads_no_torch():
    code = "import sys\nfrom Trainers.export.__main__ import build_parser\nbuild_parser().format_help()\n"
    code += "assert not {'torch', 'transformers', 'peft', 'gguf', 'numpy'} & set(sys.modules)"
    root = Path(__file__).resolve().parents[1]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0


GO_TO_JINJA = {  # each tag of Go's text/template that a Modelfile of ours may have, in Jinja
    "if not .System": "if not System",
    "range .Messages": "for m in Messages",
    "range $i, $_ := .Messages": "for m in Messages",
    'if eq .Role "system"': "if m.role == 'system'",
    'if eq .Role "user"': "if m.role == 'user'",
    'else if eq .Role "user"': "elif m.role == 'user'",
    'else if eq .Role "assistant"': "elif m.role == 'assistant'",
    "if and $.System (eq $i 1)": "if System and loop.index0 == 1",
    "if and $.System (eq (len (slice $.Messages $i)) 1)": "if System and Messages[loop.index0:] | length == 1",
    "$.System": "System",
    ".Content": "m.content",
}


def render_go(template: str, messages: Sequence[Mapping[str, str]]) -> str:
    """What Ollama makes of its template and these messages."""
    import jinja2

    opened, text = [], ""
    for i, part in enumerate(re.split(r"\{\{ (.*?) \}\}", template)):
        if i % 2 == 0:
            text += jinja2_literal(part)
        elif part == "end":
            text += "{% end" + opened.pop() + " %}"
        else:
            tag = GO_TO_JINJA[part]
            word = tag.split()[0]
            opened += [word] if word in ("if", "for") else []
            text += "{% " + tag + " %}" if word in ("if", "for", "elif") else "{{ " + tag + " }}"
    system = "\n\n".join(m["content"] for m in messages if m["role"] == "system")
    return jinja2.Environment(keep_trailing_newline=True).from_string(text).render(System=system, Messages=messages)


def jinja2_literal(text: str) -> str:
    return "{{ " + json.dumps(text) + " }}" if text else ""


CONVERSATIONS = [
    [{"role": "user", "content": "Make a folder."}],
    [{"role": "system", "content": "Use tools.\nAlways."}, {"role": "user", "content": "Make a folder."}],
    [
        {"role": "user", "content": "Make a folder."},
        {"role": "assistant", "content": "Done."},
        {"role": "user", "content": "Which?"},
    ],
    [
        {"role": "system", "content": "Use tools."},
        {"role": "user", "content": "Make a folder."},
        {"role": "assistant", "content": "Done."},
        {"role": "user", "content": "Which?"},
        {"role": "assistant", "content": "That one."},
        {"role": "user", "content": "Thanks!"},
    ],
]
LLAMA31 = (
    "{{ bos_token }}{% if messages[0].role == 'system' %}{% set s = messages[0].content | trim %}"
    "{% set messages = messages[1:] %}{% else %}{% set s = '' %}{% endif %}"
    "<|start_header_id|>system<|end_header_id|>\n\nCutting Knowledge Date: December 2023\n\n{{ s }}<|eot_id|>"
    + LLAMA3.removeprefix("{{ bos_token }}")
)
MISTRAL_FIRST = MISTRAL.replace("loop.last", "loop.first").replace("[/INST]", " [/INST]")
MISTRAL_TURN = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'system' %}[SYSTEM_PROMPT]{{ m.content }}[/SYSTEM_PROMPT]"
    "{% elif m.role == 'user' %}[INST]{{ m.content }}[/INST]{% else %}{{ m.content }}</s>{% endif %}{% endfor %}"
)


@pytest.mark.parametrize(
    ("kind", "template", "stop"),
    [
        ("llama", CHATML, "<|im_end|>"),
        ("qwen2", CHATML.replace("Be helpful.", 'You are "Qwen" & co.'), "<|im_end|>"),
        ("llama", CHATML.replace("loop.first and", "false and"), "<|im_end|>"),
        ("llama3", LLAMA3, "<|eot_id|>"),
        ("llama3", LLAMA31, "<|eot_id|>"),
        ("mistral", MISTRAL, "</s>"),
        ("mistral", MISTRAL_FIRST, "</s>"),
        ("mistral", MISTRAL_TURN, "</s>"),
        ("mistral", LLAMA2, "</s>"),
        ("qwen2", "{{ bos_token }}" + CHATML, "<|im_end|>"),
    ],
)
def test_the_modelfile_writes_turns_as_the_chat_template_does(tiny_tokenizers, kind, template, stop):
    tokenizer = tiny_tokenizers[kind]
    tokenizer.bos_token = KINDS[kind].bos or "<|endoftext|>"
    tokenizer.chat_template = strip_training_tags(template)
    text = modelfile(Source("./model-f16.gguf"), turns_of(tokenizer), "tiny")
    assert f'PARAMETER stop "{stop}"\n' in text
    written = re.search(r'^TEMPLATE """(.*?)"""$', text, re.DOTALL | re.MULTILINE)[1]
    for messages in CONVERSATIONS:
        wanted = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        if KINDS[kind].bos:  # which the tokenizer adds to any text, and so does llama.cpp
            wanted = wanted.removeprefix(tokenizer.bos_token)
        assert render_go(written, messages) == wanted


@pytest.fixture(scope="module")
def tiny_tokenizers():
    return {name: make_tokenizer(kind) for name, kind in KINDS.items()}


@pytest.mark.parametrize(
    "template",
    [
        "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}",
        "{% if messages[0].role == 'system' %}{{ raise_exception('no') }}{% endif %}User: {{ messages[0].content }}",
        CHATML.replace("Be helpful.", "Be {{ '{{' }} helpful."),
    ],
)
def test_an_unknown_chat_template_is_left_out_and_told(tiny_tokenizers, caplog, template):
    tokenizer = tiny_tokenizers["llama"]
    tokenizer.chat_template = strip_training_tags(template)
    text = modelfile(Source("./model-f16.gguf"), turns_of(tokenizer), "tiny")
    assert text.splitlines()[1:] == ["FROM ./model-f16.gguf"]
    assert "no TEMPLATE" in caplog.text


@pytest.mark.parametrize("tag", ["{% generation %}", "{%- generation -%}", "{%-generation%}", "{%+ endgeneration -%}"])
def test_training_tags_go_and_white_space_stays_as_they_had_it(tag):
    import jinja2

    template = strip_training_tags(f"a \n  {tag} \n b")
    assert "generation" not in template
    left, right = ("a" if "{%-" in tag else "a \n  "), ("b" if "-%}" in tag else " \n b")
    assert jinja2.Environment().from_string(template).render() == left + right


def test_training_tags_named_in_a_comment_leave_the_comment_whole():
    template = "{#- Added {% generation %} / {% endgeneration %}\n around answers. -#}\nx"
    assert strip_training_tags(template) == "{#- Added  / \n around answers. -#}\nx"


@pytest.mark.slow
def test_the_default_weights_answer_alike_with_an_adapter(tmp_path):
    """Greedy answers of SmolLM2-135M with a random adapter: transformers and peft, llama.cpp with the adapter on top,
    llama.cpp with the merged model. On float16 weights: llama.cpp rounds activations to 8 bit for smaller ones."""
    from Evaluator.backends.embedded import EmbeddedClient
    from Evaluator.model_client import SamplingOptions
    from Evaluator.records import Message
    from Trainers.common.base_models import find_base_model

    base = Path(find_base_model("embedded").path)
    nothing = make_adapter(tmp_path / "nothing", base, size=0.0)
    adapter = make_adapter(tmp_path / "adapter", base, size=0.02)
    assert main([str(nothing), "--output", str(tmp_path / "plain"), "--format", "gguf"]) == 0
    assert main([str(adapter), "--output", str(tmp_path / "out"), "--format", "lora", "gguf"]) == 0
    questions = ["Name three colours.", "What is a folder?", "Write one line about the sea."]
    wanted, plain = greedy_answers(base, questions, adapter), greedy_answers(base, questions)
    assert all(one != other for one, other in zip(wanted, plain, strict=True))
    served = [(tmp_path / "plain" / "model-f16.gguf", tmp_path / "out" / "adapter.gguf")]
    for path, on_top in [*served, (tmp_path / "out" / "model-f16.gguf", None)]:
        client = EmbeddedClient(path, adapter=on_top, slots=1)
        options = SamplingOptions(max_tokens=24, temperature=0.0)
        answers = [client.complete([Message("user", q)], options).message.content for q in questions]
        client.close()
        assert answers == wanted


def greedy_answers(base: Path, questions: Sequence[str], adapter: Path | None = None) -> list[str]:
    tokenizer = transformers.AutoTokenizer.from_pretrained(base)
    model = transformers.AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    if adapter:
        model = peft.PeftModel.from_pretrained(model, adapter)
    answers = []
    for question in questions:
        ids = tokenizer.apply_chat_template(
            [{"role": "user", "content": question}], add_generation_prompt=True, return_tensors="pt"
        )
        with torch.no_grad():
            made = model.generate(**ids, max_new_tokens=24, do_sample=False)
        answers.append(tokenizer.decode(made[0, ids["input_ids"].shape[1] :], skip_special_tokens=True))
    return answers
