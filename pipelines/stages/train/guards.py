"""When training must not go on as it is, before the optimizer spoils the weights, and what is done then."""

from collections import deque
from collections.abc import Iterable, Mapping
from math import isfinite
from statistics import median

from data_contracts.errors import AssayError
from pipelines.recipes.recipe import Guards
from pipelines.stages.train.job import Trip


class GuardTripped(AssayError):
    """Training went astray at a step; weights and checkpoints from before it are intact. ``trips``: this one last."""

    def __init__(self, trips: tuple[Trip, ...]) -> None:
        super().__init__(trips[-1].reason)
        self.trips = trips


class RollBack(Exception):
    """To be gone on from the newest scheduled checkpoint, with these trips behind."""

    def __init__(self, trips: tuple[Trip, ...]) -> None:
        super().__init__(trips[-1].reason)
        self.trips = trips


class Watchman:
    """Checks what comes, in its order. Each check raises `GuardTripped` or `RollBack`, or sets ``skipping``: the update
    of this step is to be dropped. All that it judges by is in ``losses``, ``trips`` and ``probes``, which go with a
    checkpoint: a resumed run judges as an uninterrupted one."""

    def __init__(
        self,
        guards: Guards,
        losses: Iterable[float] = (),
        trips: Iterable[Trip] = (),
        probes: Mapping[str, float] | None = None,
    ) -> None:
        self.guards = guards
        self.losses: deque[float] = deque(losses, maxlen=guards.window)
        self.trips = list(trips)
        self.probes = dict(probes or {})
        self.skipping = False

    @property
    def rate(self) -> float:
        """What the schedule's learning rate is multiplied by: 1 before the first roll back."""
        return self.guards.roll_back_rate ** self._count("roll_back")

    def counts(self) -> dict[str, float]:
        return {"skipped_steps": float(self._count("skip")), "roll_backs": float(self._count("roll_back"))}

    def begin_step(self) -> None:
        self.skipping = False

    def check_labels(self, step: int, labels: int) -> None:
        """``labels``: how many tokens of the batch are learned."""
        if labels == 0 and not self.skipping:
            self._trip(step, "no_label", "the batch has no label: every token is masked; look at the rows")

    def check_loss(self, step: int, loss: float) -> None:
        """For NaN, infinity or a spike over the median of the last losses."""
        if self.skipping:
            return
        if not isfinite(loss):
            self._trip(step, "not_finite", f"the loss is {loss}; lower the learning rate or look at the rows")
            return
        if len(self.losses) == self.guards.window:
            usual = median(self.losses)
            if loss > max(self.guards.max_loss_ratio * usual, self.guards.spike_floor):
                self._trip(
                    step,
                    "loss_spike",
                    f"the loss {loss:.4g} is more than {self.guards.max_loss_ratio:g} times the median "
                    f"{usual:.4g} of the last {self.guards.window} (guards.max_loss_ratio)",
                )
                return
        self.losses.append(loss)

    def check_gradient(self, step: int, norm: float) -> None:
        """For a gradient norm that is NaN, infinite or too large."""
        if not isfinite(norm) or norm > self.guards.max_grad_norm:
            self._trip(
                step,
                "grad_norm" if isfinite(norm) else "not_finite",
                f"the gradient norm is {norm:.4g}, above {self.guards.max_grad_norm:g} "
                "(guards.max_grad_norm); lower the learning rate or look at the rows",
            )

    def check_rate(self, step: int, rate: float) -> None:
        """For a learning rate above the one that the recipe allows."""
        most = self.guards.max_learning_rate
        if not isfinite(rate) or (most is not None and rate > most):
            self._trip(
                step,
                "learning_rate",
                f"the learning rate is {rate:.4g}, above {most} (guards.max_learning_rate); lower it in the schedule",
            )

    def check_validation(self, step: int, loss: float) -> None:
        """For a validation loss that is no number: there is no update to skip any more."""
        if not isfinite(loss):
            self._trip(step, "not_finite", f"the validation loss is {loss}", may_skip=False)

    def check_probes(self, step: int, shares: Mapping[str, float], max_drop: float) -> None:
        """For a share of right answers that fell off a cliff. The first shares are the start that others are held
        against."""
        if not self.probes:
            self.probes = dict(shares)
        for name, share in shares.items():
            if share < self.probes[name] - max_drop:
                reason = (
                    f"the probe {name} fell to {share:.3g} from {self.probes[name]:.3g} at the start, by more than "
                    f"{max_drop:g} (probes.max_drop); lower the learning rate, or mix in replay"
                )
                raise GuardTripped((*self.trips, _made(step, "probes", "abort", reason)))

    def _trip(self, step: int, guard: str, reason: str, may_skip: bool = True) -> None:
        action = getattr(self.guards.actions, guard)
        if action == "skip" and not may_skip:
            action = "abort"
        if action == "skip" and self._count("skip") < self.guards.max_skips:
            self.trips.append(_made(step, guard, "skip", reason))
            self.skipping = True
            return
        if action == "roll_back" and self._count("roll_back") < self.guards.max_roll_backs:
            raise RollBack((*self.trips, _made(step, guard, "roll_back", reason)))
        spent = "" if action == "abort" else f"; guards.max_{action}s allows no more"
        raise GuardTripped((*self.trips, _made(step, guard, "abort", reason + spent)))

    def _count(self, action: str) -> int:
        return sum(trip.action == action for trip in self.trips)


def _made(step: int, guard: str, action: str, reason: str) -> Trip:
    return Trip.model_validate({"step": step, "guard": guard, "action": action, "reason": f"step {step}: {reason}"})
