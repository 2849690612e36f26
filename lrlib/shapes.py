r"""The field of the book's races: fifteen shapes of a schedule, each with one free number, its peak rate.

``SHAPES[name](lr, T)`` is the schedule of this name with peak `lr`, planned for T >= 4 updates. A shape with the peak
:math:`c\,\eta` is :math:`c` times that with :math:`\eta`. In the order of `SHAPES`: constant; step, down by ten after
each third; multistep, down by ten at half and at three quarters; exponential, down to a hundredth; 1/t, down to a
tenth; 1/√t after a warm-up of a tenth; linear; cosine; WSD, a plateau that falls in the last quarter; restarts, three
cosines of lengths 1, 2 and 4; triangular, three waves; one cycle; and scans of three of :mod:`lrlib.pictures`, whose
brightest pixels come near the peak.

Example:
    >>> len(SHAPES), SHAPES["cosine"](0.5, 300)
    (15, cosine(0.5, T_max=300, eta_min=0.0))
"""

from collections.abc import Callable

from lrlib import schedules
from lrlib.images import image_schedule
from lrlib.schedules import Schedule

__all__ = ["SHAPES"]


def _scan(name: str, lr: float, T: int) -> Schedule:
    from lrlib import pictures

    return image_schedule(pictures.drawn(name), T, lr / 1000, lr)


SHAPES: dict[str, Callable[[float, int], Schedule]] = {
    "constant": lambda lr, T: schedules.constant(lr),
    "step": lambda lr, T: schedules.step(lr, step_size=-(-T // 3)),
    "multistep": lambda lr, T: schedules.multistep(lr, milestones=[T // 2, 3 * T // 4]),
    "exponential": lambda lr, T: schedules.exponential(lr, gamma=0.01 ** (1 / T)),
    "1/t": lambda lr, T: schedules.inverse_time(lr, decay=9 / T),
    "1/√t": lambda lr, T: schedules.inverse_sqrt(lr, warmup_steps=T // 10),
    "linear": lambda lr, T: schedules.polynomial(lr, total_iters=T),
    "cosine": lambda lr, T: schedules.cosine(lr, T_max=T),
    "WSD": lambda lr, T: schedules.wsd(lr, total_steps=T, warmup_steps=T // 20, decay_steps=T // 4),
    "restarts": lambda lr, T: schedules.cosine_restarts(lr, T_0=-(-T // 7), T_mult=2),
    "triangular": lambda lr, T: schedules.cyclic(lr / 100, lr, step_size_up=max(1, T // 6)),
    "one cycle": lambda lr, T: schedules.one_cycle(lr, total_steps=T),
    "portrait": lambda lr, T: _scan("portrait", lr, T),
    "puppy": lambda lr, T: _scan("puppy", lr, T),
    "digit": lambda lr, T: _scan("digit", lr, T),
}
