r"""R replicas of one architecture as one module, so that one forward and one backward pass train them all.

Parameters are stacked along a first axis of R replicas. One forward pass gives R losses, and because no replica's loss
depends on another's parameters, one backward pass through their sum gives every replica its own gradient:

.. math:: \nabla_{\theta_r} \sum_q L_q(\theta_q) = \nabla_{\theta_r} L_r(\theta_r).
"""

from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
from torch import nn
from torch.func import vmap
from torch.nn import functional as F

from lrlib import runtime
from lrlib.architecture import alike, called, copied

__all__ = ["Stack", "initialised"]

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
ELEMENTWISE = (
    nn.ReLU, nn.Tanh, nn.Sigmoid, nn.GELU, nn.SiLU, nn.ELU, nn.LeakyReLU, nn.Softplus, nn.Hardtanh, nn.Identity,
)  # fmt: skip
IGNORED = -100  # the label that cross_entropy leaves out
MEANS = (F.mse_loss, F.l1_loss, F.smooth_l1_loss, F.huber_loss, F.binary_cross_entropy_with_logits)  # of elements


def wide(outputs: torch.Tensor) -> torch.Tensor:
    """Outputs in half precision in float32, so that a measured loss is not rounded to three digits."""
    half = isinstance(outputs, torch.Tensor) and outputs.dtype in (torch.float16, torch.bfloat16)
    return outputs.float() if half else outputs


def scalar(value: torch.Tensor) -> torch.Tensor:
    """A loss's value, checked, of shape ()."""
    if not isinstance(value, torch.Tensor) or value.numel() != 1:
        found = f"shape {tuple(value.shape)}" if isinstance(value, torch.Tensor) else f"a {type(value).__name__}"
        raise ValueError(f"loss: returned {found}, must return a scalar tensor, the mean over the examples")
    return value if value.ndim == 0 else value.reshape(())


class Stack(nn.Module):
    """R replicas of one architecture as one module, each parameter and buffer stacked along a first axis of R.

    An `nn.Sequential` of Flatten, Linear, BatchNorm1d, LayerNorm and elementwise activations runs as a few large
    matrix products, any other module through `torch.func.vmap`. Frozen and tied parameters stay so. A layer that draws
    random numbers or branches on its data cannot be stacked: the forward pass then raises RuntimeError.

    Args:
        models: R >= 1 modules of one architecture, all of their layers in training or all in evaluation mode; they are
            copied.

    Attributes:
        size: R.
        weights: the trainable parameters, each (R, ...), in the order of the model's.
        names: their names.
        template: the layers and settings that all replicas share, a module whose values mean nothing.

    Raises:
        ValueError: there is no model; one has layers in different modes; they differ in layers, shapes or anything else
            that they hold, such as numbers, containers, hooks and what functions refer to; a layer has a backward hook,
            a parameter a hook, it shares its memory with another one, or is reached by another way than its name; or a
            model cannot be copied.

    Example:
        >>> import lrlib
        >>> stack = Stack([lrlib.mlp(64, 16, 10) for _ in range(6)])
        >>> data = lrlib.digits()
        >>> x, y = data.x_train[:20].view(2, 10, 1, 8, 8), data.y_train[:20].view(2, 10)
        >>> stack(x).shape  # replicas 0, 1, 2 see x[0], replicas 3, 4, 5 see x[1]
        torch.Size([6, 10, 10])
        >>> stack.losses(x, y).shape
        torch.Size([6])
        >>> sorted(stack.replica(3))
        ['1.bias', '1.weight', '3.bias', '3.weight']
    """

    template: nn.Module

    def __init__(self, models: Sequence[nn.Module]):
        super().__init__()
        models = list(models)
        if not models:
            raise ValueError("models: must be at least one")
        for k, model in enumerate(models):
            if not alike(models[0], model):
                raise ValueError(f"models[{k}]: differs from models[0] in structure or settings, must be the same")
            if len({module.training for module in model.modules()}) > 1:
                raise ValueError(f"models[{k}]: has layers in training and in evaluation mode, must be all in one")
            if any(module._backward_hooks or module._backward_pre_hooks for module in model.modules()):
                raise ValueError(f"models[{k}]: has a backward hook, which a stack would not call, must have none")
            memory = [p.data_ptr() for p in model.parameters() if p.numel()]
            if len(set(memory)) < len(memory):
                raise ValueError(f"models[{k}]: has different parameters in one memory, must be one parameter")
        self.size = len(models)
        parts = [dict(model.named_parameters()) | dict(model.named_buffers()) for model in models]
        shapes = [
            [(n, p.shape, isinstance(p, nn.Parameter) and p.requires_grad) for n, p in some.items()] for some in parts
        ]
        if any(some != shapes[0] for some in shapes):
            raise ValueError("models: have parameters of different names or shapes, must be of one architecture")
        self.names = [name for name, _, trained in shapes[0] if trained]
        self._fixed_names = [name for name, _, trained in shapes[0] if not trained]
        self.weights = nn.ParameterList([torch.stack([some[n].detach() for some in parts]) for n in self.names])
        for k, name in enumerate(self._fixed_names):
            self.register_buffer(f"fixed{k}", torch.stack([some[name].detach() for some in parts]))
        object.__setattr__(self, "template", copied(models[0]))  # as it is no submodule
        self._layers = _layers(self.template)
        self.train(models[0].training)

    def check(self, x: torch.Tensor) -> None:
        """Refuse what would go wrong in silence.

        Args:
            x: a few examples, (B, ...).

        Raises:
            ValueError: the forward pass puts new tensors in the place of buffers, which a stack would lose.
        """
        if self._layers is None:
            model = copied(self.template)
            before = {name: id(tensor) for name, tensor in model.named_buffers()}
            with torch.no_grad(), torch.random.fork_rng(devices=[]):
                model.train()(x)
            if before != {name: id(tensor) for name, tensor in model.named_buffers()}:
                raise ValueError("model: rebinds its buffers in its forward pass, must write them in place")

    def _apply(self, fn, recurse=True):
        held = [(d, k, t) for m in self.template.modules() for d in (m._parameters, m._buffers) for k, t in d.items()]
        self.template._apply(fn, recurse)
        first: dict[int, torch.Tensor] = {}
        for tensors, name, before in held:  # what was one tensor stays one
            tensors[name] = first.setdefault(id(before), tensors[name])
        return super()._apply(fn, recurse)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Outputs of every replica, (R, B, ...).

        Args:
            x: (G, B, ...), where G divides R: the first R/G replicas see x[0], the next ones x[1], and so on.
        """
        repeats = self._repeats(x)
        if self._layers is not None:
            return self._matrices(x)
        template = self.template
        if template.training != self.training:
            template.train(self.training)

        def one(tensors, x):
            return called(template, tensors, x)

        if len(x) == 1:
            return vmap(one, in_dims=(0, None))(self.tensors(), x[0])
        return vmap(one)(self.tensors(), x.repeat_interleave(repeats, 0))

    def losses(self, x: torch.Tensor, y: torch.Tensor, loss: Loss = F.cross_entropy) -> torch.Tensor:
        """The loss of every replica on its batch, (R,).

        Args:
            x: (G, B, ...) as in :meth:`forward`.
            y: targets, (G, B, ...).
            loss: maps outputs (B, ...) and targets (B, ...) to a scalar.

        Raises:
            ValueError: the loss is not a scalar for each replica.
        """
        return self.loss_of(self(x), y, loss)

    def loss_of(self, outputs: torch.Tensor, y: torch.Tensor, loss: Loss = F.cross_entropy) -> torch.Tensor:
        """The losses of outputs (R, B, ...) for targets (G, B, ...), as :meth:`losses`."""
        y = y.repeat_interleave(self._repeats(y), 0) if len(y) < self.size else y
        if loss is F.cross_entropy and outputs.ndim == 3 and y.ndim == 2:
            return F.cross_entropy(outputs.mT, y, reduction="none").sum(1) / (y != IGNORED).sum(1)
        if loss in MEANS and outputs.shape == y.shape:
            return loss(outputs, y, reduction="none").flatten(1).mean(1)
        values = vmap(loss)(outputs, y)
        if values.shape != (self.size,):
            raise ValueError(f"loss: returned {tuple(values.shape[1:])} a replica, must return a scalar")
        return values

    def replica(self, r: int) -> dict[str, torch.Tensor]:
        """A copy of the state of replica r, for ``model.load_state_dict``; tied parameters are there once."""
        return {name: tensor[r].detach().clone() for name, tensor in self.tensors().items()}

    @torch.no_grad()
    def load(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Put values, each (R, ...), in the place of the parameters and buffers of these names."""
        mine = self.tensors()
        for name, value in tensors.items():
            mine[name].copy_(value)

    def tensors(self) -> dict[str, torch.Tensor]:
        """All parameters and buffers by name, each (R, ...)."""
        fixed = (getattr(self, f"fixed{k}") for k in range(len(self._fixed_names)))
        return dict(zip((*self.names, *self._fixed_names), (*self.weights, *fixed), strict=True))

    def _repeats(self, x: torch.Tensor) -> int:
        if self.size % len(x):
            raise ValueError(f"x: has {len(x)} batches, must be a divisor of {self.size}, the number of replicas")
        return self.size // len(x)

    def _matrices(self, x: torch.Tensor) -> torch.Tensor:
        """Examples along the last axis, so that replicas that share a batch make one product in the first layer."""
        assert self._layers is not None
        tensors, h = self.tensors(), x.flatten(2).mT
        for name, layer in self._layers:
            if isinstance(layer, nn.Linear):
                weight = tensors[f"{name}.weight"]
                weight = weight.view(len(h), -1, weight.shape[-1])
                if layer.bias is None:
                    h = torch.bmm(weight, h)
                else:
                    h = torch.baddbmm(tensors[f"{name}.bias"].view(len(h), -1, 1), weight, h)
                h = h.view(self.size, -1, h.shape[-1])
            elif isinstance(layer, nn.BatchNorm1d):
                h = self._batch_norm(name, layer, tensors, h)
            elif isinstance(layer, nn.LayerNorm):
                h = F.layer_norm(h.mT, layer.normalized_shape, eps=layer.eps).mT
                if layer.weight is not None:
                    h = h * tensors[f"{name}.weight"][:, :, None]
                if layer.bias is not None:
                    h = h + tensors[f"{name}.bias"][:, :, None]
            else:
                h = layer(h)
        return h.mT

    def _batch_norm(self, name: str, layer: nn.BatchNorm1d, tensors: dict, h: torch.Tensor) -> torch.Tensor:
        """The replicas' units as the channels of one norm."""
        keys = ("running_mean", "running_var", "weight", "bias")
        mean, var, weight, bias = (
            None if getattr(layer, key) is None else tensors[f"{name}.{key}"].view(-1) for key in keys
        )
        if self.training and layer.track_running_stats:
            tensors[f"{name}.num_batches_tracked"].add_(1)
        of_batch = self.training or not layer.track_running_stats
        units = h.reshape(1, -1, h.shape[-1])
        return F.batch_norm(units, mean, var, weight, bias, of_batch, layer.momentum or 0.0, layer.eps).view_as(h)


def initialised(
    make_model: Callable[[], nn.Module], seeds: Iterable[int], device: torch.device | str | None = None
) -> list[nn.Module]:
    """A model for each seed, made while torch's generator is seeded with it.

    Args:
        make_model: called without arguments; returns a module.
        seeds: integers >= 0.
        device: where the models go; default where they are made.

    Raises:
        ValueError: a seed is negative.

    Example:
        >>> import lrlib
        >>> Stack(initialised(lambda: lrlib.mlp(64, 16, 10), range(5))).size
        5
    """
    models = []
    for seed in seeds:
        with runtime.seeded(seed):
            models.append(make_model() if device is None else make_model().to(device))
    return models


def _layers(model: nn.Module) -> list[tuple[str, nn.Module]] | None:
    """The named layers after Flatten of a multilayer perceptron; None for any other model."""
    if type(model) is not nn.Sequential or not len(model):
        return None
    (_, flatten), *layers = model.named_children()
    if type(flatten) is not nn.Flatten or (flatten.start_dim, flatten.end_dim) != (1, -1) or not layers:
        return None
    known = (nn.Linear, nn.BatchNorm1d, nn.LayerNorm, *ELEMENTWISE)
    if type(layers[0][1]) is not nn.Linear or any(type(layer) not in known for _, layer in layers):
        return None
    unshared = len(list(model.named_modules(remove_duplicate=False))) == len(layers) + 2
    hooked = any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    tied = len(list(model.parameters())) < sum(1 for _ in model.named_parameters(remove_duplicate=False))
    cumulative = any(isinstance(m, nn.BatchNorm1d) and m.track_running_stats and m.momentum is None for _, m in layers)
    by_rows = all(len(m.normalized_shape) == 1 for _, m in layers if isinstance(m, nn.LayerNorm))
    return layers if unshared and by_rows and not (hooked or tied or cumulative) else None


def check_statistics(model: nn.Module, examples: int, batch_size: int) -> None:
    """Refuse to evaluate batch by batch a network whose outputs depend on how the batches are cut."""
    network = model.template if isinstance(model, Stack) else model
    for name, module in network.named_modules() if batch_size < examples else ():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is None:
            raise ValueError(
                f"batch_size={batch_size}: must be >= {examples}, the number of examples, as the BatchNorm layer "
                f"{name!r} has no running statistics"
            )
