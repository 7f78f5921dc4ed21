"""Optimizers, the pure training step, and `fit`: the training command as a function."""

from jaxlm.training.fit import fit
from jaxlm.training.state import TrainState, evaluation_params, train_step

__all__ = ["TrainState", "evaluation_params", "fit", "train_step"]
