"""Make what the explorers show besides their own drawing: the static figures, the range tests, the pictures.

    python tools/explorers.py

Writes book/_static/explorers/*.png, range_test_data.js, finder_data.js, edge_data.js and pictures.js. Run it when
lrlib's range test, its training, its schedules or the pictures change.
"""

import base64
import functools
import io
import json
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from PIL import Image

import lrlib
from lrlib import finder, quadratic

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "book" / "_static" / "explorers"
PICTURES = ("portrait", "puppy", "digit")


def script(name: str, variable: str, value) -> None:
    """A script that sets a variable; pages opened from disk may load scripts, but no data files."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    (OUT / name).write_text(f"/* Made by tools/explorers.py. */\nLR.{variable} = {text};\n", encoding="utf-8")


def figure(name: str) -> None:
    drawn = io.BytesIO()
    plt.savefig(drawn, dpi=110)
    plt.close()
    Image.open(drawn).convert("RGB").quantize(96).save(OUT / f"{name}.png", optimize=True)


def pictures() -> None:
    encoded = {}
    for name in PICTURES:
        buffer = io.BytesIO()
        Image.open(ROOT / "data" / "images" / f"{name}.png").save(buffer, "webp", lossless=True, quality=100, method=6)
        encoded[name] = "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()
    script("pictures.js", "pictures", encoded)


def rounded(values, digits: int = 5) -> list | float | None:
    """Nested lists of numbers with so many digits; None where there is none."""
    if np.ndim(values):
        return [rounded(value, digits) for value in values]
    return float(f"{values:.{digits}g}") if np.isfinite(values) else None


def as_data(name: str, test: finder.RangeTest) -> dict:
    return {
        "name": name,
        "lr": test.lr.tolist(),
        "loss": rounded(test.loss),
        "initial_loss": rounded(test.initial_loss),
    }


def range_tests() -> list[dict]:
    tests = []
    for name, data, batch_size, max_lr, num_iter in (
        ("digits, batches of 64", lrlib.digits(), 64, 10.0, 100),
        ("harder digits, batches of 16", lrlib.hard_digits(), 16, 10.0, 300),
        ("digits, a sweep that ends too early", lrlib.digits(), 64, 0.1, 100),
    ):
        with lrlib.seeded(0):
            model = torch.nn.Sequential(torch.nn.Flatten(), lrlib.mlp(data.x_train[0].numel(), 64, 10))
        optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
        test = finder.range_test(
            model, data, optimizer, min_lr=1e-4, max_lr=max_lr, num_iter=num_iter, batch_size=batch_size,
            reinitialize=True,
        )  # fmt: skip
        tests.append(as_data(name, test))
    script("range_test_data.js", "rangeTests", tests)
    return tests


def perceptron(seed: int) -> torch.nn.Module:
    return lrlib.mlp(64, 32, 10)


def convolutional(seed: int, norm: bool = False) -> torch.nn.Module:
    """Two strided convolutions for pictures of 8 by 8, with or without BatchNorm."""
    layers: list[torch.nn.Module] = []
    for channels_in, channels in ((1, 8), (8, 16)):
        layers.append(torch.nn.Conv2d(channels_in, channels, 3, stride=2, padding=1))
        if norm:
            layers.append(torch.nn.BatchNorm2d(channels, track_running_stats=False))
        layers.append(torch.nn.ReLU())
    return torch.nn.Sequential(*layers, torch.nn.Flatten(), torch.nn.Linear(64, 10))


def finder_tasks() -> list[dict]:
    """For each task five range tests, and the test accuracy of ten runs at each rate with a constant and a cosine."""
    digits, steps = lrlib.digits(), 150
    noisy = lrlib.relabelled(digits, 0.3)
    sgd_rates, adam_rates = 0.01 * 2.0 ** np.arange(10), 0.0003 * 2.0 ** np.arange(11)
    tasks = []
    for name, build, data, optimizer, rates in (
        ("MLP on digits, SGD", perceptron, digits, "SGD", sgd_rates),
        ("MLP, noisy labels, SGD", perceptron, noisy, "SGD", sgd_rates),
        ("convolutions, SGD", convolutional, digits, "SGD", sgd_rates),
        ("convolutions with BatchNorm, SGD", functools.partial(convolutional, norm=True), digits, "SGD", sgd_rates),
        ("MLP on digits, Adam", perceptron, digits, "Adam", adam_rates),
    ):
        with lrlib.seeded(0):
            model = build(0)
        low, high = (1e-4, 10.0) if optimizer == "SGD" else (1e-5, 1.0)
        test = finder.range_test(
            model, data, getattr(torch.optim, optimizer)(model.parameters(), lr=1.0), min_lr=low, max_lr=high,
            batch_size=32, reinitialize=True,
        )  # fmt: skip
        grid = lrlib.train_grid(
            build, data,
            [*rates.tolist(), *(lrlib.cosine(rate, T_max=steps) for rate in rates.tolist())], range(10),
            steps=steps, batch_size=32, optimizer=getattr(lrlib, optimizer)(),
        )  # fmt: skip
        constant, cosine = np.split(100 * grid.accuracy.mean(1), 2)
        sweep = {"lr": rounded(rates), "constant": rounded(constant, 4), "cosine": rounded(cosine, 4)}
        tasks.append(as_data(name, test) | {"sweep": sweep})
    script("finder_data.js", "finderTasks", tasks)
    return tasks


def edge_runs() -> list[dict]:
    """Sharpness and loss along full-batch descent of one small network at several rates."""
    digits, every, steps = lrlib.digits(), 20, 2000
    x, y = 0.3 * digits.x_train[:100], torch.nn.functional.one_hot(digits.y_train[:100], 10).float()
    rates = np.geomspace(0.1, 0.8, 10).round(3).tolist()

    def squared_error(outputs, targets):
        return ((outputs - targets) ** 2).sum(1).mean() / 2

    models = []
    for _ in rates:
        with lrlib.seeded(0):
            models.append(lrlib.mlp(64, 32, 32, 10, activation="tanh"))
    sharpness = []

    def look(run):
        sharpness.append(lrlib.sharpness(run.model, x[None], y[None], loss=squared_error, iterations=12))

    history = lrlib.train(
        lrlib.Stack(models), (x, y), rates, steps=steps + 1, batch_size=len(x), loss=squared_error,
        callbacks=[lrlib.Periodic(look, at=range(0, steps + 1, every))],
    )  # fmt: skip
    runs = [
        {"lr": rate, "sharpness": rounded(curve, 4), "loss": rounded(loss[::every], 4)}
        for rate, curve, loss in zip(rates, np.transpose(sharpness), history.loss, strict=True)
    ]
    script("edge_data.js", "edge", {"every": every, "runs": runs})
    return runs


def draw_quadratic() -> None:
    fig, (left, right) = plt.subplots(1, 2, figsize=(7.2, 3.2))
    x, y = np.meshgrid(np.linspace(-2.6, 2.6, 200), np.linspace(-1.5, 1.5, 200))
    left.contour(x, y, (0.5 * x**2 + 10 * y**2) / 2, levels=8, colors="0.75", linewidths=0.8, linestyles="-")
    for rate in (0.05, 0.17, 0.205):
        path = quadratic.descend(np.diag([0.5, 10.0]), np.array([-2.0, 0.8]), rate, 60)
        left.plot(*path.T, marker=".", label=f"η = {rate}")
        right.semilogy((0.5 * path[:, 0] ** 2 + 10 * path[:, 1] ** 2) / 2, label=f"η = {rate}")
    left.set(xlabel="flat direction x", ylabel="steep direction y", ylim=(-1.5, 1.5), title="Paths")
    right.set(xlabel="step t", ylabel="loss", title="Loss; the limit 2/h_max is 0.2")
    right.legend()
    figure("quadratic")


def draw_momentum() -> None:
    a, beta = np.meshgrid(np.linspace(0, 4.4, 300), np.linspace(0, 1, 200))
    fig, ax = plt.subplots(figsize=(7.2, 3.4))
    radius = np.minimum(quadratic.spectral_radius(a, beta), 1.5)
    shown = ax.pcolormesh(a, beta, radius, cmap="RdYlBu_r", vmin=0.5, vmax=1.5)
    ax.plot(2 * (1 + beta[:, 0]), beta[:, 0], color="black", linestyle="-", linewidth=2)
    ax.text(2.3, 0.1, "ηh = 2(1 + β)")
    ax.grid(False)
    ax.set(xlabel="rate × curvature ηh", ylabel="momentum β", title="Factor per step; stable left of the line")
    fig.colorbar(shown)
    figure("momentum")


def draw_schedules() -> None:
    steps = np.arange(301)
    fig, ax = plt.subplots(figsize=(7.2, 3.2))
    for name, schedule in {
        "cosine": lrlib.cosine(0.1, T_max=200),
        "step": lrlib.step(0.1, step_size=60, gamma=0.3),
        "one cycle": lrlib.one_cycle(0.1, total_steps=200),
        "cosine with restarts": lrlib.cosine_restarts(0.1, T_0=30, T_mult=2),
    }.items():
        ax.plot(steps, schedule(steps), label=name)
    ax.set(xlabel="step t", ylabel="rate η", title="Four of the schedules")
    ax.legend()
    figure("schedules")


def draw_rules(ax: plt.Axes, test: dict) -> None:
    loss = np.array(test["loss"], dtype=float)
    curves = finder.RangeTest(np.array(test["lr"]), loss, np.array(test["initial_loss"]), smoothing=0.9)
    curves.plot(ax)
    for k, rule in enumerate(finder.RULES):
        try:
            ax.axvline(curves.suggest(rule).lr, color=lrlib.COLORS[k + 1], linestyle=lrlib.DASHES[k + 1], label=rule)
        except finder.NoSuggestion:
            pass
    ax.legend(loc="lower left")


def draw_range_test(test: dict) -> None:
    fig, ax = plt.subplots(figsize=(7.2, 3.4))
    draw_rules(ax, test)
    ax.set_title("A range test, and where five rules point")
    figure("range_test")


def draw_finder(task: dict) -> None:
    fig, (above, below) = plt.subplots(2, 1, figsize=(7.2, 5.2), sharex=True)
    draw_rules(above, task)
    above.set(xlabel="", title=task["name"])
    sweep = task["sweep"]
    below.plot(sweep["lr"], sweep["constant"], marker="o", label="constant rate")
    below.plot(sweep["lr"], sweep["cosine"], marker="s", label="cosine")
    best = int(np.argmax(sweep["constant"]))
    below.plot(
        sweep["lr"][best], sweep["constant"][best], "*", color="black", markersize=14, label="best constant rate"
    )
    below.set(xlabel="learning rate η", ylabel="test accuracy (%)", ylim=(0, 103))
    below.legend(loc="lower left")
    figure("finder")


def draw_edge(rates: tuple[float, ...] = (0.3, 0.4, 0.6)) -> None:
    fig, ax = plt.subplots(figsize=(7.2, 3.4))
    for color, rate in zip(lrlib.COLORS, rates, strict=False):
        point = torch.tensor([0.06, 0.97 * 2 / rate], dtype=torch.float64, requires_grad=True)
        optimizer = torch.optim.SGD([point], lr=rate)
        curvature = []
        for _ in range(2000):
            curvature.append(point[1].item())
            optimizer.zero_grad()
            (point[1] * point[0] ** 2 / 2 - 0.002 * point[1]).backward()
            optimizer.step()
        ax.plot(curvature, color=color, linestyle="-", label=f"η = {rate}")
        ax.axhline(2 / rate, color=color, linestyle="--", linewidth=1)
    ax.set(xlabel="step t", ylabel="sharpness y", title="The sharpness rises to 2/η (dashed) and swings there")
    ax.set_ylim(2.9, 8.2)
    ax.legend(loc="upper right", ncols=3)
    figure("edge_of_stability")


def draw_exponential() -> None:
    same = lrlib.exponential_equivalent(lr=0.1, weight_decay=0.02, momentum=0.8)
    steps = np.arange(401)
    fig, ax = plt.subplots(figsize=(7.2, 3.0))
    ax.semilogy(steps, same.schedule(steps), label="growing rate, no weight decay")
    ax.semilogy(steps, np.full(len(steps), 0.1), label="constant rate, weight decay 0.02")
    ax.set(xlabel="step t", ylabel="rate", title="Two runs through the same functions (momentum 0.8)")
    ax.legend()
    figure("exponential")


def half_square(h: torch.Tensor, theta: torch.Tensor, minimum: torch.Tensor) -> float:
    return (h * (theta - minimum) ** 2).sum().item() / 2


def draw_hill_climbing(epsilon: float = 0.2, noise: float = 0.5, steps: int = 200) -> None:
    h, draws = torch.tensor([0.1, 1.0]), noise * torch.randn(2, steps, 2, generator=torch.Generator().manual_seed(0))
    fig, (left, right) = plt.subplots(1, 2, figsize=(7.2, 3.2))
    for color, name, judges in ((1, "the batch of the step", draws[0]), (2, "another batch", draws[1])):
        theta = torch.nn.Parameter(torch.tensor([4.0, 1.5]))
        optimizer = lrlib.HillClimb(step_size=epsilon, smoothing=0.0).optimizer([theta], lr=0.05)
        rates = []
        for own, judge in zip(draws[0], judges, strict=True):
            theta.grad = h * (theta.detach() - own)
            optimizer.step(functools.partial(half_square, h, theta, judge))
            rates.append(optimizer.param_groups[0]["applied_lr"])
        right.semilogy(rates, color=lrlib.COLORS[color], label=f"judged by {name}")
    tried, start = np.geomspace(0.02, 3, 200), torch.tensor([4.0, 1.5])
    gradient = h * (start - draws[0, 0])

    def phi(values):
        return [half_square(h, start - rate * gradient, draws[0, 0]) for rate in values]

    left.semilogx(tried, phi(tried), label="φ(η)")
    for rate in (0.3, 2.0):
        pair = [0.7 * rate, 1.3 * rate]
        left.plot(pair, phi(pair), "o-", color=lrlib.COLORS[1], lw=2)
    left.set(xlabel="rate η of the step", ylabel="loss after the step", title="Two probes say: raise, lower")
    right.set(xlabel="step t", ylabel="rate η", title="The rate, by its judge", ylim=(5e-4, 5))
    right.legend(fontsize=8, loc="lower left")
    figure("hill_climbing")


def draw_batch_size() -> None:
    h = np.geomspace(1 / 50, 1, 12)
    target = 0.1 * len(h) / 2
    sizes = 2.0 ** np.arange(13)
    steps = []
    for size in sizes:
        _, losses = lrlib.noisy_descent(h.tolist(), (1 / h).tolist(), (10 * h).tolist(), size, target)
        steps.append(len(losses) - 2 + np.log(losses[-2] / target) / np.log(losses[-2] / losses[-1]))
    fit, grid = lrlib.critical_batch_size(sizes.tolist(), steps), np.geomspace(1, 4096, 200)
    fig, ax = plt.subplots(figsize=(7.2, 3.4))
    ax.plot(fit.steps(grid), fit.examples(grid), linestyle="-")
    ax.plot(steps, sizes * steps, "o", color=lrlib.COLORS[0], linestyle="none")
    ax.plot(2 * fit.steps_min, 2 * fit.examples_min, "*", color=lrlib.COLORS[2], markersize=15)
    ax.annotate("critical batch", (2 * fit.steps_min, 2 * fit.examples_min), (12, 4), textcoords="offset points")
    for k, dx, dy in ((0, -40, 8), (12, 10, -4)):
        ax.annotate(f"B = {sizes[k]:,.0f}", (steps[k], sizes[k] * steps[k]), (dx, dy), textcoords="offset points")
    ax.set(xscale="log", yscale="log", xlabel="updates to the target", ylabel="examples to the target")
    ax.set_title("Fewer updates or fewer examples: a noisy quadratic, batches from 1 to 4,096")
    figure("batch_size")


def draw_adamw(lr: float = 0.01, steps: int = 2000) -> None:
    fig, (left, right) = plt.subplots(1, 2, figsize=(7.2, 3.2))
    for k, (decay, name) in enumerate(((0.02, "long memory"), (0.5, "short memory"))):
        share = lr * decay * (1 - lr * decay) ** np.arange(steps - 1, -1, -1)
        parts = [(1 - lr * decay) ** steps, *share.reshape(20, -1).sum(1)]
        label = f"{name}, {lrlib.ema_timescale(lr, decay):,.0f} steps"
        left.bar(np.arange(21) + 0.4 * k - 0.2, 100 * np.array(parts), 0.4, color=lrlib.COLORS[k], label=label)
    left.set(xlabel="start, then the run in twentieths", ylabel="share in the final weights (%)", title="Memory")
    left.legend(fontsize=8)
    for k, (rate, decay) in enumerate(((0.01, 0.5), (0.02, 0.25), (0.01, 2.0))):
        size = [0.03]
        for _ in range(steps):
            size.append(((1 - rate * decay) ** 2 * size[-1] ** 2 + rate**2) ** 0.5)
        right.semilogy(size, color=lrlib.COLORS[k], label=f"η = {rate}, λ = {decay}")
        right.axhline((rate / (2 * decay)) ** 0.5, color=lrlib.COLORS[k], linestyle="--", linewidth=1)
    right.set(xlabel="step t", ylabel="RMS of θ", title="Size, and √(η/2λ)")
    right.legend(fontsize=8)
    figure("adamw")


def draw_schedule_theory(steps: int = 100) -> None:
    """A schedule as one might draw it beside three known ones, with bounds and predicted peaks."""
    t = np.arange(steps)
    shapes = {
        "by hand": lrlib.Schedule.from_table(
            np.where(t < 0.6 * steps, 1.0, np.maximum(0.1, 1 - 2.6 * (t / steps - 0.6)))
        ),
        "constant": lrlib.constant(1.0),
        "cosine": lrlib.cosine(1.0, T_max=steps),
        "line": lrlib.polynomial(1.0, total_iters=steps),
    }
    peaks = {name: lrlib.predicted_peak(shape, steps) for name, shape in shapes.items()}
    bounds = {name: lrlib.last_iterate_bound(lrlib.scale(shape, peaks[name]), steps) for name, shape in shapes.items()}
    fig, (left, middle, right) = plt.subplots(1, 3, figsize=(7.2, 2.8), width_ratios=(1.6, 1, 1))
    for k, (name, shape) in enumerate(shapes.items()):
        left.plot(t, shape(t), color=lrlib.COLORS[k], linestyle=lrlib.DASHES[k], label=name)
        middle.barh(name, bounds[name] / bounds["line"], color=lrlib.COLORS[k])
        right.barh(name, peaks[name] / peaks["constant"], color=lrlib.COLORS[k])
    left.set(xlabel="step t", ylabel="rate / peak", ylim=(0, 1.05))
    middle.set(xlabel="bound / line's")
    right.set(xlabel="peak / constant's", yticks=[])
    middle.invert_yaxis()
    right.invert_yaxis()
    figure("schedule_theory")


def draw_scanner() -> None:
    path = ROOT / "data" / "images" / f"{PICTURES[0]}.png"
    schedule = lrlib.image_schedule(path, num_steps=900)
    fig, (left, right) = plt.subplots(1, 2, figsize=(7.2, 3.0), width_ratios=(1, 2.4))
    left.imshow(schedule.pixels.reshape(schedule.size[1], schedule.size[0], 3))
    left.axis("off")
    right.plot(schedule(np.arange(900)), linewidth=0.8)
    right.set(xlabel="step t", ylabel="rate η", title="The pixels of the picture as rates")
    figure("scanner")


def main() -> None:
    plt.switch_backend("Agg")
    lrlib.setup()
    pictures()
    draw_quadratic()
    draw_momentum()
    draw_schedules()
    draw_range_test(range_tests()[0])
    draw_finder(finder_tasks()[0])
    edge_runs()
    draw_edge()
    draw_exponential()
    draw_adamw()
    draw_hill_climbing()
    draw_batch_size()
    draw_schedule_theory()
    draw_scanner()


if __name__ == "__main__":
    main()
