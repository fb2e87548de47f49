"""Can the path from rows to a served adapter be trusted? Train on 40 right rows until they are known by heart.

python -m tests.overfit FOLDER

Writes rows and a prompt set of 40 tools, then runs README's commands: SFT, export, evaluation of the adapter as the
embedded engine serves it. Half an hour on two CPU cores; the same command again goes on where it was.
"""

import argparse
import json
import random
import subprocess
import sys
from pathlib import Path

from Evaluator.catalog import DEFAULT_CATALOG, load_catalog
from Evaluator.records import to_json_line
from Evaluator.tool_calls import render_turn
from Evaluator.vault.loading import load_fixture
from tests.vaults import any_request
from Tools.prompts.slots import CannotFill
from Tools.prompts.templates import DEFAULT_TEMPLATES, TRAINING_VAULTS, load_templates

NUM_TOOLS = 40
SFT = "Trainers/rtx3090_sft/train_sft.py --model-name embedded --batch-size 2 --gradient-accumulation-steps 2"
SFT += " --num-epochs 15 --learning-rate 1e-3 --save-steps 20 --resume"


def write_task(folder: Path) -> None:
    """rows.jsonl, right calls of filled templates, each of another tool; prompts.json, the same as a prompt set."""
    catalog = load_catalog(DEFAULT_CATALOG)
    templates = load_templates(DEFAULT_TEMPLATES, catalog)
    vaults = {name: load_fixture(name) for name in TRAINING_VAULTS}
    prompts, number = {}, 0
    while len(prompts) < NUM_TOOLS:
        rng, number = random.Random(f"overfit:{number}"), number + 1
        vault = rng.choice(TRAINING_VAULTS)
        try:
            prompt = any_request(templates, rng, vaults[vault])
        except CannotFill:
            continue
        prompts.setdefault(prompt.expected_call.name, (vault, prompt))
    rows, entries = [], []
    for tool, (vault, prompt) in prompts.items():
        turns = [*prompt.messages(), render_turn([prompt.expected_call])]
        rows.append(to_json_line({"conversations": [turn.to_dict() for turn in turns], "label": True}))
        call = {"name": tool, "arguments": prompt.expected_call.arguments}
        entry = {"id": f"overfit-{tool}", "question": prompt.question, "vault": vault, "goal": prompt.goal}
        entries.append({**entry, "expected_tools": [tool], "expected_call": call})
    (folder / "rows.jsonl").write_bytes(b"".join(rows))
    (folder / "prompts.json").write_text(json.dumps({"name": "overfit", "prompts": entries}), encoding="utf-8")


def run(command: str) -> None:
    print(f"python {command}", file=sys.stderr)
    subprocess.run([sys.executable, *command.split()], check=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    write_task(folder)
    run(f"{SFT} --local-file {folder}/rows.jsonl --output {folder}/sft")
    run(f"-m Trainers.export {folder}/sft --output {folder}/served --overwrite")
    evaluate = f"-m Evaluator --prompt-set {folder}/prompts.json --concurrency 1 --max-tokens 256"
    run(f"{evaluate} --adapter {folder}/served/adapter.gguf --output {folder}/after.json")
    run(f"{evaluate} --adapter none --output {folder}/before.json")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
