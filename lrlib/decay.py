r"""Decoupled weight decay as a memory: how many steps the weights look back.

AdamW's weights, :math:`\theta_{t+1} = (1 - \eta\lambda)\,\theta_t - \eta u_t`, are an exponential moving average of the
points :math:`-u_t/\lambda` that its updates :math:`u_t` aim at.
"""

from lrlib import _check

__all__ = ["ema_timescale"]


def ema_timescale(lr: float, weight_decay: float) -> float:
    r"""The timescale of the weights under AdamW, in steps.

    .. math:: \theta_{t+1} = (1 - \tfrac1\tau)\,\theta_t + \tfrac1\tau \Big({-\frac{u_t}{\lambda}}\Big), \qquad
              \tau = \frac{1}{\eta\lambda}

    In an old average a target is :math:`\tau - 1` steps old on average, and of the first weights
    :math:`(1 - 1/\tau)^t` is left after t steps, :math:`1/e` after about :math:`\tau`. The same holds for any rule
    whose decay is multiplied by the rate and kept out of the gradient, such as :class:`~lrlib.Muon`.

    Args:
        lr: the rate :math:`\eta`, > 0.
        weight_decay: :math:`\lambda`, > 0, as in `torch.optim.AdamW`.

    Returns:
        :math:`\tau` >= 1.

    Raises:
        ValueError: an argument is not > 0, or their product is above 1: the weights are no average then.

    Source: Wang and Aitchison, *How to set AdamW's weight decay as you scale model and dataset size* (2024).

    Example:
        >>> round(ema_timescale(1e-3, 1e-2))  # the defaults of torch.optim.AdamW
        100000
    """
    lr, weight_decay = _check.positive("lr", lr), _check.positive("weight_decay", weight_decay)
    if not 0 < lr * weight_decay <= 1:
        raise ValueError(f"weight_decay={weight_decay!r}: times lr must be > 0 and <= 1, or the weights are no average")
    return 1 / (lr * weight_decay)
