"""What a model is fine-tuned for: one file a task, and what all of them share."""

from jaxlm.tasks.answers import AnswerTask
from jaxlm.tasks.dialogues import DialogueTask
from jaxlm.tasks.sequences import SequenceTask
from jaxlm.tasks.task import Task
from jaxlm.tasks.words import WordTask

TASKS: dict[str, type[Task]] = {
    "sequence_classification": SequenceTask,
    "token_classification": WordTask,
    "question_answering": AnswerTask,
    "chat": DialogueTask,
}

__all__ = ["TASKS", "AnswerTask", "DialogueTask", "SequenceTask", "Task", "WordTask"]
