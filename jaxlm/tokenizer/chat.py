"""Dialogues as text and as tokens: by the chat template, or as [CLS] turn [SEP] turn [SEP]."""

import itertools
from collections.abc import Mapping, Sequence

from jaxlm.tokenizer.encoding import Tokenizer
from jaxlm.tokenizer.formats import TokenizerError
from jaxlm.tokenizer.templates import NOTHING, ChatTemplate, Given, Message, Rendering

THOUGHT = "</think>"  # ends the part of a reply that templates leave out of past turns
Span = tuple[int, int]
# For a vocabulary with no more than an end of text: it ends every turn (Zhang et al. 2019).
TURNS_BY_END = "{% for message in messages %}{{ message['content'] + eos_token }}{% endfor %}"


def knows_dialogues(tokenizer: Tokenizer) -> bool:
    """Whether the tokenizer has a chat template, or [CLS] and [SEP].

    Raises: TokenizerError where it has several templates, and none is the default.
    """
    by_template = chat_template(tokenizer) is not None
    return by_template or None not in (tokenizer.cls_id, tokenizer.sep_id)


def with_dialogues(tokenizer: Tokenizer) -> Tokenizer:
    """The tokenizer, given a chat template if it has no way to write dialogues.

    Raises: TokenizerError where it has no end of text either.
    """
    if knows_dialogues(tokenizer):
        return tokenizer
    if tokenizer.eos_id is None:
        raise TokenizerError(
            "dialogues need a tokenizer with a chat template, with [CLS] and [SEP], or with an end "
            "of text; --data.special_tokens cls_sep trains one"
        )
    return Tokenizer(tokenizer.backend, tokenizer.config | {"chat_template": TURNS_BY_END})


def chat_template(tokenizer: Tokenizer) -> ChatTemplate | None:
    """The tokenizer's chat template: its only one, or the default one of several.

    Raises: TokenizerError where none of several is the default.
    """
    source = tokenizer.config.get("chat_template")
    if not source:
        return None
    if isinstance(source, list):
        try:
            source = {entry["name"]: entry["template"] for entry in source}
        except (TypeError, KeyError):
            raise TokenizerError(
                "chat_template must be a text, or name and template each"
            ) from None
    if isinstance(source, dict):
        if "default" not in source:
            names = ", ".join(map(str, source))
            raise TokenizerError(
                f"none of the tokenizer's chat templates ({names}) is called default: put the one "
                "to use into chat_template.jinja"
            )
        source = source["default"]
    if not isinstance(source, str):
        raise TokenizerError(f"the chat template must be a text, not {source!r}")
    return tokenizer.templates.setdefault(source, ChatTemplate(source, tokenizer.special_tokens()))


def chat_text(
    tokenizer: Tokenizer,
    messages: Sequence[Message],
    add_generation_prompt: bool = True,
    given: Given = NOTHING,
) -> str:
    """A dialogue as one text by the tokenizer's chat template, ready for `encode`.

    `given` may hold `tools` and `documents`, as transformers hands them to templates.

    Raises: TokenizerError where there is no template, or it refuses the messages.
    """
    template = chat_template(tokenizer)
    if template is None:
        raise TokenizerError("this tokenizer has no chat template")
    check_given(tokenizer, given)
    return template.render(messages, add_generation_prompt, given).text


def check_given(tokenizer: Tokenizer, given: Given) -> None:
    """Raise TokenizerError unless tools and documents are JSON objects that a template can show."""
    if given and not tokenizer.config.get("chat_template"):
        raise TokenizerError(
            f"{' and '.join(given)} are for a chat template, which this tokenizer does not have"
        )
    for name, values in given.items():
        if not isinstance(values, list) or not all(isinstance(v, Mapping) for v in values):
            raise TokenizerError(f"{name} must be a list of JSON objects, got {values!r:.60}")


def dialogue_ids(
    tokenizer: Tokenizer, turns: Sequence[Message], given: Given = NOTHING
) -> list[int]:
    """The tokens of a dialogue, up to where the next reply begins.

    Raises: TokenizerError where the template refuses it, or none is there to show what is given.
    """
    if tokenizer.config.get("chat_template"):
        return tokenizer.encode(chat_text(tokenizer, turns, given=given))
    check_given(tokenizer, given)
    assert tokenizer.cls_id is not None  # see knows_dialogues
    assert tokenizer.sep_id is not None
    ids = [tokenizer.cls_id]
    for turn in turns:
        ids += [*tokenizer.encode(turn["content"]), tokenizer.sep_id]
    return ids


def dialogue_with_replies(
    tokenizer: Tokenizer, turns: Sequence[Message], given: Given = NOTHING
) -> tuple[list[int], list[bool]]:
    """The tokens of a dialogue up to its last reply, and which of them belong to replies.

    A reply has its end token with it. The tokens are those of the whole text, which the template
    may write otherwise than the dialogue up to a reply.

    Raises: TokenizerError where the template refuses the dialogue or replies are not found in it.
    """
    last = max((i for i, turn in enumerate(turns) if turn["role"] == "assistant"), default=-1)
    turns = turns[: last + 1]
    if not turns:
        return [], []
    template = chat_template(tokenizer)
    if template is not None:
        check_given(tokenizer, given)
        return tokens_of_spans(tokenizer, *reply_spans(template, turns, given))
    ids = dialogue_ids(tokenizer, [], given)
    learned = [False]
    for turn in turns:
        added = dialogue_ids(tokenizer, [turn])[1:]
        ids += added
        learned += [turn["role"] == "assistant"] * len(added)
    return ids, learned


def reply_spans(
    template: ChatTemplate, turns: Sequence[Message], given: Given = NOTHING
) -> tuple[str, list[Span]]:
    """The text of a dialogue, and the (start, end) of each reply from the prompt to its end token.

    Raises: TokenizerError where the template refuses the dialogue, or changes replies beyond
    finding.
    """
    whole = template.render(turns, False, given)
    if template.marks_replies:
        return whole.text, whole.spans
    replies = [i for i, turn in enumerate(turns) if turn["role"] == "assistant"]
    found = iter(
        text_or_none(x)
        for x in template.try_each(
            [pair for i in replies for pair in ((turns[:i], True), (turns[: i + 1], False))], given
        )
    )
    pairs = list(zip(found, found, strict=True))
    spans = [
        (len(before), len(after))
        for before, after in pairs
        if before is not None and after is not None
        if after.startswith(before) and whole.text.startswith(after)
    ]
    if len(spans) == len(replies):
        return whole.text, spans
    prompts = dict(zip(replies, (before for before, _ in pairs), strict=True))
    return whole.text, spans_by_marks(template, turns, whole.text, prompts, given)


def spans_by_marks(
    template: ChatTemplate,
    turns: Sequence[Message],
    whole: str,
    prompts: Mapping[int, str | None],
    given: Given,
) -> list[Span]:
    """The replies of a dialogue whose earlier turns are written otherwise once others follow.

    What stands between replies is what stands between marks that are put in their place.
    `prompts` are the texts up to each reply, None where the template refuses one.
    """
    marks = {i: f"\ue000{i}\ue001" for i in prompts}
    answers = {i: turns[i]["content"].rpartition(THOUGHT)[2] for i in marks}
    marked = [
        {**turn, "content": turn["content"].removesuffix(answers[i]) + marks[i]}
        if i in marks
        else turn
        for i, turn in enumerate(turns)
    ]
    asked = {"role": "user", "content": marks[max(marks)]}
    requests = [(marked, False), ([asked], True), ([asked], False)]
    requests += [(marked[: i + 1], False) for i in marks]
    text, prompted, bare, *ends = map(text_or_none, template.try_each(requests, given))
    # What a prompt has behind the user's words, and what of it is there for the reply alone.
    after_user = (prompted or "").rpartition(asked["content"])[2]
    opening = (prompted or "").removeprefix(bare or "") if bare else ""
    between = split_at(text or "", list(marks.values()))
    if between is None:
        raise not_found(next(iter(marks)))
    spans = []
    place = 0
    for i, before, after, end in zip(marks, between, between[1:], ends, strict=False):
        content = place + len(before)
        forms = [answers[i], answers[i].strip(), answers[i].strip("\n")]
        forms += [answers[i].lstrip("\n"), answers[i].lstrip(), answers[i].rstrip()]
        is_last = after is between[-1]
        form = next(
            (
                form
                for form in forms
                if whole.startswith(before, place)
                and whole.startswith(form + after, content)
                and (not is_last or content + len(form + after) == len(whole))
            ),
            None,
        )
        start = reply_start(whole, place, before, prompts[i], after_user, opening)
        if form is None or start is None:
            raise not_found(i)
        place = content + len(form)
        closing = (end or "").rpartition(marks[i])[2]
        spans.append((min(start, content), place + shared_length(closing, after)))
    return spans


def reply_start(
    whole: str, place: int, before: str, prompt: str | None, after_user: str, opening: str
) -> int | None:
    """Where a reply begins that has `before` between it and the reply before, at `place`."""
    if prompt is not None:
        common = shared_length(whole, prompt)
        # All that differs may be what the prompt alone has, such as an opened thought.
        if common > place and len(prompt) - common <= len(after_user):
            return common
    for sign in (after_user, opening):
        if sign and sign in before:
            return place + before.rindex(sign) + len(sign)
    cut = next((n for n in range(len(after_user), 0, -1) if before.endswith(after_user[:n])), 0)
    # Nothing asks for a reply that no template writes without: it is what its turn says.
    return place + len(before) if cut or prompt is None else None


def shared_length(a: str, b: str) -> int:
    """How many characters two texts begin with alike."""
    differ = (i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y)
    return next(differ, min(len(a), len(b)))


def split_at(text: str, marks: Sequence[str]) -> list[str] | None:
    """What stands between marks, each of which must stand in the text once and in order."""
    parts = []
    for mark in marks:
        if text.count(mark) != 1:
            return None
        part, _, text = text.partition(mark)
        parts.append(part)
    return [*parts, text]


def text_or_none(found: Rendering | str) -> str | None:
    return None if isinstance(found, str) else found.text


def not_found(turn: int) -> TokenizerError:
    return TokenizerError(
        f"the chat template changes turn {turn + 1} so that its reply is not found in the text; a "
        "template with {% generation %} around replies tells where they are"
    )


def tokens_of_spans(
    tokenizer: Tokenizer, text: str, spans: Sequence[Span]
) -> tuple[list[int], list[bool]]:
    """The tokens of a text, and which of them are of its spans.

    Where a token would reach over the edge of a span, the text is cut there: a model that is asked
    for a reply has the text before it in its tokens alone.
    """
    edges = sorted({0, len(text), *itertools.chain.from_iterable(spans)})
    prefixes = tokenizer.encode_batch([text[:edge] for edge in edges])
    ids = prefixes[-1]
    parts = [ids[len(a) : len(b)] for a, b in itertools.pairwise(prefixes)]
    if any(ids[: len(prefix)] != prefix for prefix in prefixes):
        texts = [text[a:b] for a, b in itertools.pairwise(edges)]
        parts = [tokenizer.encode(texts[0]), *map(tokenizer.encode_after, texts[1:])]
    inside = [any(a <= edge < b for a, b in spans) for edge in edges[:-1]]
    learned = [own for own, part in zip(inside, parts, strict=True) for _ in part]
    return [token for part in parts for token in part], learned
