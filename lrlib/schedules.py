r"""Learning-rate schedules as pure functions of the step.

A constructor checks its arguments and returns a :class:`Schedule`: a function that maps a 0-based step, or an
array of steps, to the learning rate of that update in float64. Nothing is remembered between calls, so plotting
a schedule can never change the training that uses it. Past its planned length a schedule holds its last value.

Notation: :math:`\eta` the `lr` argument, :math:`t` the step, :math:`T` the planned number of steps,
:math:`\gamma` a decay factor.
"""

import inspect
import zlib
from collections.abc import Callable, Sequence
from numbers import Integral
from typing import overload

import numpy as np
from numpy.typing import ArrayLike

from lrlib import _check

__all__ = [
    "Schedule", "constant", "step", "multistep", "exponential", "inverse_time", "inverse_sqrt", "polynomial", "cosine",
    "cosine_restarts", "cyclic", "one_cycle", "wsd", "warmup", "join", "scale",
]  # fmt: skip

LAST_STEP = 2**53  # after it float64 skips whole numbers


def _written(constructor: Callable, *arguments) -> str:
    """The call as one would write it; long tables are cut short, and told apart by a checksum."""
    names = list(inspect.signature(constructor).parameters)
    texts = [repr(argument) for argument in arguments]
    for k, table in enumerate(arguments):
        if isinstance(table, tuple) and len(table) > 20:
            digest = zlib.crc32(texts[k].encode())
            texts[k] = f"({table[0]!r}, ..., {table[-1]!r}: {len(table)} values, CRC {digest:08x})"
    texts[1:] = [f"{name}={text}" for name, text in zip(names[1:], texts[1:], strict=True)]
    return f"{constructor.__qualname__}({', '.join(texts)})"


def _made(constructor: Callable, *arguments) -> "Schedule":
    made = constructor(*arguments)
    return made if isinstance(made, Schedule) else made.schedule


class Schedule:
    """A learning rate as a pure function of the 0-based step.

    Called with an int it returns a float, called with an integer array of any shape it returns a float64 array of
    that shape. Wrap a formula of your own in it to get the same checks as the schedules of this module.

    Two schedules that are made by equal arguments are equal, a pickled one and its original too; one of a formula of
    your own is equal to another of that same function.

    Args:
        formula: maps a float64 vector of steps (>= 0) to learning rates of the same shape.
        text: how the schedule prints itself. Or, for one that pickles and is equal to others of its kind, the call that
            makes it: a tuple of the function, which returns it or something that holds it as `schedule`, and of
            its arguments, which must be hashable.
        horizon: the number of steps it is planned for, >= 1, or None where its definition names none.
        warmup_steps: the number of steps of its warm-up, >= 0; a run must not be shorter.

    Raises:
        TypeError: the formula cannot be called, the text is none, or a number is not an integer; when called with steps
            that are not integers.
        ValueError: a number is out of its range; when called with a step that is negative or above 2**53, where float64
            skips whole numbers, or when the formula returns another shape.

    Example:
        >>> halving = Schedule(lambda t: 0.1 * 0.5**t, "halving")
        >>> halving(2)
        0.025
        >>> halving([0, 1])
        array([0.1 , 0.05])
    """

    __slots__ = ("_call", "_formula", "horizon", "warmup_steps")

    def __init__(self, formula: Callable, text: str | tuple, horizon: int | None = None, warmup_steps: int = 0):
        if not callable(formula) or not isinstance(text, str | tuple):
            raise TypeError(f"formula={formula!r}, text={text!r}: must be a function of steps, and a text or a call")
        if horizon is not None:
            _check.integer("horizon", horizon, 1)
        _check.integer("warmup_steps", warmup_steps, 0)
        self._call = text if isinstance(text, tuple) else (Schedule, formula, text, horizon, warmup_steps)
        self._formula, self.horizon, self.warmup_steps = formula, horizon, warmup_steps

    @staticmethod
    def from_table(rates: ArrayLike) -> "Schedule":
        """The rates of a table, one a step; past its end the last one holds.

        Args:
            rates: a vector of numbers >= 0, not empty.

        Raises:
            ValueError: `rates` is not such a vector.

        Example:
            >>> Schedule.from_table([0.1, 0.5, 0.2])([0, 1, 2, 99])
            array([0.1, 0.5, 0.2, 0.2])
        """
        table = np.array(rates, dtype=np.float64)
        if table.ndim != 1 or not table.size or not (np.isfinite(table) & (table >= 0)).all():
            raise ValueError(f"rates={rates!r}: must be a vector of numbers >= 0, not empty")
        call = Schedule.from_table, tuple(table.tolist())
        return Schedule(lambda t: table[np.minimum(t, len(table) - 1).astype(int)], call, horizon=len(table))

    @overload
    def __call__(self, step: int) -> float: ...
    @overload
    def __call__(self, step: Sequence[int] | np.ndarray) -> np.ndarray: ...
    def __call__(self, step):
        steps = np.asarray(step)
        if steps.size and steps.dtype.kind not in "iu" and not all(isinstance(t, Integral) for t in steps.flat):
            raise TypeError(f"step={step!r}: must be an integer or an array of integers, 0-based")
        if steps.size and not (steps.min() >= 0 and steps.max() <= LAST_STEP):
            raise ValueError(f"step={step!r}: must be >= 0 and at most 2**53")
        # Always an array inside: NumPy's scalar and array powers differ in the last bit.
        rates = self.at(steps.astype(np.float64).ravel())
        return float(rates[0]) if steps.ndim == 0 else rates.reshape(steps.shape)

    def at(self, t: np.ndarray) -> np.ndarray:
        """The rates at a float64 vector of steps, which are not checked: for schedules made of schedules."""
        rates = np.asarray(self._formula(t.copy()))  # which a formula may write into
        if rates.shape != t.shape or rates.dtype.kind not in "biuf":
            found = f"{rates.dtype} of shape {rates.shape}"
            raise ValueError(
                f"formula of {self}: returns {found}, must be real numbers of shape {t.shape}, of the steps"
            )
        return rates.astype(np.float64, copy=False)

    def __repr__(self) -> str:
        return self._call[2] if self._call[0] is Schedule else _written(*self._call)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Schedule) and self._call == other._call

    def __hash__(self) -> int:
        return hash(self._call)

    def __reduce__(self):
        return _made, self._call


def constant(lr: float) -> Schedule:
    r"""The same rate at every step: :math:`\eta_t = \eta`.

    Args:
        lr: the rate, >= 0.

    Raises:
        ValueError: `lr` is negative or not finite.

    Example:
        >>> constant(0.1)([0, 1000])
        array([0.1, 0.1])
    """
    lr = _check.nonnegative("lr", lr)
    return Schedule(lambda t: np.full_like(t, lr), (constant, lr))


def step(lr: float, step_size: int, gamma: float = 0.1) -> Schedule:
    r"""Multiplied by `gamma` every `step_size` steps: :math:`\eta_t = \eta\,\gamma^{\lfloor t / s \rfloor}`.

    Args:
        lr: initial rate, >= 0.
        step_size: the number of steps :math:`s` between two cuts, >= 1.
        gamma: factor of each cut, > 0.

    Raises:
        ValueError: an argument is out of its range.

    Source: `torch.optim.lr_scheduler.StepLR`, which it equals.

    Example:
        >>> step(1.0, step_size=3, gamma=0.5)(range(7))
        array([1.  , 1.  , 1.  , 0.5 , 0.5 , 0.5 , 0.25])
    """
    lr = _check.nonnegative("lr", lr)
    step_size = _check.integer("step_size", step_size, 1)
    gamma = _check.positive("gamma", gamma)
    return Schedule(lambda t: lr * gamma ** np.floor(t / step_size) if lr else 0 * t, (step, lr, step_size, gamma))


def multistep(lr: float, milestones: Sequence[int], gamma: float = 0.1) -> Schedule:
    r"""Multiplied by `gamma` at each milestone: :math:`\eta_t = \eta\,\gamma^{\#\{m \in M:\ m \le t\}}`.

    Args:
        lr: initial rate, >= 0.
        milestones: the steps :math:`M` from which each cut holds, strictly increasing, each >= 1.
        gamma: factor of each cut, > 0.

    Raises:
        ValueError: an argument is out of its range, or the milestones are empty or not increasing.

    Source: `torch.optim.lr_scheduler.MultiStepLR`, which it equals.

    Example:
        >>> multistep(1.0, milestones=[2, 5], gamma=0.5)(range(6))
        array([1.  , 1.  , 0.5 , 0.5 , 0.5 , 0.25])
    """
    lr = _check.nonnegative("lr", lr)
    cuts = tuple(_check.increasing("milestones", milestones, 1))
    gamma = _check.positive("gamma", gamma)

    def formula(t):
        return lr * gamma ** np.searchsorted(cuts, t, side="right").astype(np.float64) if lr else 0 * t

    return Schedule(formula, (multistep, lr, cuts, gamma))


def exponential(lr: float, gamma: float) -> Schedule:
    r"""Multiplied by `gamma` at every step: :math:`\eta_t = \eta\,\gamma^t`; it grows when `gamma` > 1.

    Args:
        lr: initial rate, >= 0.
        gamma: factor per step, > 0.

    Raises:
        ValueError: an argument is out of its range.

    Source: `torch.optim.lr_scheduler.ExponentialLR`, which it equals.

    Example:
        >>> exponential(1.0, gamma=0.5)(range(4))
        array([1.   , 0.5  , 0.25 , 0.125])
    """
    lr = _check.nonnegative("lr", lr)
    gamma = _check.positive("gamma", gamma)
    return Schedule(lambda t: lr * gamma**t if lr else 0 * t, (exponential, lr, gamma))


def inverse_time(lr: float, decay: float) -> Schedule:
    r"""Falls like one over the step: :math:`\eta_t = \eta / (1 + t/\tau)`.

    Args:
        lr: initial rate, >= 0.
        decay: :math:`1/\tau` >= 0, per step; after :math:`\tau` steps the rate has halved.

    Raises:
        ValueError: an argument is out of its range.

    Source: Robbins and Monro (1951) ask for :math:`\sum \eta_t = \infty, \sum \eta_t^2 < \infty`, which it meets for
    `decay` > 0.

    Example:
        >>> inverse_time(1.0, decay=0.5)([0, 2, 6])
        array([1.  , 0.5 , 0.25])
    """
    lr = _check.nonnegative("lr", lr)
    decay = _check.nonnegative("decay", decay)
    return Schedule(lambda t: lr / (1 + decay * t), (inverse_time, lr, decay))


def inverse_sqrt(lr: float, warmup_steps: int = 0) -> Schedule:
    r"""A linear rise to `lr`, then a fall like one over the square root of the step.

    With :math:`w` warm-up steps and :math:`\tau = t + 1` the number of the update, counted from one,

    .. math:: \eta_t = \eta \min(\tau / w, \sqrt{w / \tau}), \qquad \eta_t = \eta / \sqrt{\tau} \text{ when } w = 0.

    Args:
        lr: the peak rate, >= 0, reached at step `warmup_steps` - 1 (at step 0 without warm-up).
        warmup_steps: :math:`w` >= 0.

    Raises:
        ValueError: an argument is out of its range.

    Source: Vaswani et al. (2017), section 5.3, with the peak as the argument.

    Example:
        >>> inverse_sqrt(1.0)([0, 3, 15])
        array([1.  , 0.5 , 0.25])
        >>> inverse_sqrt(1.0, warmup_steps=4)([0, 1, 3, 15])
        array([0.25, 0.5 , 1.  , 0.5 ])
    """
    lr = _check.nonnegative("lr", lr)
    warmup_steps = _check.integer("warmup_steps", warmup_steps, 0)
    peak = max(warmup_steps, 1)

    def formula(t):
        return lr * np.minimum((t + 1) / peak, np.sqrt(peak / (t + 1)))

    return Schedule(formula, (inverse_sqrt, lr, warmup_steps), warmup_steps=warmup_steps)


def polynomial(lr: float, total_iters: int, power: float = 1.0, end_lr: float = 0.0) -> Schedule:
    r"""From `lr` down to `end_lr` along a power of the remaining time.

    .. math:: \eta_t = \eta_{end} + (\eta - \eta_{end})\,(1 - \min(t, T) / T)^p

    Args:
        lr: initial rate, >= 0.
        total_iters: :math:`T` >= 1; from this step on the rate is `end_lr`.
        power: :math:`p` > 0; 1 is linear decay.
        end_lr: final rate, in [0, lr].

    Raises:
        ValueError: an argument is out of its range.

    Source: `torch.optim.lr_scheduler.PolynomialLR`, which it equals for `end_lr` = 0.

    Example:
        >>> polynomial(1.0, total_iters=4)([0, 1, 2, 4, 9])
        array([1.  , 0.75, 0.5 , 0.  , 0.  ])
    """
    lr = _check.nonnegative("lr", lr)
    total_iters = _check.integer("total_iters", total_iters, 1)
    power = _check.positive("power", power)
    end_lr = _check.within("end_lr", end_lr, 0.0, lr)

    def formula(t):
        return end_lr + (lr - end_lr) * (1 - np.minimum(t, total_iters) / total_iters) ** power

    return Schedule(formula, (polynomial, lr, total_iters, power, end_lr), horizon=total_iters)


def _half_cosine(high: float, low: float, progress: np.ndarray) -> np.ndarray:
    """From `high` at progress 0 to `low` at progress 1 along half a period of the cosine."""
    return low + (high - low) * (1 + np.cos(np.pi * progress)) / 2


def cosine(lr: float, T_max: int, eta_min: float = 0.0) -> Schedule:
    r"""From `lr` down to `eta_min` along half a period of the cosine.

    .. math:: \eta_t = \eta_{min} + \tfrac12 (\eta - \eta_{min})\,(1 + \cos(\pi \min(t, T) / T))

    Args:
        lr: initial rate, >= 0.
        T_max: :math:`T` >= 1; from this step on the rate is `eta_min`.
        eta_min: final rate, in [0, lr].

    Raises:
        ValueError: an argument is out of its range.

    Source: Loshchilov and Hutter (2017), one cycle. `torch.optim.lr_scheduler.CosineAnnealingLR` is equal up to
    step `T_max`; past it, torch's rises again.

    Example:
        >>> cosine(1.0, T_max=4)([0, 2, 4, 9])
        array([1. , 0.5, 0. , 0. ])
    """
    lr = _check.nonnegative("lr", lr)
    T_max = _check.integer("T_max", T_max, 1)
    eta_min = _check.within("eta_min", eta_min, 0.0, lr)

    def formula(t):
        return _half_cosine(lr, eta_min, np.minimum(t, T_max) / T_max)

    return Schedule(formula, (cosine, lr, T_max, eta_min), horizon=T_max)


def cosine_restarts(lr: float, T_0: int, T_mult: int = 1, eta_min: float = 0.0, decay: float = 1.0) -> Schedule:
    r"""Cosine decays one after the other, each restarting at the peak (SGDR).

    Cycle :math:`i` lasts :math:`T_i = T_0\,m^i` steps; with :math:`T_{cur}` the steps since its start,

    .. math:: \eta_t = d^i \left[\eta_{min} + \tfrac12 (\eta - \eta_{min})\,(1 + \cos(\pi T_{cur} / T_i))\right].

    Args:
        lr: the peak of the first cycle, >= 0.
        T_0: length of the first cycle, >= 1.
        T_mult: the factor :math:`m` by which cycles lengthen, an integer >= 1.
        eta_min: lowest rate of the first cycle, in [0, lr].
        decay: the factor :math:`d` in (0, 1] by which both bounds shrink from cycle to cycle.

    Raises:
        ValueError: an argument is out of its range.

    Source: Loshchilov and Hutter (2017), equation 5 and section 3; there the bounds may change from cycle to cycle.
    `torch.optim.lr_scheduler.CosineAnnealingWarmRestarts` is equal for `decay` = 1, which is all it has. In both, a
    cycle's last step has :math:`T_{cur} = T_i - 1`, so `eta_min` itself is never applied.

    Example:
        >>> cosine_restarts(1.0, T_0=2, T_mult=2)(range(6))
        array([1.        , 0.5       , 1.        , 0.85355339, 0.5       ,
               0.14644661])
    """
    lr = _check.nonnegative("lr", lr)
    T_0 = _check.integer("T_0", T_0, 1)
    T_mult = _check.integer("T_mult", T_mult, 1)
    eta_min = _check.within("eta_min", eta_min, 0.0, lr)
    decay = _check.positive("decay", _check.within("decay", decay, 0.0, 1.0))

    starts = [0]  # of the cycles, where they lengthen
    while T_mult > 1 and starts[-1] <= LAST_STEP:
        starts.append(starts[-1] * T_mult + T_0)

    def formula(t):
        cycle = np.floor(t / T_0) if T_mult == 1 else np.searchsorted(starts, t, side="right") - 1.0
        start = cycle * T_0 if T_mult == 1 else np.array(starts, dtype=np.float64)[cycle.astype(int)]
        return decay**cycle * _half_cosine(lr, eta_min, (t - start) / (T_0 * float(T_mult) ** cycle))

    return Schedule(formula, (cosine_restarts, lr, T_0, T_mult, eta_min, decay))


def cyclic(base_lr: float, max_lr: float, step_size_up: int, mode: str = "triangular", gamma: float = 1.0) -> Schedule:
    r"""A triangle wave between `base_lr` and `max_lr`, its height constant, halved per cycle, or decaying per step.

    With :math:`s` = `step_size_up`, cycle :math:`c = \lfloor 1 + t/(2s) \rfloor` and :math:`x = |t/s - 2c + 1|`,

    .. math:: \eta_t = \eta_{min} + (\eta_{max} - \eta_{min})\,(1 - x)\,a_t, \qquad
              a_t = 1,\quad 2^{1-c},\quad \gamma^t

    for the modes "triangular", "triangular2" and "exp_range".

    Args:
        base_lr: lowest rate, >= 0, the rate of step 0.
        max_lr: highest rate, >= `base_lr`, first reached at step `step_size_up`.
        step_size_up: half a cycle, in steps, >= 1.
        mode: "triangular", "triangular2" or "exp_range".
        gamma: decay of the height per step in mode "exp_range", in (0, 1]; it must stay 1 in the other modes.

    Raises:
        ValueError: an argument is out of its range.

    Source: Smith (2017). `torch.optim.lr_scheduler.CyclicLR` is equal; it also cycles momentum unless told not to, and
    overflows after 1,024 halvings. The paper says that in "exp_range" both bounds decline; its author's code, torch
    and this function shrink the height and keep `base_lr`.

    Example:
        >>> cyclic(0.0, 1.0, step_size_up=2)(range(7))
        array([0. , 0.5, 1. , 0.5, 0. , 0.5, 1. ])
        >>> cyclic(0.0, 1.0, step_size_up=2, mode="triangular2")([2, 6, 10])
        array([1.  , 0.5 , 0.25])
    """
    base_lr = _check.nonnegative("base_lr", base_lr)
    max_lr = _check.at_least("max_lr", max_lr, base_lr)
    step_size_up = _check.integer("step_size_up", step_size_up, 1)
    _check.choice("mode", mode, ("triangular", "triangular2", "exp_range"))
    gamma = _check.positive("gamma", _check.within("gamma", gamma, 0.0, 1.0))
    if mode != "exp_range" and gamma != 1.0:
        raise ValueError(f"gamma={gamma!r}: must be 1.0 in mode {mode!r}; only mode 'exp_range' uses it")

    def formula(t):
        finished_cycles = np.floor(t / (2 * step_size_up))
        x = np.abs((t - 2 * step_size_up * finished_cycles) / step_size_up - 1)
        height = {"triangular": 1.0, "triangular2": 0.5**finished_cycles, "exp_range": gamma**t}[mode]
        return base_lr + (max_lr - base_lr) * (1 - x) * height

    return Schedule(formula, (cyclic, base_lr, max_lr, step_size_up, mode, gamma))


def one_cycle(
    max_lr: float,
    total_steps: int,
    pct_start: float = 0.3,
    div_factor: float = 25.0,
    final_div_factor: float = 1e4,
    anneal_strategy: str = "cos",
) -> Schedule:
    r"""One rise and one long fall.

    From :math:`\eta_{max}/d` at step 0 up to :math:`\eta_{max}` at step :math:`pT - 1`, then down to
    :math:`\eta_{max}/(d f)` at the last step :math:`T - 1`, both along a half cosine or a straight line.

    Args:
        max_lr: the peak, >= 0.
        total_steps: :math:`T` >= 2.
        pct_start: the share :math:`p` of the steps spent rising; 1 < p T < T must hold.
        div_factor: :math:`d` >= 1, peak over initial rate.
        final_div_factor: :math:`f` >= 1, initial over final rate.
        anneal_strategy: "cos" or "linear".

    Raises:
        ValueError: an argument is out of its range.

    Source: Smith and Topin (2018), whose policy has three straight phases: up, down, and on down to almost zero; it
    is `cyclic` and `polynomial` joined. `torch.optim.lr_scheduler.OneCycleLR` is equal by default. One step past the
    end it extrapolates, below zero along straight lines, then refuses; this holds the last value.

    Example:
        >>> one_cycle(1.0, total_steps=10, pct_start=0.3, div_factor=4, final_div_factor=25)([0, 2, 9])
        array([0.25, 1.  , 0.01])
    """
    max_lr = _check.nonnegative("max_lr", max_lr)
    total_steps = _check.integer("total_steps", total_steps, 2)
    pct_start = _check.within("pct_start", pct_start, 0.0, 1.0)
    if not 1 < pct_start * total_steps < total_steps:
        raise ValueError(f"pct_start={pct_start!r}: must give a rise of more than 1 and fewer than {total_steps} steps")
    div_factor = _check.at_least("div_factor", div_factor, 1.0)
    final_div_factor = _check.at_least("final_div_factor", final_div_factor, 1.0)
    _check.choice("anneal_strategy", anneal_strategy, ("cos", "linear"))
    initial_lr = max_lr / div_factor
    final_lr = initial_lr / final_div_factor
    peak, last = pct_start * total_steps - 1, total_steps - 1

    def between(start, end, u):
        return _half_cosine(start, end, u) if anneal_strategy == "cos" else (1 - u) * start + u * end

    def formula(t):
        rise, fall = np.minimum(t / peak, 1), np.clip((t - peak) / (last - peak), 0, 1)
        return np.where(t <= peak, between(initial_lr, max_lr, rise), between(max_lr, final_lr, fall))

    call = one_cycle, max_lr, total_steps, pct_start, div_factor, final_div_factor, anneal_strategy
    return Schedule(formula, call, horizon=total_steps)


_WSD_DECAYS = {
    "linear": lambda u: 1 - u,
    "cosine": lambda u: _half_cosine(1.0, 0.0, u),
    "sqrt": lambda u: 1 - np.sqrt(u),
}


def wsd(
    lr: float, total_steps: int, warmup_steps: int, decay_steps: int, end_lr: float = 0.0, decay: str = "linear"
) -> Schedule:
    r"""Warm-up, stable, decay: a linear rise, a plateau at `lr`, and a fall over the last `decay_steps` steps.

    With :math:`w` warm-up steps, the fall over :math:`d` steps that begins at step :math:`T - d`, and
    :math:`u = (t - T + d)/d` its progress, clipped to [0, 1],

    .. math:: \eta_t &= \min(t/w, 1)\left[\eta_{end} + (\eta - \eta_{end})\,\delta(u)\right], \\
              \delta(u) &= 1 - u,\quad \tfrac12(1 + \cos \pi u),\quad 1 - \sqrt{u}

    for the decays "linear", "cosine" and "sqrt".

    Args:
        lr: rate of the plateau, >= 0.
        total_steps: :math:`T` >= 1.
        warmup_steps: :math:`w` >= 0. The rate of step 0 is 0 when :math:`w > 0`.
        decay_steps: :math:`d` >= 1; `warmup_steps` + `decay_steps` <= `total_steps`.
        end_lr: rate from step `total_steps` on, in [0, lr].
        decay: "linear", "cosine" or "sqrt".

    Raises:
        ValueError: an argument is out of its range.

    Source: Hu et al. (2024); the decay "sqrt" is Hägele et al. (2024).

    Example:
        >>> wsd(1.0, total_steps=8, warmup_steps=2, decay_steps=4)(range(9))
        array([0.  , 0.5 , 1.  , 1.  , 1.  , 0.75, 0.5 , 0.25, 0.  ])
    """
    lr = _check.nonnegative("lr", lr)
    total_steps = _check.integer("total_steps", total_steps, 1)
    warmup_steps = _check.integer("warmup_steps", warmup_steps, 0)
    decay_steps = _check.integer("decay_steps", decay_steps, 1)
    if warmup_steps + decay_steps > total_steps:
        raise ValueError(f"warmup_steps={warmup_steps} + decay_steps={decay_steps}: must be <= {total_steps} in all")
    end_lr = _check.within("end_lr", end_lr, 0.0, lr)
    shape = _WSD_DECAYS[_check.choice("decay", decay, tuple(_WSD_DECAYS))]
    start = total_steps - decay_steps

    def formula(t):
        rise = np.minimum(t / warmup_steps, 1) if warmup_steps else 1.0
        return rise * (end_lr + (lr - end_lr) * shape(np.clip((t - start) / decay_steps, 0, 1)))

    call = wsd, lr, total_steps, warmup_steps, decay_steps, end_lr, decay
    return Schedule(formula, call, horizon=total_steps, warmup_steps=warmup_steps)


def check_schedule(name: str, schedule) -> Schedule:
    if not isinstance(schedule, Schedule):
        raise TypeError(f"{name}={schedule!r}: must be a Schedule; wrap a function of your own in Schedule(...)")
    return schedule


def warmup(schedule: Schedule, steps: int, start_factor: float = 0.0) -> Schedule:
    r"""The schedule, its first steps multiplied by a linear rise to one.

    .. math:: \eta'_t = \eta_t\,\left(f + (1 - f)\min(t / w, 1)\right)

    The schedule is not shifted: the run keeps its length. With `start_factor` 0 the first update has rate 0 and
    moves nothing; pass 1 / `steps` to use it.

    Args:
        schedule: any :class:`Schedule`.
        steps: :math:`w` >= 1, at most the length that `schedule` is planned for.
        start_factor: :math:`f` in [0, 1], the factor of step 0.

    Raises:
        TypeError: `schedule` is not a :class:`Schedule`.
        ValueError: an argument is out of its range.

    Source: Goyal et al. (2017). `torch.optim.lr_scheduler.LinearLR` is equal for `start_factor` > 0, chained with a
    scheduler that only multiplies the rate.

    Example:
        >>> warmup(constant(1.0), steps=4)([0, 1, 2, 4, 5])
        array([0.  , 0.25, 0.5 , 1.  , 1.  ])
    """
    check_schedule("schedule", schedule)
    steps = _check.integer("steps", steps, 1)
    start_factor = _check.within("start_factor", start_factor, 0.0, 1.0)
    if schedule.horizon is not None and steps > schedule.horizon:
        raise ValueError(f"steps={steps!r}: must be <= {schedule.horizon}, the length of {schedule}")

    def formula(t):
        return schedule.at(t) * (start_factor + (1 - start_factor) * np.minimum(t / steps, 1))

    call = warmup, schedule, steps, start_factor
    return Schedule(formula, call, schedule.horizon, warmup_steps=max(steps, schedule.warmup_steps))


def join(schedules: Sequence[Schedule], boundaries: Sequence[int]) -> Schedule:
    r"""Schedules one after the other; each receives the steps since its own boundary.

    .. math:: \eta_t = \eta^{(k)}_{t - b_k} \quad \text{for } b_k \le t < b_{k+1}, \qquad b_0 = 0

    Args:
        schedules: two or more, in order.
        boundaries: the first step of each schedule but the first: one fewer than `schedules`, strictly increasing,
            each >= 1.

    Raises:
        TypeError: an entry of `schedules` is not a :class:`Schedule`.
        ValueError: the boundaries are not increasing or not one fewer than the schedules.

    Source: `torch.optim.lr_scheduler.SequentialLR`, without its side effects on the optimizer.

    Example:
        >>> join([constant(1.0), polynomial(0.5, total_iters=2)], boundaries=[3])(range(6))
        array([1.  , 1.  , 1.  , 0.5 , 0.25, 0.  ])
    """
    parts = tuple(check_schedule(f"schedules[{k}]", schedule) for k, schedule in enumerate(schedules))
    starts = (0, *_check.increasing("boundaries", boundaries, 1))
    if len(parts) != len(starts):
        raise ValueError(f"boundaries={boundaries!r}: must be one fewer than the {len(parts)} schedules they separate")

    def formula(t):
        rates = np.empty_like(t)
        for part, start, end in zip(parts, starts, (*starts[1:], np.inf), strict=True):
            here = (start <= t) & (t < end)
            if here.any():
                rates[here] = part.at(t[here] - start)
        return rates

    horizon = None if parts[-1].horizon is None else starts[-1] + parts[-1].horizon
    return Schedule(formula, (join, parts, starts[1:]), horizon, min(parts[0].warmup_steps, starts[1]))


def scale(schedule: Schedule, factor: float) -> Schedule:
    r"""The schedule times a constant: :math:`\eta'_t = c\,\eta_t`.

    Args:
        schedule: any :class:`Schedule`.
        factor: :math:`c` >= 0.

    Raises:
        TypeError: `schedule` is not a :class:`Schedule`.
        ValueError: `factor` is negative or not finite.

    Example:
        >>> scale(cosine(1.0, T_max=10), 0.1)([0, 5])
        array([0.1 , 0.05])
    """
    check_schedule("schedule", schedule)
    factor = _check.nonnegative("factor", factor)
    call = scale, schedule, factor
    return Schedule(lambda t: factor * schedule.at(t), call, schedule.horizon, schedule.warmup_steps)
