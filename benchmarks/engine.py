"""The engine beside plain PyTorch loops, in one run: one model, grids of 10 rates x 10 seeds, and captured updates.

Prints, for each network, the time of one update in the plainest loop (with one thread or with all, whichever is
faster), that of `lrlib.train`, and that of one replica in `lrlib.train_grid`, where it is large with a process for each
core, with the ratios: medians over repeats that take turns. Where there is a GPU everything is on it, and the times of
captured updates are printed beside those that were measured on one H200. `python benchmarks/engine.py 2000` makes more
than 400 updates a run.
"""

import statistics
import sys
import time

import joblib
import numpy as np
import torch
from machine import describe
from torch.nn import functional as F

import lrlib

REPEATS = 5
RATES, SEEDS = np.geomspace(0.01, 0.1, 10).tolist(), range(10)


def blocks(*shape: int) -> lrlib.Dataset:
    """Random pictures of this shape with labels."""
    x = torch.randn(12_000, *shape, generator=torch.Generator().manual_seed(0))
    y = torch.arange(12_000) % 10
    return lrlib.Dataset("random", x[:10_000], y[:10_000], x[10_000:], y[10_000:], 10)


CASES = {  # network, data, batch size, share of the updates, whether to use a process for each core
    "MLP 64-32-10, batch 64": (lambda seed: lrlib.mlp(64, 32, 10), lrlib.digits(), 64, 1.0, False),
    "the same with BatchNorm": (lambda seed: lrlib.mlp(64, 32, 10, norm="batch"), lrlib.digits(), 64, 1.0, False),
    "MLP 784-128-10, batch 128": (lambda seed: lrlib.mlp(784, 128, 10), blocks(1, 1, 784), 128, 0.25, True),
    "PreResNet-8, batch 64": (lambda seed: lrlib.PreResNet(8, in_channels=1), lrlib.digits(), 64, 0.1, True),
}
CAPTURED = {  # network, replicas, inputs, batch size, milliseconds an update on one H200
    "800 MLP 784-128-10, batch 128": (lambda: lrlib.mlp(784, 128, 10), 800, (1, 1, 784), 128, 2.23),
    "conv_net(32), batch 256": (lambda: lrlib.conv_net(32, 3), 1, (3, 32, 32), 256, 0.86),
    "PreResNet-32, batch 128": (lambda: lrlib.PreResNet(32), 1, (3, 32, 32), 128, 3.2),
    "PreResNet-56, batch 128": (lambda: lrlib.PreResNet(56), 1, (3, 32, 32), 128, 5.6),
}


def plain(make_model, data, batch_size: int, updates: int) -> float:
    """Seconds of one update in the plainest loop."""
    model = make_model(0).to(data.x_train.device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    started = time.perf_counter()
    for rows in lrlib.batches(len(data.x_train), batch_size, updates, seed=0):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(data.x_train[rows]), data.y_train[rows])
        loss.backward()
        loss.item()
        optimizer.step()
    return (time.perf_counter() - started) / updates


def trained(make_model, data, batch_size: int, updates: int) -> float:
    """Seconds of one update in lrlib.train."""
    model = make_model(0).to(data.x_train.device)
    started = time.perf_counter()
    lrlib.train(model, (data.x_train, data.y_train), 0.01, steps=updates, batch_size=batch_size)
    return (time.perf_counter() - started) / updates


def in_a_grid(make_model, data, batch_size: int, updates: int, processes: bool) -> tuple[float, str]:
    """Seconds of one update of one replica, choice and evaluations included, and the way chosen."""
    torch.set_num_threads(1)
    workers = joblib.cpu_count() if processes and data.x_train.device.type == "cpu" else 1
    with joblib.parallel_config(backend="loky", n_jobs=workers, inner_max_num_threads=1):
        grid = lrlib.train_grid(make_model, data, RATES, SEEDS, steps=updates, batch_size=batch_size)
    return grid.seconds / (len(RATES) * len(SEEDS) * updates), f"{grid.way}: {grid.why}"


def fewest(function, *arguments) -> float:
    """With one thread or with all, whichever is faster."""
    seconds = []
    for threads in sorted({1, joblib.cpu_count()}):
        torch.set_num_threads(threads)
        seconds.append(function(*arguments))
    return min(seconds)


def compare(steps: int, where: torch.device) -> None:
    for name, (make_model, data, batch_size, share, processes) in CASES.items():
        data, each = data.to(where), max(20, round(share * steps))
        alone, grids, singles = [], [], []
        in_a_grid(make_model, data, batch_size, 2, processes)  # starts the processes
        for _ in range(REPEATS):
            singles.append(fewest(plain, make_model, data, batch_size, each))
            alone.append(fewest(trained, make_model, data, batch_size, each))
            seconds, why = in_a_grid(make_model, data, batch_size, each, processes)
            grids.append(seconds)
        one = [own / loop for own, loop in zip(alone, singles, strict=True)]
        many = [loop / own for own, loop in zip(grids, singles, strict=True)]
        print(
            f"{name:26} loop {statistics.median(singles) * 1e6:7.0f} µs an update; lrlib.train "
            f"{statistics.median(one):.2f} of it ({', '.join(f'{ratio:.2f}' for ratio in one)}); a replica of a grid "
            f"{statistics.median(many):.2f} times as fast ({', '.join(f'{ratio:.2f}' for ratio in many)}); {why}"
        )


def captured(where: torch.device) -> None:
    for name, (make_model, replicas, shape, batch_size, reference) in CAPTURED.items():
        data = blocks(*shape).to(where)
        model = make_model().to(where)
        if replicas > 1:
            model = lrlib.Stack([model] * replicas)
        seconds = []
        for updates in (20, 220):
            torch.cuda.synchronize()
            started = time.perf_counter()
            lrlib.train(model, (data.x_train, data.y_train), 1e-3, steps=updates, batch_size=batch_size)
            torch.cuda.synchronize()
            seconds.append(time.perf_counter() - started)
        each = (seconds[1] - seconds[0]) / 200 * 1e3
        print(f"{name:34} {each:6.2f} ms an update, {each / reference:.2f} of {reference} ms on one H200")


def main() -> None:
    steps = int(sys.argv[1]) if len(sys.argv) > 1 else 400
    where = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    print(describe(where))
    compare(steps, where)
    if where.type == "cuda":
        captured(where)


if __name__ == "__main__":
    main()
