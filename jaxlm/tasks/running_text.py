"""What the language models of running text share: data in token stores, and their evaluation."""

from abc import abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import flax.linen as nn

from jaxlm.artifact import Loaded
from jaxlm.config import Config
from jaxlm.data import Dataset, prepare
from jaxlm.data.batches import Batch
from jaxlm.tasks.task import Params, Scores, Task, mean_scores, perplexity
from jaxlm.tokenizer import SPECIAL_TOKENS

EVAL_TOKENS = 4096  # tokens of one evaluation batch, or a training batch if that is larger


class RunningTextTask(Task):
    """A language model of running text, in windows of `data.seq_len` tokens."""

    needs_cls_sep: ClassVar[bool] = False  # whether its texts stand between [CLS] and [SEP]

    def __init__(self, config: Config, data: Dataset):
        self.config, self.data = config, data
        self.tokenizer, self.fingerprint = data.tokenizer, data.fingerprint
        held_out = 0 if data.val is None else len(data.val)
        self.description = f"{len(data.train):,} tokens to train on, {held_out:,} to validate"
        self.eval_size = max(config.train.batch_size, EVAL_TOKENS // config.data.seq_len)

    @classmethod
    def from_config(cls, config: Config, source: Loaded | None) -> "RunningTextTask":
        specials = SPECIAL_TOKENS if special_tokens_of(cls, config) == "cls_sep" else ()
        tokenizer = None if source is None else source.tokenizer
        data = prepare(config.data, config.run.seed, tokenizer=tokenizer, specials=specials)
        return cls(config, data)

    def config_fields(self) -> Mapping[str, Mapping[str, Any]]:
        data = {"special_tokens": special_tokens_of(type(self), self.config)}
        if self.config.data.text_column is None:
            data["text_column"] = "text"
        return {**super().config_fields(), "data": data}

    @abstractmethod
    def eval_batches(self) -> Iterable[Batch]:
        """Every target of the validation split once, without randomness."""

    def evaluate(self, model: nn.Module, params: Params) -> Scores:
        if self.data.val is None:
            return {}
        scores = mean_scores(self.objective, model, params, self.eval_batches())
        return scores | {"perplexity": perplexity(scores["loss"] - scores.get("next_loss", 0.0))}


def special_tokens_of(kind: type[RunningTextTask], config: Config) -> str:
    """Which special tokens a vocabulary trained for this task begins with."""
    asked = kind.needs_cls_sep or config.data.special_tokens == "cls_sep"
    return "cls_sep" if asked else "none"
