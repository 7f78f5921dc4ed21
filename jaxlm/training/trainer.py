"""The loop over steps: update, log, evaluate, sample, save."""

import math
import threading
import time
from collections.abc import Callable
from pathlib import Path

import jax

from jaxlm.artifact import Loaded
from jaxlm.checkpoint import Checkpoints, read_meta
from jaxlm.config import Config, JaxlmError, to_settings
from jaxlm.data import Dataset, Feed, witten_bell
from jaxlm.training.console import TrainingConsole
from jaxlm.training.metrics import (
    evaluate,
    flops_per_token,
    peak_flops,
    perplexity,
    tree_size,
)
from jaxlm.training.objectives import Batch
from jaxlm.training.plots import plot_losses
from jaxlm.training.rundir import Row, RunDirectory, RunError, recorded, to_json
from jaxlm.training.samples import write_texts
from jaxlm.training.state import (
    Metrics,
    TrainState,
    evaluation_params,
    from_items,
    to_items,
)

BASELINE_TOKENS = 50_000_000  # n-grams of more tokens than this take too long to be a courtesy


Update = Callable[[TrainState, Batch], tuple[TrainState, Metrics]]


class TrainingError(JaxlmError):
    """Training that cannot go on."""


class Trainer:
    """A run in progress: its directory, data, state, and the rows of metrics so far."""

    def __init__(
        self,
        run: RunDirectory,
        config: Config,
        data: Dataset,
        feed: Feed,
        state: TrainState,
        update: Update,
    ):
        self.run, self.config, self.data, self.feed = run, config, data, feed
        self.state, self.update = state, update
        self.rows: list[Row] = []
        self.num_params = tree_size(state.params)
        self.step_tokens = config.train.batch_size * config.data.seq_len
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
    def val_losses(self) -> list[float]:
        return [row["loss"] for row in self.rows if row["split"] == "val"]

    def restore(self, step: int) -> None:
        """Take the state of a checkpoint, and cut what the run wrote after it."""
        meta = read_meta(self.run.checkpoints / str(step))
        if meta["data"] != self.data.fingerprint:
            raise RunError(
                f"the text or tokenizer of {self.run.path} has changed since step {step}; "
                "restore it, choose another run.dir, or --run.overwrite true to start anew"
            )
        items = self.checkpoints.restore(step, *to_items(self.state))
        self.state = from_items(self.state, *items)
        self.rows = self.run.rewind(step)
        self._seconds_before = meta["seconds"]
        self._saved_step = step

    def train(self, interrupted: Callable[[], bool]) -> None:
        """Run to the last step or to early stopping; KeyboardInterrupt after saving."""
        train, sample = self.config.train, self.config.sample
        step = int(self.state.step)
        if step == train.steps or self._out_of_patience():
            return
        batch = self.feed.train_batch(step)
        self._clock, self._clock_step = time.perf_counter(), step
        with TrainingConsole(train.steps, step) as self.console:
            self._introduce(step)
            while step < train.steps and not self._out_of_patience():
                self.state, metrics = self.update(self.state, batch)
                step += 1
                if self._checkpoints is None:
                    # Saving needs Orbax, which is slow to import: beside the first steps.
                    threading.Thread(target=import_orbax, daemon=True).start()
                batch = self.feed.train_batch(step)
                self.console.advance(step)
                ending = step == train.steps
                if step % train.log_every == 0 or ending:
                    self._log(step, metrics)
                paused = time.perf_counter()
                improved = (step % train.eval_every == 0 or ending) and self._evaluate(step)
                if sample.every and (step % sample.every == 0 or ending):
                    self._sample(step)
                if improved or step % train.checkpoint_every == 0 or ending or interrupted():
                    self._save(step)
                self._clock += time.perf_counter() - paused
                if interrupted():
                    self.checkpoints.wait()
                    again = "the same command"
                    again += " without --run.overwrite" if self.config.run.overwrite else ""
                    self.console.say(f"saved at step {step}; {again} goes on from there")
                    raise KeyboardInterrupt
            if self._saved_step < step:
                self._save(step)

    def finish(self) -> None:
        """Wait for the last checkpoint, draw loss.png; writing summary.json ends the run."""
        self.checkpoints.wait()
        self.checkpoints.close()
        baselines = self._baselines()
        plot_losses(self.run.path / "loss.png", self.rows, baselines or {})
        seconds, steps, losses = self._seconds(), int(self.state.step), self.val_losses
        tokens = steps * self.step_tokens
        summary = {
            "best_val_loss": min(losses, default=None),
            "final_val_loss": losses[-1] if losses else None,
            "steps": steps,
            "tokens": tokens,
            "seconds": round(seconds, 2),
            "tokens_per_second": round(tokens / seconds, 1),
            "num_params": self.num_params,
            "baselines": baselines,
        }
        self.run.write("summary.json", to_json(summary))
        print(closing_line(summary, self.run.path))

    def _introduce(self, step: int) -> None:
        train, val = self.data.train, self.data.val
        self.console.say(
            f"{self.config.run.name}: {self.num_params:,} parameters, "
            f"{len(train):,} tokens to train on, {0 if val is None else len(val):,} to validate, "
            f"vocabulary {self.config.model.vocab_size:,}, {jax.devices()[0].device_kind}"
        )
        self.console.say(
            f"resuming {self.run.path} at step {step}" if step else f"writing {self.run.path}"
        )

    def _log(self, step: int, metrics: Metrics) -> None:
        """Write the row of the update just made; waits for the device."""
        values = {name: float(value) for name, value in jax.device_get(metrics).items()}
        now = time.perf_counter()
        speed = (step - self._clock_step) * self.step_tokens / (now - self._clock)
        self._clock, self._clock_step = now, step
        row: Row = {"step": step, "split": "train"} | values
        row |= {"tokens": step * self.step_tokens, "tokens_per_second": round(speed, 1)}
        if self.mfu_per_speed is not None:
            row["mfu"] = round(speed * self.mfu_per_speed, 4)
        row["epoch"] = self.feed.epochs_at(step)
        self._record(row)
        self.console.advance(step, values["loss"], speed)
        if not math.isfinite(values["loss"]):
            raise TrainingError(
                f"the loss became {values['loss']} at step {step}; "
                "lower optim.learning_rate or lengthen optim.warmup_steps"
            )

    def _evaluate(self, step: int) -> bool:
        """Write the row of the whole validation split; whether its loss is the best so far."""
        if self.data.val is None:
            return False
        state, batches = self.state, self.feed.eval_batches()
        means = evaluate(state.objective, state.model, evaluation_params(state), batches)
        loss = means["loss"]
        improved = loss < min(self.val_losses, default=math.inf)
        row = {"step": step, "split": "val"} | means
        row["perplexity"] = perplexity(loss - means.get("next_loss", 0.0))
        if self.config.objective.name == "clm":
            row["bits_per_byte"] = loss / math.log(2) * len(self.data.val) / self.data.val.num_bytes
        self._record(row | {"tokens": step * self.step_tokens})
        self.console.say(f"step {step}: val loss {loss:.4f}, perplexity {row['perplexity']:.2f}")
        return improved

    def _sample(self, step: int) -> None:
        """Write what the model makes of the prompts as it is now, and show the first."""
        state = self.state
        params = evaluation_params(state)
        loaded = Loaded(state.model, params, self.data.tokenizer, self.config.model)
        pairs = write_texts(loaded, self.config, self.data, step)
        for prompt, text in pairs:
            self.run.append("samples.jsonl", {"step": step, "prompt": prompt, "text": text})
        prompt, text = pairs[0]
        self.console.say(
            indent(prompt + ("\n" if self.config.objective.name == "mlm" else "") + text)
        )

    def _save(self, step: int) -> None:
        params, rest = to_items(self.state)
        vals = [row for row in self.rows if row["split"] == "val" and row["step"] == step]
        tokenizer = self.data.tokenizer
        meta = {
            "step": step,
            "config": to_settings(recorded(self.config)),
            "tokenizer": {"backend": tokenizer.backend.to_str(), "config": tokenizer.config},
            "data": self.data.fingerprint,
            "val_loss": vals[-1]["loss"] if vals else None,
            "seconds": self._seconds(),
        }
        self.checkpoints.save(step, params, rest, meta)
        self._saved_step = step

    def _record(self, row: Row) -> None:
        row["seconds"] = round(self._seconds(), 3)
        self.rows.append(row)
        self.run.append("metrics.jsonl", row)

    def _seconds(self) -> float:
        """Wall seconds of the run, those of earlier processes that it resumed included."""
        return self._seconds_before + time.perf_counter() - self._began

    def _out_of_patience(self) -> bool:
        losses, patience = self.val_losses, self.config.train.patience
        if patience is None or not losses:
            return False
        return len(losses) - 1 - losses.index(min(losses)) >= patience

    def _baselines(self) -> dict[str, float] | None:
        """Witten-Bell n-grams on the same split, in nats a token: what a table would reach."""
        train, val = self.data.train, self.data.val
        if val is None or self.config.objective.name != "clm" or len(train) > BASELINE_TOKENS:
            return None
        size = self.data.tokenizer.vocab_size
        losses = witten_bell(train.tokens, val.tokens, vocab_size=size)
        return {str(order): round(loss, 4) for order, loss in losses.items()}


def closing_line(summary: Row, path: Path) -> str:
    """The result in a sentence, beside the n-gram that comes nearest below it."""
    line = f"{path}: {summary['steps']} steps in {summary['seconds']:.0f} s"
    best = summary["best_val_loss"]
    if best is None:
        return line
    line += f", best val loss {best:.4f}"
    grams = (summary["baselines"] or {}).items()
    beaten = [(loss, order) for order, loss in grams if loss > best]
    if beaten:
        loss, order = min(beaten)
        line += f" (better than a {order}-gram table's {loss:.3f})"
    elif grams:
        loss, order = max((loss, order) for order, loss in grams)
        line += f" (worse than a {order}-gram table's {loss:.3f}: it has learned little)"
    return line


def import_orbax() -> None:
    import orbax.checkpoint  # noqa: F401


def indent(text: str) -> str:
    return "\n".join(f"  | {line}" for line in text.strip("\n").split("\n"))
