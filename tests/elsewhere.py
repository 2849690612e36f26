"""A device that is not there: its tensors are computed on the CPU, and mixing them with the CPU's is an error.

So a machine without a GPU finds what only a GPU would: a tensor, a network or a generator that was left on the CPU.
``python tests/elsewhere.py book/CHAPTER.ipynb ...`` runs the programmes of these chapters on it, of each run the first
updates and of each set of points that differ by their seed alone one, and prints for each programme a line of JSON with
what it said or how it failed.
"""

import contextlib
import dataclasses
import itertools
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

import lrlib
from lrlib import minibatches, records, rehearsal, run, runtime

NAME = "elsewhere"
UPDATES, EXAMPLES = 2, 8  # of each run, and of each set that is looked at
PLAIN = {int, float, bool, type(None)}
aten = torch.ops.aten
FROM_ANYWHERE = {aten._to_copy.default, aten.copy_.default}
ITEMS = {torch.Tensor.__getitem__, torch.Tensor.__setitem__}
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
    if type(value) in PLAIN:
        return value
    if isinstance(value, torch.Tensor):
        return function(value)
    if isinstance(value, (tuple, list)):
        return type(value)([mapped(function, item) for item in value])
    return {key: mapped(function, item) for key, item in value.items()} if isinstance(value, dict) else value


def computed(function, args, kwargs):
    """What an operator gives, on the CPU, wrapped where a GPU's result would be the GPU's."""
    tensors: list[torch.Tensor] = []
    known: dict[int, torch.Tensor] = {}  # by what is inside, for an operator that changes one in place

    def inside(a):
        tensors.append(a)
        inner = a.inner if type(a) is Elsewhere else a
        known[id(inner)] = a
        return inner

    mine = [mapped(inside, value) for value in args]
    other = {key: mapped(inside, value) for key, value in kwargs.items()}
    there = [type(a) is Elsewhere for a in tensors]
    wrap = any(there)
    if wrap and not all(there) and function not in FROM_ANYWHERE:
        own = tensors[:1] if function in INDEXING else [a for a in tensors if a.ndim]  # an index may be the CPU's
        if not all(type(a) is Elsewhere for a in own):
            found = ", ".join(f"{a.device} {tuple(a.shape)}" for a in tensors)
            raise RuntimeError(f"{function}: expected all tensors to be on the same device, found {found}")
    if function is aten.copy_.default:
        wrap = there[0]
    elif (device := other.get("device")) is not None:
        wrap = is_there(device)
        other["device"] = torch.device("cpu") if wrap else device
    result = function(*mine, **other)
    return mapped(lambda a: known[id(a)] if id(a) in known else Elsewhere(a), result) if wrap else result


class Operators(TorchDispatchMode):
    """Sees the operators that make tensors of none."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        return computed(function, args, kwargs or {})


class Calls(TorchFunctionMode):
    """Sees what never becomes an operator: numbers and lists that become tensors, and generators."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function in ITEMS:
            key = tuple(map(as_index, args[1])) if isinstance(args[1], tuple) else as_index(args[1])
            args = (args[0], key, *args[2:])
        if not kwargs:
            return function(*args)
        if kwargs.get("generator") is not None:
            there = any(isinstance(a, Elsewhere) for a in args) or is_there(kwargs.get("device"))
            if there != isinstance(kwargs["generator"], GeneratorThere):
                raise RuntimeError(f"{function}: expected the generator to be on the device of the tensors")
        if function in (torch.tensor, torch.as_tensor) and kwargs.get("device") is not None:
            return function(*args, **kwargs | {"device": None}).to(kwargs["device"])
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
    torch.manual_seed = torch.default_generator.manual_seed  # torch's keeps the stack of each call for absent GPUs
    torch.autocast = lambda kind, *args: contextlib.nullcontext() if kind == NAME else autocast(kind, *args)
    with Operators(), Calls():
        yield torch.device(NAME, 0)


def few(loss_plane):
    """Four points of a plane, shown over and over: that its losses can be computed there is shown, not their map."""

    def plane(model, x, y, directions, a, b, **options):
        corner = loss_plane(model, x, y, directions, a[:2], b[:2], **options)
        return dataclasses.replace(corner, a=a, b=b, loss=np.resize(corner.loss, (len(b), len(a))))

    return plane


def first(x, axis=0):
    return x.narrow(axis, 0, min(EXAMPLES, x.shape[axis]))


def quick(sharpness):
    """Of the first examples, by two products."""

    def rough(model, x, y, **options):
        axis = int(isinstance(model, lrlib.Stack))
        return sharpness(model, first(x, axis), first(y, axis), **options | {"iterations": 2})

    return rough


class Looks:
    """Evaluations on the first examples; inside a run the same one once after each update that is made."""

    def __init__(self):
        self.run, self.found = None, {}

    def inside(self, go):
        def gone(run):
            if not is_there(run.active.device):
                raise RuntimeError("expected the run to be on the device")
            outer, self.run, self.found = (self.run, self.found), run, {}
            try:
                go(run)
            finally:
                self.run, self.found = outer

        return gone

    def few(self, evaluate):
        def look(model, x, y, *arguments, **options):
            if self.run is None:
                return evaluate(model, first(x), first(y), *arguments, **options)
            key = model, x, y, arguments, *options.items(), min(self.run.step, UPDATES)
            if key not in self.found:
                self.found[key] = evaluate(model, first(x), first(y), *arguments, **options)
            return self.found[key]

        return look


def in_a_loop(batches):
    """The first mini-batches over and over."""

    def order(num_examples, batch_size, steps, seed=0):
        return itertools.islice(itertools.cycle(batches(num_examples, batch_size, min(steps, UPDATES), seed)), steps)

    return order


def of_one_seed(spread):
    """Of points that differ by their seed alone the first one, for all of them, as in a plan."""

    def rows(function, points):
        made = {}
        for point in points:
            kind = json.dumps(point | {"seed": None})
            if kind not in made:
                made[kind] = next(spread(function, [point]))
            row, *rest = made[kind]
            yield row | point, *rest

    return rows


def put(new, old):
    """In all of lrlib one function in the place of another."""
    for module in [module for name, module in sys.modules.items() if name.partition(".")[0] == "lrlib"]:
        for name in [name for name, value in vars(module).items() if value is old]:
            setattr(module, name, new)


def main() -> None:
    warnings.simplefilter("ignore")
    for module in ("IPython", "ipykernel", "nbformat", "nbclient"):
        sys.modules[module] = None
    rehearsal.FIRST, rehearsal.TIMED = 1, UPDATES - 1  # that the cells can run there is shown, not that they train
    looks = Looks()
    run.Run.go = looks.inside(run.Run.go)
    put(looks.few(lrlib.evaluate), lrlib.evaluate)
    put(few(lrlib.loss_plane), lrlib.loss_plane)
    put(quick(lrlib.sharpness), lrlib.sharpness)
    put(in_a_loop(minibatches.batches), minibatches.batches)
    records.spread = of_one_seed(records.spread)
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
