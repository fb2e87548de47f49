"""Models of a few thousand random weights with tokenizers of their own, for tests of training that need no network."""

from pathlib import Path

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
MISTRAL = (
    "{%- if messages[0].role == 'system' %}{%- set system = messages[0].content %}{%- set turns = messages[1:] %}"
    "{%- else %}{%- set turns = messages %}{%- endif %}{{- bos_token }}{%- for turn in turns %}"
    "{%- if turn.role == 'user' %}{%- if loop.last and system is defined %}"
    "{{- '[INST] ' + system + '\n\n' + turn.content + '[/INST]' }}{%- else %}"
    "{{- '[INST] ' + turn.content + '[/INST]' }}{%- endif %}{%- elif turn.tool_calls is defined and turn.tool_calls %}"
    "{{- '[TOOL_CALLS] [' }}{%- for call in turn.tool_calls %}{%- if call.id|length != 9 %}"
    "{{- raise_exception('ids have 9 characters') }}{%- endif %}"
    "{{- '{\"name\": \"' + call.function.name + '\", \"arguments\": ' + call.function.arguments|tojson + '}' }}"
    "{%- endfor %}{{- ']' + eos_token }}{%- elif turn.role == 'assistant' %}{{- ' ' + turn.content + eos_token }}"
    "{%- else %}{{- raise_exception('only user and assistant turns') }}{%- endif %}{%- endfor %}"
)
"""Like the template of Mistral 7B Instruct v0.3: the system prompt goes into the last turn, if that is the user's."""
TEXT = [
    "Rename the folder Admin to Photo Index, please. Which notes are about bees?",
    'tool_call: vaultManager_createFolder\narguments: {"context": {"sessionId": "session_1"}, "path": "A/B"}',
    "I am a helpful assistant. What shall the new note be called?",
]


def tiny_tokenizer(template=CHATML, eos="<|im_end|>", bos="<|im_start|>", corpus=()):
    """A byte-level BPE tokenizer, trained on three sentences: it takes any text apart and puts it together again."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    special = list(dict.fromkeys(["<|endoftext|>", bos, eos, "[INST]", "[/INST]", "[TOOL_CALLS]"]))
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    tokenizer.train_from_iterator([*TEXT, *corpus], trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=bos,
        eos_token=eos,
        pad_token="<|endoftext|>",
        chat_template=template,
        clean_up_tokenization_spaces=False,
    )


def tiny_model_folder(folder: Path, template=CHATML, family="Llama", **sizes):
    """A model of a family, of random weights with its tokenizer, saved as transformers does."""
    import torch
    import transformers

    tokenizer = tiny_tokenizer(template)
    torch.manual_seed(0)
    shape = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
    config = getattr(transformers, f"{family}Config")(
        vocab_size=len(tokenizer),
        intermediate_size=128,
        max_position_embeddings=2048,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        **{**shape, **sizes},
    )
    getattr(transformers, f"{family}ForCausalLM")(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
