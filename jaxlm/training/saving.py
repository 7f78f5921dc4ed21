"""The state of a run on disk: its checkpoints, written, read, and gone back to."""

import math
from contextlib import suppress
from typing import Any

import jax

from jaxlm.base_model import BaseModel, base_from_meta
from jaxlm.checkpoint import PARAMS, STATE, Checkpoints, restore_newest
from jaxlm.config import Config, to_mapping
from jaxlm.files import WriteError, rows_in
from jaxlm.parallel import on_this_process
from jaxlm.processes import agreed
from jaxlm.tasks import Task
from jaxlm.training.faults import Restarts, batch_of
from jaxlm.training.goodput import Goodput
from jaxlm.training.guard import Skips
from jaxlm.training.history import History
from jaxlm.training.recorded_config import recorded
from jaxlm.training.resolve import Heritage
from jaxlm.training.run_directory import RESTARTS, RunDirectory, RunError
from jaxlm.training.state import TrainState, from_items, to_items, worst_value
from jaxlm.training.trainable import own_paths


class Saving:
    """Saves the states of a run with all that going on from them takes, and restores them.

    The history, the clock and the rows of the run directory follow the state that is restored.
    """

    def __init__(
        self,
        run: RunDirectory,
        config: Config,
        task: Task,
        start: TrainState,
        heritage: Heritage,
        history: History,
        goodput: Goodput,
    ):
        self.run, self.config, self.task, self.heritage = run, config, task, heritage
        self.history, self.goodput = history, goodput
        self.own = own_paths(start.params, start.frozen, heritage.paths)
        self.restarts = Restarts(
            run.output / RESTARTS, agreed(lambda: rows_in(run.path / RESTARTS))
        )
        # The model that the checkpoints stand on; None where they hold all weights.
        self.base: BaseModel | None = None
        self._base_is_known = self.own is None
        self._checkpoints: Checkpoints | None = None

    @property
    def checkpoints(self) -> Checkpoints:
        if self._checkpoints is None:
            self._checkpoints = Checkpoints(self.run.checkpoints)
        return self._checkpoints

    def restore(self, state: TrainState) -> TrainState:
        """The state of the newest checkpoint that is whole; what came after it is cut."""
        last = self.run.last_row()
        state, meta = self._read(state)
        step, clock = int(state.step), meta["seconds"]
        if last is not None and last["step"] > step:
            self.restarts.note(step, last["step"], max(0.0, last.get("seconds", clock) - clock))
        kept = meta.get("goodput") or {"other": clock}
        self.goodput.restore(kept, self.restarts.lost_seconds)
        self._rewind(step, meta)
        return state

    def roll_back(self, state: TrainState, reached: int, skips: Skips) -> TrainState:
        """The state of the newest checkpoint, from which the skipped batches are passed over.

        Raises: TrainingError where there is none, or going back to it did not help before.
        """
        self.restarts.refuse_another(self.history.saved_step, reached)
        self.checkpoints.close()
        self._checkpoints = None
        state, meta = self._read(state)
        step, passed_over = int(state.step), self.restarts.passed_over
        steps = [s for s in skips.last(int(skips.in_a_row)) if s >= step]
        lost = self.goodput.roll_back(meta.get("goodput", {}))
        batches = [batch_of(s, passed_over) for s in steps]
        self.restarts.note(step, reached, lost, passed_over=batches)
        self._rewind(step, meta)
        return state

    def _read(self, state: TrainState) -> tuple[TrainState, dict[str, Any]]:
        """The state of the newest checkpoint that is whole, and its meta."""

        def targets(meta: dict[str, Any]) -> dict[str, Any]:
            self._refuse_other_data(meta)
            base = base_from_meta(meta)
            params, rest = to_items(state, base and base.own)
            if not meta.get("guarded"):  # by a version that skipped no updates
                rest.pop("guard", None)
            return {PARAMS: params, STATE: rest}

        items, meta = restore_newest(self.run.checkpoints, targets)
        # A run that an earlier version began goes on to hold all weights.
        base = base_from_meta(meta)
        self.base = base and self.heritage.place(base, self.config, self.run.path)
        self._base_is_known = True
        return from_items(state, items[PARAMS], items[STATE]), meta

    def _rewind(self, step: int, meta: dict[str, Any]) -> None:
        rows = self.run.rewind(step, meta.get("rows", {}))
        self.history.restore(rows, step, meta["seconds"])

    def _refuse_other_data(self, meta: dict[str, Any]) -> None:
        if meta["data"] != self.task.fingerprint:
            raise RunError(
                f"the data or tokenizer of {self.run.path} has changed since step {meta['step']}; "
                "restore it, choose another run.dir, or --run.overwrite true to start anew"
            )

    def save(self, step: int, state: TrainState) -> None:
        """Start to write a checkpoint.

        Raises: TrainingError, before anything is written, where a weight is no number.
        """
        if self.own is not None and not self._base_is_known:
            frozen = on_this_process(state.frozen)
            self.base = self.heritage.base(self.config, self.own, frozen, self.run.path)
            self._base_is_known = True
        params, rest = to_items(state, self.base and self.base.own)
        worst = worst_value((params, rest.get("params")), rest["opt_state"])
        worst = float(jax.device_get(worst))
        self.history.refuse_divergence(f"a weight became {worst}", step, worst)
        val = self.history.last_val
        val = val if val is not None and val["step"] == step else None
        merit = self.task.score(val) if val and val["loss"] is not None else None
        meta = {
            "step": step,
            "config": to_mapping(recorded(self.config)),
            "tokenizer": self.task.tokenizer.saved(),
            "data": self.task.fingerprint,
            "val_loss": val["loss"] if val else None,
            "merit": merit if merit is not None and math.isfinite(merit) else None,
            "rows": self.run.marks(),
            "seconds": self.history.seconds,
            "goodput": self.goodput.seconds(),
            "guarded": state.guard is not None,
            "origin": dict(self.heritage.origin),
            "trained": self.own,
            "base": self.base and self.base.to_meta(),
        }
        self.checkpoints.save(step, params, rest, meta)
        self.history.saved_step = step

    def close(self) -> None:
        """Wait for what is being saved, as when the run ends early."""
        if self._checkpoints is not None:
            with suppress(WriteError):
                self._checkpoints.close()
