"""When training must stop before the optimizer spoils the weights."""

from collections import deque
from math import isfinite
from statistics import median

from data_contracts.errors import AssayError
from pipelines.recipes.recipe import Guards

_LOW = 0.1
"""A loss that counts as usual where the usual one is lower: near zero any hard row is many times the median."""


class GuardTripped(AssayError):
    """Training went astray at a step; weights and checkpoints from before it are intact."""


class Watchman:
    """Checks losses and gradient norms in the order in which they come."""

    def __init__(self, guards: Guards) -> None:
        self.guards = guards
        self.losses: deque[float] = deque(maxlen=guards.window)

    def check_loss(self, step: int, loss: float) -> None:
        """Raise `GuardTripped` for NaN, infinity or a spike over the median of the last losses."""
        if not isfinite(loss):
            raise GuardTripped(f"step {step}: the loss is {loss}; lower the learning rate or look at the rows")
        if len(self.losses) == self.guards.window:
            usual = max(median(self.losses), _LOW)
            if loss > self.guards.max_loss_ratio * usual:
                raise GuardTripped(
                    f"step {step}: the loss {loss:.4g} is more than {self.guards.max_loss_ratio:g} times the median "
                    f"{usual:.4g} of the last {self.guards.window} (guards.max_loss_ratio)"
                )
        self.losses.append(loss)

    def check_gradient(self, step: int, norm: float) -> None:
        """Raise `GuardTripped` for a gradient norm that is NaN, infinite or too large."""
        if not isfinite(norm) or norm > self.guards.max_grad_norm:
            raise GuardTripped(
                f"step {step}: the gradient norm is {norm:.4g}, above {self.guards.max_grad_norm:g} "
                "(guards.max_grad_norm); lower the learning rate or look at the rows"
            )

    def check_validation(self, step: int, loss: float) -> None:
        if not isfinite(loss):
            raise GuardTripped(f"step {step}: the validation loss is {loss}")
