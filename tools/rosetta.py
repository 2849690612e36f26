"""The same schedules, groups, weight decay and Muon in six libraries: their lines, and what each does: book/rosetta.md.

    pip install -r requirements.lock -r requirements-rosetta.lock
    python tools/rosetta.py

Every line is run, and the page shows the rates that it gave; tests/test_rosetta.py runs them again, those of lrlib and
PyTorch always, the others where their packages are installed.
"""

import sys
import textwrap
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from rosetta_optimizers import MODULES, module
from rosetta_optimizers import SECTIONS as OPTIMIZERS

PAGE = Path(__file__).resolve().parent.parent / "book" / "rosetta.md"
STEPS = (0, 1, 49, 50, 99, 100, 150)
LIBRARIES = ("lrlib", "PyTorch", "optax", "timm", "transformers", "Keras")

# Title, what is asked for, notes, and the line of each library that has one. All have the peak 0.1 and 100 steps.
SCHEDULES = (
    (
        "Constant", "0.1 at every step.", "",
        {
            "lrlib": "lrlib.constant(0.1)",
            "PyTorch": "LambdaLR(optimizer, lambda t: 1.0)",
            "optax": "optax.constant_schedule(0.1)",
            "timm": 'create_scheduler_v2(optimizer, sched="constant", num_epochs=100, warmup_epochs=0)[0]',
            "transformers": "get_constant_schedule(optimizer)",
        },
    ),
    (
        "Step decay", "A tenth every 30 steps.", "optax and Keras have it as the staircase form of the exponential.",
        {
            "lrlib": "lrlib.step(0.1, step_size=30, gamma=0.1)",
            "PyTorch": "StepLR(optimizer, step_size=30, gamma=0.1)",
            "optax": "optax.exponential_decay(0.1, transition_steps=30, decay_rate=0.1, staircase=True)",
            "timm": "StepLRScheduler(optimizer, decay_t=30, decay_rate=0.1)",
            "Keras": "ExponentialDecay(0.1, decay_steps=30, decay_rate=0.1, staircase=True)",
        },
    ),
    (
        "Milestones", "A tenth from step 50, again from step 80.",
        "Keras's boundaries are the last steps of the old rate, so they lie one lower; timm's cut one step early, so "
        "they lie one higher; optax's and PyTorch's are the first steps of the new one.",
        {
            "lrlib": "lrlib.multistep(0.1, milestones=[50, 80], gamma=0.1)",
            "PyTorch": "MultiStepLR(optimizer, milestones=[50, 80], gamma=0.1)",
            "optax": "optax.piecewise_constant_schedule(0.1, {50: 0.1, 80: 0.1})",
            "timm": "MultiStepLRScheduler(optimizer, decay_t=[51, 81], decay_rate=0.1)",
            "Keras": "PiecewiseConstantDecay([49, 79], [0.1, 0.01, 0.001])",
        },
    ),
    (
        "Exponential", "Times 0.95 a step.", "",
        {
            "lrlib": "lrlib.exponential(0.1, gamma=0.95)",
            "PyTorch": "ExponentialLR(optimizer, gamma=0.95)",
            "optax": "optax.exponential_decay(0.1, transition_steps=1, decay_rate=0.95)",
            "timm": "StepLRScheduler(optimizer, decay_t=1, decay_rate=0.95)",
            "Keras": "ExponentialDecay(0.1, decay_steps=1, decay_rate=0.95)",
        },
    ),
    (
        "One over the step", "Half after 20 steps.", "timm's falls to 0 at `t_initial`, which must lie beyond the run.",
        {
            "lrlib": "lrlib.inverse_time(0.1, decay=0.05)",
            "PyTorch": "LambdaLR(optimizer, lambda t: 1 / (1 + 0.05 * t))",
            "timm": 'WSDLRScheduler(optimizer, t_initial=1000, decay_t=1, stable_fn="power", stable_power=1.0, '
            "stable_timescale=20)",
            "Keras": "InverseTimeDecay(0.1, decay_steps=1, decay_rate=0.05)",
        },
    ),
    (
        "Warm-up, then one over the root", "10 steps of warm-up.",
        "timm and transformers count the steps from 0: their first update has rate 0, and their peak comes one step "
        "later than in the paper and in lrlib. timm's falls to 0 `t_initial` steps after the warm-up, which must lie "
        "beyond the run.",
        {
            "lrlib": "lrlib.inverse_sqrt(0.1, warmup_steps=10)",
            "PyTorch": "LambdaLR(optimizer, lambda t: min((t + 1) / 10, (10 / (t + 1)) ** 0.5))",
            "timm": 'WSDLRScheduler(optimizer, t_initial=1000, decay_t=1, stable_fn="rsqrt", warmup_t=10)',
            "transformers": "get_inverse_sqrt_schedule(optimizer, num_warmup_steps=10)",
        },
    ),
    (
        "Linear", "Down to 0 at step 100.",
        "transformers has a polynomial, too, which ends at 1e-7 by default.",
        {
            "lrlib": "lrlib.polynomial(0.1, total_iters=100)",
            "PyTorch": "PolynomialLR(optimizer, total_iters=100)",
            "optax": "optax.linear_schedule(0.1, 0.0, transition_steps=100)",
            "timm": "PolyLRScheduler(optimizer, t_initial=100, power=1.0)",
            "transformers": "get_linear_schedule_with_warmup(optimizer, num_warmup_steps=0, num_training_steps=100)",
            "Keras": "PolynomialDecay(0.1, decay_steps=100, end_learning_rate=0.0)",
        },
    ),
    (
        "Cosine", "Down to 0 at step 100.",
        "Past the end PyTorch's and transformers' rise again; the others stay.",
        {
            "lrlib": "lrlib.cosine(0.1, T_max=100)",
            "PyTorch": "CosineAnnealingLR(optimizer, T_max=100)",
            "optax": "optax.cosine_decay_schedule(0.1, decay_steps=100)",
            "timm": "CosineLRScheduler(optimizer, t_initial=100)",
            "transformers": "get_cosine_schedule_with_warmup(optimizer, num_warmup_steps=0, num_training_steps=100)",
            "Keras": "CosineDecay(0.1, decay_steps=100)",
        },
    ),
    (
        "Warm-up, then cosine", "10 steps of warm-up from a tenth of the peak, 100 steps in all.",
        "Two families: lrlib's and PyTorch's multiply the cosine by the warm-up, so that their highest rate lies below "
        "the peak; the others let the cosine begin when the warm-up ends. Keras's `decay_steps` do not count the "
        "warm-up, optax's do. This one of transformers starts at 0. In PyTorch's chain a `LambdaLR` in `LinearLR`'s "
        "place would give other rates, and no warning.",
        {
            "lrlib": "lrlib.warmup(lrlib.cosine(0.1, T_max=100), steps=10, start_factor=0.1)",
            "PyTorch": "ChainedScheduler([LinearLR(optimizer, start_factor=0.1, total_iters=10), "
            "CosineAnnealingLR(optimizer, T_max=100)])",
            "optax": "optax.warmup_cosine_decay_schedule(0.01, 0.1, warmup_steps=10, decay_steps=100)",
            "timm": "CosineLRScheduler(optimizer, t_initial=90, warmup_t=10, warmup_lr_init=0.01, warmup_prefix=True)",
            "transformers": "get_cosine_schedule_with_warmup(optimizer, num_warmup_steps=10, num_training_steps=100)",
            "Keras": "CosineDecay(0.01, decay_steps=90, warmup_target=0.1, warmup_steps=10)",
        },
    ),
    (
        "Cosine with restarts", "Cycles of 25 and 75 steps.",
        "optax takes the cycles one by one and stays at the end of the last. transformers' cycles are of equal length.",
        {
            "lrlib": "lrlib.cosine_restarts(0.1, T_0=25, T_mult=3)",
            "PyTorch": "CosineAnnealingWarmRestarts(optimizer, T_0=25, T_mult=3)",
            "optax": "optax.sgdr_schedule([dict(init_value=0.1, peak_value=0.1, warmup_steps=0, decay_steps=n) "
            "for n in (25, 75)])",
            "timm": "CosineLRScheduler(optimizer, t_initial=25, cycle_mul=3, cycle_limit=9)",
            "Keras": "CosineDecayRestarts(0.1, first_decay_steps=25, t_mul=3.0)",
        },
    ),
    (
        "Triangle", "From 0 to 0.1 and back in 50 steps, again and again.",
        "PyTorch's default also cycles the momentum.",
        {
            "lrlib": "lrlib.cyclic(0.0, 0.1, step_size_up=25)",
            "PyTorch": "CyclicLR(optimizer, base_lr=0.0, max_lr=0.1, step_size_up=25, cycle_momentum=False)",
        },
    ),
    (
        "One cycle", "Peak 0.1 after 30% of 100 steps.",
        "PyTorch's last step is 99, optax's is 100. One step further PyTorch's extrapolates, then it raises an error.",
        {
            "lrlib": "lrlib.one_cycle(0.1, total_steps=100)",
            "PyTorch": "OneCycleLR(optimizer, max_lr=0.1, total_steps=100, cycle_momentum=False)",
            "optax": "optax.cosine_onecycle_schedule(100, 0.1)",
        },
    ),
    (
        "Warm-up, stable, decay", "10 steps up, 20 steps down, 100 in all.",
        "timm's default is a fall by 1 − √u; u goes from 0 to 1.",
        {
            "lrlib": 'lrlib.wsd(0.1, total_steps=100, warmup_steps=10, decay_steps=20, decay="cosine")',
            "PyTorch": "SequentialLR(optimizer, [LambdaLR(optimizer, lambda t: min(t / 10, 1)), "
            "CosineAnnealingLR(optimizer, T_max=20)], milestones=[80])",
            "optax": "optax.join_schedules([optax.linear_schedule(0.0, 0.1, 10), optax.constant_schedule(0.1), "
            "optax.cosine_decay_schedule(0.1, 20)], [10, 80])",
            "timm": 'WSDLRScheduler(optimizer, t_initial=90, warmup_t=10, decay_t=20, decay_fn="cosine")',
            "transformers": "get_wsd_schedule(optimizer, num_warmup_steps=10, num_decay_steps=20, num_stable_steps=70)",
        },
    ),
)  # fmt: skip


def names(library: str) -> dict:
    """What a line of a schedule may use, besides `optimizer`; ImportError where the library is not installed."""
    made = module(library)
    if library in ("lrlib", "optax"):
        return {library: made}
    if library == "PyTorch":
        return vars(torch.optim.lr_scheduler)
    if library == "Keras":
        return vars(made.optimizers.schedules)
    return vars(made.scheduler if library == "timm" else made.optimization)


def rates(library: str, line: str) -> list[float | None]:
    """The rates that a line applies at STEPS; None from where it refuses to go on."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = eval(line, dict(names(library)), {"optimizer": optimizer})
        if library in ("lrlib", "optax", "Keras"):
            return [float(made(t)) for t in STEPS]
        values = []
        for t in range(max(STEPS) + 1):
            if library == "timm":
                made.step(t)
            values.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            if library != "timm":
                try:
                    made.step()
                except ValueError:
                    break
    return [values[t] if t < len(values) else None for t in STEPS]


SECTIONS: tuple[tuple[str, tuple, list[str], Callable], ...] = (
    ("schedules", SCHEDULES, [f"step {t}" for t in STEPS], rates),
    *OPTIMIZERS,
)


def shown(value: float | None) -> str:
    """Four digits; what is nearer to zero than rounding can tell is 0."""
    if value is None:
        return "refuses"
    return "0" if abs(value) < 1e-9 else f"{value:.4g}"


def section(what: tuple, columns: list[str], measured: Callable) -> str:
    title, asked, note, lines = what
    head = f"| library | {' | '.join(columns)} |\n" + "| --- " * (len(columns) + 1) + "|\n"
    rows = "".join(
        f"| {library} | " + " | ".join(map(shown, measured(library, line))) + " |\n" for library, line in lines.items()
    )
    code = "\n".join(f"{library + ':':14}{line}" for library, line in lines.items())
    missing = [library for library in LIBRARIES if library not in lines]
    without = f" Without a line of their own: {', '.join(missing)}." if missing else ""
    text = textwrap.fill(" ".join(f"{asked} {note}{without}".split()), 119, break_on_hyphens=False)
    return f"## {title}\n\n{text}" + f"\n\n```text\n{code}\n```\n\n{head}{rows}\n"


INTRODUCTION = """# Rosetta: one schedule, six libraries

Every line below was run, and the tables show the rates it applied at the first steps, in the middle, at the last
planned step 99, and past it. The names agree less than one would think, and what happens past the end agrees least: a
schedule that is run too long stays, rises again, or refuses.

Lines of PyTorch, timm and transformers take an `optimizer` that was made with a rate of 0.1; call their `step` once an
update (timm's with the number of the next one). optax's and Keras's are functions of the step that the optimizer takes
as its rate, like lrlib's in `ScheduleLR(optimizer, schedule)`. optax and Keras compute in single precision. The last
seven tables do the same for groups of parameters, for weight decay and for Muon.

"""


def main() -> int:
    versions = [f"PyTorch {torch.__version__.split('+')[0]}"]
    versions += [f"{library} {module(library).__version__}" for library in MODULES]
    text = INTRODUCTION
    for label, sections, columns, measured in SECTIONS:
        text += f"(rosetta-{label})=\n"
        for each in sections:
            text += section(each, columns, measured)
    PAGE.write_text(text + f"Versions: {', '.join(versions)}.\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
