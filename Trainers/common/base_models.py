"""The model that is fine-tuned: found by name, folder or GGUF file, and loaded with its tokenizer.

A GGUF file is dequantised once, into the user's cache; what was trained on that, not quantised again, fits the file.
"""

import hashlib
import json
import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from Evaluator.backends.default_weights import EMBEDDED, cache_folder, default_weights, weights_path
from Evaluator.errors import UsageError
from Trainers.common.text_splits import split_named

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

log = logging.getLogger(__name__)

ARCHITECTURES = {"llama": "llama", "mistral": "llama", "qwen2": "qwen2"}
"""model_type -> GGUF's general.architecture. Others can be trained, and not exported."""
_SOURCE = "dequantised_from.json"


@dataclass(frozen=True)
class BaseModel:
    """Weights to start from: `name` as the user says it, `path` as transformers loads it (a folder, or a name on the
    hub), `gguf` the file it was dequantised from, if it was."""

    name: str
    path: str
    gguf: Path | None = None

    @property
    def is_local(self) -> bool:
        return Path(self.path).is_dir()


def find_base_model(name: str) -> BaseModel:
    """A folder, a GGUF file (or `embedded`, the one that the generators use), else a name on the hub.

    Raises UsageError for a file that is no GGUF, or a path that is not there.
    """
    gguf = gguf_path(name)
    if gguf:
        if name == EMBEDDED:
            default_weights()  # fetched if need be
        return BaseModel(name, str(_dequantised(gguf)), gguf)
    if Path(name).is_dir():
        source = Path(name) / _SOURCE
        gguf = Path(json.loads(source.read_text(encoding="utf-8"))["gguf"]) if source.is_file() else None
        return BaseModel(name, str(Path(name).resolve()), gguf)
    refuse_missing_folder(name)
    return BaseModel(name, name)


def refuse_missing_folder(name: str) -> None:
    """Raise UsageError for a path that is not there: what is no path is a name on the hub."""
    if not Path(name).is_dir() and (name.startswith((".", "/", "~")) or name.count("/") > 1):
        raise UsageError(f"there is no model folder {name}")


def gguf_path(name: str) -> Path | None:
    """The file behind a name that means a GGUF file, whether or not it is there."""
    if name == EMBEDDED:
        return weights_path().resolve()
    return Path(name).resolve() if name.lower().endswith(".gguf") else None


def dequantised_folder(gguf: Path) -> Path:
    """Where the dequantised weights of a GGUF file are kept. Raises UsageError when there is no such file."""
    try:
        stat = gguf.stat()
    except OSError as error:
        raise UsageError(f"cannot read {gguf}: {error.strerror}") from error
    key = hashlib.sha256(f"{gguf}:{stat.st_size}:{stat.st_mtime_ns}".encode()).hexdigest()[:12]
    return cache_folder() / "dequantised" / f"{gguf.stem}-{key}"


def _dequantised(gguf: Path) -> Path:
    """The folder with a GGUF file's weights as float16 safetensors; made on first use, whole or not at all."""
    folder = dequantised_folder(gguf)
    if folder.is_dir():
        return folder
    log.info("dequantising %s, once, into %s ...", gguf, folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
        made = Path(temporary) / "model"
        _dequantise(gguf, made)
        (made / _SOURCE).write_text(json.dumps({"gguf": str(gguf)}) + "\n", encoding="utf-8")
        try:
            made.rename(folder)
        except OSError:  # another run was faster
            if not folder.is_dir():
                raise
    return folder


def _dequantise(gguf: Path, folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig
    from transformers import logging as logging_of_transformers

    logging_of_transformers.disable_progress_bar()
    place = {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name}
    try:
        _refuse_scaled_positions(gguf)
        tokenizer = AutoTokenizer.from_pretrained(**place)
        dense = GgufConfig(dequantize=True)
        model = AutoModelForCausalLM.from_pretrained(**place, dtype=torch.float16, quantization_config=dense)
    except (ValueError, KeyError, IndexError, OSError) as error:
        raise UsageError(f"{gguf} cannot be read, or not by transformers: {error}") from error
    for owner, name in ((model.config, "quantization_config"), (model, "hf_quantizer")):
        if hasattr(owner, name):  # else transformers refuses to save what it once read quantised
            delattr(owner, name)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    _restore_split(gguf, folder / "tokenizer.json")


def _refuse_scaled_positions(gguf: Path) -> None:
    """Raise UsageError for a file whose rotary positions are scaled (Llama 3.1 and later): transformers does not read
    the scaling, so that training would be on other positions than llama.cpp serves."""
    from gguf import GGUFReader

    reader = GGUFReader(gguf)
    scaling = [field.contents() for key, field in reader.fields.items() if key.endswith(".rope.scaling.type")]
    if any(one != "none" for one in scaling) or any(tensor.name == "rope_freqs.weight" for tensor in reader.tensors):
        raise UsageError(
            f"{gguf} scales its positions, which cannot be read from a GGUF file: give --model-name the model that it "
            f"was made of, a folder or a name on the hub"
        )


def _restore_split(gguf: Path, tokenizer_path: Path) -> None:
    """Let the tokenizer cut texts as llama.cpp does with this file: numbers into digits, for one."""
    from gguf import GGUFReader

    field = GGUFReader(gguf).fields.get("tokenizer.ggml.pre")
    split = split_named(field.contents()) if field else None
    if split:
        data = json.loads(tokenizer_path.read_text(encoding="utf-8"))
        tokenizer_path.write_text(json.dumps(data | {"pre_tokenizer": split}, ensure_ascii=False), encoding="utf-8")


def load_tokenizer(base: BaseModel, *, local_files_only: bool = False) -> "PreTrainedTokenizerBase":
    """The tokenizer with its own chat template, cutting texts as its tokenizer.json says. Raises UsageError."""
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    with _sentences(f"the tokenizer of {base.name}"):
        tokenizer = AutoTokenizer.from_pretrained(base.path, local_files_only=local_files_only, mistral_format=False)
        if _cuts_otherwise(tokenizer, base.path):
            tokenizer = PreTrainedTokenizerFast.from_pretrained(base.path, local_files_only=local_files_only)
    if not tokenizer.is_fast:
        raise UsageError(f"{base.name} has no fast tokenizer, which tells where in the text each token stands")
    if not tokenizer.chat_template:
        raise UsageError(f"{base.name} has no chat template: take the instruct or chat version of the model")
    if tokenizer.eos_token_id is None:
        raise UsageError(f"{base.name} has no end-of-sequence token")
    return tokenizer


def _cuts_otherwise(tokenizer: "PreTrainedTokenizerBase", place: str) -> bool:
    """Whether transformers' class for this tokenizer cuts texts in another way than its file: the class of GPT-2, which
    SmolLM2 names, leaves numbers whole that are digits in the file, and for llama.cpp."""
    from transformers.utils import cached_file

    path = cached_file(place, "tokenizer.json", local_files_only=True, _raise_exceptions_for_missing_entries=False)
    if not path or not tokenizer.is_fast:
        return False
    read, own = json.loads(tokenizer.backend_tokenizer.to_str()), json.loads(Path(path).read_text(encoding="utf-8"))
    return any(read.get(part) != own.get(part) for part in ("normalizer", "pre_tokenizer"))


def load_model(base: BaseModel, **options: Any) -> "PreTrainedModel":
    """The weights; `options` as for transformers' from_pretrained. Raises UsageError."""
    from transformers import AutoModelForCausalLM

    with _sentences(base.name):
        return AutoModelForCausalLM.from_pretrained(base.path, **options)


@contextmanager
def _sentences(what: str) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError) as error:
        said = str(error).strip().splitlines()[0]
        raise UsageError(
            f"cannot load {what}: {said} Go online once, or give --model-name a folder or a GGUF file"
        ) from error
