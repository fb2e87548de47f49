"""How a chat template writes turns, told from a few conversations that it renders, and the same in Ollama's language.

Ollama does not read the Jinja template of a model but its own, in Go's template language. `Turns` says the one thing
that both say; those that give what the tokenizer gives, to the letter, are the right ones.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import TYPE_CHECKING

from Trainers.export.tokenizer_gguf import adds_bos

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Conversation = Sequence[Mapping[str, str]]

OWN_TURN, IN_FIRST, IN_LAST = "own turn", "in the first question", "in the last question"
_USER, _AGAIN = {"role": "user", "content": "Who?"}, {"role": "user", "content": "Where?"}
_SYSTEM, _ANSWER = {"role": "system", "content": "Be kind."}, {"role": "assistant", "content": "Me."}
CONVERSATIONS: tuple[Conversation, ...] = (
    (_USER,),
    (_USER, _ANSWER, _AGAIN),
    (_SYSTEM, _USER),
    (_SYSTEM, _USER, _ANSWER, _AGAIN),
)


@dataclass(frozen=True)
class Turns:
    """The texts before and after what each role says. `place` is where the system message goes; `opening` comes first
    of all, `no_system` next if there is no system message, `generation` at the end."""

    system: tuple[str, str]
    user: tuple[str, str]
    assistant: tuple[str, str]
    generation: str
    stops: tuple[str, ...]
    place: str = OWN_TURN
    opening: str = ""
    no_system: str = ""

    @property
    def can_be_quoted(self) -> bool:
        return not any(mark in text for text in (self.no_system, *self.system) for mark in ("{{", '"""'))

    def render(self, conversation: Conversation) -> str:
        system = next((m["content"] for m in conversation if m["role"] == "system"), "")
        said = [m for m in conversation if m["role"] != "system"]
        text = self.opening + ("" if system else self.no_system)
        if system and self.place == OWN_TURN:
            text += system.join(self.system)
        holder = {IN_FIRST: 0, IN_LAST: len(said) - 1}.get(self.place)
        for i, message in enumerate(said):
            before, after = self.user if message["role"] == "user" else self.assistant
            inner = system.join(self.system) if system and i == holder else ""
            text += f"{before}{inner}{message['content']}{after}"
        return text + self.generation

    def go_template(self) -> str:
        """For Ollama, which gives all messages, the system message among them, and the system message by itself."""
        parts = [self.opening]
        if self.no_system:
            parts.append("{{ if not .System }}" + self.no_system + "{{ end }}")
        content = "{{ .Content }}"
        if self.place == OWN_TURN:
            parts += ['{{ range .Messages }}{{ if eq .Role "system" }}', content.join(self.system), "{{ else if "]
            parts += ['eq .Role "user" }}', content.join(self.user)]
        else:
            holds = {IN_FIRST: "(eq $i 1)", IN_LAST: "(eq (len (slice $.Messages $i)) 1)"}[self.place]
            system = "{{ if and $.System " + holds + " }}" + "{{ $.System }}".join(self.system) + "{{ end }}"
            parts += ['{{ range $i, $_ := .Messages }}{{ if eq .Role "user" }}', (system + content).join(self.user)]
        parts += ['{{ else if eq .Role "assistant" }}', content.join(self.assistant), "{{ end }}{{ end }}"]
        return "".join([*parts, self.generation])


_CHATML = Turns(
    system=("<|im_start|>system\n", "<|im_end|>\n"),
    user=("<|im_start|>user\n", "<|im_end|>\n"),
    assistant=("<|im_start|>assistant\n", "<|im_end|>\n"),
    generation="<|im_start|>assistant\n",
    stops=("<|im_end|>",),
)
_LLAMA3 = Turns(
    system=("<|start_header_id|>system<|end_header_id|>\n\n", "<|eot_id|>"),
    user=("<|start_header_id|>user<|end_header_id|>\n\n", "<|eot_id|>"),
    assistant=("<|start_header_id|>assistant<|end_header_id|>\n\n", "<|eot_id|>"),
    generation="<|start_header_id|>assistant<|end_header_id|>\n\n",
    stops=("<|eot_id|>",),
)
_LLAMA2 = Turns(
    system=("<<SYS>>\n", "\n<</SYS>>\n\n"),
    user=("[INST] ", " [/INST]"),
    assistant=(" ", " </s><s>"),
    generation="",
    stops=("</s>",),
    place=IN_FIRST,
)


def turns_of(tokenizer: "PreTrainedTokenizerBase") -> Turns | None:
    """The turns that the tokenizer's chat template writes, None if they are none of those known here.

    Without the beginning-of-sequence token where the tokenizer adds that to any text: llama.cpp does so too.
    """
    wanted = {i: text for i, c in enumerate(CONVERSATIONS) if (text := _rendered(tokenizer, c)) is not None}
    if not wanted:
        return None
    if adds_bos(tokenizer):
        wanted = {i: text.removeprefix(tokenizer.bos_token) for i, text in wanted.items()}
    for turns in _candidates():
        fitted = _fitted(turns, tokenizer, wanted)
        if all(fitted.render(CONVERSATIONS[i]) == text for i, text in wanted.items()):
            return fitted if fitted.can_be_quoted else None
    return None


def _rendered(tokenizer: "PreTrainedTokenizerBase", conversation: Conversation) -> str | None:
    """None where the template refuses, as some do a system message."""
    from jinja2 import TemplateError

    try:
        return tokenizer.apply_chat_template(list(conversation), tokenize=False, add_generation_prompt=True)
    except TemplateError:
        return None


def _candidates() -> Iterator[Turns]:
    yield from (_CHATML, _LLAMA3, _LLAMA2)
    own_turn = (("[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]"), ("[SYSTEM_PROMPT] ", "[/SYSTEM_PROMPT]"))
    systems = [(OWN_TURN, texts) for texts in own_turn] + [(place, ("", "\n\n")) for place in (IN_FIRST, IN_LAST)]
    for (place, system), before, after, lead, end in product(
        systems, ("[INST]", "[INST] "), ("[/INST]", " [/INST]"), ("", " "), ("</s>", "</s> ")
    ):
        yield Turns(system, (before, after), (lead, end), "", ("</s>",), place)


def _fitted(turns: Turns, tokenizer: "PreTrainedTokenizerBase", wanted: Mapping[int, str]) -> Turns:
    """With what this template puts first, around the system message, and in place of one."""
    bos = tokenizer.bos_token
    if bos and all(text.startswith(bos) for text in wanted.values()) and not turns.render((_USER,)).startswith(bos):
        turns = replace(turns, opening=bos)
    if turns.place == OWN_TURN and 2 in wanted:
        before = wanted[2].removeprefix(turns.opening).partition(_SYSTEM["content"])[0]
        if before.startswith(turns.system[0]):
            turns = replace(turns, system=(before, turns.system[1]))
    plain = replace(turns, opening="").render((_USER,))
    if 0 in wanted and wanted[0].endswith(plain):
        turns = replace(turns, no_system=wanted[0].removesuffix(plain).removeprefix(turns.opening))
    return turns
