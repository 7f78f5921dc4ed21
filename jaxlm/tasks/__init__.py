"""What a run learns: one file a task, one registry, and what they share."""

from jaxlm.tasks.causal_lm import CausalLMTask
from jaxlm.tasks.chat import ChatTask
from jaxlm.tasks.masked_lm import MaskedLMTask
from jaxlm.tasks.question_answering import QuestionAnsweringTask
from jaxlm.tasks.row_task import RowTask
from jaxlm.tasks.seq2seq import Seq2SeqTask
from jaxlm.tasks.sequence_classification import SequenceClassificationTask
from jaxlm.tasks.span_corruption import SpanCorruptionTask
from jaxlm.tasks.task import Objective, Task
from jaxlm.tasks.token_classification import TokenClassificationTask

TASKS: dict[str, type[Task]] = {
    "causal_lm": CausalLMTask,
    "masked_lm": MaskedLMTask,
    "span_corruption": SpanCorruptionTask,
    "seq2seq": Seq2SeqTask,
    "sequence_classification": SequenceClassificationTask,
    "token_classification": TokenClassificationTask,
    "question_answering": QuestionAnsweringTask,
    "chat": ChatTask,
}

__all__ = ["TASKS", "Objective", "RowTask", "Task"]
