"""The Modelfile from which `ollama create` makes a model of what was exported."""

import logging
from dataclasses import dataclass
from pathlib import Path

from Trainers.export.chat_turns import Turns

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Source:
    """Where the weights are: FROM, with ADAPTER if that is not None. `is_placeholder` if the user must change FROM."""

    weights: str
    adapter: str | None = None
    is_placeholder: bool = False


def modelfile(source: Source, turns: Turns | None, name: str) -> str:
    lines = [f"# ollama create NAME -f Modelfile; made from {name}"]
    if source.is_placeholder:
        lines.append("# set FROM to a GGUF file of this model, or to its name in Ollama")
    lines.append(f"FROM {source.weights}")
    if source.adapter:
        lines.append(f"ADAPTER {source.adapter}")
    if turns:
        lines.append(f'TEMPLATE """{turns.go_template()}"""')
        lines += [f'PARAMETER stop "{stop}"' for stop in turns.stops]
    else:
        log.warning("warning: the Modelfile has no TEMPLATE, for the chat template of %s is not known here", name)
    return "\n".join(lines) + "\n"


def write_modelfile(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8", newline="\n")
