"""Base weights with the adapter added, one tensor at a time; and a folder of them that transformers loads."""

import json
import shutil
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from Evaluator.errors import UsageError
from Trainers.common.base_models import BaseModel
from Trainers.export.adapters import Adapter

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedConfig, PreTrainedTokenizerBase

_SINGLE, _INDEX, _GENERATION = "model.safetensors", "model.safetensors.index.json", "generation_config.json"


class MergedWeights:
    """The tensors of `base`, by the names that transformers gives them, with the changes of `adapter`.

    A context manager: the files of the base stay open (memory-mapped) inside.
    """

    def __init__(self, base: BaseModel, adapter: Adapter) -> None:
        self._base, self._adapter = base, adapter
        self._stack = ExitStack()

    def __enter__(self) -> "MergedWeights":
        from safetensors import safe_open

        self.names_of: Mapping[Path, Sequence[str]] = {}  # by file
        self._files = {}
        for path in _weight_files(self._base):
            opened = self._stack.enter_context(safe_open(path, framework="pt"))
            self.names_of[path] = list(opened.keys())
            self._files |= dict.fromkeys(opened.keys(), opened)
        missing = [module for module in self._adapter.pairs if f"{module}.weight" not in self._files]
        if missing:
            raise UsageError(f"{self._base.name} has no weight {missing[0]}.weight")
        return self

    def __exit__(self, *raised: object) -> None:
        self._stack.close()

    @property
    def names(self) -> list[str]:
        return list(self._files)

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._files[name].get_slice(name).get_shape())

    @property
    def is_bfloat16(self) -> bool:
        """Whether the base's weights are: its first matrix."""
        name = next(name for name in self._files if len(self.shape(name)) == 2)
        return self._files[name].get_slice(name).get_dtype() == "BF16"

    def read(self, name: str) -> "torch.Tensor":
        """float32: weight + scale * b @ a."""
        import torch

        weight = self._files[name].get_tensor(name).float()
        module = name.removesuffix(".weight")
        if module in self._adapter.pairs:
            weight += torch.from_numpy(self._adapter.change(module))
        return weight


def write_merged(folder: Path, weights: MergedWeights, base: BaseModel, tokenizer: "PreTrainedTokenizerBase") -> None:
    """16-bit safetensors (bfloat16 if the base is, else float16) in files as the base has them; config; tokenizer."""
    import torch
    from safetensors.torch import save_file
    from transformers import AutoConfig

    folder.mkdir()
    dtype = torch.bfloat16 if weights.is_bfloat16 else torch.float16
    file_of, num_bytes = {}, 0
    for path, names in weights.names_of.items():
        tensors = {name: weights.read(name).to(dtype) for name in names}
        save_file(tensors, folder / path.name, metadata={"format": "pt"})
        file_of |= dict.fromkeys(names, path.name)
        num_bytes += sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    if len(weights.names_of) > 1:
        index = {"metadata": {"total_size": num_bytes}, "weight_map": dict(sorted(file_of.items()))}
        (folder / _INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
    config = AutoConfig.from_pretrained(base.path)
    config.dtype = dtype
    config.save_pretrained(folder)
    for path in weights.names_of:  # safetensors writes for the owner's eyes only
        shutil.copymode(folder / "config.json", folder / path.name)
    _write_generation_config(folder, base, config)
    tokenizer.save_pretrained(folder)


def _write_generation_config(folder: Path, base: BaseModel, config: "PreTrainedConfig") -> None:
    """As the base has it, to the byte: transformers refuses to write some that it reads."""
    from transformers import GenerationConfig

    path = _file(base, _GENERATION)
    if path:
        shutil.copyfile(path, folder / _GENERATION)
    else:
        GenerationConfig.from_model_config(config).save_pretrained(folder)


def _weight_files(base: BaseModel) -> list[Path]:
    index, names = _file(base, _INDEX), [_SINGLE]
    if index:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    files = [_file(base, name) for name in names]
    if None in files:
        raise UsageError(f"{base.name} has no {names[files.index(None)]}: a base model in safetensors is needed")
    return files


def _file(base: BaseModel, name: str) -> Path | None:
    """A file of a folder or of a model on the hub (fetched on first use); None if there is none."""
    from transformers.utils import cached_file

    try:
        return Path(cached_file(base.path, name))
    except OSError:
        return None
