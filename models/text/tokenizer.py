"""A byte-level BPE tokenizer, trained on a domain's own text, and its chat template.

Every digit is a token of its own, so that a small model learns to copy a measurement that it has never seen.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from fovea.errors import ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PAD, BEGIN, END, IMAGE, CALL, END_CALL = "<pad>", "<s>", "</s>", "<image>", "<call>", "</call>"
ROLES = {role: f"<|{role}|>" for role in ("system", "user", "assistant", "tool")}
SPECIAL = (PAD, BEGIN, END, IMAGE, CALL, END_CALL, *ROLES.values())
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}<|{{ message.role }}|>"
    "{% macro say(parts) %}{% for part in parts %}"
    "{% if part.type == 'image' %}<image>{% else %}{{ part.text }}{% endif %}{% endfor %}{% endmacro %}"
    "{% if message.role == 'assistant' %}{% generation %}{{ say(message.content) }}{{ eos_token }}{% endgeneration %}"
    "{% else %}{{ say(message.content) }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def train_tokenizer(texts: Iterable[str], size: int = 1024) -> PreTrainedTokenizerBase:
    """Train on `texts` until `size` tokens; at least 300 are needed for bytes, digits and special tokens."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r" ?\p{N}"), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size - len(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([*texts, " 0 1 2 3 4 5 6 7 8 9" * 100], trainer)
    fast = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer,
        pad_token=PAD,
        bos_token=BEGIN,
        eos_token=END,
        additional_special_tokens=[IMAGE, CALL, END_CALL, *ROLES.values()],
        clean_up_tokenization_spaces=False,
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast


def load_tokenizer(reference: str | Path) -> PreTrainedTokenizerBase:
    """A saved tokenizer from a folder or hub name; special tokens and chat template are added where it lacks them."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(str(reference))
    except (OSError, ValueError) as error:
        raise ModelError(f"no tokenizer at {reference} ({error})", "a folder or hub name of a tokenizer") from None
    known = tokenizer.get_vocab()
    missing = [token for token in (IMAGE, CALL, END_CALL, *ROLES.values()) if token not in known]
    if missing:
        tokenizer.add_special_tokens({"additional_special_tokens": missing}, replace_extra_special_tokens=False)
        tokenizer.chat_template = CHAT_TEMPLATE
    for slot, token in (("pad_token", PAD), ("bos_token", BEGIN), ("eos_token", END)):
        if getattr(tokenizer, slot) is None:
            tokenizer.add_special_tokens({slot: token})
    return tokenizer


def token_id(tokenizer: PreTrainedTokenizerBase, token: str) -> int:
    """The id of one token; raises ModelError when the vocabulary lacks it."""
    found = tokenizer.convert_tokens_to_ids(token)
    if not isinstance(found, int):
        raise ModelError(f"a tokenizer without {token}", "a tokenizer opened by load_tokenizer")
    return found
