"""What a fine-tuned model is used for: answers to texts, scores of rows, vectors of sentences."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxlm.artifact import Loaded
from jaxlm.config import Config, DataConfig, FinetuneConfig, JaxlmError, ModelConfig
from jaxlm.data import clean
from jaxlm.data.errors import DataError
from jaxlm.data.ordering import padded_length
from jaxlm.models.heads import TRUNKS, mean_of_tokens
from jaxlm.tasks.answers import AnswerTask
from jaxlm.tasks.dialogues import DialogueTask
from jaxlm.tasks.examples import Item
from jaxlm.tasks.joining import Joiner
from jaxlm.tasks.measuring import ROWS, Answers, answers_to, measure
from jaxlm.tasks.rowset import read_items, refuse_unknown
from jaxlm.tasks.sequences import SequenceTask
from jaxlm.tasks.task import Task
from jaxlm.tasks.words import WordTask

KINDS: tuple[type[Task], ...] = (SequenceTask, WordTask, AnswerTask)


class Evaluation(NamedTuple):
    """Scores over labelled rows, the right labels and the answers, and what was left out."""

    scores: dict[str, float]
    items: list[Item]
    answers: Answers
    notes: dict[str, int]


def task_of(loaded: Loaded, kind: type[Task] | None = None) -> Task:
    """The task that a model was fine-tuned for; JaxlmError for one with another head."""
    config = loaded.config
    kind = kind or next((kind for kind in KINDS if kind.head == config.head), None)
    if kind is None:
        heads = ", ".join(kind.head for kind in KINDS)
        raise JaxlmError(
            f"the model's head is {config.head}; answers take one of {heads}: see finetune.task"
        )
    run = tuning_run(loaded)
    limit = config.max_seq_len if run is None else run.data.seq_len
    options = FinetuneConfig() if run is None else run.finetune
    types = config.num_token_types
    return kind(loaded.tokenizer, limit, config.labels, config.problem, types, options)


def tuning_run(loaded: Loaded) -> Config | None:
    """The config of the run that tuned a model on rows, whose settings answers go by, too."""
    run = loaded.run_config
    return run if run is not None and run.finetune.on_rows else None


def predict(
    loaded: Loaded, texts: Sequence[str | tuple[str, str] | list[str]]
) -> list[dict[str, Any]]:
    """What a fine-tuned model says of each text, or pair of texts such as a question and a context.

    A tagger also takes lists of words. DataError for a text that is empty.
    """
    task = task_of(loaded)
    data = DataConfig(text_column="text", pair_column="pair")
    run = tuning_run(loaded)

    def own(text: Any) -> Any:
        """A text as the run cleaned those that it was trained on."""
        whole = isinstance(task, AnswerTask) or not isinstance(text, str)
        return text if whole else clean(text, run.data.normalize if run else data.normalize)

    items = []
    for i, text in enumerate(texts):
        first, second = text if isinstance(text, tuple) else (text, None)
        row = {"text": own(first), "pair": own(second)}
        columns = data if second is not None else DataConfig(text_column="text")
        if second is None and isinstance(task, AnswerTask):
            raise DataError(f"text {i + 1} is alone: give pairs of question and context")
        item = type(task).read(f"text {i + 1}", row, columns, task.problem, labelled=False)
        if item is None:
            raise DataError(f"text {i + 1} is empty")
        items.append(item)
    return answers_to(task, loaded.model, loaded.params, items) if items else []


def evaluate_rows(loaded: Loaded, data: DataConfig, dialogues: bool = False) -> Evaluation:
    """The scores of a model on the labelled rows that `data` names.

    With `dialogues` they are turns, of which a language model is scored on the replies. DataError
    for a label that the model does not know.
    """
    task = task_of(loaded, DialogueTask if dialogues else None)
    read = read_items(type(task), data, task.problem, task.notes)
    items = [item for item in read if item is not None]
    refuse_unknown(type(task), items, loaded.config.labels, "the model's labels")
    scores, answers = measure(task, loaded.model, loaded.params, items, task.encode(items))
    notes = {name: count for name, count in task.notes.items() if count}
    return Evaluation(scores, items, answers, notes)


@jax.jit(static_argnums=0)
def pooled(
    config: ModelConfig, params: Any, ids: Int[Array, "B T"], mask: Int[Array, "B T"]
) -> Float[Array, "B D"]:
    """The mean of the hidden states that the mask shows."""
    trunk: Any = TRUNKS[config.architecture](config)
    return mean_of_tokens(trunk.apply({"params": params}, ids, attention_mask=mask), mask)


def embed(loaded: Loaded, texts: Sequence[str], normalize: bool = True) -> Float[np.ndarray, "B D"]:
    """A vector (D,) of each text: its hidden states averaged, of length 1 unless told otherwise.

    The dot product of two such vectors is their cosine. Texts longer than the model are cut
    (Reimers and Gurevych 2019).
    """
    config, joiner = loaded.config, Joiner(loaded.tokenizer, loaded.config.max_seq_len)
    rows = [joiner.one(ids).ids for ids in loaded.tokenizer.encode_batch(texts)]
    if empty := [i + 1 for i, row in enumerate(rows) if not row]:
        raise DataError(f"text {empty[0]} is empty")
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
    vectors = np.zeros((len(rows), config.d_model), np.float32)
    for first in range(0, len(order), ROWS):
        chosen = order[first : first + ROWS]
        length = padded_length(max(len(rows[i]) for i in chosen), config.max_seq_len)
        ids, mask = np.zeros((2, ROWS, length), np.int32)
        mask[:, 0] = 1  # attention over nothing is no number
        for row, i in enumerate(chosen):
            ids[row, : len(rows[i])] = rows[i]
            mask[row, : len(rows[i])] = 1
        found = pooled(config, loaded.params["backbone"], jnp.asarray(ids), jnp.asarray(mask))
        vectors[chosen] = np.asarray(found)[: len(chosen)]
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True) if normalize else vectors
