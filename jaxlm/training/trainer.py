"""The loop over steps: update, log, evaluate, sample, save."""

import math
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from typing import Any

import jax
import numpy as np
from flax.traverse_util import flatten_dict

from jaxlm.artifact import Loaded
from jaxlm.checkpoint import PARAMS, STATE, Checkpoints, restore_newest
from jaxlm.config import Config, JaxlmError, to_mapping
from jaxlm.files import WriteError, to_json
from jaxlm.loading import load
from jaxlm.models.parameters import flops_per_token, merge_lora
from jaxlm.runtime import peak_flops
from jaxlm.tasks import Task
from jaxlm.tasks.task import Arrays
from jaxlm.training.console import TrainingConsole, closing_line, indent, memory_line
from jaxlm.training.plots import plot_losses
from jaxlm.training.run_directory import MetricsRow, RunDirectory, RunError, recorded
from jaxlm.training.state import (
    Metrics,
    TrainState,
    evaluation_params,
    from_items,
    remembered,
    to_items,
    worst_value,
)
from jaxlm.training.trainable import memory_report

Update = Callable[[TrainState, Arrays], tuple[TrainState, Metrics]]


class TrainingError(JaxlmError):
    """Training that cannot go on."""


class Trainer:
    """A run in progress: its directory, data, state, and the rows of metrics so far."""

    def __init__(
        self,
        run: RunDirectory,
        config: Config,
        task: Task,
        state: TrainState,
        update: Update,
    ):
        self.run, self.config, self.task = run, config, task
        self.state, self.update = state, update
        self.rows: list[MetricsRow] = []
        self.num_params = sum(x.size for x in jax.tree.leaves((state.params, state.frozen)))
        self.memory = memory_report(state.params, state.frozen, state.opt_state)
        flops = flops_per_token(config.model, self.num_params, config.data.seq_len)
        peak = peak_flops()
        self.mfu_per_speed = None if peak is None else flops / peak
        self._checkpoints: Checkpoints | None = None
        self._began, self._seconds_before = time.perf_counter(), 0.0
        # Since when, and since which step, tokens/s is counted; pauses to evaluate do not count.
        self._clock, self._clock_step = self._began, 0
        self._saved_step = -1

    @property
    def checkpoints(self) -> Checkpoints:
        if self._checkpoints is None:
            self._checkpoints = Checkpoints(self.run.checkpoints)
        return self._checkpoints

    @property
    def scores(self) -> list[float]:
        """The score of each evaluation so far: more is better; -inf where it is no number."""
        found = [self.task.score(row) for row in self.rows if row["split"] == "val"]
        return [-math.inf if x is None or math.isnan(x) else x for x in found]

    def restore(self) -> None:
        """Take the state of the newest checkpoint that is whole, and cut what came after it."""
        params, rest = to_items(self.state)
        targets = {PARAMS: params, STATE: rest}
        items, meta = restore_newest(self.run.checkpoints, targets, self._refuse_other_data)
        self.state = from_items(self.state, items[PARAMS], items[STATE])
        self._saved_step = int(self.state.step)
        self.rows = self.run.rewind(self._saved_step, meta.get("rows", {}))
        self._seconds_before = meta["seconds"]

    def _refuse_other_data(self, meta: dict[str, Any]) -> None:
        if meta["data"] != self.task.fingerprint:
            raise RunError(
                f"the data or tokenizer of {self.run.path} has changed since step {meta['step']}; "
                "restore it, choose another run.dir, or --run.overwrite true to start anew"
            )

    def train(self, interrupted: Callable[[], bool]) -> None:
        """Run to the last step or to early stopping; KeyboardInterrupt after saving."""
        train, sample = self.config.train, self.config.sample
        step = int(self.state.step)
        if step == train.steps or self._out_of_patience():
            return
        batch = self._batch(step)
        self._clock, self._clock_step = time.perf_counter(), step
        with TrainingConsole(train.steps, step) as self.console:
            self._introduce(step)
            while step < train.steps and not self._out_of_patience():
                self.state, metrics = self.update(self.state, batch)
                step += 1
                if self._checkpoints is None:
                    # Saving needs Orbax, which is slow to import: beside the first steps.
                    threading.Thread(
                        target=import_module, args=("orbax.checkpoint",), daemon=True
                    ).start()
                batch = self._batch(step)
                self.console.advance(step)
                ending = step == train.steps
                if step % train.log_every == 0 or ending:
                    self._log(step, metrics)
                paused = time.perf_counter()
                improved = False
                if step % train.eval_every == 0 or ending:
                    self.state = remembered(self.state)
                    improved = self._evaluate(step)
                if sample.every and (step % sample.every == 0 or ending):
                    self._sample(step)
                if improved or step % train.checkpoint_every == 0 or ending or interrupted():
                    self._save(step)
                self._clock += time.perf_counter() - paused
                if interrupted():
                    self.checkpoints.wait()
                    again = "the same command"
                    again += " without --run.overwrite" if self.config.run.overwrite else ""
                    told = f"saved at step {step}; {again} goes on from there"
                    self.console.say(told)
                    raise KeyboardInterrupt(told)
            if self._saved_step < step:
                self._save(step)

    def close(self) -> None:
        """Wait for what is being saved, as when the run ends early."""
        if self._checkpoints is not None:
            with suppress(WriteError):
                self._checkpoints.close()

    def finish(self) -> None:
        """Wait for the last checkpoint, draw loss.png; writing summary.json ends the run."""
        self.checkpoints.wait()
        self.checkpoints.close()
        own = self.task.summary(load(self.run.path, model=self.state.model))
        plot_losses(self.run.path / "loss.png", self.rows, own.get("baselines") or {})
        seconds, steps = self._seconds(), int(self.state.step)
        losses = [row["loss"] for row in self.rows if row["split"] == "val"]
        tokens = self._tokens(steps)
        summary = {
            "best_val_loss": min(losses, default=None),
            "final_val_loss": losses[-1] if losses else None,
            "steps": steps,
            "tokens": tokens,
            "seconds": round(seconds, 2),
            "tokens_per_second": round(tokens / seconds, 1),
            "num_params": self.num_params,
            **self.memory,
            **own,
        }
        if "metric" in own and self.scores:
            best = -max(self.scores) if own["metric"] == "loss" else max(self.scores)
            summary["best_val_metric"] = best if math.isfinite(best) else None
        self.run.write("summary.json", to_json(summary))
        print(closing_line(summary, self.run.path))

    def _introduce(self, step: int) -> None:
        self.console.say(
            f"{self.config.run.name}: {self.num_params:,} parameters, {self.task.description}, "
            f"vocabulary {self.config.model.vocab_size:,}, {jax.devices()[0].device_kind}"
        )
        if self.memory["num_trained"] < self.num_params:
            self.console.say(memory_line(self.memory, self.num_params))
        self.console.say(
            f"resuming {self.run.path} at step {step}" if step else f"writing {self.run.path}"
        )

    def _log(self, step: int, metrics: Metrics) -> None:
        """Write the row of the update just made; waits for the device."""
        values = {name: float(value) for name, value in jax.device_get(metrics).items()}
        now = time.perf_counter()
        speed = (step - self._clock_step) * self.task.step_tokens / (now - self._clock)
        self._clock, self._clock_step = now, step
        row: MetricsRow = {"step": step, "split": "train"} | values
        row |= {"tokens": self._tokens(step), "tokens_per_second": round(speed, 1)}
        if self.mfu_per_speed is not None:
            row["mfu"] = round(speed * self.mfu_per_speed, 4)
        row["epoch"] = self.task.epochs_at(step)
        self._refuse_divergence(f"the loss became {values['loss']}", step, values["loss"])
        self._record(row)
        self.console.advance(step, values["loss"], speed)

    def _refuse_divergence(self, what: str, step: int, value: float) -> None:
        """TrainingError unless the value is finite: nothing of such a step is saved."""
        if not math.isfinite(value):
            kept = f"the checkpoint of step {self._saved_step} is the last good one"
            kept = kept if self._saved_step >= 0 else "no checkpoint was saved before it"
            raise TrainingError(
                f"{what} at step {step}, and {kept}; lower optim.learning_rate or lengthen "
                "optim.warmup_steps"
            )

    def _batch(self, step: int) -> Arrays:
        """The batch of a step. TrainingError for an id that is no token."""
        batch, model = self.task.train_batch(step), self.config.model
        sizes = dict.fromkeys(("ids", "target_ids"), model.vocab_size)
        for name, size in (sizes | {"source_ids": model.source_vocab_size}).items():
            ids = batch.get(name)
            if isinstance(ids, np.ndarray) and ids.size and not 0 <= ids.min() <= ids.max() < size:
                wrong = ids.min() if ids.min() < 0 else ids.max()
                raise TrainingError(
                    f"the batch of step {step} holds the id {wrong}, but the vocabulary has ids "
                    f"from 0 to {size - 1}; look at the tokenizer and model.vocab_size"
                )
        return batch

    def _evaluate(self, step: int) -> bool:
        """Write the row of the whole validation split; whether it is the best so far."""
        measured = self.task.evaluate(self.state.model, evaluation_params(self.state))
        if not measured:
            return False
        row = {"step": step, "split": "val"} | measured
        self._refuse_divergence(f"the validation loss is {row['loss']}", step, row["loss"])
        improved = self.task.score(row) > max(self.scores, default=-math.inf)
        self._record(row | {"tokens": self._tokens(step)})
        self.console.say(f"step {step}: {self.task.told(measured)}")
        return improved

    def _sample(self, step: int) -> None:
        """Write what the model makes of the prompts as it is now, and show the first."""
        params = merge_lora(evaluation_params(self.state))
        loaded = Loaded(self.state.model, params, self.task.tokenizer, self.config.model)
        samples = self.task.samples(loaded, step)
        for sample in samples:
            named = dict(zip(("prompt", "text", "reference"), sample, strict=False))
            self.run.append("samples.jsonl", {"step": step} | named)
        for prompt, text, *_ in samples[:1]:
            between = "" if self.task.continues_prompts else "\n"
            self.console.say(indent(prompt + between + text))

    def _save(self, step: int) -> None:
        params, rest = to_items(self.state)
        worst = float(worst_value((params, rest.get("params")), rest["opt_state"]))
        self._refuse_divergence(f"a weight became {worst}", step, worst)
        vals = [row for row in self.rows if row["split"] == "val" and row["step"] == step]
        merit = self.task.score(vals[-1]) if vals else None
        meta = {
            "step": step,
            "config": to_mapping(recorded(self.config)),
            "tokenizer": self.task.tokenizer.saved(),
            "data": self.task.fingerprint,
            "val_loss": vals[-1]["loss"] if vals else None,
            "merit": merit if merit is not None and math.isfinite(merit) else None,
            "rows": self.run.marks(),
            "seconds": self._seconds(),
            # Where all are trained there is no need to tell them apart.
            "trained": sorted(flatten_dict(self.state.params, sep="/"))
            if self.state.frozen
            else None,
        }
        self.checkpoints.save(step, params, rest, meta)
        self._saved_step = step

    def _record(self, row: MetricsRow) -> None:
        row["seconds"] = round(self._seconds(), 3)
        # What is no number is null: JSON has no other word for it.
        lost = {k: None for k, v in row.items() if isinstance(v, float) and not math.isfinite(v)}
        self.rows.append(row | lost)
        self.run.append("metrics.jsonl", row | lost)

    def _seconds(self) -> float:
        """Wall seconds of the run, those of earlier processes that it resumed included."""
        return self._seconds_before + time.perf_counter() - self._began

    def _out_of_patience(self) -> bool:
        scores, patience = self.scores, self.config.train.patience
        if patience is None or not scores:
            return False
        return len(scores) - 1 - scores.index(max(scores)) >= patience

    def _tokens(self, step: int) -> int:
        return round(step * self.task.step_tokens)
