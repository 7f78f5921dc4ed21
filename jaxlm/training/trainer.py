"""The loop over steps: update, log, evaluate, sample, save."""

import math
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import cached_property
from importlib import import_module
from typing import Any

import jax

from jaxlm.artifact import Loaded
from jaxlm.base_model import BaseModel, base_from_meta
from jaxlm.checkpoint import PARAMS, STATE, Checkpoints, restore_newest
from jaxlm.config import Config, to_mapping
from jaxlm.files import WriteError, to_json
from jaxlm.loading import load
from jaxlm.models.parameters import flops_per_token, merge_lora
from jaxlm.parallel import described, mesh_sizes, peak_flops
from jaxlm.tasks import Task
from jaxlm.tasks.task import Arrays
from jaxlm.training.console import TrainingConsole, closing_line, indent, memory_line
from jaxlm.training.history import History
from jaxlm.training.plots import plot_losses
from jaxlm.training.prefetch import Prefetch
from jaxlm.training.resolve import Heritage
from jaxlm.training.run_directory import RunDirectory, RunError, recorded
from jaxlm.training.state import (
    Metrics,
    TrainState,
    evaluation_params,
    from_items,
    remembered,
    to_items,
    worst_value,
)
from jaxlm.training.trainable import memory_report, own_paths

Update = Callable[[TrainState, Arrays], tuple[TrainState, Metrics]]


class Trainer:
    """A run in progress: its directory, data, state, and the history of its metrics.

    The loop only hands work to the device: batches are made ahead by a thread, and the metrics of
    a step are fetched when the next row is due, or before what they decide on: an evaluation, a
    sample, a checkpoint.
    """

    def __init__(
        self,
        run: RunDirectory,
        config: Config,
        task: Task,
        state: TrainState,
        update: Update,
        heritage: Heritage,
    ):
        self.run, self.config, self.task = run, config, task
        self.state, self.update, self.heritage = state, update, heritage
        self.own = own_paths(state.params, state.frozen, heritage.paths)
        self.step = int(state.step)  # of the updates handed to the device
        self.num_params = sum(x.size for x in jax.tree.leaves((state.params, state.frozen)))
        self.memory = memory_report(state.params, state.frozen, state.opt_state)
        flops = flops_per_token(config.model, self.num_params, config.data.seq_len)
        peak = peak_flops(math.prod(mesh_sizes(state.mesh).values()))
        self.history = History(run, task, None if peak is None else flops / peak)
        self._pending: tuple[int, Metrics] | None = None  # a row that is not fetched yet
        self._checkpoints: Checkpoints | None = None

    @property
    def checkpoints(self) -> Checkpoints:
        if self._checkpoints is None:
            self._checkpoints = Checkpoints(self.run.checkpoints)
        return self._checkpoints

    @cached_property
    def base(self) -> BaseModel | None:
        """The model that the checkpoints stand on; None where they hold all weights."""
        if self.own is None:
            return None
        return self.heritage.base(self.config, self.own, self.state.frozen, self.run.path)

    def restore(self) -> None:
        """Take the state of the newest checkpoint that is whole, and cut what came after it."""

        def targets(meta: dict[str, Any]) -> dict[str, Any]:
            self._refuse_other_data(meta)
            base = base_from_meta(meta)
            return dict(zip((PARAMS, STATE), to_items(self.state, base and base.own), strict=True))

        items, meta = restore_newest(self.run.checkpoints, targets)
        self.state = from_items(self.state, items[PARAMS], items[STATE])
        # A run that an earlier version began goes on to hold all weights.
        base = base_from_meta(meta)
        self.base = base and self.heritage.place(base, self.config, self.run.path)
        self.step = int(self.state.step)
        rows = self.run.rewind(self.step, meta.get("rows", {}))
        self.history.restore(rows, self.step, meta["seconds"])

    def _refuse_other_data(self, meta: dict[str, Any]) -> None:
        if meta["data"] != self.task.fingerprint:
            raise RunError(
                f"the data or tokenizer of {self.run.path} has changed since step {meta['step']}; "
                "restore it, choose another run.dir, or --run.overwrite true to start anew"
            )

    def train(self, interrupted: Callable[[], bool]) -> None:
        """Run to the last step or to early stopping; KeyboardInterrupt after saving."""
        train, first = self.config.train, self.step
        if first == train.steps or self._out_of_patience():
            return
        self.history.start_clock(first)
        with (
            Prefetch(self.task, self.config.model, first, train.steps, self.state.mesh) as batches,
            TrainingConsole(train.steps, first) as self.console,
        ):
            self._introduce()
            while self.step < train.steps and not self._out_of_patience():
                self.state, metrics = self.update(self.state, batches.take())
                self.step += 1
                if self.step == first + 1:
                    # Saving needs Orbax, which is slow to import: beside the first steps.
                    imports = {"target": import_module, "args": ("orbax.checkpoint",)}
                    threading.Thread(**imports, daemon=True).start()
                self.console.advance(self.step)
                if self.step % train.log_every == 0 or self.step == train.steps:
                    self._log(self.step, metrics)
                stop = interrupted()
                self._evaluate_and_save(self.step, stop)
                if stop:
                    self.checkpoints.wait()
                    again = "the same command"
                    again += " without --run.overwrite" if self.config.run.overwrite else ""
                    told = f"saved at step {self.step}; {again} goes on from there"
                    self.console.say(told)
                    raise KeyboardInterrupt(told)
            if self.history.saved_step < self.step:
                self._save(self.step)

    def close(self) -> None:
        """Wait for what is being saved, as when the run ends early."""
        if self._checkpoints is not None:
            with suppress(WriteError):
                self._checkpoints.close()

    def finish(self, model: Any) -> Loaded:
        """Wait for the last checkpoint, draw loss.png, write summary.json; return the best model.

        `model` is that of `jaxlm.load`. The summary, written last, marks the run as finished.
        """
        self.checkpoints.wait()
        self.checkpoints.close()
        # The base is in memory: it is not looked for.
        given, merged = self.state.frozen, self.heritage.merged
        base = Loaded(
            self.state.model, given, self.task.tokenizer, self.config.model, merged=merged
        )
        best = load(self.run.path, model=model, base=base if self.base else None)
        own = self.task.summary(best)
        history, steps = self.history, int(self.state.step)
        plot_losses(self.run.path / "loss.png", history.rows, own.get("baselines") or {})
        losses = [row["loss"] for row in history.rows if row["split"] == "val"]
        tokens, seconds = history.tokens(steps), history.seconds
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
        if "metric" in own and losses:
            score = -history.best if own["metric"] == "loss" else history.best
            summary["best_val_metric"] = score if math.isfinite(score) else None
        self.run.write("summary.json", to_json(summary))
        print(closing_line(summary, self.run.path))
        return best

    def _introduce(self) -> None:
        self.console.say(
            f"{self.config.run.name}: {self.num_params:,} parameters, {self.task.description}, "
            f"vocabulary {self.config.model.vocab_size:,}, {described(self.state.mesh)}"
        )
        if self.memory["num_trained"] < self.num_params:
            self.console.say(memory_line(self.memory, self.num_params))
        resumed = f"resuming {self.run.path} at step {self.step}"
        self.console.say(resumed if self.step else f"writing {self.run.path}")

    def _log(self, step: int, metrics: Metrics) -> None:
        """Write the row before, and keep the metrics of this step until they are fetched."""
        for value in metrics.values():
            value.copy_to_host_async()
        self._fetch()
        self._pending = step, metrics

    def _fetch(self) -> None:
        """Write the row that is pending, if any; waits for the device to get there."""
        if self._pending is not None:
            step, metrics = self._pending
            self._pending = None
            self.console.show(step, *self.history.add_step(step, metrics))

    def _evaluate_and_save(self, step: int, stop: bool) -> None:
        """Evaluate, sample and save, where the step is due for it; with `stop`, save anyway."""
        train, sample = self.config.train, self.config.sample
        ending = step == train.steps
        evaluates = step % train.eval_every == 0 or ending
        samples = sample.every and (step % sample.every == 0 or ending)
        saves = step % train.checkpoint_every == 0 or ending or stop
        if not (evaluates or samples or saves):
            return
        self._fetch()
        with self.history.pause():
            if evaluates:
                self.state = remembered(self.state)
            improved = evaluates and self._evaluate(step)
            if samples:
                self._sample(step)
            if improved or saves:
                self._save(step)

    def _evaluate(self, step: int) -> bool:
        """Write the row of the whole validation split; return whether it is the best so far."""
        measured = self.task.evaluate(self.state.model, evaluation_params(self.state))
        if not measured:
            return False
        improved = self.history.add_evaluation(step, measured)
        self.console.say(f"step {step}: {self.task.told(measured)}")
        return improved

    def _sample(self, step: int) -> None:
        """Write what the model makes of the prompts as it is now, and show the first."""
        params = merge_lora(evaluation_params(self.state))
        origin, tokenizer = self.heritage.origin, self.task.tokenizer
        loaded = Loaded(self.state.model, params, tokenizer, self.config.model, origin)
        samples = self.task.samples(loaded, step)
        for sample in samples:
            named = dict(zip(("prompt", "text", "reference"), sample, strict=False))
            self.run.append("samples.jsonl", {"step": step} | named)
        for prompt, text, *_ in samples[:1]:
            between = "" if self.task.continues_prompts else "\n"
            self.console.say(indent(prompt + between + text))

    def _save(self, step: int) -> None:
        """Start to write a checkpoint.

        Raises: TrainingError, before anything is written, where a loss or a weight is no number.
        """
        self._fetch()
        params, rest = to_items(self.state, self.base and self.base.own)
        worst = float(worst_value((params, rest.get("params")), rest["opt_state"]))
        self.history.refuse_divergence(f"a weight became {worst}", step, worst)
        val = self.history.last_val
        val = val if val is not None and val["step"] == step else None
        merit = self.task.score(val) if val else None
        meta = {
            "step": step,
            "config": to_mapping(recorded(self.config)),
            "tokenizer": self.task.tokenizer.saved(),
            "data": self.task.fingerprint,
            "val_loss": val["loss"] if val else None,
            "merit": merit if merit is not None and math.isfinite(merit) else None,
            "rows": self.run.marks(),
            "seconds": self.history.seconds,
            "origin": dict(self.heritage.origin),
            "trained": self.own,
            "base": self.base and self.base.to_meta(),
        }
        self.checkpoints.save(step, params, rest, meta)
        self.history.saved_step = step

    def _out_of_patience(self) -> bool:
        patience = self.config.train.patience
        return patience is not None and self.history.evaluations_since_best >= patience
