r"""Small problems on which update rules are compared, each in several random instances that are trained as one stack.

Two of them are convex: quadratics, and logistic regressions on sparse features. The third fits a network to a data
set.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from lrlib import _check
from lrlib.data import Dataset
from lrlib.rule import Rule
from lrlib.stack import Loss, Stack, initialised
from lrlib.stats import cross_tuned
from lrlib.training import train

__all__ = [
    "Problem", "quadratic_problem", "sparse_problem", "network_problem", "linear_model", "half_squares", "log_losses",
    "tuned_log_losses",
]  # fmt: skip

Pair = tuple[torch.Tensor, torch.Tensor]
WORST = 100.0  # what a run that diverged counts as
AT_A_TIME = 2000  # test examples, so that the activations of many networks fit into memory


@dataclass(frozen=True, eq=False)
class Problem:
    """A training problem in S instances.

    Attributes:
        models: of each instance where training starts, S modules of one architecture.
        data: of each its training examples, S pairs (inputs, targets).
        loss: maps outputs and targets to a scalar.
        steps: the number of updates, >= 1.
        batch_size: examples per update, between 1 and the number of training examples.
        test: the examples of the final loss, inputs and targets, with a first axis of S or, for all instances, 1.

    Raises:
        TypeError: a number is not an integer.
        ValueError: there are not as many models as data sets, or a number is out of its range.
    """

    models: Sequence[nn.Module]
    data: Sequence[Pair]
    loss: Loss
    steps: int
    batch_size: int
    test: Pair

    def __post_init__(self) -> None:
        if len(self.models) != len(self.data):
            raise ValueError(f"data: has {len(self.data)} pairs, must have {len(self.models)}, one a model")
        _check.integer("steps", self.steps, 1)
        _check.integer("batch_size", self.batch_size, 1, min(len(x) for x, _ in self.data))

    def sweep(self, rule: Rule, rates: Sequence[float], callbacks: Sequence[Callable] = ()) -> np.ndarray:
        """The final loss of every instance at every rate, all trained at once.

        Args:
            rule: an update rule. A setting of its own for each replica is a list over the rates, S times over:
                replica k of the stack has instance k // len(rates) and rate k % len(rates).
            rates: K >= 1 numbers >= 0.
            callbacks: as of :func:`lrlib.train`.

        Returns:
            Shape (K, S), NaN where the loss of a mini-batch was not finite.

        Raises:
            TypeError: the rule is none.
            ValueError: a rate is negative or not finite, or there is none.

        Example:
            >>> import lrlib
            >>> quadratic_problem(instances=3).sweep(lrlib.SGD(), [0.01, 0.1]).shape
            (2, 3)
        """
        rates = [_check.nonnegative(f"rates[{k}]", float(rate)) for k, rate in enumerate(rates)]
        if not rates:
            raise ValueError("rates: is empty, must be at least one")
        stack = Stack([model for model in self.models for _ in rates])
        history = train(
            stack,
            [pair for pair in self.data for _ in rates],
            rates * len(self.models),
            steps=self.steps,
            batch_size=self.batch_size,
            optimizer=rule,
            loss=self.loss,
            seed=[instance for instance in range(len(self.models)) for _ in rates],
            callbacks=callbacks,
        )
        stack.eval()
        with torch.no_grad():
            x, y = self.test
            outputs = torch.cat([stack(part) for part in x.split(AT_A_TIME, 1)], 1)
            losses = stack.loss_of(outputs, y, self.loss).double().cpu().numpy()
        return np.where(np.asarray(history.diverged_at) < 0, losses, np.nan).reshape(len(self.models), -1).T


def linear_model(weights: Sequence[float] | np.ndarray) -> nn.Sequential:
    r"""The model :math:`x \mapsto \langle w, x \rangle`, without a bias.

    Args:
        weights: :math:`w` at the start, d >= 1 numbers.

    Example:
        >>> linear_model([1.0, 2.0])(torch.tensor([[3.0, 4.0]])).item()
        11.0
    """
    layer = nn.Linear(len(weights), 1, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.as_tensor(weights))
    return nn.Sequential(nn.Flatten(), layer)


def half_squares(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    r"""The loss :math:`\tfrac12 \sum_i (f_i - y_i)^2`, a sum over the examples.

    With the inputs :math:`\sqrt{h_i}\, e_i` and targets 0 it is the quadratic :math:`\tfrac12 \sum_i h_i w_i^2` of a
    linear model's weights.

    Args:
        outputs, targets: of one shape.

    Raises:
        ValueError: their shapes differ.

    Example:
        >>> half_squares(torch.tensor([3.0, 1.0]), torch.tensor([1.0, 1.0])).item()
        2.0
    """
    if outputs.shape != targets.shape:
        raise ValueError(f"targets: have shape {tuple(targets.shape)}, must have {tuple(outputs.shape)}, the outputs'")
    return (outputs - targets).square().sum() / 2


def quadratic_problem(turned: bool = True, instances: int = 10) -> Problem:
    r"""Quadratics :math:`\tfrac12 \sum_i h_i c_i^2` with 20 curvatures from 0.1 to 100, for 200 full-batch updates.

    Args:
        turned: whether the :math:`c_i` are coordinates along axes turned at random, or those of the weights.
        instances: S >= 1, each with axes and a normal start of its own.

    Raises:
        ValueError: `instances` is out of its range.

    Example:
        >>> len(quadratic_problem(turned=False, instances=3).models)
        3
    """
    instances, d, rng = _check.integer("instances", instances, 1), 20, np.random.default_rng(0)
    axes = np.array([np.linalg.qr(rng.normal(size=(d, d)))[0] if turned else np.eye(d) for _ in range(instances)])
    models = [linear_model(start) for start in rng.normal(size=(instances, d))]
    x = torch.tensor(axes * np.logspace(-0.5, 1, d)[:, None], dtype=torch.float32)
    y = torch.zeros(instances, d, 1)
    return Problem(models, list(zip(x, y, strict=True)), half_squares, 200, d, (x, y))


def sparse_problem(instances: int = 10) -> Problem:
    r"""Logistic regressions on 300 features, feature i there with probability 1/(2i), for 200 updates of 16 examples.

    Labels are drawn from a logistic model with normal weights of deviation 2. Training starts at zero and uses every
    example once; the final loss is over 1,000 new ones.

    Args:
        instances: S >= 1, each with weights and examples of its own.

    Raises:
        ValueError: `instances` is out of its range.

    Example:
        >>> sparse_problem(instances=2).data[0][0].shape
        torch.Size([3200, 300])
    """
    instances, d, steps, batch_size, test = _check.integer("instances", instances, 1), 300, 200, 16, 1000
    rng = np.random.default_rng(0)
    there = rng.random((instances, steps * batch_size + test, d)) < 0.5 / np.arange(1, d + 1)
    scores = np.einsum("snd,sd->sn", there, 2 * rng.normal(size=(instances, d)))
    labels = rng.random(scores.shape) < 1 / (1 + np.exp(-scores))
    x, y = (torch.tensor(values, dtype=torch.float32) for values in (there, labels[..., None]))
    data = list(zip(x[:, test:], y[:, test:], strict=True))
    loss = F.binary_cross_entropy_with_logits
    return Problem([linear_model(np.zeros(d))] * instances, data, loss, steps, batch_size, (x[:, :test], y[:, :test]))


def network_problem(
    make_model: Callable[[], nn.Module], data: Dataset, steps: int, batch_size: int, instances: int = 10
) -> Problem:
    """A network fitted to a data set; the final loss is over its first 5,000 training examples.

    Args:
        make_model: called without arguments while torch's generator is seeded with 0, 1, ...; what it returns is moved
            to the data's device.
        data: what is fitted.
        steps: the number of updates, >= 1.
        batch_size: examples per update, between 1 and the number of training examples.
        instances: S >= 1, each with weights and an order of the examples of its own.

    Raises:
        ValueError: a number is out of its range.

    Example:
        >>> import lrlib
        >>> problem = network_problem(lambda: lrlib.mlp(64, 8, 10), lrlib.digits(), steps=5, batch_size=16, instances=2)
        >>> problem.sweep(lrlib.Adam(), [1e-3]).shape
        (1, 2)
    """
    models = initialised(make_model, range(_check.integer("instances", instances, 1)), data.x_train.device)
    x, y = data.x_train, data.y_train
    return Problem(models, [(x, y)] * instances, F.cross_entropy, steps, batch_size, (x[None, :5000], y[None, :5000]))


def log_losses(losses: np.ndarray) -> np.ndarray:
    r""":math:`\log_{10}` of losses within :math:`10^{-9}` and 100, which is also what a run that diverged counts as.

    Args:
        losses: of any shape, NaN or None where a run diverged.

    Example:
        >>> log_losses([0.01, float("nan"), 0.0]).tolist()
        [-2.0, 2.0, -9.0]
    """
    values = np.nan_to_num(np.asarray(losses, dtype=float), nan=WORST, posinf=WORST)
    return np.log10(np.clip(values, 1e-9, WORST))


def tuned_log_losses(losses: np.ndarray) -> np.ndarray:
    """:func:`log_losses` of each instance, at the rate that is best for the other half of the instances.

    Args:
        losses: as :meth:`Problem.sweep` returns them, (K, S) with S >= 2.

    Raises:
        ValueError: `losses` is not of this shape.

    Example:
        >>> tuned_log_losses([[0.1, 0.01], [1.0, float("nan")]]).tolist()
        [-1.0, -2.0]
    """
    return cross_tuned(log_losses(losses))
