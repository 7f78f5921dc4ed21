"""Vocabularies trained on text; the same text gives the same vocabulary."""

import difflib
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

from jaxlm.tokenizer.classes import ROLES
from jaxlm.tokenizer.cutting import cut_at_newlines, cut_at_words
from jaxlm.tokenizer.encoding import Tokenizer
from jaxlm.tokenizer.formats import TokenizerError, byte_level, require_texts

GPT2_WORDS = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
BYTES = tuple(f"<0x{byte:02X}>" for byte in range(256))
# A vocabulary with these serves an encoder: a text stands between [CLS] and [SEP].
SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
# Trained pieces occur at least twice, or a small text would become a few long tokens.
MIN_FREQUENCY = 2


def train_tokenizer(
    kind: str, texts: Iterable[str], vocab_size: int | None = None, specials: Sequence[str] = ()
) -> Tokenizer:
    """Train a vocabulary: the same texts give the same tokenizer, bit for bit.

    char: every character of the texts, sorted; `vocab_size` is ignored. bpe and unigram encode any
    text without loss. wordpiece is BERT's (cased): spacing is lost, and unseen characters become
    [UNK]. `specials` take the first ids. At most half of a unigram or wordpiece vocabulary are
    single characters; rarer ones become bytes or [UNK].

    Raises: TokenizerError if there is no text, or `vocab_size` is too small.
    """
    if kind not in KINDS:
        near = difflib.get_close_matches(kind, KINDS, 1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise TokenizerError(f"a tokenizer is one of {', '.join(KINDS)}, not {kind!r}{hint}")
    texts = list(texts) if isinstance(texts, Iterator) else texts
    require_texts(texts)
    # In pieces: the trainer uses one core a text.
    texts = [piece for text in texts for piece in cut_at_newlines(text) if piece]
    if kind != "char":
        texts = [part for piece in texts for part in cut_at_words(piece)]
    if not texts:
        raise TokenizerError(f"there is no text to train a {kind} tokenizer on")
    specials = list(specials)
    if kind == "char":
        backend = train_char(texts, specials)
    else:
        train, smallest, unknown = TRAINED[kind]
        if unknown and unknown_of(specials) is None:
            specials = [unknown, *specials]
        smallest += len(specials)
        if not isinstance(vocab_size, int) or vocab_size < smallest:
            raise TokenizerError(
                f"a {kind} vocabulary needs at least {smallest} tokens, not {vocab_size}: "
                "raise data.vocab_size"
            )
        backend = train(texts, vocab_size, specials)
    backend.add_special_tokens(specials)
    if set(SPECIAL_TOKENS) <= set(specials):
        sep, cls = ((token, specials.index(token)) for token in ("[SEP]", "[CLS]"))
        backend.post_processor = processors.BertProcessing(sep, cls)
    return Tokenizer(backend)


def train_char(texts: list[str], specials: list[str]) -> tokenizers.Tokenizer:
    vocab = number([*specials, *sorted(set().union(*texts))])
    # The model needs the name of an unknown token; if no token has it, unknown characters raise.
    backend = tokenizers.Tokenizer(models.WordLevel(vocab, unknown_of(specials) or "<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Split(tokenizers.Regex(r"[\s\S]"), "isolated")
    backend.decoder = decoders.Fuse()
    return backend


def train_bpe(texts: list[str], vocab_size: int, specials: list[str]) -> tokenizers.Tokenizer:
    backend = byte_level(models.BPE())
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=MIN_FREQUENCY,
        special_tokens=specials,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    return backend


def train_wordpiece(texts: list[str], vocab_size: int, specials: list[str]) -> tokenizers.Tokenizer:
    def rules(model: models.WordPiece) -> tokenizers.Tokenizer:
        backend = tokenizers.Tokenizer(model)
        backend.normalizer = normalizers.BertNormalizer(strip_accents=False, lowercase=False)
        backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        backend.decoder = decoders.WordPiece()
        return backend

    backend = rules(models.WordPiece())
    texts = without_rare_characters(texts, (vocab_size - len(specials)) // 2)
    # The trainer breaks ties by id, and numbers the "##" characters in the random order of a hash
    # map. Named as special tokens, they are numbered in the order given.
    inner = sorted({f"##{c}" for word in count_words(backend, texts) for c in word[1:]})
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocab_size,
        min_frequency=MIN_FREQUENCY,
        special_tokens=specials + inner,
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    vocab = number([*specials, *sorted(set(backend.get_vocab()) - set(specials))])
    return rules(models.WordPiece(vocab, unk_token=unknown_of(specials) or "[UNK]"))


def train_unigram(texts: list[str], vocab_size: int, specials: list[str]) -> tokenizers.Tokenizer:
    def rules(model: models.Unigram) -> tokenizers.Tokenizer:
        backend = tokenizers.Tokenizer(model)
        backend.pre_tokenizer = pre_tokenizers.Split(tokenizers.Regex(GPT2_WORDS), "isolated")
        backend.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
        return backend

    backend, unknown = rules(models.Unigram()), unknown_of(specials) or "<unk>"
    room = vocab_size - len(specials) - len(BYTES)
    texts = without_rare_characters(texts, room // 2)
    trainer = trainers.UnigramTrainer(
        vocab_size=room + 1,
        special_tokens=[unknown],
        unk_token=unknown,
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    tokens = sorted(set(backend.get_vocab()) - {unknown})
    scores = unigram_scores(tokens, count_words(backend, texts))
    # The pre-tokenizer splits "<0x41>", so the scores of byte tokens are never used.
    vocab = [(token, 0.0) for token in (*specials, *BYTES)]
    vocab += zip(tokens, scores, strict=True)
    return rules(models.Unigram(vocab, specials.index(unknown), byte_fallback=True))


def unigram_scores(tokens: list[str], words: Mapping[str, int]) -> list[float]:
    """Log-probabilities of tokens by hard EM, started from the segmentation with fewest tokens.

    The trainer's own scores differ in their last digits from run to run. These come from integer
    counts, and give texts of as few tokens.
    """
    scores = [-1.0] * len(tokens)
    order = sorted(words)
    for _ in range(3):
        vocab = [*zip(tokens, scores, strict=True), ("<unk>", 0.0)]
        backend = tokenizers.Tokenizer(models.Unigram(vocab, len(tokens)))
        counts = [0.5] * len(vocab)
        for word, encoding in zip(order, backend.encode_batch_fast(order), strict=True):
            for token in encoding.ids:
                counts[token] += words[word]
        total = sum(counts)
        # Six digits survive a file exactly; more may not.
        scores = [round(math.log(count / total), 6) for count in counts[:-1]]
    return scores


def count_words(backend: tokenizers.Tokenizer, texts: list[str]) -> Counter[str]:
    """Counts of the words that the pre-tokenizer makes."""
    normalizer, splitter = backend.normalizer, backend.pre_tokenizer
    words: Counter[str] = Counter()
    for text in texts:
        text = normalizer.normalize_str(text) if normalizer else text
        words.update(word for word, _ in splitter.pre_tokenize_str(text))
    return words


def without_rare_characters(texts: list[str], limit: int) -> list[str]:
    """The texts with all but the `limit` most frequent characters replaced by spaces."""
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(text)
    rare = sorted(counts, key=lambda c: (-counts[c], c))[limit:]
    table = dict.fromkeys(map(ord, rare), " ")
    return [text.translate(table) for text in texts] if rare else texts


def number(tokens: Iterable[str]) -> dict[str, int]:
    return {token: i for i, token in enumerate(tokens)}


def unknown_of(specials: Iterable[str]) -> str | None:
    return next((token for token in specials if token in ROLES["unk_token"]), None)


# Kind: its trainer, its smallest vocabulary without special tokens, its unknown token.
TRAINED: dict[str, tuple[Callable[..., tokenizers.Tokenizer], int, str | None]] = {
    "bpe": (train_bpe, 256, None),
    "wordpiece": (train_wordpiece, 32, "[UNK]"),
    "unigram": (train_unigram, 320, "<unk>"),
}
KINDS = ("char", *TRAINED)
