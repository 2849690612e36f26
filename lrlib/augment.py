"""Pictures shifted, mirrored and cut into at random, a whole epoch at a time."""

from dataclasses import replace

import torch
from torch.nn import functional as F

from lrlib import _check
from lrlib.callbacks import Callback
from lrlib.data import Dataset

__all__ = ["augmented", "Augmentation"]


def augmented(x: torch.Tensor, generator: torch.Generator, *, pad: int = 4, mirror: bool = True, cutout: int = 0):
    """Each picture shifted by up to `pad` pixels each way, mirrored with probability 1/2, with a square set to zero.

    A shift takes a window of the old size from the picture that is continued on each side by reflection. A square of
    `cutout` pixels a side has its corner anywhere where the square lies inside of the picture. Everything is one
    look-up of pixels, on the device of the pictures; the draws are made on the CPU and so are the same everywhere.

    Args:
        x: pictures (N, C, H, W).
        generator: of the draws, on the CPU; it moves on.
        pad: largest shift, in [0, min(H, W) - 1].
        mirror: whether to mirror left and right.
        cutout: side of the square in pixels, in [0, min(H, W)]; 0 leaves it out.

    Returns:
        New pictures of the same shape and type, in channels-last order.

    Raises:
        TypeError: a number is not an integer.
        ValueError: x has no four dimensions, or a number is out of its range.

    Source: crops and mirrors: He et al. (2016); the square: DeVries and Taylor (2017).

    Example:
        >>> x = torch.arange(6.0).view(1, 1, 2, 3)
        >>> augmented(x, torch.Generator().manual_seed(6), pad=1)
        tensor([[[[4., 3., 4.],
                  [1., 0., 1.]]]])
    """
    if x.ndim != 4:
        raise ValueError(f"x: has shape {tuple(x.shape)}, must be (N, C, H, W)")
    (n, _, height, width), side = x.shape, min(x.shape[2:])
    pad, cutout = _check.integer("pad", pad, 0, side - 1), _check.integer("cutout", cutout, 0, side)

    def draw(high: int) -> torch.Tensor:
        return torch.randint(high, (n, 1), generator=generator).to(x.device)

    rows = draw(2 * pad + 1) + torch.arange(height, device=x.device)
    columns = torch.arange(width, device=x.device).expand(n, -1)
    if mirror:
        columns = torch.where(draw(2) == 1, columns.flip(1), columns)
    columns = draw(2 * pad + 1) + columns
    padded = F.pad(x, (pad, pad, pad, pad), mode="reflect")
    picture = torch.arange(n, device=x.device)[:, None, None]
    out = padded[picture, :, rows[:, :, None], columns[:, None, :]]
    if cutout:
        y = torch.arange(height, device=x.device) - draw(height - cutout + 1)
        z = torch.arange(width, device=x.device) - draw(width - cutout + 1)
        inside_y, inside_z = (y >= 0) & (y < cutout), (z >= 0) & (z < cutout)
        out = out.masked_fill((inside_y[:, :, None] & inside_z[:, None, :])[..., None], 0.0)
    return out.permute(0, 3, 1, 2)


class Augmentation(Callback):
    """A data set whose training pictures are augmented anew for each epoch: a callback of :func:`lrlib.train`.

    Train on its `data` and pass it as a callback. The given data set is not changed.

    Args:
        data: the pictures as they are.
        batch_size: of the run, in [1, N]: it tells when an epoch of floor(N / batch_size) updates ends.
        seed: of the draws, >= 0.
        options: `pad`, `mirror` and `cutout` of :func:`augmented`.

    Attributes:
        data: the data set with the training pictures of the present epoch.

    Raises:
        TypeError, ValueError: as :func:`augmented`, and where `batch_size` or `seed` is out of its range.

    Example:
        >>> import lrlib
        >>> shifted = Augmentation(lrlib.digits(), batch_size=64, seed=0, pad=1, mirror=False)
        >>> with lrlib.seeded(0):
        ...     model = lrlib.mlp(64, 16, 10)
        >>> history = lrlib.train(model, shifted.data, lrlib.constant(0.1), steps=50, callbacks=[shifted])
    """

    def __init__(self, data: Dataset, *, batch_size: int, seed: int = 0, **options):
        batch_size = _check.integer("batch_size", batch_size, 1, len(data.x_train))
        self._original, self._options = data.x_train, options
        super().__init__(every=len(data.x_train) // batch_size)
        self._generator = torch.Generator().manual_seed(_check.integer("seed", seed, 0))
        self.data = replace(data, x_train=augmented(self._original, self._generator, **options))

    def __call__(self, run) -> None:
        self.data.x_train.copy_(augmented(self._original, self._generator, **self._options))
