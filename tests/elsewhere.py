"""A device that is not there: its tensors are computed on the CPU, and mixing them with the CPU's is an error.

So a machine without a GPU finds what only a GPU would: a tensor, a network or a generator that was left on the CPU.
``python tests/elsewhere.py book/CHAPTER.ipynb ...`` runs the programmes of these chapters on it, their first updates
only, and prints for each of them a line of JSON with what it said or how it failed.
"""

import contextlib
import dataclasses
import json
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
import torch._dynamo  # before torch.Generator is replaced, which it takes for a type
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

NAME = "elsewhere"
aten = torch.ops.aten
FROM_ANYWHERE = {aten._to_copy.default, aten.copy_.default}
INDEXING = {aten.index.Tensor, aten.index_put.default, aten.index_put_.default, aten._index_put_impl_.default}


class Elsewhere(torch.Tensor):
    """A tensor of that device: a wrapper around one of the CPU."""

    @staticmethod
    def __new__(cls, inner):
        like = {"strides": inner.stride(), "storage_offset": inner.storage_offset(), "dtype": inner.dtype}
        return torch.Tensor._make_wrapper_subclass(cls, inner.size(), device=torch.device(NAME, 0), **like)

    def __init__(self, inner):
        self.inner = inner

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        return computed(function, args, kwargs or {})

    def __deepcopy__(self, memo):
        if id(self) not in memo:
            copy = Elsewhere(self.inner.detach().clone())
            is_parameter = isinstance(self, torch.nn.Parameter)
            memo[id(self)] = torch.nn.Parameter(copy, self.requires_grad) if is_parameter else copy
        return memo[id(self)]

    def data_ptr(self):
        return self.inner.data_ptr()

    def untyped_storage(self):
        return self.inner.untyped_storage()

    def tolist(self):
        return self.inner.tolist()

    def numpy(self, **options):
        raise TypeError(f"can't convert a tensor of {NAME} to numpy; use Tensor.cpu() first")

    __array__ = numpy

    def __repr__(self):
        return f"Elsewhere({self.inner})"


def is_there(device) -> bool:
    return device is not None and torch.device(device).type == NAME


def mapped(function: Callable, value):
    """What the function makes of every tensor in nested tuples, lists and dictionaries; torch's own is slow."""
    if isinstance(value, torch.Tensor):
        return function(value)
    if isinstance(value, tuple | list):
        return type(value)([mapped(function, item) for item in value])
    return {key: mapped(function, item) for key, item in value.items()} if isinstance(value, dict) else value


def computed(function, args, kwargs):
    """What an operator gives, on the CPU, wrapped where a GPU's result would be the GPU's."""
    tensors: list[torch.Tensor] = []
    mapped(tensors.append, (args, kwargs))
    there = [isinstance(a, Elsewhere) for a in tensors]
    if any(there) and function not in FROM_ANYWHERE:
        own = tensors[:1] if function in INDEXING else [a for a in tensors if a.ndim]  # an index may be the CPU's
        if not all(isinstance(a, Elsewhere) for a in own):
            found = ", ".join(f"{a.device} {tuple(a.shape)}" for a in tensors)
            raise RuntimeError(f"{function}: expected all tensors to be on the same device, found {found}")
    device = kwargs.get("device")
    if function is aten.copy_.default:
        wrap = there[0]
    else:
        wrap = any(there) if device is None else is_there(device)
    kwargs = kwargs | {"device": torch.device("cpu")} if is_there(device) else kwargs
    mine, other = mapped(lambda a: a.inner if isinstance(a, Elsewhere) else a, (args, kwargs))
    known = {id(a.inner if isinstance(a, Elsewhere) else a): a for a in tensors}  # changed in place
    return mapped(
        lambda a: known[id(a)] if id(a) in known else Elsewhere(a) if wrap else a,
        function(*mine, **other),
    )


class Operators(TorchDispatchMode):
    """Sees the operators that make tensors of none."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        return computed(function, args, kwargs or {})


class Calls(TorchFunctionMode):
    """Sees what never becomes an operator: numbers and lists that become tensors, and generators."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if kwargs.get("generator") is not None:
            there = any(isinstance(a, Elsewhere) for a in args) or is_there(kwargs.get("device"))
            if there != isinstance(kwargs["generator"], GeneratorThere):
                raise RuntimeError(f"{function}: expected the generator to be on the device of the tensors")
        if function in (torch.tensor, torch.as_tensor) and "device" in kwargs:
            device = kwargs.pop("device")
            made = function(*args, **kwargs)
            return made if device is None else made.to(device)
        if function in (torch.Tensor.__getitem__, torch.Tensor.__setitem__):
            key = tuple(map(as_index, args[1])) if isinstance(args[1], tuple) else as_index(args[1])
            args = (args[0], key, *args[2:])
        return function(*args, **kwargs)


def as_index(key):
    if not isinstance(key, list | np.ndarray):
        return key
    return torch.tensor(key) if len(key) else torch.empty(0, dtype=torch.int64)


GeneratorHere = torch.Generator


class GeneratorThere(GeneratorHere):
    pass


class AnyGenerator(type):
    """Of what stands in the place of torch.Generator: it makes either kind, and both are of its type."""

    def __call__(cls, device="cpu"):
        return GeneratorThere() if is_there(device) else GeneratorHere(device)

    def __instancecheck__(cls, value):
        return isinstance(value, GeneratorHere)


class Generator(metaclass=AnyGenerator):
    pass


@contextlib.contextmanager
def there() -> Iterator[torch.device]:
    """The device, for the block. It changes torch for the whole process and is meant for one of its own."""
    _setup_privateuseone_for_python_backend(NAME)
    autocast = torch.autocast
    torch.Generator = Generator
    torch.autocast = lambda kind, *args: contextlib.nullcontext() if kind == NAME else autocast(kind, *args)
    with Operators(), Calls():
        yield torch.device(NAME, 0)


def few(loss_plane):
    """Four points of a plane, shown over and over: that its losses can be computed there is shown, not their map."""

    def plane(model, x, y, directions, a, b, **options):
        corner = loss_plane(model, x, y, directions, a[:2], b[:2], **options)
        return dataclasses.replace(corner, a=a, b=b, loss=np.resize(corner.loss, (len(b), len(a))))

    return plane


def main() -> None:
    import lrlib
    from lrlib import records, rehearsal, runtime

    warnings.simplefilter("ignore")
    for module in ("IPython", "ipykernel", "nbformat", "nbclient"):
        sys.modules[module] = None
    rehearsal.FIRST = rehearsal.TIMED = 1  # that the cells can run there is shown, not that they train
    lrlib.loss_plane = few(lrlib.loss_plane)
    with there() as device:
        runtime.device = lrlib.device = lambda: device
        for notebook in map(Path, sys.argv[1:]):
            try:
                with rehearsal.rehearsing():
                    answer = {"said": records.run_notebook(notebook)}
            except Exception:
                answer = {"failed": traceback.format_exc()}
            print(json.dumps({"notebook": notebook.stem} | answer), flush=True)


if __name__ == "__main__":
    main()
