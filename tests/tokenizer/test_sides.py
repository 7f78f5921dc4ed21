"""Tokenizers of both sides: Marian's .spm files with their vocabulary, and how two are kept."""

import io
import json

import pytest

from jaxlm.tokenizer import Tokenizer, TokenizerError

ENGLISH = ["The quick brown fox jumps over the lazy dog.", "Hello   world, how are you?", "A café."]
GERMAN = ["Der schnelle braune Fuchs springt über den faulen Hund.", "Hallo Welt, wie geht es?"]
TEXTS = ("The dog", "  Hund über Ｗelt ½", "zebra! 天气", "Hello  world", "fox")


@pytest.fixture(scope="module")
def marian(tmp_path_factory):
    """A folder as Marian's are published, and the processors of its two files."""
    sentencepiece = pytest.importorskip("sentencepiece")
    folder, sides, pieces = tmp_path_factory.mktemp("marian"), {}, ["</s>", "<unk>"]
    for side, texts in (("source", ENGLISH), ("target", GERMAN)):
        model = io.BytesIO()
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(texts * 20),
            model_writer=model,
            vocab_size=40,
            hard_vocab_limit=False,
            minloglevel=2,
        )
        (folder / f"{side}.spm").write_bytes(model.getvalue())
        own = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
        found = map(own.id_to_piece, range(3, own.vocab_size()))
        pieces += [piece for piece in found if piece not in pieces]
        sides[side] = own
    vocab = {piece: i for i, piece in enumerate([*pieces, ">>de<<", "<pad>"])}
    (folder / "vocab.json").write_text(json.dumps(vocab))
    (folder / "config.json").write_text('{"model_type": "marian"}')
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "MarianTokenizer"}')
    return folder, sides, vocab


def test_each_side_encodes_as_its_own_file_says(marian):
    folder, sides, vocab = marian
    target = Tokenizer.load(folder, len(vocab))
    for tokenizer, own in ((target.source, sides["source"]), (target, sides["target"])):
        for text in TEXTS:
            pieces = own.encode(text, out_type=str)
            known = [piece for piece in pieces if piece in vocab or len(piece) == 1]
            ids = [vocab.get(piece, vocab["<unk>"]) for piece in pieces]
            if known == pieces:  # else what one side lacks is spelled by pieces of the other
                assert tokenizer.encode(text) == ids
                assert "⁇" in own.decode(pieces) or tokenizer.decode(ids) == own.decode(pieces)


def test_sources_end_with_the_end_of_text_and_may_begin_with_a_language(marian):
    folder, _, vocab = marian
    target = Tokenizer.load(folder, len(vocab))
    plain, coded = target.encode_sources(["Hello world", ">>de<< Hello world"])
    assert plain[-1] == coded[-1] == vocab["</s>"] == target.eos_id
    assert coded == [vocab[">>de<<"], *plain]
    assert (target.pad_id, target.bos_id) == (vocab["<pad>"], None)


def test_two_tokenizers_are_kept_and_read_as_they_were(marian, tmp_path):
    folder, _, vocab = marian
    target = Tokenizer.load(folder, len(vocab))
    target.save(tmp_path)
    for again in (Tokenizer.load(tmp_path), Tokenizer.from_saved(target.saved())):
        assert again.source is not None
        assert again.fingerprint == target.fingerprint
        assert again.encode_sources(TEXTS[:1]) == target.encode_sources(TEXTS[:1])


def test_damaged_pieces_are_told(marian, tmp_path):
    folder, _, _ = marian
    for name in ("vocab.json", "source.spm"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    (tmp_path / "target.spm").write_bytes((folder / "target.spm").read_bytes()[:50])
    with pytest.raises(TokenizerError, match="not a tokenizer that can be read"):
        Tokenizer.load(tmp_path)
