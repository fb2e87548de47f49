"""A tokenizer as GGUF metadata, such that llama.cpp cuts a text into the same tokens as transformers does."""

import json
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from Evaluator.errors import UsageError
from Trainers.common.text_splits import name_of_split, steps_of

if TYPE_CHECKING:
    from gguf import GGUFWriter, TokenType
    from transformers import PreTrainedTokenizerBase

_TRAINING_TAG = re.compile(r"\{%([-+]?)\s*(?:end)?generation\s*([-+]?)%\}")
_COMMENT_OR_TAG = re.compile(r"\{#.*?#\}|" + _TRAINING_TAG.pattern, re.DOTALL)
_BYTE = re.compile(r"<0x[0-9A-F]{2}>")
_SPACE = "\u2581"  # what SentencePiece writes for a space


def strip_training_tags(template: str) -> str:
    """The chat template without {% generation %}, which marks what to train on and which llama.cpp refuses.

    An empty comment takes the place of each tag: it trims white space as the tag did. Comments may name the tags.
    """

    def replacement(match: re.Match[str]) -> str:
        is_comment = match[0].startswith("{#")
        return _TRAINING_TAG.sub("", match[0]) if is_comment else f"{{#{match[1]} {match[2]}#}}"

    return _COMMENT_OR_TAG.sub(replacement, template)


def add_tokenizer(writer: "GGUFWriter", tokenizer: "PreTrainedTokenizerBase", vocab_size: int) -> None:
    """Write all of `tokenizer` for a model with `vocab_size` embeddings. Raises UsageError for unknown kinds."""
    data = json.loads(tokenizer.backend_tokenizer.to_str())
    if data["model"]["type"] != "BPE":
        raise UsageError(f"a tokenizer of type {data['model']['type']} cannot be exported: only BPE can")
    tokens, types = _tokens(data, vocab_size)
    if data["model"].get("byte_fallback"):
        writer.add_tokenizer_model("llama")
        writer.add_token_scores(_scores(data, tokens))
        writer.add_add_space_prefix(_adds_space(data))
    else:
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre(name_of_split(data["pre_tokenizer"]))
        writer.add_token_merges([" ".join(merge) for merge in _merges(data)])
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    _add_special_tokens(writer, tokenizer)
    writer.add_chat_template(strip_training_tags(tokenizer.get_chat_template()))


def adds_bos(tokenizer: "PreTrainedTokenizerBase") -> bool:
    """Whether the tokenizer puts the beginning-of-sequence token before a text of its own accord."""
    ids = tokenizer("a").input_ids
    return tokenizer.bos_token_id is not None and ids[0] == tokenizer.bos_token_id


def _add_special_tokens(writer: "GGUFWriter", tokenizer: "PreTrainedTokenizerBase") -> None:
    writer.add_add_bos_token(adds_bos(tokenizer))
    writer.add_add_eos_token(tokenizer("a").input_ids[-1] == tokenizer.eos_token_id)
    for add, token_id in (
        (writer.add_bos_token_id, tokenizer.bos_token_id),
        (writer.add_eos_token_id, tokenizer.eos_token_id),
        (writer.add_unk_token_id, tokenizer.unk_token_id),
        (writer.add_pad_token_id, tokenizer.pad_token_id),
    ):
        if token_id is not None:
            add(token_id)


def _tokens(data: Mapping[str, Any], vocab_size: int) -> tuple[list[str], list["TokenType"]]:
    """Text and type of each token; ids that the tokenizer leaves out are unused."""
    from gguf import TokenType

    of_id = {token_id: (text, TokenType.NORMAL) for text, token_id in data["model"]["vocab"].items()}
    if data["model"].get("byte_fallback"):
        of_id |= {i: (text, TokenType.BYTE) for i, (text, _) in of_id.items() if _BYTE.fullmatch(text)}
    for added in data["added_tokens"]:
        kind = TokenType.CONTROL if added["special"] else TokenType.USER_DEFINED
        of_id[added["id"]] = (added["content"], kind)
    unknown = data["model"]["vocab"].get(data["model"].get("unk_token"))
    if unknown is not None:
        of_id[unknown] = (of_id[unknown][0], TokenType.UNKNOWN)
    if max(of_id) >= vocab_size:
        raise UsageError(f"the tokenizer has tokens up to {max(of_id)}, the model embeds only {vocab_size}")
    return tuple(zip(*(of_id.get(i, (f"[PAD{i}]", TokenType.UNUSED)) for i in range(vocab_size)), strict=True))


def _merges(data: Mapping[str, Any]) -> list[list[str]]:
    """Pairs, first merged first; older files write a pair as one text."""
    return [merge.split(" ") if isinstance(merge, str) else merge for merge in data["model"]["merges"]]


def _scores(data: Mapping[str, Any], tokens: list[str]) -> list[float]:
    """llama.cpp merges what has the highest score first: here, what comes first among the merges."""
    scores: dict[str, float] = {}
    for rank, pair in enumerate(_merges(data)):
        scores.setdefault("".join(pair), -float(rank))
    lowest = -float(len(data["model"]["merges"]))
    return [scores.get(token, lowest) for token in tokens]


def _adds_space(data: Mapping[str, Any]) -> bool:
    """Whether a space is put before each text between special tokens, as llama.cpp does it.

    A tokenizer that does so at the very start only ("first") does not in a conversation, which starts with a token.
    """
    steps = steps_of(data["normalizer"], "normalizers") + steps_of(data["pre_tokenizer"], "pretokenizers")
    if any(step["type"] == "Prepend" and step["prepend"] == _SPACE for step in steps):
        return True
    return any(step["type"] == "Metaspace" and step.get("prepend_scheme") == "always" for step in steps)
