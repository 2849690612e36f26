"""An average of the weights that the run itself goes on from."""

import torch

from lrlib import _check
from lrlib.callbacks import Callback

__all__ = ["Lookahead"]


class Lookahead(Callback):
    r"""Slow weights that follow those of the run, and to which the run is set back, more firmly the later it is.

    After every k updates, with :math:`\theta` the weights and running statistics of the run at step t of T,

    .. math:: \phi \leftarrow d_t\, \phi + (1 - d_t)\, \theta, \qquad \theta \leftarrow \phi, \qquad
              d_t = d^k\, (t/T)^3,

    and in the end :math:`\theta \leftarrow \phi`, so that what came after the last of these points is dropped, in
    replicas that are still trained. The rule's state, such as a velocity, is left as it is.

    Args:
        every: k >= 1.
        decay: d in [0, 1): what an average that is taken after each update would keep of itself.

    Raises:
        TypeError: `every` is not an integer.
        ValueError: an argument is out of its range; at the start of a run, if its method trains other weights than
            those that are looked at, as a schedule-free one does.

    Source: Zhang et al., *Lookahead Optimizer: k steps forward, 1 step back* (2019), with a constant share; with the
        rising one: Jordan (2024), arXiv 2404.00498.

    Example:
        >>> import lrlib
        >>> with lrlib.seeded(0):
        ...     model = lrlib.mlp(64, 16, 10)
        >>> history = lrlib.train(model, lrlib.digits(), 0.5, steps=100, callbacks=[Lookahead()])
        >>> bool(history.accuracy > 0.9)
        True
    """

    remembers = ("_slow",)

    def __init__(self, every: int = 5, decay: float = 0.95):
        super().__init__(every=every)
        self._kept = _check.below_one("decay", decay) ** (self.every or 1)
        self._slow: list[torch.Tensor] = []

    def start(self, run) -> None:
        if not run.plain:
            raise ValueError("optimizer: looks at other weights than it trains, must train those that Lookahead sets")
        self._slow = [value.clone() for value in _averaged(run)]

    @torch.no_grad()
    def __call__(self, run) -> None:
        share = 1 - self._kept * (run.step / run.steps) ** 3
        for slow, value in zip(self._slow, _averaged(run), strict=True):
            slow.lerp_(value, share)
        self.finish(run)

    @torch.no_grad()
    def finish(self, run) -> None:
        for slow, value in zip(self._slow, _averaged(run), strict=True):
            trained = run.active.view(-1, *[1] * (value.ndim - 1))
            value.copy_(torch.where(trained, slow, value))


def _averaged(run) -> list[torch.Tensor]:
    return [value for value in run.values if value.is_floating_point()]
