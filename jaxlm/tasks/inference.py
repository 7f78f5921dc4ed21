"""Uses of a trained model: answers to texts, scores on rows and texts, embedding vectors."""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, overload

import numpy as np

from jaxlm.artifact import Loaded, check_loaded
from jaxlm.config import Config, DataConfig, JaxlmError, TaskConfig, TrainConfig
from jaxlm.data import Dataset, prepare
from jaxlm.data.sources import DataError
from jaxlm.tasks import TASKS
from jaxlm.tasks.causal_lm import CausalLMTask
from jaxlm.tasks.chat import ChatTask
from jaxlm.tasks.examples import COLUMNS, Item
from jaxlm.tasks.labelled_rows import read_items, refuse_unknown
from jaxlm.tasks.masked_lm import MaskedLMTask, pseudo_losses
from jaxlm.tasks.question_answering import QuestionAnsweringTask
from jaxlm.tasks.row_task import Answer, RowTask
from jaxlm.tasks.seq2seq import Seq2SeqTask
from jaxlm.tasks.sequence_classification import SequenceClassificationTask
from jaxlm.tasks.task import Scores, perplexity
from jaxlm.tasks.token_classification import TokenClassificationTask

ANSWERING: tuple[type[RowTask], ...] = (
    SequenceClassificationTask,
    TokenClassificationTask,
    QuestionAnsweringTask,
    Seq2SeqTask,
)
PSEUDO_TOKENS = 2000  # hidden one by one for the pseudo-perplexity


class RowEvaluation(NamedTuple):
    """Scores over labelled rows, and what they were computed from."""

    scores: dict[str, float]
    items: list[Item]
    answers: list[Answer]
    notes: dict[str, int]  # what was cut or left out, by the keys of NOTES
    label_pairs: tuple[list[str], list[str]] | None  # true and predicted labels
    by_class: dict[str, Scores]  # precision, recall, F1 and rows of each class or entity type
    remarks: list[str]  # which files were read and skipped
    signatures: dict[str, str]  # how a score was computed, of those that say it


def writes_text(loaded: Loaded) -> bool:
    """Whether a model predicts the tokens of a text, not labels of rows or targets of sources."""
    check_loaded(loaded)
    both = loaded.config.architecture == "encoder_decoder"
    return loaded.config.head in ("lm", "pretraining") and not both


def is_of_dialogues(loaded: Loaded) -> bool:
    """Whether a model was fine-tuned on dialogues."""
    run = tuning_run(loaded)
    return writes_text(loaded) and run is not None and TASKS.get(run.task.name) is ChatTask


def row_task_of(loaded: Loaded, dialogues: bool = False) -> RowTask:
    """The task that a model was fine-tuned for, with the options of that run.

    Raises: JaxlmError for a model that gives no answers, or with `dialogues` writes no replies.
    """
    config = loaded.config
    kinds = (ChatTask,) if dialogues else ANSWERING
    kind = next((kind for kind in kinds if kind.heads == (config.head,)), None)
    if kind is None or kind.architecture not in (None, config.architecture):
        if dialogues:
            raise JaxlmError(
                "replies are those of a decoder with the head lm, but the model is of architecture "
                f"{config.architecture} with the head {config.head}"
            )
        heads = ", ".join(kind.heads[0] for kind in ANSWERING if kind is not Seq2SeqTask)
        raise JaxlmError(
            f"the model's head is {config.head}; answers take one of {heads}: see task.name"
        )
    run = tuning_run(loaded)
    limit, options = (config.max_seq_len, None) if run is None else (run.data.seq_len, run.task)
    types, trunk = config.num_token_types, config.architecture
    return kind(loaded.tokenizer, limit, config.labels, config.problem, types, options, trunk)


def tuning_run(loaded: Loaded) -> Config | None:
    """The config of the run that fine-tuned a model on rows, if any."""
    run = loaded.run_config
    return run if run is not None and run.task.on_rows else None


def rows_like_the_run(
    loaded: Loaded, task: RowTask, source: str, max_rows: int | None = None, **fields: Any
) -> DataConfig:
    """A data section to read rows by: columns as given, else of the run, else the task's defaults.

    `fields` are given fields of the data section: columns, the names of those in a file without a
    header, and the split of a Hub data set.
    """
    run, normalize = loaded.run_config, DataConfig.normalize
    found: dict[str, Any] = dict(zip(COLUMNS, task.columns, strict=True))
    if run is not None:
        normalize = run.data.normalize
        tuned = TASKS.get(run.task.name) is type(task)
        names = (*COLUMNS, "columns")
        found = {name: getattr(run.data, name) for name in names} if tuned else found
    found |= {name: value for name, value in fields.items() if value}
    return DataConfig(source=source, max_documents=max_rows, normalize=normalize, **found)


def listed(texts: Any, what: str) -> tuple[list[Any], bool]:
    """Texts as a list, and whether a single text was given; JaxlmError for other values."""
    if isinstance(texts, str):
        return [texts], True
    if isinstance(texts, Mapping) or not isinstance(texts, Iterable):
        raise JaxlmError(f"{what} takes a text or a list of texts, got {texts!r:.60}")
    return list(texts), False


@overload
def predict(loaded: Loaded, texts: str) -> dict[str, Any]: ...


@overload
def predict(
    loaded: Loaded, texts: Iterable[str | tuple[str, str] | list[str]]
) -> list[dict[str, Any]]: ...


def predict(loaded, texts):
    """A fine-tuned model's answer to each text, or pair of texts such as a question and a context.

    A single text gives a single answer. A tagger also takes lists of words.

    Raises: DataError for an empty text, JaxlmError for a value that is not a text.
    """
    check_loaded(loaded)
    texts, alone = listed(texts, "predict")
    for i, text in enumerate(texts, 1):
        if not is_text_or_pair(text):
            raise JaxlmError(
                f"text {i} is {text!r:.60}: give a text, a pair of texts as a tuple, or a list of "
                "words"
            )
    answers = row_task_of(loaded).predict(loaded, texts)
    return answers[0] if alone else answers


def is_text_or_pair(value: Any) -> bool:
    """Whether a value is a text, a pair of texts, or a list of words."""
    if isinstance(value, tuple):
        return len(value) == 2 and all(isinstance(text, str) for text in value)
    return isinstance(value, str) or (
        isinstance(value, list) and all(isinstance(word, str) for word in value)
    )


def evaluate_rows(
    loaded: Loaded, data: DataConfig, dialogues: bool = False, **decoding: Any
) -> RowEvaluation:
    """The scores of a model on the labelled rows that `data` names.

    With `dialogues` the rows are dialogues, and a language model is scored on the replies;
    `decoding` are options of `translate`, for an encoder-decoder.

    Raises: DataError for a label that the model does not have.
    """
    task, remarks = row_task_of(loaded, dialogues), list[str]()
    if isinstance(task, Seq2SeqTask):
        task.decoding = decoding
    elif decoding:
        raise JaxlmError(f"{min(decoding)} is for an encoder_decoder, which writes targets")
    items = read_items(type(task), data, task.problem, task.notes, remarks=remarks)
    refuse_unknown(type(task), items, loaded.config.labels, "the model's labels")
    scores, answers = task.measure(loaded.model, loaded.params, items, task.encode(items))
    notes = {name: count for name, count in task.notes.items() if count}
    labels = task.label_pairs(items, answers), task.by_class(items, answers)
    signatures = dict(getattr(task, "signatures", {}))
    return RowEvaluation(scores, items, answers, notes, *labels, remarks, signatures)


def text_like_the_run(loaded: Loaded, source: str, **fields: Any) -> Config:
    """The config to read and score a text by: that of the run which trained the model, if any.

    `fields` are given fields of the data section.
    """
    model, run = loaded.config, loaded.run_config
    name = "masked_lm" if model.architecture == "encoder" else "causal_lm"
    data = DataConfig(seq_len=min(model.max_seq_len, 512))
    config = Config(
        model=model, data=data, task=TaskConfig(name=name), train=TrainConfig(batch_size=8)
    )
    if run is not None and run.task.name == name:
        config = dataclasses.replace(run, model=model)
        data = config.data
    elif run is not None:
        data = dataclasses.replace(data, normalize=run.data.normalize)
    given = {name: value for name, value in fields.items() if value}
    # The whole text is scored, unchanged.
    whole = {"val_fraction": 0.0, "test_fraction": 0.0, "max_documents": None, "duplicates": "keep"}
    hub = {name: getattr(DataConfig, name) for name in ("hf_config", "hf_split")}
    return config.replace({"data": {**vars(data), **hub, **whole, "source": source, **given}})


def evaluate_text(
    loaded: Loaded,
    source: str,
    text_column: str | None = None,
    pseudo_tokens: int = PSEUDO_TOKENS,
    max_documents: int | None = None,
    remarks: list[str] | None = None,
    **fields: Any,
) -> dict[str, float]:
    """Losses in nats a token over a text: `loss`, `perplexity` and the others of validation.

    The text is read, cut and masked as in the run that trained the model, so its validation text
    gets the same scores; `fields` override fields of the data section. A masked language model also
    gets its pseudo-perplexity (Salazar et al. 2020) over about `pseudo_tokens` tokens spread over
    the text. What was read and passed over is added to `remarks`.

    Raises: JaxlmError for a model that does not predict text.
    """
    if not writes_text(loaded):
        raise JaxlmError(f"a model with the head {loaded.config.head} does not predict text")
    config = text_like_the_run(
        loaded, source, text_column=text_column, max_documents=max_documents, **fields
    )
    data, masked = config.data, loaded.config.architecture == "encoder"
    stores = prepare(data, tokenizer=loaded.tokenizer, whole=True)
    if remarks is not None:
        remarks += stores.remarks
    if len(stores.train) < 2:
        raise DataError(f"{source} has {len(stores.train)} token(s): a loss takes 2 or more")
    # The whole text is the validation split.
    held_out = Dataset(stores.tokenizer, stores.train, stores.train, stores.fingerprint)
    kind = MaskedLMTask if masked else CausalLMTask
    scores: dict[str, float] = kind(config, held_out).evaluate(loaded.model, loaded.params)
    scores["tokens"] = len(stores.train)
    if masked:
        losses = pseudo_losses(loaded, stores.train, data.seq_len, pseudo_tokens)
        scores["pseudo_perplexity"] = perplexity(float(np.mean(losses)))
        scores["pseudo_tokens"] = len(losses)
    return scores
