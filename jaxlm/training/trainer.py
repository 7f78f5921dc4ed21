"""The loop over steps: update, log, evaluate, sample, save."""

import math
import threading
from collections.abc import Callable
from importlib import import_module
from typing import Any

import jax

from jaxlm.artifact import Loaded
from jaxlm.config import Config
from jaxlm.files import to_json
from jaxlm.loading import load
from jaxlm.models.parameters import flops_per_token, merge_lora
from jaxlm.parallel import described, mesh_sizes, on_this_process, peak_flops
from jaxlm.processes import agreed
from jaxlm.tasks import Task
from jaxlm.tasks.task import Arrays
from jaxlm.training.console import TrainingConsole, closing_line, indent, memory_line
from jaxlm.training.faults import StuckError, batch_of, keep_batch
from jaxlm.training.goodput import Goodput, goodput_line
from jaxlm.training.guard import Skips, fetch_skips
from jaxlm.training.history import History
from jaxlm.training.loggers import open_loggers
from jaxlm.training.plots import plot_losses
from jaxlm.training.prefetch import Prefetch
from jaxlm.training.profiling import Profiler
from jaxlm.training.resolve import Heritage
from jaxlm.training.run_directory import PROFILE, SKIPPED, RunDirectory
from jaxlm.training.saving import Saving
from jaxlm.training.state import (
    Metrics,
    TrainState,
    evaluation_params,
    remembered,
)
from jaxlm.training.summary import run_summary
from jaxlm.training.trainable import memory_report

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
        goodput: Goodput | None = None,
    ):
        self.goodput = goodput or Goodput()
        self.run, self.config, self.task = run, config, task
        self.state, self.update, self.heritage = state, update, heritage
        self.step = int(state.step)  # of the updates handed to the device
        self.num_params = sum(x.size for x in jax.tree.leaves((state.params, state.frozen)))
        self.memory = memory_report(state.params, state.frozen, state.opt_state)
        flops = flops_per_token(config.model, self.num_params, config.data.seq_len)
        peak = peak_flops(math.prod(mesh_sizes(state.mesh).values()))
        self.history = History(run, task, None if peak is None else flops / peak)
        self.saving = Saving(run, config, task, state, heritage, self.history, self.goodput)
        self._skipped = 0  # updates, as far as the loop has looked
        self._goes_back = config.train.rollback_after
        self._put_off: set[str] = set()
        self._pending: tuple[int, Metrics] | None = None  # a row that is not fetched yet

    def restore(self) -> None:
        """Take the state of the newest checkpoint that is whole, and cut what came after it."""
        self._take(self.saving.restore(self.state))

    def _take(self, state: TrainState) -> None:
        """Go on from a state that was restored."""
        self.state, self.step, self._pending, self._put_off = state, int(state.step), None, set()
        self._skipped = 0 if state.guard is None else int(state.guard.skipped)

    def train(self, interrupted: Callable[[int], bool]) -> None:
        """Run to the last step or to early stopping; KeyboardInterrupt after saving."""
        train, first = self.config.train, self.step
        if self._is_done():
            return
        # Saving needs Orbax, which is slow to import: beside the first steps.
        imports = {"target": import_module, "args": ("orbax.checkpoint",), "daemon": True}
        self._beside: threading.Thread | None = threading.Thread(**imports)
        with (
            self.goodput.spent("steps"),
            TrainingConsole(train.steps, first) as self.console,
            Profiler(train.profile, self.run.output / PROFILE) as self.profiler,
            open_loggers(self.config, self.run.output, first) as self.history.loggers,
        ):
            self._introduce()
            self.profiler.look(first, self.state)
            while not self._is_done():
                self.history.start_clock(self.step)
                places = self.step, train.steps, self.state.mesh, self.saving.restarts.passed_over
                with Prefetch(self.task, self.config.model, *places) as self.batches:
                    try:
                        self._run_steps(interrupted)
                    except StuckError as stuck:
                        self._roll_back(stuck.args[0])

    def _is_done(self) -> bool:
        train, waited = self.config.train, self.history.evaluations_since_best
        out_of_patience = train.patience is not None and waited >= train.patience
        return self.step >= train.steps or out_of_patience

    def _run_steps(self, interrupted: Callable[[int], bool]) -> None:
        """Update, log, evaluate and save to the end. Raises: StuckError, KeyboardInterrupt."""
        train = self.config.train
        while not self._is_done():
            batch = self._next_batch()
            with self.profiler.step(self.step):
                self.state, metrics = self.update(self.state, batch)
            self.step += 1
            if file := self.profiler.look(self.step, self.state):
                self.console.say(f"wrote {file}; open it at ui.perfetto.dev")
            if self._beside is not None:
                self._beside.start()
                self._beside = None
            self.console.advance(self.step)
            if self.step % train.log_every == 0 or self.step == train.steps:
                self._log(self.step, metrics)
            self._do(self._due(self.step, interrupted(self.step)))
        if self.history.saved_step < self.step:
            with self.goodput.spent("checkpoints"):
                self._save(self.step)

    def _roll_back(self, skips: Skips) -> None:
        """Go back to the last checkpoint, to pass over the batches that were skipped since."""
        reached = self.step
        with self.goodput.spent("checkpoints"):
            self._take(self.saving.roll_back(self.state, reached, skips))
        batches = ", ".join(map(str, self.saving.restarts.rows[-1]["passed_over"]))
        told = f"step {reached}: {skips.in_a_row} updates in a row were skipped; going back to "
        self.console.say(f"{told}step {self.step}, and passing over the batches {batches}")

    def _look_at(self, skips: Skips) -> None:
        """Keep the batches of updates that were skipped since the last look, and tell them.

        Raises: StuckError where so many in a row were that the run has to go back.
        """
        new, self._skipped = int(skips.skipped) - self._skipped, int(skips.skipped)
        for step in skips.last(new):
            number = batch_of(step, self.saving.restarts.passed_over)
            kept = keep_batch(self.run.output / SKIPPED, number, self.batches.again(number))
            self.console.say(
                f"step {step + 1}: the update is skipped, as its loss or gradients are no numbers "
                "or the loss is a spike" + (f"; its batch is {kept}" if kept else "")
            )
        if self._goes_back and skips.in_a_row >= self._goes_back:
            raise StuckError(skips)

    def _next_batch(self) -> Arrays:
        """The next batch; what the device waits for it is counted."""
        if self.batches.is_ready():
            return self.batches.take()
        step: Any = self.state.step
        self.batches.wait(step.is_ready)
        with self.goodput.spent("waiting_for_data"):
            return self.batches.take()

    def close(self) -> None:
        """Wait for what is being saved, as when the run ends early."""
        self.saving.close()

    def finish(self, model: Any) -> Loaded:
        """Wait for the last checkpoint, draw loss.png, write summary.json; return the best model.

        `model` is that of `jaxlm.load`. The summary, written last, marks the run as finished.
        """
        with self.goodput.spent("checkpoints"):
            self.saving.checkpoints.close()
        best = self.load_best(model)
        own = self.task.summary(best)
        history, steps = self.history, int(self.state.step)
        plot_losses(self.run.output / "loss.png", history.rows, own.get("baselines") or {})
        summary = run_summary(history, steps, {"num_params": self.num_params, **self.memory, **own})
        summary["goodput"] = self.goodput.report()
        self.run.write("summary.json", to_json(summary))
        print(goodput_line(summary["goodput"]))
        print(closing_line(summary, self.run.path))
        return best

    def load_best(self, model: Any) -> Loaded:
        """The best of the saved checkpoints. The base is in memory: it is not looked for."""
        given = jax.device_put(on_this_process(self.state.frozen), jax.local_devices()[0])
        tokenizer, merged = self.task.tokenizer, self.heritage.merged
        base = Loaded(self.state.model, given, tokenizer, self.config.model, merged=merged)
        return load(self.run.path, model=model, base=base if self.saving.base else None)

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
            loss, speed, skips = self.history.add_step(step, metrics)
            self.console.show(step, loss, speed)
            if skips is not None:
                self._look_at(skips)

    def _due(self, step: int, stop: bool) -> set[str]:
        """What is to be done after a step, or was put off until now."""
        train, sample = self.config.train, self.config.sample
        ending = step == train.steps
        due = {
            "evaluate": step % train.eval_every == 0 or ending,
            "sample": sample.every and (step % sample.every == 0 or ending),
            "save": step % train.checkpoint_every == 0 or ending or stop,
            "stop": stop,
        }
        return self._put_off | {name for name, holds in due.items() if holds}

    def _do(self, due: set[str]) -> None:
        """Evaluate, sample, save and stop, as far as it is due.

        While updates are being skipped it is put off, so that a run never goes back to a checkpoint
        from amidst them: where it goes back to then makes no difference.
        """
        if not due:
            return
        step, self._put_off = self.step, set()
        self._fetch()
        if self.state.guard is not None:
            skips = fetch_skips(self.state.guard)
            self._look_at(skips)
            if skips.in_a_row and self._goes_back and step < self.config.train.steps:
                self._put_off = due
                return
        with self.history.pause():
            if "evaluate" in due:
                self.state = remembered(self.state)
            improved = "evaluate" in due and self._evaluate(step)
            if "sample" in due:
                with self.goodput.spent("sampling"):
                    self._sample(step)
            if improved or "save" in due:
                with self.goodput.spent("checkpoints"):
                    self._save(step)
        if "stop" in due:
            self.saving.checkpoints.wait()
            again = " without --run.overwrite" * self.config.run.overwrite
            told = f"saved at step {step}; the same command{again} goes on from there"
            self.console.say(told)
            raise KeyboardInterrupt(told)

    def _evaluate(self, step: int) -> bool:
        """Write the row of the whole validation split; return whether it is the best so far."""
        with self.goodput.spent("evaluation"):
            ours = self.task.evaluate(self.state.model, evaluation_params(self.state))
            measured = agreed(lambda: ours)  # of a bit of difference processes would part ways
        if not measured:
            return False
        improved = self.history.add_evaluation(step, measured)
        self.console.say(f"step {step}: {self.task.told(measured)}")
        return improved

    def _sample(self, step: int) -> None:
        """Write what the model makes of the prompts as it is now, and show the first."""
        params = merge_lora(on_this_process(evaluation_params(self.state)))
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
        """Start to write a checkpoint. Raises: TrainingError where a weight is no number."""
        self._fetch()
        self.saving.save(step, self.state)
