"""Make what the explorers show besides their own drawing: the static figures, the range tests, the pictures.

    python tools/explorers.py

Writes book/_static/explorers/*.png, range_test_data.js and pictures.js. Run it when lrlib's range test, its schedules
or the pictures change.
"""

import base64
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
        loss = [[None if np.isnan(x) else float(f"{x:.5g}") for x in run] for run in test.loss]
        initial = [float(f"{x:.5g}") for x in test.initial_loss]
        tests.append({"name": name, "lr": test.lr.tolist(), "loss": loss, "initial_loss": initial})
    script("range_test_data.js", "rangeTests", tests)
    return tests


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


def draw_range_test(test: dict) -> None:
    loss = np.array([[np.nan if x is None else x for x in run] for run in test["loss"]])
    curves = finder.RangeTest(np.array(test["lr"]), loss, np.array(test["initial_loss"]), smoothing=0.9)
    fig, ax = plt.subplots(figsize=(7.2, 3.4))
    curves.plot(ax)
    for k, rule in enumerate(finder.RULES):
        try:
            ax.axvline(curves.suggest(rule).lr, color=lrlib.COLORS[k + 1], linestyle=lrlib.DASHES[k + 1], label=rule)
        except finder.NoSuggestion:
            pass
    ax.legend(loc="lower left")
    ax.set_title("A range test, and where five rules point")
    figure("range_test")


def draw_exponential() -> None:
    same = lrlib.exponential_equivalent(lr=0.1, weight_decay=0.02, momentum=0.8)
    steps = np.arange(401)
    fig, ax = plt.subplots(figsize=(7.2, 3.0))
    ax.semilogy(steps, same.schedule(steps), label="growing rate, no weight decay")
    ax.semilogy(steps, np.full(len(steps), 0.1), label="constant rate, weight decay 0.02")
    ax.set(xlabel="step t", ylabel="rate", title="Two runs through the same functions (momentum 0.8)")
    ax.legend()
    figure("exponential")


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
    draw_exponential()
    draw_scanner()


if __name__ == "__main__":
    main()
