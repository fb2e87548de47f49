"""A model of random weights in a given shape, as a checkpoint that is loaded like any other, and rows for it."""

import argparse
import json
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from Evaluator.records import Message
from Trainers.common.kto import KTO
from Trainers.common.model_sizes import ModelShape, shape_of
from Trainers.common.prepared import Columns, Prepared
from Trainers.common.rendering import Rendered
from Trainers.common.sft import SFT
from Trainers.common.training_data import Conversation, TrainingData

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig, PreTrainedTokenizerBase

METHODS = {"sft": SFT(), "kto": KTO()}
TINY = ModelShape(hidden=32, layers=2, heads=4, kv_heads=2, head_dim=8, intermediate=64, vocab=64)
COMMON_TOKENS = (150, 600)
"""Least and most tokens of common rows; one row in RARE is longer, and the first of all has --max-length."""
RARE = 16
PAD, END, FIRST_TOKEN = 0, 1, 2
SHARD_BYTES = 2e9


def config_of(shape: ModelShape) -> "PretrainedConfig":
    from transformers import LlamaConfig, Qwen2Config

    family = Qwen2Config if shape.has_qkv_bias else LlamaConfig
    return family(
        vocab_size=shape.vocab,
        hidden_size=shape.hidden,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        head_dim=shape.head_dim,
        intermediate_size=shape.intermediate,
        tie_word_embeddings=shape.is_tied,
        max_position_embeddings=32768,
        pad_token_id=PAD,
        bos_token_id=END,
        eos_token_id=END,
        dtype="bfloat16",
    )


def write_checkpoint(shape: ModelShape, folder: Path) -> None:
    """A folder as transformers saves a model, of random bf16 weights, made on the CPU one shard after the other."""
    import torch
    from safetensors.torch import save_file
    from transformers import AutoModelForCausalLM

    config = config_of(shape)
    with torch.device("meta"):
        sizes = {name: value.shape for name, value in AutoModelForCausalLM.from_config(config).state_dict().items()}
    if shape.is_tied:
        del sizes["lm_head.weight"]
    random_numbers = torch.Generator().manual_seed(0)
    files = {}
    for index, names in enumerate(_shards(sizes)):
        file = f"model-{index:05d}.safetensors"
        weights = {name: _random_weight(sizes[name], random_numbers) for name in names}
        save_file(weights, folder / file, metadata={"format": "pt"})
        files |= dict.fromkeys(names, file)
    index = {"metadata": {"total_size": 2 * shape.parameters}, "weight_map": files}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    config.save_pretrained(folder)


def _shards(sizes: Mapping[str, "torch.Size"]) -> Iterator[list[str]]:
    shard: list[str] = []
    for name in sizes:
        shard.append(name)
        if 2 * sum(sizes[one].numel() for one in shard) >= SHARD_BYTES:
            yield shard
            shard = []
    if shard:
        yield shard


def _random_weight(size: "torch.Size", random_numbers: "torch.Generator") -> "torch.Tensor":
    import torch

    weight = torch.empty(size, dtype=torch.bfloat16)
    return weight.normal_(0, 0.02, generator=random_numbers) if len(size) > 1 else weight.fill_(1)  # a norm's


def tokenizer_without_words() -> "PreTrainedTokenizerBase":
    """What the trainers ask for padding; the rows are token ids already."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({"<pad>": PAD, "</s>": END}, unk_token="<pad>"))
    return PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", eos_token="</s>")


# -- the rows ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class RandomRenderer:
    """Renders conversation number N to `lengths[N]` random tokens, of which the last third is the answer."""

    lengths: Sequence[int]
    vocab: int
    seed: int

    def all_turns(self, messages: Sequence[Message]) -> list[Rendered]:
        return [self.last_turn(messages)]

    def last_turn(self, messages: Sequence[Message]) -> Rendered:
        row = int(messages[0].content or 0)
        rng, length = random.Random(f"{self.seed}:{row}"), self.lengths[row]
        prompt = length - length // 3
        return Rendered(
            [rng.randrange(FIRST_TOKEN, self.vocab) for _ in range(length)],
            [False] * prompt + [True] * (length - prompt),
        )


def row_lengths(seed: int, max_length: int) -> Iterator[int]:
    rng = random.Random(f"{seed}:lengths")
    yield max_length
    while True:
        for _ in range(RARE - 1):
            yield min(rng.randint(*COMMON_TOKENS), max_length)
        yield rng.randint(min(COMMON_TOKENS[1], max_length), max_length)


def prepared_rows(method: str, flags: argparse.Namespace, batches: int, *, packed: bool) -> Prepared:
    """Rows for `batches` batches, through the method's own preparation; all of them are trained on unless packed."""
    sequences = batches * flags.batch_size
    lengths: list[int] = []
    for length in row_lengths(flags.seed, flags.max_length):
        if (sum(lengths) >= sequences * flags.max_length) if packed else len(lengths) == sequences:
            break
        lengths.append(length)
    shape = shape_of(flags.model_name)
    data = TrainingData(
        [
            Conversation([Message("user", str(row)), Message("assistant", "-")], row % 2 == 0 or method == "sft", "row")
            for row in range(len(lengths))
        ]
    )
    return METHODS[method].prepare(data, RandomRenderer(lengths, shape.vocab, flags.seed), flags, 1)


def in_any_order(columns: Columns, batch_size: int, seed: int) -> Columns:
    """KTO's rows as in a file: in no order of lengths, the answers of a batch paired as TRL pairs them."""
    order = list(range(len(columns["label"])))
    random.Random(f"{seed}:order").shuffle(order)
    mixed = {name: [values[at] for at in order] for name, values in columns.items()}
    answers = mixed["completion_ids"]
    batches = [answers[start : start + batch_size] for start in range(0, len(answers), batch_size)]
    return mixed | {"KL_completion_ids": [answer for batch in batches for answer in [batch[-1], *batch[:-1]]]}
