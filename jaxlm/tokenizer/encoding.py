"""Text to token ids and back: one class around the `tokenizers` library."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
from tokenizers import models

from jaxlm.files import write_file
from jaxlm.tokenizer.characters import CHINESE_GAP
from jaxlm.tokenizer.classes import ROLES, Fields, token_text
from jaxlm.tokenizer.cutting import LONG, LONGEST, NEAR, cut_at_newlines
from jaxlm.tokenizer.formats import (
    PLAIN_CLASS,
    TokenizerError,
    read_tokenizer_files,
    require_texts,
)


class Tokenizer:
    """A vocabulary with its rules: `encode` and `decode`, and the ids of the special tokens.

    `eos_id`, `pad_id`, `bos_id`, `unk_id`, `cls_id`, `sep_id` and `mask_id` are None where the
    vocabulary has no such token. `config` holds the fields of Hugging Face's tokenizer_config.json.
    `source` is the tokenizer of an encoder-decoder's sources, where they have one of their own.
    """

    def __init__(self, backend: tokenizers.Tokenizer, config: Fields | None = None, source=None):
        # Many published files were saved with padding and truncation switched on.
        backend.no_padding()
        backend.no_truncation()
        self.backend = backend
        self.source: Tokenizer | None = source
        self.config = dict(config or {})
        self.templates: dict[str, Any] = {}  # chat templates in use, by their text
        self._vocab = backend.get_vocab()
        self.vocab_size = max(self._vocab.values(), default=-1) + 1
        self.eos_id = self._role_id("eos_token")
        self.pad_id = self._role_id("pad_token")
        self.bos_id = self._role_id("bos_token")
        self.unk_id = self._role_id("unk_token")
        self.cls_id = self._role_id("cls_token")
        self.sep_id = self._role_id("sep_token")
        self.mask_id = self._role_id("mask_token")

    def _role_id(self, role: str) -> int | None:
        usual = next((token for token in ROLES[role] if token in self._vocab), None)
        if usual is not None:
            self.config.setdefault(role, usual)
        token = self.special_token(role)
        return None if token is None else self._vocab.get(token)

    def special_token(self, role: str) -> str | None:
        """The text of a special token by its role in tokenizer_config.json, such as eos_token."""
        token = self.config.get(role)
        return None if token is None else token_text(token)

    def special_tokens(self) -> dict[str, str]:
        """The texts of all special tokens that the config names, by their roles."""
        named = [name for name in self.config if name.endswith("_token") and self.config[name]]
        texts = {name: self.special_token(name) for name in named if not name.startswith("add_")}
        return {name: text for name, text in texts.items() if isinstance(text, str)}

    def encode(self, text: str) -> list[int]:
        """The ids of a text, without special tokens around it.

        Raises: TokenizerError if the vocabulary lacks a character.
        """
        return self.encode_batch([text])[0]

    def encode_after(self, text: str) -> list[int]:
        """The ids of a text that follows another, without the space that some put before a text."""
        for before in "\n.a。" if self.opens_with_space else "":
            first, both = self.encode_batch([before, before + text])
            if both[: len(first)] == first:
                return both[len(first) :]
        return self.encode(text)

    @cached_property
    def opens_with_space(self) -> bool:
        """Whether a text begins with a mark of space, as each word does, that it does not have."""
        ids = self.backend.encode("a", add_special_tokens=False).ids
        return bool(ids) and (self.backend.id_to_token(ids[0]) or "").startswith(("▁", "Ġ"))

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of each text, computed in parallel."""
        require_texts(texts)
        try:
            encodings = self.backend.encode_batch_fast(list(texts), add_special_tokens=False)
        except Exception as error:
            raise self._encoding_error("".join(texts), error) from None
        return [encoding.ids for encoding in encodings]

    def encode_with_offsets(
        self, texts: Sequence[str]
    ) -> list[tuple[list[int], list[tuple[int, int]]]]:
        """The ids of each text, and the (start, end) characters that each id covers."""
        encodings = self.backend.encode_batch(list(texts), add_special_tokens=False)
        return [(encoding.ids, encoding.offsets) for encoding in encodings]

    def encode_prompt(self, text: str) -> list[int]:
        """The ids of a text to continue: with a start token such as <s>, without an end token."""
        return self._opening + self.encode(text)

    def encode_sources(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of texts that an encoder-decoder reads; see `encode_closed`."""
        return (self.source or self).encode_closed(texts)

    def encode_closed(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of texts, opened as the vocabulary does, closed by the token that ends a text.

        Raises: TokenizerError where none does.
        """
        end = self.sep_id if self.eos_id is None else self.eos_id
        if end is None:
            raise TokenizerError("the tokenizer has no token that ends a text, such as </s>")
        return [[*self._opening, *ids, end] for ids in self.encode_batch(texts)]

    @cached_property
    def _opening(self) -> list[int]:
        """The special tokens that the vocabulary puts before a text: <s>, [CLS] or none."""
        if self.backend.post_processor is None:
            return []
        encoding = self.backend.encode("a")
        return encoding.ids[: encoding.special_tokens_mask.index(0)]

    def decode(self, ids: Sequence[int] | np.ndarray, skip_special_tokens: bool = True) -> str:
        """The text of ids; WordPiece does not keep the spacing of the original.

        Raises: TokenizerError for what is no list of ids.
        """
        array = np.asarray(ids)
        if array.ndim != 1 or (array.size and (array.dtype.kind not in "iu" or array.min() < 0)):
            raise TokenizerError(f"a text is decoded from a list of token ids, got {ids!r:.60}")
        text = self.backend.decode(array.tolist(), skip_special_tokens)
        # WordPiece puts a space between any two words, and each Chinese character is a word.
        return (
            CHINESE_GAP.sub("", text) if isinstance(self.backend.model, models.WordPiece) else text
        )

    def pieces(self, text: str) -> Iterator[str]:
        """Cut a long text into pieces whose ids, joined, are those of the whole text.

        Only where millions of characters have no border between words do ids change at a cut.
        """
        lines = cut_at_newlines(text) if self._breaks_at_newlines else iter([text])
        return (piece for line in lines for piece in self._cut_long(line))

    def _cut_long(self, text: str) -> Iterator[str]:
        start, look = 0, LONG
        while len(text) - start > LONG:
            near = range(start + look, min(start + look + NEAR, len(text)))
            place = next((i for i in near if self._breaks_at(text, i)), None)
            if place is None and look < LONGEST and start + look < len(text):
                look += LONG
                continue
            place = min(start + LONGEST, len(text)) if place is None else place
            yield text[start:place]
            start, look = place, LONG
        if text[start:]:
            yield text[start:]

    def _breaks_at(self, text: str, place: int) -> bool:
        """Whether no word, nor any added token, stands on both sides of a place."""
        if self.backend.pre_tokenizer is None:
            return False
        for token in self._added:
            if text.find(token, max(0, place - len(token) + 1), place + len(token) - 1) >= 0:
                return False
        before, after = text[max(0, place - NEAR) : place], text[place : place + NEAR]
        return self._words(before + after) == self._words(before) + self._words(after)

    @cached_property
    def _added(self) -> list[str]:
        return [token.content for token in self.backend.get_added_tokens_decoder().values()]

    def _words(self, text: str) -> list[str]:
        splitter, normalizer = self.backend.pre_tokenizer, self.backend.normalizer
        text = normalizer.normalize_str(text) if normalizer else text
        return [word for word, _ in splitter.pre_tokenize_str(text)] if splitter else [text]

    @cached_property
    def _breaks_at_newlines(self) -> bool:
        """Whether no token spans a CUT, nor depends on the text before it."""
        if self.backend.pre_tokenizer is None:
            return False
        before, after = "One, two.\n", "three four"
        return self._words(before + after) == self._words(before) + self._words(after)

    def _encoding_error(self, text: str, error: Exception) -> TokenizerError:
        missing = next((c for c in text if c not in self._vocab), None)
        if isinstance(self.backend.model, models.WordLevel) and missing is not None:
            return TokenizerError(
                f"the tokenizer's vocabulary has no {missing!r} (U+{ord(missing):04X}): leave it "
                "out, or train a tokenizer on text that holds it"
            )
        return TokenizerError(f"the text cannot be encoded: {error}")

    @cached_property
    def fingerprint(self) -> str:
        """A hash of the vocabulary, the rules and the special tokens."""
        # Scores read from a file differ in the last of 17 digits.
        rules = json.loads(self.backend.to_str(), parse_float=lambda x: round(float(x), 6))
        content = [rules, self.eos_id, self.pad_id, self.bos_id, self.unk_id]
        content += [self.source.fingerprint] if self.source else []
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]

    def saved(self) -> dict[str, Any]:
        """What `from_saved` makes it of again, as JSON can hold it."""
        own = {"backend": self.backend.to_str(), "config": self.config}
        return own if self.source is None else own | {"source": self.source.saved()}

    @classmethod
    def from_saved(cls, saved: Mapping[str, Any]) -> "Tokenizer":
        source = cls.from_saved(saved["source"]) if "source" in saved else None
        return cls(tokenizers.Tokenizer.from_str(saved["backend"]), saved["config"], source)

    def save(self, directory: str | Path, prefix: str = "") -> None:
        """Write tokenizer.json and tokenizer_config.json in Hugging Face's layout.

        Those of the sources' own begin with `source_`. Raises: WriteError.
        """
        if self.source is not None:
            self.source.save(directory, "source_")
        directory = Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        config = {"tokenizer_class": PLAIN_CLASS, "clean_up_tokenization_spaces": False}
        for name, value in self.config.items():
            mapped = name.endswith("_token") and isinstance(value, dict)
            config[name] = value | {"__type": "AddedToken"} if mapped else value
        text = json.dumps(config, ensure_ascii=False, indent=2)
        write_file(directory / f"{prefix}tokenizer.json", self.backend.to_str(pretty=True))
        write_file(directory / f"{prefix}tokenizer_config.json", text + "\n")

    @classmethod
    def load(cls, path: str | Path, max_size: int | None = None) -> "Tokenizer":
        """Read a tokenizer.json, or a folder that holds one or the older files of a tokenizer.

        These are vocab.txt, vocab.json + merges.txt, tokenizer.model or Marian's .spm files. Ids
        are transformers'. Missing special tokens are added while there are less than `max_size`.

        Raises: TokenizerError if there is none or it is damaged.
        """
        file = Path(path) / "tokenizer.json" if Path(path).is_dir() else Path(path)
        try:
            backend, config, own = read_tokenizer_files(file, max_size)
            return cls(backend, config, own and cls(*own))
        except FileNotFoundError:
            raise TokenizerError(
                f"no tokenizer at {path}: give a tokenizer.json, or a folder that holds one, "
                "vocab.txt, or both vocab.json and merges.txt"
            ) from None
        except TokenizerError:
            raise
        except Exception as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise TokenizerError(f"{path} is not a tokenizer that can be read: {reason}") from None


class AbsentTokenizer(Tokenizer):
    """The tokenizer of a model that came without one: every use raises TokenizerError."""

    def __init__(self, reason: str):
        self.__dict__["reason"] = reason

    def __getattribute__(self, name: str) -> Any:
        if name.startswith("__"):
            return super().__getattribute__(name)
        raise TokenizerError(f"the model came without a tokenizer: {self.__dict__['reason']}")
