"""The range test beside plain training steps and beside the package torch-lr-finder, in one run.

Prints, for each network, the seconds of one update and the ratios to plain training: the median over repeats that take
turns. `pip install torch-lr-finder` for its column.
"""

import contextlib
import importlib.util
import io
import statistics
import time

import torch
from machine import describe
from torch import nn
from torch.nn import functional as F

import lrlib
from lrlib.finder import range_test

UPDATES, REPEATS, BATCH = 200, 9, 64
SWEEP = {"min_lr": 1e-6, "max_lr": 1e-2}  # low enough never to stop early, so that both do all updates


def plain(model, loader):
    """The same number of updates in the plainest loop, the loss read at every step."""
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)
    batches, done = iter(loader), 0
    while done < UPDATES:
        try:
            x, y = next(batches)
        except StopIteration:
            batches = iter(loader)
            continue
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        loss.item()
        optimizer.step()
        done += 1


def ours(model, loader):
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    range_test(model, loader, optimizer, num_iter=UPDATES, repeats=1, **SWEEP)


def theirs(model, loader):
    from torch_lr_finder import LRFinder

    optimizer = torch.optim.SGD(model.parameters(), lr=SWEEP["min_lr"])
    finder = LRFinder(model, optimizer, nn.CrossEntropyLoss(), device="cpu")
    with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
        finder.range_test(loader, end_lr=SWEEP["max_lr"], num_iter=UPDATES)
        finder.reset()


def main():
    torch.set_num_threads(1)
    print(describe(torch.device("cpu")))
    contenders = {"plain steps": plain, "lrlib.range_test": ours}
    if importlib.util.find_spec("torch_lr_finder"):
        contenders["torch-lr-finder"] = theirs
    else:
        print("torch-lr-finder is not installed: it is in the extra `bench`")
    data = lrlib.digits()
    loader = torch.utils.data.DataLoader(
        torch.utils.data.TensorDataset(data.x_train, data.y_train), BATCH, shuffle=True, drop_last=True
    )
    models = {"MLP 64-32-10": lambda: lrlib.mlp(64, 32, 10), "PreResNet-8": lambda: lrlib.PreResNet(8, in_channels=1)}
    for name, make in models.items():
        seconds = {contender: [] for contender in contenders}
        for _ in range(REPEATS):
            for contender, run in contenders.items():
                model = make()
                started = time.perf_counter()
                run(model, loader)
                seconds[contender].append(time.perf_counter() - started)
        base = seconds["plain steps"]
        for contender, values in seconds.items():
            ratio = statistics.median(value / plain for value, plain in zip(values, base, strict=True))
            each = statistics.median(values) / UPDATES * 1e3
            print(f"{name:14} {contender:18} {each:7.3f} ms per update   {ratio:5.2f} of plain steps")


if __name__ == "__main__":
    main()
