"""A schedule inside PyTorch: `ScheduleLR` writes its values into an optimizer's parameter groups."""

import math
from collections.abc import Sequence

from torch import Tensor, zeros_like
from torch.optim import Optimizer, RMSprop
from torch.optim.lr_scheduler import LRScheduler

from lrlib import _check
from lrlib.schedules import Schedule, check_schedule

__all__ = ["ScheduleLR"]


def separate_rates(optimizer: Optimizer) -> None:
    """Give each group a tensor of its own where torch has put one tensor, the rate, into several."""
    seen: set[int] = set()
    for group in optimizer.param_groups:
        if isinstance(group["lr"], Tensor):
            if id(group["lr"]) in seen:
                group["lr"] = group["lr"].clone()
            seen.add(id(group["lr"]))


class ScheduleLR(LRScheduler):
    """Sets each parameter group's learning rate to its schedule's value at the current step.

    The rate of update :math:`t` (0-based) is ``schedule(t)``: it is written at construction for update 0, and by
    each :meth:`step` for the next one. Call ``optimizer.step()``, then ``scheduler.step()``, once per update. The
    rate is computed from the step alone, so a scheduler restored from :meth:`state_dict` continues exactly.

    Args:
        optimizer: any `torch.optim.Optimizer`; the rates it was built with are replaced.
        schedule: a :class:`~lrlib.Schedule` for all parameter groups, those added later too (from the next step on), or
            a sequence with one per group.
        momentum: optionally a :class:`~lrlib.Schedule` whose values are written to the groups' "momentum", or to
            the first entry of their "betas".

    Raises:
        TypeError: `optimizer` is not an Optimizer, or a schedule is not a Schedule.
        ValueError: the number of schedules is not that of the groups, a schedule's value is negative or not finite
            at the step it is asked for, the momentum's is not in [0, 1), or the optimizer has no momentum to set.

    Example:
        >>> import torch, lrlib
        >>> weight = torch.nn.Parameter(torch.ones(1))
        >>> optimizer = torch.optim.SGD([weight], lr=1.0)
        >>> scheduler = ScheduleLR(optimizer, lrlib.step(0.1, step_size=2, gamma=0.5))
        >>> for _ in range(4):
        ...     print(optimizer.param_groups[0]["lr"])
        ...     optimizer.step()
        ...     scheduler.step()
        0.1
        0.1
        0.05
        0.05
    """

    def __init__(
        self, optimizer: Optimizer, schedule: Schedule | Sequence[Schedule], *, momentum: Schedule | None = None
    ):
        if not isinstance(optimizer, Optimizer):
            raise TypeError(f"optimizer={optimizer!r}: must be a torch.optim.Optimizer")
        self._shared = not isinstance(schedule, Sequence)
        given = schedule if isinstance(schedule, Sequence) else [schedule]
        self._schedules = [check_schedule("schedule", one) for one in given]
        self._momentum = None if momentum is None else check_schedule("momentum", momentum)
        for group in optimizer.param_groups if momentum else ():
            if not {"momentum", "betas"} & set(group):
                raise ValueError(f"momentum={momentum!r}: must be None for {type(optimizer).__name__}, which has none")
        self._rates(optimizer, 0)
        self._momentum_at(0)
        separate_rates(optimizer)
        super().__init__(optimizer)

    def _rates(self, optimizer: Optimizer, step: int) -> list[float]:
        groups = len(optimizer.param_groups)
        schedules = self._schedules * groups if self._shared else self._schedules
        if len(schedules) != groups:
            raise ValueError(f"schedule={schedules!r}: must be one per parameter group, {groups} in all")
        return [_check.nonnegative(f"{schedule} at step {step}", schedule(step)) for schedule in schedules]

    def _momentum_at(self, step: int) -> float | None:
        return None if self._momentum is None else _check.below_one(f"momentum at step {step}", self._momentum(step))

    def get_lr(self) -> list[float | Tensor]:
        """The rate of each parameter group at the current step, ``last_epoch``."""
        return [*self._rates(self.optimizer, self.last_epoch)]

    def step(self, epoch: int | None = None) -> None:
        """Go on to the next update, and write its rates and momentum into the optimizer's groups."""
        value = self._momentum_at(self.last_epoch + 1 if epoch is None else epoch)
        super().step(epoch)
        if value is None:
            return
        for group in self.optimizer.param_groups:
            if "momentum" in group:
                group["momentum"] = value
            else:
                group["betas"] = (value, *group["betas"][1:])
            if isinstance(self.optimizer, RMSprop):  # which makes its buffers in the first update only, if at all
                for p in group["params"]:
                    if state := self.optimizer.state.get(p):
                        state.setdefault("momentum_buffer", zeros_like(p))

    def state_dict(self) -> dict:
        """The step count and its rates: plain numbers, safe to load with `torch.load(weights_only=True)`."""
        return {"last_epoch": self.last_epoch, "_step_count": self._step_count, "_last_lr": self.get_lr()}

    def load_state_dict(self, state_dict: dict) -> None:
        """Continue from a state: the optimizer's groups get the rates of that step.

        Args:
            state_dict: what :meth:`state_dict` returned, of a scheduler with the same schedules.

        Raises:
            ValueError: an entry is missing, the number of groups differs, or the rates are not those of this
                scheduler's schedules; the scheduler is then unchanged.
        """
        if missing := {"last_epoch", "_step_count", "_last_lr"} - set(state_dict):
            raise ValueError(f"state_dict={state_dict!r}: must have the entries {sorted(missing)}")
        rates = self._rates(self.optimizer, state_dict["last_epoch"])
        saved = [float(rate) for rate in state_dict["_last_lr"]]
        if len(saved) != len(rates) or not all(map(math.isclose, saved, rates)):
            step = state_dict["last_epoch"]
            raise ValueError(f"state_dict: its groups have the rates {saved} at step {step}, must have {rates}")
        self._momentum_at(state_dict["last_epoch"])
        self.last_epoch, self._step_count = state_dict["last_epoch"] - 1, 0
        self.step()
        self._step_count = state_dict["_step_count"]
