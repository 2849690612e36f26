"""A schedule inside PyTorch: `ScheduleLR` writes its values into an optimizer's parameter groups."""

import math
from collections.abc import Callable, Sequence

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from lrlib.schedules import Schedule

__all__ = ["ScheduleLR"]


class ScheduleLR(LRScheduler):
    """Sets each parameter group's learning rate to its schedule's value at the current step.

    The rate of update :math:`t` (0-based) is ``schedule(t)``: it is written at construction for update 0, and by
    each :meth:`step` for the next one. Call ``optimizer.step()``, then ``scheduler.step()``, once per update. The
    rate is computed from the step alone, so a scheduler restored from :meth:`state_dict` continues exactly.

    Args:
        optimizer: any `torch.optim.Optimizer`; the rates it was built with are replaced.
        schedule: a :class:`~lrlib.Schedule` for all parameter groups, or a sequence with one per group.
        momentum: optionally a :class:`~lrlib.Schedule` whose values are written to the groups' "momentum", or to
            the first entry of their "betas".

    Raises:
        TypeError: `optimizer` is not an Optimizer, or a schedule is not a Schedule.
        ValueError: the number of schedules is not that of the groups, a schedule's value is negative or not finite
            at the step it is asked for, or the optimizer has no momentum to set.

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
        self,
        optimizer: Optimizer,
        schedule: Schedule | Sequence[Schedule],
        *,
        momentum: Schedule | None = None,
    ):
        if not isinstance(optimizer, Optimizer):
            raise TypeError(f"optimizer={optimizer!r}: must be a torch.optim.Optimizer")
        groups = optimizer.param_groups
        schedules = [schedule] * len(groups) if isinstance(schedule, Schedule) else _as_list(schedule)
        for candidate in (*schedules, *([] if momentum is None else [momentum])):
            if not isinstance(candidate, Schedule):
                raise TypeError(f"schedule={candidate!r}: must be a Schedule; wrap a function in Schedule(...)")
        if len(schedules) != len(groups):
            raise ValueError(f"schedule={schedules!r}: must be one per parameter group, {len(groups)} in all")
        if momentum is not None and any("momentum" not in group and "betas" not in group for group in groups):
            raise ValueError(f"momentum={momentum!r}: must be None for {type(optimizer).__name__}, which has none")
        _rates(schedules, 0)
        self._schedules = schedules
        self._momentum = momentum
        super().__init__(optimizer)

    def get_lr(self) -> list[float]:
        """The rate of each parameter group at the current step, ``last_epoch``."""
        return _rates(self._schedules, self.last_epoch)

    def _update_lr(self, epoch: int | None = None) -> None:
        super()._update_lr(epoch)
        self._write_momentum()

    def _write_momentum(self) -> None:
        if self._momentum is None:
            return
        value = self._momentum(self.last_epoch)
        if not 0 <= value < 1:
            raise ValueError(f"momentum={self._momentum!r}: is {value} at step {self.last_epoch}, must be in [0, 1)")
        for group in self.optimizer.param_groups:
            if "betas" in group:
                group["betas"] = (value, *group["betas"][1:])
            else:
                group["momentum"] = value

    def state_dict(self) -> dict:
        """The step count and the last rates: plain numbers, safe to load with `torch.load(weights_only=True)`."""
        return {"last_epoch": self.last_epoch, "_step_count": self._step_count, "_last_lr": list(self._last_lr)}

    def load_state_dict(self, state_dict: dict) -> None:
        """Continue from a state: the optimizer's groups get the rates of that step.

        Args:
            state_dict: what :meth:`state_dict` returned, of a scheduler with the same schedules.

        Raises:
            ValueError: an entry is missing, the number of groups differs, or the rates are not those of this
                scheduler's schedules; the scheduler is then unchanged.
        """
        missing = {"last_epoch", "_step_count", "_last_lr"} - set(state_dict)
        if missing:
            raise ValueError(f"state_dict={state_dict!r}: must have the entries {sorted(missing)}")
        rates = _rates(self._schedules, state_dict["last_epoch"])
        saved = [float(rate) for rate in state_dict["_last_lr"]]
        if len(saved) != len(rates) or not all(map(math.isclose, saved, rates)):
            raise ValueError(
                f"state_dict: has the rates {saved} at step {state_dict['last_epoch']}, must be {rates}, "
                f"those of {self._schedules}"
            )
        self.last_epoch = state_dict["last_epoch"]
        self._step_count = state_dict["_step_count"]
        self._last_lr = rates
        for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
            if hasattr(group["lr"], "fill_"):
                group["lr"].fill_(rate)
            else:
                group["lr"] = rate
        self._write_momentum()


def _as_list(schedule) -> list:
    if isinstance(schedule, Callable) or not isinstance(schedule, Sequence):
        raise TypeError(f"schedule={schedule!r}: must be a Schedule or a sequence of them, one per parameter group")
    return list(schedule)


def _rates(schedules: Sequence[Schedule], step: int) -> list[float]:
    rates = [schedule(step) for schedule in schedules]
    for schedule, rate in zip(schedules, rates, strict=True):
        if not (math.isfinite(rate) and rate >= 0):
            raise ValueError(f"schedule={schedule!r}: is {rate} at step {step}, must be finite and >= 0")
    return rates
