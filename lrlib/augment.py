"""Pictures shifted and mirrored at random, an epoch at a time; predictions averaged over mirror images."""

from dataclasses import replace

import torch
from torch import nn
from torch.nn import functional as F

from lrlib import _check
from lrlib.callbacks import Callback
from lrlib.data import Dataset

__all__ = ["augmented", "Augmentation", "mirror_averaged"]


def augmented(
    x: torch.Tensor, generator: torch.Generator, *, pad: int = 4, mirror: bool | torch.Tensor = True
) -> torch.Tensor:
    """Each picture shifted by up to `pad` pixels each way and mirrored with probability 1/2.

    A shift takes a window of the old size from the picture that is continued on each side by reflection. Everything is
    one look-up of pixels, on the device of the pictures; the draws are made on the CPU and so are the same everywhere.

    Args:
        x: pictures (N, C, H, W).
        generator: of the draws, on the CPU; it moves on.
        pad: largest shift, in [0, min(H, W) - 1].
        mirror: whether to mirror left and right, half of the pictures at random; or which ones, (N,) of bool.

    Returns:
        New pictures of the same shape and type, in channels-last order.

    Raises:
        TypeError: a number is not an integer.
        ValueError: x has no four dimensions, `mirror` is of another length, or a number is out of its range.

    Source: crops and mirrors: He et al. (2016).

    Example:
        >>> x = torch.arange(6.0).view(1, 1, 2, 3)
        >>> augmented(x, torch.Generator().manual_seed(6), pad=1)
        tensor([[[[4., 3., 4.],
                  [1., 0., 1.]]]])
    """
    if x.ndim != 4:
        raise ValueError(f"x: has shape {tuple(x.shape)}, must be (N, C, H, W)")
    n, _, height, width = x.shape
    pad = _check.integer("pad", pad, 0, min(height, width) - 1)

    def draw(high: int) -> torch.Tensor:
        return torch.randint(high, (n, 1), generator=generator).to(x.device)

    rows = draw(2 * pad + 1) + torch.arange(height, device=x.device)
    columns = torch.arange(width, device=x.device)
    if not isinstance(mirror, torch.Tensor):
        _check.choice("mirror", mirror, (True, False))
        mirror = draw(2)[:, 0] == 1 if mirror else torch.zeros(n, dtype=torch.bool)
    if mirror.shape != (n,) or mirror.dtype != torch.bool:
        raise ValueError(f"mirror: is {mirror.dtype} of shape {tuple(mirror.shape)}, must be bool of shape ({n},)")
    columns = torch.where(mirror.to(x.device)[:, None], columns.flip(0), columns)
    columns = draw(2 * pad + 1) + columns
    padded = F.pad(x, (pad, pad, pad, pad), mode="reflect")
    picture = torch.arange(n, device=x.device)[:, None, None]
    return padded[picture, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


class Augmentation(Callback):
    """A data set whose training pictures are augmented anew for each epoch: a callback of :func:`lrlib.train`.

    Train on its `data` and pass it as a callback. The given data set is not changed. A stack is trained on one data set
    for all replicas: where each has its own, the run works on a copy of them.

    Args:
        data: the pictures as they are.
        batch_size: of the run, in [1, N]: it tells when an epoch of floor(N / batch_size) updates ends.
        seed: of the draws, >= 0.
        pad: of :func:`augmented`.
        mirror: False, True for a new draw each epoch, or "alternate": half of the pictures, drawn once, are mirrored in
            the first epoch, the other half in the second, and so on in turns.

    Attributes:
        data: the data set with the training pictures of the present epoch.

    Raises:
        TypeError, ValueError: as :func:`augmented`, and where another argument is out of its range; at the end of the
            first epoch, a run on other pictures than its `data`, or a stack on several data sets.

    Source: alternating mirror images: Jordan (2024), arXiv 2404.00498.

    Example:
        >>> import lrlib
        >>> shifted = Augmentation(lrlib.digits(), batch_size=64, seed=0, pad=1, mirror=False)
        >>> with lrlib.seeded(0):
        ...     model = lrlib.mlp(64, 16, 10)
        >>> history = lrlib.train(model, shifted.data, lrlib.constant(0.1), steps=50, callbacks=[shifted])
    """

    remembers = ("_epoch", "_before")

    def __init__(self, data: Dataset, *, batch_size: int, seed: int = 0, pad: int = 4, mirror: bool | str = True):
        batch_size = _check.integer("batch_size", batch_size, 1, len(data.x_train))
        super().__init__(every=len(data.x_train) // batch_size)
        self._mirror: bool | torch.Tensor = bool(_check.choice("mirror", mirror, (True, False, "alternate")))
        self._original, self._pad = data.x_train, pad
        self._generator = torch.Generator().manual_seed(_check.seed("seed", seed))
        if mirror == "alternate":
            self._mirror = torch.randint(2, (len(data.x_train),), generator=self._generator) == 1
        self._epoch = 0
        self.data = replace(data, x_train=self._pictures())

    def _pictures(self) -> torch.Tensor:
        """The pictures of the present epoch."""
        self._before = self._generator.get_state()
        mirror = self._mirror ^ bool(self._epoch % 2) if isinstance(self._mirror, torch.Tensor) else self._mirror
        return augmented(self._original, self._generator, pad=self._pad, mirror=mirror)

    def _check_run(self, run) -> None:
        """All replicas of a run are trained on these pictures; what is in a loader cannot be seen."""
        inputs = [some[0] if isinstance(some, tuple) else getattr(some, "x_train", None) for some in run.data]
        tensors = {id(part): part for part in inputs if isinstance(part, torch.Tensor)}
        memory = {part.untyped_storage().data_ptr() for part in tensors.values()}
        if len(tensors) > 1 or memory - {self.data.x_train.untyped_storage().data_ptr()}:
            raise ValueError(
                "data: has other pictures than the Augmentation, must be its data, one set for all replicas"
            )

    def __call__(self, run) -> None:
        self._check_run(run)
        self._epoch += 1
        self.data.x_train.copy_(self._pictures())

    def load_state_dict(self, state, run) -> None:
        super().load_state_dict(state, run)
        self._generator.set_state(self._before.cpu())
        self.data.x_train.copy_(self._pictures())


class _MirrorAveraged(nn.Module):
    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (self.model(x) + self.model(x.flip(-1))) / 2


def mirror_averaged(model: nn.Module) -> nn.Module:
    """The network whose outputs are the means of those for a picture and for its mirror image.

    Args:
        model: maps pictures (B, C, H, W) to logits (B, classes); its parameters are shared.

    Example:
        >>> import lrlib
        >>> data, model = lrlib.hard_digits(), lrlib.conv_net(4)
        >>> both = mirror_averaged(model.eval())
        >>> bool(torch.allclose(both(data.x_test), both(data.x_test.flip(-1)), atol=1e-6))
        True
    """
    return _MirrorAveraged(model)
