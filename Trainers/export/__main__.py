"""Make of a trained adapter what others load: a GGUF adapter, merged safetensors, a merged GGUF, an Ollama Modelfile.

python -m Trainers.export sft-7b --output exported
python -m Trainers.export sft-7b --output exported --format lora gguf --gguf-type q8_0
"""

import argparse
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from Evaluator.console import run_main
from Evaluator.errors import OK
from Trainers.common.base_models import BaseModel, find_base_model, load_tokenizer
from Trainers.export.adapters import Adapter, base_name, read_adapter, write_half
from Trainers.export.chat_turns import turns_of
from Trainers.export.families import family_of, load_config
from Trainers.export.lora_gguf import write_lora
from Trainers.export.merging import MergedWeights, write_merged
from Trainers.export.model_gguf import (
    F16,
    GGUF_TYPES,
    Q4_K_M,
    find_llama_quantize,
    quantize_with_llama_cpp,
    write_from_gguf,
    write_from_weights,
)
from Trainers.export.modelfile import Source, modelfile, write_modelfile
from Trainers.export.outputs import refuse_existing, written_whole
from Trainers.export.tokenizer_gguf import strip_training_tags

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedTokenizerBase

LORA, LORA_F16, PEFT_F16, SAFETENSORS, GGUF = "lora", "lora-f16", "peft-f16", "safetensors", "gguf"
FORMATS = (LORA, LORA_F16, PEFT_F16, SAFETENSORS, GGUF)


@dataclass(frozen=True)
class Trained:
    """What is exported."""

    base: BaseModel
    config: "PreTrainedConfig"
    adapter: Adapter
    tokenizer: "PreTrainedTokenizerBase"


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m Trainers.export",
        description="Turn a LoRA adapter into files for llama.cpp, LM Studio, Ollama, vLLM and transformers. The paths "
        "written go to stdout.",
        epilog="examples:\n"
        "  python -m Trainers.export sft-7b --output exported\n"
        "  python -m Trainers.export sft-7b --output exported --format lora gguf --gguf-type q8_0\n"
        "  python -m Trainers.export sft-7b --output exported | xargs ls -lhd",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("adapter", type=Path, metavar="ADAPTER", help="the folder with adapter_config.json")
    parser.add_argument(
        "--model-name",
        metavar="NAME",
        help="the base model: a folder, a name on the hub, a .gguf file, or embedded (default: the one that the "
        "adapter was trained on, as its run.json or adapter_config.json says)",
    )
    group = parser.add_argument_group("output")
    group.add_argument("--output", type=Path, required=True, metavar="DIR", help="where to write; made if needed")
    group.add_argument(
        "--format",
        nargs="+",
        choices=FORMATS,
        default=[LORA],
        help="lora: adapter.gguf, which llama.cpp puts on top of the base; lora-f16: the same at half the size; "
        "peft-f16: adapter-f16/, a PEFT folder of half the size; safetensors: merged/, 16-bit weights; gguf: the "
        "merged model in one file (default: lora)",
    )
    group.add_argument(
        "--gguf-type", choices=GGUF_TYPES, default=F16, help="precision of the merged GGUF (default: %(default)s)"
    )
    group.add_argument(
        "--llama-quantize",
        default="llama-quantize",
        metavar="PATH",
        help="llama.cpp's program, which q4_k_m needs (default: %(default)s)",
    )
    group.add_argument("--overwrite", action="store_true", help="replace what is there already")
    group.add_argument("--verbose", action="store_true", help="show tracebacks and details")
    return parser


def export(args: argparse.Namespace) -> int:
    logging.getLogger("gguf").setLevel(logging.WARNING)  # it tells the byte order and plan of each file
    targets = _targets(args)
    if not args.overwrite:
        refuse_existing(list(targets.values()))
    program = find_llama_quantize(args.llama_quantize) if GGUF in targets and args.gguf_type == Q4_K_M else None
    trained = _read(args)
    args.output.mkdir(parents=True, exist_ok=True)
    if LORA in targets:
        with written_whole(targets[LORA]) as path:
            write_lora(path, trained.adapter, family_of(trained.config))
    if LORA_F16 in targets:
        with written_whole(targets[LORA_F16]) as path:
            write_lora(path, trained.adapter, family_of(trained.config), is_half=True)
    if PEFT_F16 in targets:
        with written_whole(targets[PEFT_F16]) as path:
            write_half(path, trained.adapter)
    if SAFETENSORS in targets:
        with written_whole(targets[SAFETENSORS]) as path, _weights(trained) as weights:
            write_merged(path, weights, trained.base, trained.tokenizer)
    if GGUF in targets:
        with written_whole(targets[GGUF]) as path:
            _write_model(path, args.gguf_type, program, trained)
    with written_whole(targets["modelfile"]) as path:
        source = _source(targets, trained.base)
        write_modelfile(path, modelfile(source, turns_of(trained.tokenizer), _name(trained.base)))
    for path in targets.values():
        print(path)
    return OK


def _targets(args: argparse.Namespace) -> dict[str, Path]:
    """What is written, by format, in this order; the Modelfile always."""
    names = {
        LORA: "adapter.gguf",
        LORA_F16: "adapter-f16.gguf",
        PEFT_F16: "adapter-f16",
        SAFETENSORS: "merged",
        GGUF: f"model-{args.gguf_type}.gguf",
    }
    chosen = {kind: args.output / name for kind, name in names.items() if kind in args.format}
    return chosen | {"modelfile": args.output / "Modelfile"}


def _read(args: argparse.Namespace) -> Trained:
    base = find_base_model(args.model_name or base_name(args.adapter))
    config = load_config(base)
    adapter = read_adapter(args.adapter, family_of(config).modules())
    tokenizer = load_tokenizer(base)
    tokenizer.chat_template = strip_training_tags(tokenizer.get_chat_template())
    return Trained(base, config, adapter, tokenizer)


def _weights(trained: Trained) -> MergedWeights:
    return MergedWeights(trained.base, trained.adapter)


def _write_model(path: Path, gguf_type: str, program: str | None, trained: Trained) -> None:
    base, family = trained.base, family_of(trained.config)
    if program:
        half = path.with_name("half.gguf")
        _write_model(half, F16, None, trained)
        quantize_with_llama_cpp(program, half, path)
    elif base.gguf:
        write_from_gguf(path, gguf_type, base, trained.adapter, family)
    else:
        with _weights(trained) as weights:
            write_from_weights(path, gguf_type, weights, _name(base), trained.config, family, trained.tokenizer)


def _name(base: BaseModel) -> str:
    return (base.gguf or Path(base.name)).name


def _source(targets: dict[str, Path], base: BaseModel) -> Source:
    if GGUF in targets:
        return Source(f"./{targets[GGUF].name}")
    on_top = targets.get(LORA) or targets.get(LORA_F16)
    if not on_top and SAFETENSORS in targets:
        return Source(f"./{targets[SAFETENSORS].name}")
    adapter = f"./{(on_top or targets[PEFT_F16]).name}"
    return Source(str(base.gguf), adapter) if base.gguf else Source(base.name, adapter, is_placeholder=True)


def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    return run_main(lambda: export(args), verbose=args.verbose)


if __name__ == "__main__":
    raise SystemExit(main())
