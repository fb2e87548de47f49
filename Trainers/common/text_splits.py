"""How byte-level tokenizers cut a text before they merge bytes to tokens, and llama.cpp's names for those ways.

A GGUF file holds the name only. transformers reads the rest of the tokenizer from such a file and cuts like GPT-2.
"""

import json
from collections.abc import Mapping
from typing import Any

from Evaluator.errors import UsageError

_WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_NAMES = {  # the pattern that cuts -> llama.cpp's name for it
    _WORDS + r"\p{N}" + _REST: "qwen2",
    _WORDS + r"\p{N}{1,3}" + _REST: "llama-bpe",
    rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*|\p{{N}}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+": "tekken",
}
_DIGITS = {"type": "Digits", "individual_digits": True}


def split_named(name: str) -> dict[str, Any] | None:
    """The pre_tokenizer of a tokenizer.json that cuts as llama.cpp does under this name; None for an unknown one."""
    if name == "gpt-2":
        return _bytes(own_pattern=True)
    if name == "smollm":
        return {"type": "Sequence", "pretokenizers": [_DIGITS, _bytes(own_pattern=True)]}
    for pattern, known in _NAMES.items():
        if known == name:
            split = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
            return {"type": "Sequence", "pretokenizers": [split, _bytes(own_pattern=False)]}
    return None


def _bytes(*, own_pattern: bool) -> dict[str, Any]:
    return {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": own_pattern}


def name_of_split(pre_tokenizer: Mapping[str, Any] | None) -> str:
    """llama.cpp's name for the way that a tokenizer.json's pre_tokenizer cuts. Raises UsageError where it has none."""
    steps = steps_of(pre_tokenizer, "pretokenizers")
    last = steps[-1] if steps else {}
    if last.get("type") == "ByteLevel" and not last["add_prefix_space"]:
        before, own = steps[:-1], last.get("use_regex", True)
        if not before and own:
            return "gpt-2"
        if before == [_DIGITS] and own:
            return "smollm"
        if len(before) == 1 and not own and before[0]["type"] == "Split":
            name = _NAMES.get(before[0]["pattern"].get("Regex"))
            if name:
                return name
    raise UsageError(
        f"llama.cpp has no name for how this tokenizer cuts texts ({json.dumps(steps)}): export lora or safetensors "
        f"and convert with llama.cpp's own script"
    )


def steps_of(part: Mapping[str, Any] | None, key: str) -> list[dict[str, Any]]:
    """The steps of a tokenizer.json's pre_tokenizer or normalizer, which may be a sequence under `key`."""
    if part is None:
        return []
    return list(part[key]) if part["type"] == "Sequence" else [dict(part)]
