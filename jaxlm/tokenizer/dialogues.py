"""Dialogues as tokens: by the chat template, or [CLS] turn [SEP] turn [SEP]."""

from collections.abc import Sequence

from jaxlm.tokenizer.chat import Message
from jaxlm.tokenizer.encoding import Tokenizer
from jaxlm.tokenizer.files import TokenizerError

# For a vocabulary that only knows the end of a text: it ends every turn (Zhang et al. 2019).
TURNS_BY_END = "{% for message in messages %}{{ message['content'] + eos_token }}{% endfor %}"


def knows_dialogues(tokenizer: Tokenizer) -> bool:
    """Whether the tokenizer has a chat template, or [CLS] and [SEP]."""
    by_template = bool(tokenizer.config.get("chat_template"))
    return by_template or None not in (tokenizer.cls_id, tokenizer.sep_id)


def with_dialogues(tokenizer: Tokenizer) -> Tokenizer:
    """The tokenizer, given a chat template if it has no way to write dialogues."""
    if knows_dialogues(tokenizer):
        return tokenizer
    if tokenizer.eos_id is None:
        raise TokenizerError(
            "dialogues need a tokenizer with a chat template, with [CLS] and [SEP], or with an end "
            "of text; --data.special_tokens cls_sep trains one"
        )
    return Tokenizer(tokenizer.backend, tokenizer.config | {"chat_template": TURNS_BY_END})


def dialogue_ids(tokenizer: Tokenizer, turns: Sequence[Message]) -> list[int]:
    """The tokens of a dialogue, up to where the next reply begins."""
    if tokenizer.config.get("chat_template"):
        return tokenizer.encode(tokenizer.chat_text(turns, add_generation_prompt=True))
    assert tokenizer.cls_id is not None  # see knows_dialogues
    assert tokenizer.sep_id is not None
    ids = [tokenizer.cls_id]
    for turn in turns:
        ids += [*tokenizer.encode(turn["content"]), tokenizer.sep_id]
    return ids


def reply_ids(tokenizer: Tokenizer, turns: Sequence[Message]) -> list[int]:
    """The tokens of the last turn, a reply, with what ends it, as they follow the turns before."""
    if tokenizer.config.get("chat_template"):
        before = tokenizer.chat_text(turns[:-1], add_generation_prompt=True)
        whole = tokenizer.chat_text(turns, add_generation_prompt=False)
        if not whole.startswith(before):
            raise TokenizerError("the chat template changes earlier turns when a reply is added")
        return tokenizer.encode(whole[len(before) :])
    return dialogue_ids(tokenizer, turns[-1:])[1:]
