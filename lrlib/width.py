r"""Width: the maximal update parametrisation, under which the best rate of a narrow network serves a wide one.

A parameter is described by two numbers, how many times more inputs and outputs it has than in a *base* of the same
architecture: :math:`m_{\mathrm{in}}` and :math:`m_{\mathrm{out}}`, 1 where a side does not grow. Then

.. math:: \eta_{\mathrm{Adam}} = \frac{\eta}{m_{\mathrm{in}}}, \qquad
   \eta_{\mathrm{SGD}} = \eta\,\frac{m_{\mathrm{out}}}{m_{\mathrm{in}}}, \qquad
   \sigma = \sigma_{\mathrm{PyTorch}} \min\Big(1, \sqrt{m_{\mathrm{out}} / m_{\mathrm{in}}}\Big) .

A model of the base's width is left as it is.
"""

import contextlib
import functools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from lrlib import _check, runtime
from lrlib.rule import Rule
from lrlib.stack import Loss

__all__ = ["mup_rates", "mup_groups", "mup_init_", "PerParameter", "CoordinateCheck", "coordinate_check"]

KINDS = ("input", "hidden", "output")
MATRICES = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)  # whose weights are (outputs, inputs, ...)
NORMS = (nn.LayerNorm, nn.RMSNorm, nn.GroupNorm, nn.modules.batchnorm._NormBase)
FACTORS: dict[str, Callable[[float, float], float]] = {
    "adam": lambda m_in, m_out: 1 / m_in,
    "sgd": lambda m_in, m_out: m_out / m_in,
}

Growth = tuple[float, float]  # of a parameter's inputs and outputs


def _growths(model: nn.Module, base: nn.Module, kinds: Mapping[str, str] | None) -> dict[str, Growth]:
    """How many times more inputs and outputs each parameter has than in the base, by name."""
    kinds = dict(kinds or {})
    params, small = dict(model.named_parameters()), {n: p.shape for n, p in base.named_parameters()}
    if list(params) != list(small):
        raise ValueError("base: has parameters of other names than model, must be the same architecture, only narrower")
    if unknown := sorted(set(kinds) - set(params)):
        raise ValueError(f"kinds: names {unknown[0]!r}, must name parameters of the model")
    for name, kind in kinds.items():
        _check.choice(f"kinds[{name!r}]", kind, KINDS)
    every = list(model.named_parameters(remove_duplicate=False))
    if len(every) > len(params):
        tied = next(name for name, _ in every if name not in params)
        raise ValueError(
            f"model: {tied!r} is tied to another parameter, which would be input and output at once; must be untied"
        )
    owners = {f"{path}.{name}" if path else name: (module, name) for path, module in model.named_modules()
              for name, _ in module.named_parameters(recurse=False)}  # fmt: skip
    return {name: _growth(name, *owners[name], p.shape, small[name], kinds.get(name)) for name, p in params.items()}


def _growth(
    name: str, module: nn.Module, attribute: str, shape: torch.Size, base: torch.Size, kind: str | None
) -> Growth:
    if len(shape) != len(base):
        raise ValueError(f"base: {name!r} has shape {tuple(base)}, must have {len(shape)} axes, as in model")
    ratios = [mine / other for mine, other in zip(shape, base, strict=True)]
    if min(ratios, default=1) < 1:
        raise ValueError(f"base: {name!r} has shape {tuple(base)}, must be no wider than that of model, {tuple(shape)}")
    if all(ratio == 1 for ratio in ratios):
        return 1.0, 1.0
    grown = math.prod(ratios)
    if kind is not None:
        return {"input": (1.0, grown), "output": (grown, 1.0), "hidden": (math.prod(ratios[1:]), ratios[0])}[kind]
    if isinstance(module, MATRICES) and attribute == "weight":
        if any(ratio != 1 for ratio in ratios[2:]):
            raise ValueError(f"base: the kernel of {name!r} is {tuple(base[2:])}, must be {tuple(shape[2:])}")
        return ratios[1], ratios[0]
    of_vectors = isinstance(module, MATRICES) or isinstance(module, NORMS)
    if (of_vectors and len(shape) == 1) or (isinstance(module, nn.Embedding) and ratios[0] == 1):
        return 1.0, grown
    raise ValueError(
        f"model: {name!r}, of shape {tuple(shape)} in a {type(module).__name__}, grows with the width in a way that is "
        f"not known; must be named in kinds, as one of {', '.join(KINDS)}"
    )


def mup_rates(
    model: nn.Module, base: nn.Module, *, optimizer: str = "adam", kinds: Mapping[str, str] | None = None
) -> dict[str, float]:
    r"""By what each parameter's rate is multiplied, so that one rate serves all widths.

    For an optimizer of Adam's family, whose update does not depend on the gradient's size, :math:`1/m_{\mathrm{in}}`;
    for SGD :math:`m_{\mathrm{out}}/m_{\mathrm{in}}`. Known are the weights of linear, convolution and embedding layers,
    and the vectors of these and of the norms. All else that grows is refused, unless `kinds` says what it is.

    What it cannot see: scores of attention divided by the root of the head's size suit heads of a fixed size, more of
    them in a wider network; with larger heads divide by the size itself.

    Args:
        model: the network to train.
        base: one of the same architecture, of the width at which the rate is tuned; its values do not matter.
        optimizer: "adam" (also AdamW, NAdam, Lion: all that normalise each coordinate) or "sgd".
        kinds: from names of parameters to "input" (of a fixed number of inputs, such as an embedding), "output" (of a
            fixed number of outputs) or "hidden" (both grow; axes as of `nn.Linear`).

    Returns:
        From the names of the parameters, in the model's order, to factors > 0.

    Raises:
        ValueError: the two are not of one architecture; parameters are tied; one grows in a way that is not known; or
            another argument is out of its range.

    Source: Yang et al., *Tensor Programs V* (2022), table 3; the form by fans: Yang, Simon and Bernstein (2023).

    Example:
        >>> import lrlib
        >>> mup_rates(lrlib.mlp(64, 128, 128, 10), lrlib.mlp(64, 32, 32, 10))
        {'1.weight': 1.0, '1.bias': 1.0, '3.weight': 0.25, '3.bias': 1.0, '5.weight': 0.25, '5.bias': 1.0}
    """
    factor = FACTORS[_check.choice("optimizer", optimizer, FACTORS)]
    return {name: factor(*growth) for name, growth in _growths(model, base, kinds).items()}


def mup_groups(
    model: nn.Module,
    base: nn.Module,
    *,
    lr: float,
    weight_decay: float | None = None,
    optimizer: str = "adam",
    kinds: Mapping[str, str] | None = None,
) -> list[dict]:
    r"""Parameter groups for a `torch.optim.Optimizer`, one for each factor of :func:`mup_rates`.

    The rate of a group is :math:`f\eta`. Its decay is :math:`\lambda/f`, so that the product of the two, which is what
    decoupled decay multiplies the weights by, is the same in all groups and at all widths. Call :func:`mup_init_`, too.

    Args:
        model, base, optimizer, kinds: as of :func:`mup_rates`.
        lr: :math:`\eta`, the rate that is best for the base, > 0.
        weight_decay: :math:`\lambda` for the base, >= 0; None leaves all groups the optimizer's own.

    Raises:
        ValueError: as :func:`mup_rates`, or a number is out of its range.

    Example:
        >>> import lrlib
        >>> model, base = lrlib.mlp(64, 128, 128, 10), lrlib.mlp(64, 32, 32, 10)
        >>> groups = mup_groups(mup_init_(model, base), base, lr=0.01, weight_decay=0.1)
        >>> [(len(group["params"]), group["lr"], group["weight_decay"]) for group in groups]
        [(4, 0.01, 0.1), (2, 0.0025, 0.4)]
        >>> optimizer = torch.optim.AdamW(groups)
    """
    lr = _check.positive("lr", lr)
    factors = mup_rates(model, base, optimizer=optimizer, kinds=kinds)
    if weight_decay is not None:
        _check.nonnegative("weight_decay", weight_decay)
    groups: dict[float, dict] = {}
    for name, p in model.named_parameters():
        factor = factors[name]
        decay = {} if weight_decay is None else {"weight_decay": weight_decay / factor}
        groups.setdefault(factor, {"params": [], "lr": lr * factor} | decay)["params"].append(p)
    return list(groups.values())


@torch.no_grad()
def mup_init_(model: nn.Module, base: nn.Module, *, kinds: Mapping[str, str] | None = None) -> nn.Module:
    r"""Shrink the weights that have more inputs than outputs to feed, in place: once, right after they were drawn.

    Weights that PyTorch draws with a deviation of the order :math:`1/\sqrt{n_{\mathrm{in}}}` are multiplied by
    :math:`\min(1, \sqrt{m_{\mathrm{out}}/m_{\mathrm{in}}})`, which changes only the output layer where all hidden
    layers grow alike: its deviation becomes of the order :math:`1/n_{\mathrm{in}}`.

    Args:
        model, base, kinds: as of :func:`mup_rates`.

    Returns:
        The model.

    Raises:
        ValueError: as :func:`mup_rates`.

    Example:
        >>> import lrlib
        >>> model, base = lrlib.mlp(64, 128, 10), lrlib.mlp(64, 32, 10)
        >>> before = model[3].weight.std().item()
        >>> round(mup_init_(model, base)[3].weight.std().item() / before, 3)
        0.5
    """
    growths = _growths(model, base, kinds)
    for name, p in model.named_parameters():
        m_in, m_out = growths[name]
        p.mul_(min(1.0, math.sqrt(m_out / m_in)))
    return model


@dataclass(frozen=True)
class PerParameter(Rule):
    """A rule whose settings differ from parameter to parameter: parameter groups, for a :class:`~lrlib.Stack` too.

    Args:
        rule: such as ``lrlib.AdamW()``; one that moves each parameter by itself.
        scales: from "lr" or the name of a setting of the rule to factors > 0, one for each trainable parameter in the
            model's order, by which it is multiplied there.

    Raises:
        TypeError: `rule` is not a rule.
        ValueError: it couples parameters, a setting is unknown, or there is not one factor > 0 for each parameter.

    Example:
        >>> import lrlib
        >>> model, base = lrlib.mlp(64, 128, 128, 10), lrlib.mlp(64, 32, 32, 10)
        >>> rule = PerParameter(lrlib.Adam(), {"lr": list(mup_rates(model, base).values())})
        >>> lrlib.train(model, lrlib.digits(), 0.01, steps=5, optimizer=rule).lr
        array([0.01, 0.01, 0.01, 0.01, 0.01])
    """

    rule: Rule
    scales: Mapping[str, Sequence[float]]

    def __post_init__(self):
        if not isinstance(self.rule, Rule):
            raise TypeError(f"rule={self.rule!r}: must be a rule of lrlib")
        if self.rule.joint or self.rule.needs_loss or type(self.rule).moves is not Rule.moves:
            raise ValueError(f"rule={self.rule!r}: must move each parameter by itself")
        for name, factors in self.scales.items():
            _check.choice("scales", name, ("lr", *self.rule.settings()))
            for k, factor in enumerate(factors):
                _check.positive(f"scales[{name!r}][{k}]", factor)
            setting = self.rule.settings().get(name)
            for value in setting if isinstance(setting, list | tuple) else [setting]:
                if isinstance(value, Real):
                    self.check(name, value)
        object.__setattr__(self, "capturable", self.rule.capturable)

    def check(self, name, value):
        for factor in (1.0, *self.scales.get(name, ())):
            self.rule.check(name, value * factor)

    def settings(self):
        return self.rule.settings()

    def start(self, p):
        return self.rule.start(p)

    def moves(self, gradients, params, states, now):
        used = now.used or [True] * len(params)
        _check.one_a_parameter("scales", self.scales, len(used))
        places, found = [k for k, given in enumerate(used) if given], []
        for k, g, p, state in zip(places, gradients, params, states, strict=True):
            values = now.like(p)
            scaled = {name: values[name] * factors[k] for name, factors in self.scales.items()}
            found.append(self.rule.move(g, p, state, values | scaled))
        return found

    def optimizer(self, params, lr):
        """The rule's optimizer with a parameter group for each of the parameters, which must be a list of tensors."""
        params = list(params)
        _check.one_a_parameter("scales", self.scales, len(params))
        groups: list[dict] = [{"params": [p]} for p in params]
        for name, factors in self.scales.items():
            name, _, place = name.rstrip("]").partition("[")
            for group, factor in zip(groups, factors, strict=True):
                value = group.get(name, lr if name == "lr" else getattr(self.rule, name))
                scaled = [v * factor if str(k) == place else v for k, v in enumerate(value)] if place else None
                group[name] = tuple(scaled) if scaled else value * factor
        return self.rule.optimizer(groups, lr)


@dataclass(frozen=True)
class CoordinateCheck:
    """What :func:`coordinate_check` measured.

    Attributes:
        names: of the L layers that all models have, in the order in which they are called.
        widths: the W widths.
        size: root mean square of each layer's outputs before the updates, shape (L, W, S) for S seeds.
        change: root mean square of their change by the updates, in the same shape.
    """

    names: tuple[str, ...]
    widths: tuple[int, ...]
    size: np.ndarray
    change: np.ndarray

    @property
    def exponents(self) -> dict[str, float]:
        """For each layer the power of the width with which its change grows: the slope of logarithms, by least squares.

        Under µP it is near 0. Above 0 the rate must fall as the width grows; below 0 the layer learns ever less. NaN
        for a layer that did not change at some width.
        """
        means = dict(zip(self.names, self.change.mean(2), strict=True))
        x = np.log(self.widths)
        return {n: float(np.polyfit(x, np.log(c), 1)[0]) if c.min() > 0 else math.nan for n, c in means.items()}

    @property
    def worst(self) -> float:
        """The exponent farthest from 0, by its absolute value; layers that did not change at some width do not count.

        It is infinite where a change is not finite.
        """
        if not np.isfinite(self.change).all():
            return math.inf
        return max((abs(slope) for slope in self.exponents.values() if math.isfinite(slope)), default=math.nan)


def coordinate_check(
    make: Callable[[int], tuple[nn.Module, torch.optim.Optimizer]],
    widths: Iterable[int],
    x: torch.Tensor,
    y: torch.Tensor,
    *,
    steps: int = 3,
    seeds: Iterable[int] = range(5),
    loss: Loss = F.cross_entropy,
) -> CoordinateCheck:
    """How much a few updates change the outputs of each layer, at several widths: the test of a parametrisation.

    Every model takes its updates on one batch; its layers' outputs for this batch are compared before and after. Layers
    are the modules that hold parameters and no other modules; of several outputs, as a recurrent layer has, the first
    counts.

    Args:
        make: from a width to a model and its optimizer, whose step needs no closure; called while torch's generator is
            seeded.
        widths: at least 2 different integers >= 1, or any other size that `make` takes, such as a depth.
        x, y: a batch, as the model and the loss take them.
        steps: updates, >= 1. The very first one changes nothing before an output layer that starts at zero.
        seeds: of the initial weights, at least one integer >= 0.
        loss: maps outputs and targets to a scalar.

    Raises:
        ValueError: an argument is out of its range, or the models have no layer in common, by name.

    Source: Yang et al. (2022); the package `mup` has it as `coord_check`.

    Example:
        >>> import lrlib
        >>> data, base = lrlib.digits(), lrlib.mlp(64, 32, 32, 10)
        >>> def make(width):
        ...     model = mup_init_(lrlib.mlp(64, width, width, 10), base)
        ...     return model, torch.optim.Adam(mup_groups(model, base, lr=0.001))
        >>> check = coordinate_check(make, [32, 64, 128, 256], data.x_train[:64], data.y_train[:64])
        >>> check.names, check.change.shape
        (('1', '3', '5'), (3, 4, 5))
        >>> check.worst < 0.25
        True
    """
    widths = tuple(_check.integer("widths", width, 1) for width in widths)
    if len(set(widths)) < 2 or len(set(widths)) < len(widths):
        raise ValueError(f"widths={widths}: must be at least 2, all different")
    seeds = [_check.seed("seeds", seed) for seed in seeds]
    if not seeds:
        raise ValueError("seeds: must be at least one")
    steps = _check.integer("steps", steps, 1)
    runs = [[_changes(make, width, x, y, steps, seed, loss) for seed in seeds] for width in widths]
    names = [name for name in runs[0][0] if all(name in run for row in runs for run in row)]
    if not names:
        raise ValueError("make: gave models that have no layer in common, must differ in width alone")
    values = np.array([[[run[name] for run in row] for row in runs] for name in names])
    return CoordinateCheck(tuple(names), widths, values[..., 0], values[..., 1])


def _changes(make, width, x, y, steps, seed, loss) -> dict[str, tuple[float, float]]:
    """The root mean squares of each layer's outputs and of their change, by name."""
    with runtime.seeded(seed):
        model, optimizer = make(width)
    before = _outputs(model, x, seed)
    with runtime.seeded(seed):
        for _ in range(steps):
            optimizer.zero_grad()
            loss(model(x), y).backward()
            optimizer.step()
    after = _outputs(model, x, seed)
    return {name: (_rms(old), _rms(after[name] - old)) for name, old in before.items()}


@torch.no_grad()
def _outputs(model: nn.Module, x: torch.Tensor, seed: int) -> dict[str, torch.Tensor]:
    """What each layer returns for a batch, by name; random layers draw the same numbers every time."""
    found: dict[str, torch.Tensor] = {}

    def keep(name: str, module: nn.Module, inputs: tuple, output) -> None:
        first = output[0] if isinstance(output, tuple) else output  # of a recurrent layer, which returns its state
        found[name] = first.detach().clone()

    with contextlib.ExitStack() as hooks, runtime.seeded(seed), runtime.buffers_kept(model):
        for name, module in model.named_modules():
            if not any(module.children()) and list(module.parameters()):
                hooks.enter_context(module.register_forward_hook(functools.partial(keep, name)))
        model(x)
    return found


def _rms(tensor: torch.Tensor) -> float:
    return tensor.double().square().mean().sqrt().item()
