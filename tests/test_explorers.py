"""The explorers in a headless Chromium: their formulas against lrlib, and what they do under mouse and keyboard."""

import json
import math
import re

import numpy as np
import pytest
import torch
from browser import DRAWN, ROOT, built_book, needs_chromium
from PIL import Image

import lrlib
from lrlib import finder, quadratic

pytestmark = needs_chromium

SCRIPTS = sorted((ROOT / "book" / "_static" / "explorers").glob("*.js"))
NAMES = (
    "quadratic",
    "momentum",
    "edge_of_stability",
    "range_test",
    "finder",
    "schedules",
    "schedule_theory",
    "exponential",
    "adamw",
    "hill_climbing",
    "batch_size",
    "scanner",
)
DRAGGED = ("quadratic", "momentum", "edge_of_stability", "hill_climbing", "batch_size", "adamw")
WIDTHS = (390, 768, 1024, 1280, 1440, 1920)
CLOSE = {"rtol": 1e-9, "atol": 1e-12}


@pytest.fixture(scope="module")
def url():
    return (built_book() / "book" / "explorers.html").as_uri()


def opened(browser, url, width=1280, height=900, **options):
    """The page at this width, scrolled through as a reader does, so that every explorer has started."""
    page = browser.new_page(**({"viewport": {"width": width, "height": height}} if width else {}), **options)
    page.goto(url)
    for name in NAMES:
        page.locator(f"#explorer-{name}").scroll_into_view_if_needed()
        page.wait_for_function(f"document.querySelector('#explorer-{name}[data-live] .lr-readout')?.textContent")
    return page


@pytest.fixture(scope="module")
def page(browser, url):
    return opened(browser, url)


def call(page, explorer, formula, cases):
    """The formula's values for a list of argument lists, in one trip to the browser."""
    return page.evaluate(f"(cases) => cases.map((c) => LR.formulas.{explorer}.{formula}(...c))", cases)


@pytest.fixture
def draw():
    return np.random.default_rng(0)


# Formulas ------------------------------------------------------------------------------------------------------------


def test_quadratic_is_lrlibs(page, draw):
    curvatures = np.sort(draw.uniform(0.05, 20, (100, 2))).tolist()
    cases = [[*pair, draw.normal(size=2).tolist(), draw.uniform(0, 0.3)] for pair in curvatures]
    for case, path in zip(cases, call(page, "quadratic", "path", [[*case, 60] for case in cases]), strict=True):
        low, high, start, rate = case
        expected = quadratic.descend(np.diag([low, high]), start, rate, 60)
        np.testing.assert_allclose(np.array(path, float), expected, rtol=1e-9)
    bests = call(page, "quadratic", "best", [case[:2] for case in cases])
    np.testing.assert_allclose(bests, [quadratic.best_rate(*case[:2]) for case in cases], **CLOSE)


def test_momentum_is_lrlibs(page, draw):
    cases = draw.uniform([0, 0], [4.4, 1], (500, 2)).tolist()
    radii = call(page, "momentum", "radius", cases)
    np.testing.assert_allclose(radii, quadratic.spectral_radius(*np.transpose(cases)), **CLOSE)
    paths = call(page, "momentum", "path", [[1.5, *case, 80] for case in cases[:100]])
    for (rate, momentum), path in zip(cases, paths, strict=False):
        expected = quadratic.descend([[1.5]], [1.0], rate, 80, momentum)[:, 0]
        np.testing.assert_allclose(np.array(path, float), expected, rtol=1e-9, atol=1e-9 * np.abs(expected).max())
    curvatures = [sorted(draw.uniform(0.01, 10, 2)) for _ in range(50)]
    bests = call(page, "momentum", "best", curvatures)
    np.testing.assert_allclose(bests, [quadratic.best_momentum(*pair) for pair in curvatures], **CLOSE)


def test_momentum_names_the_regime_by_the_roots(page, draw):
    cases = draw.uniform([0.001, 0.001], [4.4, 0.999], (500, 2)).tolist()
    seen = set()
    for (a, beta), told in zip(cases, call(page, "momentum", "regime", cases), strict=True):
        roots = np.roots([1, -(1 + beta - a), beta])
        if abs(roots).max() >= 1:
            expected = "unstable"
        elif np.iscomplex(roots).any():
            expected = "under-damped"
        else:
            expected = "over-damped" if (roots.real > 0).all() else "flipping"
        assert told == expected, (a, beta)
        seen.add(told)
    assert len(seen) == 4
    curvatures = draw.uniform(0.01, 0.99, 50)
    critical = call(page, "momentum", "critical", [[a] for a in curvatures.tolist()])
    for a, beta in zip(curvatures, critical, strict=True):
        assert abs(np.diff(np.roots([1, -(1 + beta - a), beta]))).max() < 1e-6
        assert page.evaluate("([a, b]) => LR.formulas.momentum.regime(a, b, 1e-9)", [a, beta]) == "critical"


def test_schedule_theory_is_lrlibs(page, draw):
    drawings = [
        np.linspace(1, 0, 21),
        np.ones(21),
        np.r_[np.zeros(5), np.ones(6), np.zeros(10)],
        *draw.random((30, 21)),
    ]
    cases = [[heights.tolist()] for heights in drawings]
    for (heights,), rates in zip(cases, call(page, "schedule_theory", "rates", cases), strict=True):
        np.testing.assert_allclose(rates, np.interp(np.arange(100), np.arange(0, 101, 5), heights), **CLOSE)
        (bound, peak), terms = (
            call(page, "schedule_theory", "best", [[rates]])[0],
            call(page, "schedule_theory", "terms", [[[*rates, 0.1]]])[0],
        )
        np.testing.assert_allclose(terms, lrlib.bound_terms([*rates, 0.1]), **CLOSE)
        shape = lrlib.scale(lrlib.Schedule.from_table(rates), 1 / max(rates))
        expected = lrlib.predicted_peak(shape, 100)
        assert math.isclose(peak, expected, rel_tol=1e-6)
        lowest = lrlib.last_iterate_bound(lrlib.scale(shape, expected), 100)
        assert math.isclose(bound, lowest, rel_tol=1e-9)


def test_a_schedule_is_drawn_by_pen_and_by_keys(page):
    explorer = page.locator("#explorer-schedule_theory")
    explorer.scroll_into_view_if_needed()
    readout = explorer.locator(".lr-readout")
    explorer.get_by_role("button", name="Line", exact=True).click()
    assert "is 1 times the line's" in readout.text_content()
    box = explorer.locator("svg").first.bounding_box()
    y = box["y"] + box["height"] * 0.5
    page.mouse.move(box["x"] + box["width"] * 0.7, y)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.93, y, steps=5)
    page.mouse.up()
    drawn = readout.text_content()
    assert "is 1 times" not in drawn
    dot = explorer.locator(".lr-handle").first
    dot.focus()
    page.keyboard.press("ArrowLeft")
    assert readout.text_content() == drawn
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    assert readout.text_content() != drawn


def test_the_edge_is_descent_by_torch(page, draw):
    for _ in range(10):
        rate, pull = float(draw.uniform(0.1, 0.8)), float(draw.uniform(5e-4, 0.01))
        start = [float(draw.uniform(0.01, 0.3)), float(draw.uniform(0.85, 1.05)) * 2 / rate]
        told = call(page, "edge_of_stability", "path", [[pull, start, rate, 200]])[0]
        losses = call(page, "edge_of_stability", "loss", [[pull, point] for point in told])
        point = torch.tensor(start, dtype=torch.float64, requires_grad=True)
        optimizer = torch.optim.SGD([point], lr=rate)
        for here, loss_here in zip(told, losses, strict=True):
            np.testing.assert_allclose(here, point.detach().numpy(), rtol=1e-9, atol=1e-12)
            loss = point[1] * point[0] ** 2 / 2 - pull * point[1]
            assert loss_here == pytest.approx(loss.item(), rel=1e-9, abs=1e-12)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    x = torch.tensor([0.0, 3.0], dtype=torch.float64)
    hessian = torch.autograd.functional.hessian(lambda p: p[1] * p[0] ** 2 / 2 - 0.002 * p[1], x)
    assert torch.linalg.eigvalsh(hessian).max() == x[1]  # on the floor of the valley the sharpness is y


def test_the_networks_sharpness_goes_to_the_limit(page):
    runs = page.evaluate("LR.edge.runs")
    for run in runs:
        assert len(run["sharpness"]) == len(run["loss"]) == 101
        share = np.array(run["sharpness"], float) * run["lr"] / 2
        assert 0.75 < share[-20:].mean() < 1.15
        assert run["loss"][-1] < 0.3 * run["loss"][0]
    assert runs[0]["sharpness"][-1] > 2 * runs[0]["sharpness"][0]


def test_the_finders_regret_is_interpolation(page, draw):
    tasks = page.evaluate("LR.finderTasks")
    assert len(tasks) >= 4
    for k, task in enumerate(tasks):
        sweep = task["sweep"]
        for form in ("constant", "cosine"):
            rates = np.exp(draw.uniform(np.log(sweep["lr"][0] / 3), np.log(sweep["lr"][-1] * 3), 30)).tolist()
            told = page.evaluate(
                "([k, form, rates]) => rates.map((lr) => LR.formulas.finder.regret(LR.finderTasks[k].sweep, form, lr))",
                [k, form, rates],
            )
            at = np.interp(np.log(rates), np.log(sweep["lr"]), sweep[form])
            np.testing.assert_allclose(told, max(sweep[form]) - at, rtol=1e-9, atol=1e-9)
            best = page.evaluate("([k, form]) => LR.formulas.finder.best(LR.finderTasks[k].sweep, form)", [k, form])
            assert best == [sweep["lr"][int(np.argmax(sweep[form]))], max(sweep[form])]


def drawn_values(parameters: dict, draw) -> dict:
    """A setting of every control of a schedule, as a reader could make it."""
    values = {}
    for name, spec in parameters.items():
        if "choices" in spec:
            values[name] = str(draw.choice([key for key, _ in spec["choices"]]))
        elif spec.get("log"):
            values[name] = float(f"{spec['min'] * (spec['max'] / spec['min']) ** draw.uniform():.3g}")
        elif spec.get("ofPeak"):
            values[name] = float(f"{draw.integers(0, 101) / 100 * values['lr']:.3g}")
        else:
            stops = round((spec["max"] - spec["min"]) / spec["step"])
            value = round(spec["min"] + int(draw.integers(0, stops + 1)) * spec["step"], 10)
            values[name] = int(value) if float(value).is_integer() else value
    return values


def torch_rates(code: str, count: int) -> list[float]:
    """The rates that the PyTorch lines apply."""
    names = {"torch": torch, "math": math, "model": torch.nn.Linear(1, 1)}
    exec(code, names)
    rates = []
    for _ in range(count):
        rates.append(names["optimizer"].param_groups[0]["lr"])
        names["optimizer"].step()
        names["scheduler"].step()
    return rates


def test_schedules_and_both_their_lines_are_the_curve(page, draw):
    specs = page.evaluate("LR.formulas.schedules.parameters")
    assert len(specs) == 13
    cases = [[name, drawn_values(spec, draw), 301] for name, spec in specs.items() for _ in range(12)]
    for (_, _, count), made in zip(cases, call(page, "schedules", "make", cases), strict=True):
        scale = max(made["rates"])
        lrlib_rates = eval(made["lrlib"], {"lrlib": lrlib})(np.arange(count))
        np.testing.assert_allclose(made["rates"], lrlib_rates, rtol=1e-9, atol=1e-12 * scale, err_msg=made["lrlib"])
        until = count if made["end"] is None else min(count, made["end"] + 1)
        by_torch = torch_rates(made["torch"], until)
        np.testing.assert_allclose(made["rates"][:until], by_torch, rtol=1e-9, atol=1e-9 * scale, err_msg=made["torch"])


def test_range_test_rules_are_lrlibs(page):
    tests = page.evaluate("[...LR.rangeTests, ...LR.finderTasks]")
    rules = page.evaluate("LR.formulas.range_test.rules")
    assert rules == list(finder.RULES)
    answered = refused = 0
    for k, test in enumerate(tests):
        loss = np.array([[math.nan if x is None else x for x in run] for run in test["loss"]])
        for s in np.linspace(0, 0.98, 25).round(2).tolist():
            curves = finder.RangeTest(np.array(test["lr"]), loss, np.array(test["initial_loss"]), s)
            told = page.evaluate(
                "([k, s]) => LR.formulas.range_test.rules.map("
                "(rule) => LR.formulas.range_test.suggest([...LR.rangeTests, ...LR.finderTasks][k], s, rule))",
                [k, s],
            )
            for rule, here in zip(rules, told, strict=True):
                try:
                    there = curves.suggest(rule)
                except finder.NoSuggestion:
                    assert here["reason"], (test["name"], s, rule)
                    refused += 1
                else:
                    values = [here["lr"], here["low"], here["high"], here["n"]]
                    np.testing.assert_allclose(values, [there.lr, there.low, there.high, there.n], **CLOSE)
                    answered += 1
    assert answered > 300 and refused > 50


def test_exponential_is_lrlibs_and_its_runs_are_torchs(page, draw):
    cases = [[10 ** draw.uniform(-2, 0), 10 ** draw.uniform(-4, -0.3), draw.uniform(0, 0.95)] for _ in range(300)]
    told = page.evaluate(
        """(cases) => cases.map((c) => LR.formulas.exponential.equivalent(...c)).map(
             (e) => e && [e.alpha, e.growth, e.initialMomentum, e.rate(0), e.rate(1), e.rate(400)])""",
        cases,
    )
    refused = 0
    for case, here in zip(cases, told, strict=True):
        try:
            there = lrlib.exponential_equivalent(*case)
        except ValueError:
            assert here is None
            refused += 1
        else:
            expected = [there.alpha, there.growth, there.initial_momentum, *there.schedule([0, 1, 400])]
            np.testing.assert_allclose(np.array(here, float), expected, **CLOSE)
    assert 20 < refused < 280

    lr, decay, momentum = 0.1, 0.02, 0.8
    same = lrlib.exponential_equivalent(lr, decay, momentum)
    runs = page.evaluate(
        """([lr, decay, momentum]) => {
          const f = LR.formulas.exponential, same = f.equivalent(lr, decay, momentum);
          return [f.run(() => lr, decay, momentum, 0, 60), f.run(same.rate, 0, momentum, same.initialMomentum, 60)];
        }""",
        [lr, decay, momentum],
    )
    for run, schedule, weight_decay, factor in zip(
        runs, (lrlib.constant(lr), same.schedule), (decay, 0.0), (0.0, same.initial_momentum), strict=True
    ):
        theta = torch.nn.Parameter(torch.tensor([1.0, 0.2], dtype=torch.float64))
        optimizer = torch.optim.SGD([theta], lr=lr, momentum=momentum, weight_decay=weight_decay)
        lrlib.shift_momentum(optimizer, factor)
        scheduler = lrlib.ScheduleLR(optimizer, schedule)
        for t in range(60):
            np.testing.assert_allclose(run[t], theta.detach().numpy(), rtol=1e-8)
            gradient = page.evaluate("([t, p]) => LR.formulas.exponential.gradient(t, p)", [t, theta.tolist()])
            theta.grad = torch.tensor(gradient, dtype=torch.float64)
            optimizer.step()
            scheduler.step()
    directions = [np.array(run) / np.linalg.norm(run, axis=1, keepdims=True) for run in runs]
    np.testing.assert_allclose(*directions, atol=1e-9)


def test_hill_climbing_is_lrlibs(page, draw):
    batches = np.array(call(page, "hill_climbing", "batch", [[t / 2] for t in range(122)]))
    assert abs(batches.mean()) < 0.15 and abs(batches.std() - 1) < 0.1
    h = torch.tensor([0.1, 1.0], dtype=torch.float64)
    raised = 0
    for own in (True, False):
        for _ in range(10):
            rate, epsilon, noise = 10 ** draw.uniform(-2.5, 1), draw.uniform(0.01, 0.5), draw.uniform(0, 2)
            told = call(page, "hill_climbing", "run", [[rate, epsilon, noise, own, 60]])[0]
            theta = torch.nn.Parameter(torch.tensor([4.0, 1.5], dtype=torch.float64))
            optimizer = lrlib.HillClimb(step_size=epsilon, smoothing=0.0).optimizer([theta], lr=rate)
            before = rate
            for t, step in enumerate(told):
                point = theta.detach().clone()
                batch, judge = (torch.tensor(noise * batches[k]) for k in (2 * t, 2 * t if own else 2 * t + 1))
                theta.grad = h * (point - batch)
                np.testing.assert_allclose(step["theta"], point, rtol=1e-9, atol=1e-12)
                np.testing.assert_allclose(step["g"], theta.grad, rtol=1e-9, atol=1e-12)
                assert step["rate"] == pytest.approx(before, rel=1e-9)
                if t % 10 == 0:
                    best = page.evaluate("(s) => LR.formulas.hill_climbing.best(s)", step)
                    rates = [0.0, 0.7, 3.0, best - 1, best + 1]
                    along = [(h * (point - eta * theta.grad - judge) ** 2).sum().item() / 2 for eta in rates]
                    phi = "([s, rates]) => rates.map((eta) => LR.formulas.hill_climbing.phi(s, eta))"
                    np.testing.assert_allclose(page.evaluate(phi, [step, rates]), along, rtol=1e-9, atol=1e-12)
                    assert along[3] == pytest.approx(along[4], rel=1e-6)
                optimizer.step(lambda theta=theta, judge=judge: (h * (theta - judge) ** 2).sum() / 2)
                before = optimizer.param_groups[0]["applied_lr"]
                assert step["up"] == (before > step["rate"])
                raised += step["up"]
    assert 200 < raised < 1000


def test_batch_sizes_descend_as_lrlib_does(page, draw):
    for _ in range(5):
        kappa, noise, share = draw.uniform([3, 0.3, 0.1], [50, 10, 0.5]).tolist()
        problem = call(page, "batch_size", "problem", [[kappa, noise]])[0]
        h, v, variance = (np.array(problem[name]) for name in ("h", "v", "variance"))
        np.testing.assert_allclose([h, v, variance], [np.geomspace(1 / kappa, 1, 12), 1 / h, noise * h], rtol=1e-9)
        target, sizes = share * h @ v / 2, (4 ** np.arange(6)).tolist()
        steps = []
        for size, told in zip(
            sizes, call(page, "batch_size", "losses", [[problem, b, target] for b in sizes]), strict=True
        ):
            rates, losses = lrlib.noisy_descent(h, v, variance, size, target)
            np.testing.assert_allclose(told, losses, rtol=1e-9)
            scale = call(page, "batch_size", "scale", [[problem, v.tolist()]])[0]
            assert call(page, "batch_size", "rate", [[scale, size]])[0] == pytest.approx(rates[0], rel=1e-9)
            steps.append(call(page, "batch_size", "steps", [[told, target]])[0])
            assert len(rates) - 1 < steps[-1] <= len(rates)
        fit = lrlib.critical_batch_size(sizes, steps)
        told = call(page, "batch_size", "fit", [[sizes, steps]])[0]
        np.testing.assert_allclose(told, [fit.steps_min, fit.examples_min], rtol=1e-6)


def test_adamws_memory_and_size_are_the_optimizers(page, draw):
    schedules = {"constant": lrlib.constant, "linear": lrlib.polynomial, "cosine": lrlib.cosine}
    for shape, schedule in schedules.items():
        for _ in range(5):
            lr, decay, steps = 10 ** draw.uniform(-3, -1), 10 ** draw.uniform(-1, 1), int(draw.integers(20, 120))
            told = page.evaluate(
                """(c) => { const { start, share } = LR.formulas.adamw.shares(...c); return [start, [...share]]; }""",
                [shape, lr, decay, steps],
            )
            [sizes] = call(page, "adamw", "sizes", [[shape, lr, decay, steps, 0.5]])
            [tau] = call(page, "adamw", "timescale", [[lr, decay]])
            assert tau == pytest.approx(lrlib.ema_timescale(lr, decay), rel=1e-12)
            rates = schedule(lr) if shape == "constant" else schedule(lr, steps)
            signs = draw.choice([-1.0, 1.0], (steps, 2000))
            theta = torch.nn.Parameter(torch.full((2000,), 0.5, dtype=torch.float64))
            optimizer = torch.optim.AdamW([theta], lr=lr, betas=(0.0, 0.0), eps=1e-300, weight_decay=decay)
            scheduler = lrlib.ScheduleLR(optimizer, rates)
            for sign in signs:  # without means Adam's update is the sign of the gradient
                theta.grad = torch.tensor(sign)
                optimizer.step()
                scheduler.step()
            average = told[0] * 0.5 - np.array(told[1]) @ signs / decay
            np.testing.assert_allclose(average, theta.detach().numpy(), rtol=1e-9, atol=1e-12)
            assert sizes[-1] == pytest.approx(theta.detach().square().mean().sqrt().item(), rel=0.1)
    settled = call(page, "adamw", "sizes", [["constant", 0.01, 2.0, 2000, 0.5]])[0][-1]
    [balance] = call(page, "adamw", "equilibrium", [[0.01, 2.0, 0.9]])
    assert settled == pytest.approx(balance["rms"], rel=0.01)
    assert balance["step"] / balance["pace"] == pytest.approx(math.sqrt(0.1 / 1.9))


def test_scanner_is_lrlibs(page, draw):
    for _ in range(40):
        width, height = draw.integers(4, 90, 2).tolist()
        picture = draw.integers(0, 256, (height, width, 3), dtype=np.uint8)
        steps = int(draw.integers(max(3 * width / height, 3 * height / width, 1) + 1, 3 * width * height + 1))
        low, high = sorted((10 ** draw.uniform(-6, 0, 2)).tolist())
        order = str(draw.choice(["rows", "columns", "boustrophedon"]))
        schedule = lrlib.image_schedule(picture, steps, low, high, order=order)
        told = page.evaluate(
            "(c) => (({size, rates, values}) => [size, rates, values.length])(LR.formulas.scanner.scan(...c))",
            [picture.ravel().tolist(), [width, height], steps, low, high, order],
        )
        assert tuple(told[0]) == schedule.size and told[2] == len(schedule.pixels)
        np.testing.assert_allclose(told[1], schedule(np.arange(steps)), **CLOSE)


def test_the_scanners_pictures_are_the_books(page):
    told = page.evaluate(
        """() => Promise.all(Object.entries(LR.pictures).map(async ([name, url]) => {
             const {size, rgb} = await LR.formulas.scanner.decode(url, 512);
             return [name, size, Array.from(rgb)];
           }))"""
    )
    for name, size, rgb in told:
        picture = Image.open(ROOT / "data" / "images" / f"{name}.png").convert("RGB")
        assert picture.size == tuple(size)
        np.testing.assert_array_equal(rgb, np.asarray(picture).ravel())


# Behaviour -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_a_slider_moves_under_the_arrow_keys(page, name):
    explorer = page.locator(f"[data-explorer={name}]")
    slider = explorer.locator("input[type=range]").first
    slider.scroll_into_view_if_needed()

    def seen():
        figures = explorer.locator("svg.lr-plot, canvas").all()
        labels = [figure.get_attribute("aria-label") for figure in figures]
        return slider.get_attribute("aria-valuetext"), [*labels, explorer.locator(".lr-readout").text_content()]

    before = seen()
    slider.focus()
    for _ in range(3):
        page.keyboard.press("ArrowLeft")
    after = seen()
    assert before[0] != after[0] and before[1] != after[1]


@pytest.mark.parametrize("name", DRAGGED)
def test_the_point_is_dragged_and_moved_by_keys(page, name):
    handle = page.locator(f"[data-explorer={name}] .lr-handle")
    handle.locator(".lr-knob").hover()  # waits until nothing moves and nothing covers it
    box = handle.bounding_box()
    start = handle.get_attribute("aria-valuetext")
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 2 + 30, box["y"] + box["height"] / 2 - 20, steps=4)
    page.mouse.up()
    dragged = handle.get_attribute("aria-valuetext")
    assert dragged != start
    page.keyboard.press("ArrowUp")
    page.keyboard.press("ArrowRight")
    assert handle.get_attribute("aria-valuetext") not in (start, dragged)


@pytest.mark.parametrize("name", DRAGGED)
def test_a_finger_drags_the_point_as_far_as_it_goes(browser, url, name):
    page = opened(browser, url, 390, 844, has_touch=True, is_mobile=True)
    handle = page.locator(f"#explorer-{name} .lr-handle")
    handle.evaluate("(e) => e.closest('svg').scrollIntoView({block: 'center'})")
    page.evaluate("addEventListener('pointercancel', () => (window.cancelled = true))")
    box = handle.locator(".lr-knob").bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    scrolled = page.evaluate("scrollY")
    client = page.context.new_cdp_session(page)

    def touch(kind, *points):
        client.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [{"x": x, "y": y} for x, y in points]})

    touch("touchStart", (x, y))
    seen = []
    for k in range(1, 13):
        touch("touchMove", (x + 5 * k, y + 4 * k))
        seen.append(handle.get_attribute("aria-valuetext"))
    touch("touchEnd")
    assert len(set(seen)) > 6 and seen[-1] != seen[-2]
    assert not page.evaluate("window.cancelled") and page.evaluate("scrollY") == scrolled
    page.close()


def test_a_setting_stands_in_the_address_and_comes_back(browser, url):
    page = opened(browser, url)
    quadratic = page.locator("#explorer-quadratic")
    quadratic.get_by_role("button", name="Best constant rate").click()
    page.wait_for_function("location.hash.startsWith('#explorer-quadratic?')")
    told, address = quadratic.locator(".lr-readout").text_content(), page.url
    schedules = page.locator("#explorer-schedules")
    schedules.get_by_label("schedule", exact=True).select_option("cosine_restarts")
    slider = schedules.get_by_label("T_0")
    slider.focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_function("location.hash.includes('T_0=31')")
    line, other = schedules.locator("code").first.text_content(), page.url
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    schedules.get_by_role("button", name="Copy link").click()
    schedules.get_by_text("Copied").wait_for()
    assert page.evaluate("navigator.clipboard.readText()") == other
    schedules.get_by_role("button", name="Reset").click()
    assert schedules.locator("code").first.text_content() != line
    assert "#" not in page.url

    fresh = browser.new_page()
    fresh.goto(address)
    assert fresh.locator("#explorer-quadratic .lr-readout").text_content() == told
    fresh.goto(other)  # the same page: only the part after # differs
    fresh.locator("#explorer-schedules[data-live] code").first.wait_for()
    assert fresh.locator("#explorer-schedules code").first.text_content() == line
    assert fresh.evaluate("document.querySelector('#explorer-schedules').getBoundingClientRect().top < innerHeight")
    fresh.goto(f"{url}#explorer-quadratic?rate=nonsense&high=1e9&x=&system=none")
    fresh.wait_for_function(
        "document.querySelector('#explorer-quadratic .lr-readout').textContent.includes('2/h_max is 0.1')"
    )
    fresh.close()
    page.close()


@pytest.mark.parametrize("touch", [False, True], ids=["mouse", "finger"])
def test_a_teacher_shares_what_was_set_on_the_whole_screen(browser, url, touch):
    """Each explorer on the whole screen, dragged, its link copied there and opened by someone else."""
    context = browser.new_context(viewport={"width": 1920, "height": 1080}, has_touch=touch)
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    page = opened(context, url, None)
    send = page.context.new_cdp_session(page).send
    for name in (*DRAGGED, "schedule_theory") if touch else NAMES:
        explorer = page.locator(f"#explorer-{name}")
        explorer.get_by_role("button", name="Full screen").click()
        page.wait_for_function(f"document.fullscreenElement?.id === 'explorer-{name}'")
        page.evaluate(DRAWN)  # it is fitted
        stage = explorer.locator(".lr-stage").bounding_box()
        assert stage["x"] >= 0 and stage["x"] + stage["width"] <= 1920
        before = explorer.evaluate(STATE)
        (x, y), (dx, dy) = explorer.evaluate(WHERE_TO_DRAG)
        if touch:
            send("Input.dispatchTouchEvent", {"type": "touchStart", "touchPoints": [{"x": x, "y": y}]})
            for k in range(1, 9):
                point = {"x": x + k * dx / 8, "y": y + k * dy / 8}
                send("Input.dispatchTouchEvent", {"type": "touchMove", "touchPoints": [point]})
            send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
        else:
            page.mouse.move(x, y)
            page.mouse.down()
            page.mouse.move(x + dx, y + dy, steps=8)
            page.mouse.up()
        page.wait_for_function(f"location.hash.startsWith('#explorer-{name}?')")
        told = explorer.evaluate(STATE)
        assert told != before, name
        explorer.get_by_role("button", name="Copy link").click()
        explorer.get_by_text("Copied").wait_for()
        link = page.evaluate("navigator.clipboard.readText()")
        explorer.get_by_role("button", name="Leave full screen").click()
        page.wait_for_function("!document.fullscreenElement")
        other = browser.new_context(viewport={"width": 390, "height": 844})
        fresh = other.new_page()
        fresh.goto(link)
        fresh.locator(f"#explorer-{name}[data-live] .lr-readout").wait_for()
        assert fresh.locator(f"#explorer-{name}").evaluate(STATE) == told, name
        other.close()
    context.close()


def test_the_whole_screen_and_back(browser, url):
    page = opened(browser, url)
    for name in NAMES:
        explorer = page.locator(f"#explorer-{name}")
        explorer.get_by_role("button", name="Full screen").click()
        page.wait_for_function(f"document.fullscreenElement?.id === 'explorer-{name}'")
        explorer.get_by_role("button", name="Leave full screen").wait_for()
        assert float(explorer.locator(".lr-stage").evaluate("e => e.style.zoom")) >= 1
        explorer.get_by_role("button", name="Leave full screen").click()
        page.wait_for_function(
            f"!document.fullscreenElement && !document.querySelector('#explorer-{name} .lr-stage').style.cssText"
        )
    page.close()


OVERLAPS = """() => [...document.querySelectorAll(".lr-controls, .lr-tools")].flatMap((bar) => {
  const frame = bar.closest(".lr-explorer").getBoundingClientRect();
  const parts = [...bar.querySelectorAll("input, select, button, label, output")]
    .map((e) => [e, e.getBoundingClientRect()]).filter(([, box]) => box.width);
  const name = (e) => `${bar.closest(".lr-explorer").id}: ${e.tagName} ${e.textContent.slice(0, 20)}`;
  const outside = parts.filter(([, box]) => box.left < frame.left || box.right > frame.right).map(([e]) => name(e));
  const over = parts.flatMap(([e, a], k) => parts.slice(k + 1)
    .filter(([, b]) => Math.min(a.right, b.right) - Math.max(a.left, b.left) > 1
      && Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 1)
    .map(([f]) => `${name(e)} over ${name(f)}`));
  return [...outside, ...over];
})"""
STATE = """(explorer) => [
  ...[...explorer.querySelectorAll("input:not([type=file]), select")].map((e) => [e.value, e.checked]),
  explorer.querySelector(".lr-draw") ? "" : explorer.querySelector(".lr-handle")?.getAttribute("aria-valuetext"),
  explorer.querySelector(".lr-readout").textContent]"""
WHERE_TO_DRAG = """(explorer) => {  // the middle of its point, or of the knob of its first slider, and how far
  const handle = explorer.querySelector(".lr-knob");
  if (handle) {
    const box = handle.getBoundingClientRect();
    return [[box.x + box.width / 2, box.y + box.height / 2], [40, 60]];
  }
  const slider = explorer.querySelector("input[type=range]"), box = slider.getBoundingClientRect();
  const share = (slider.value - slider.min) / (slider.max - slider.min);
  return [[box.x + 8 + share * (box.width - 16), box.y + box.height / 2], [share > 0.5 ? -60 : 60, 0]];
}"""
SHIFT = """() => new Promise((resolve) => {
  new PerformanceObserver((list) => resolve(
    list.getEntries().filter((e) => !e.hadRecentInput).reduce((sum, e) => sum + e.value, 0)
  )).observe({type: "layout-shift", buffered: true});
  setTimeout(() => resolve(0), 1500);
})"""
HEIGHTS = """() => [...document.querySelectorAll(".lr-explorer")].map((e) => [
  e.id, parseFloat(getComputedStyle(e, "::before").height),
  e.querySelector(".lr-tools").getBoundingClientRect().bottom
    - e.querySelector(".lr-stage").getBoundingClientRect().top])"""
TEXT = """() => [...document.querySelectorAll(".lr-plot text")].map((e) => {
  const svg = e.closest("svg");
  return parseFloat(getComputedStyle(e).fontSize) * svg.getBoundingClientRect().width / svg.viewBox.baseVal.width;
})"""


@pytest.mark.parametrize("width", WIDTHS)
def test_nothing_overlaps_and_the_height_was_reserved(browser, url, width):
    page = opened(browser, url, width)
    assert page.evaluate(SHIFT) < 0.02
    assert page.evaluate(OVERLAPS) == []
    for name, reserved, height in page.evaluate(HEIGHTS):
        assert 0 <= reserved - height < 100, (name, reserved, height)
    assert min(page.evaluate(TEXT)) > (11.9 if width < 700 else 13.5)
    page.close()


def test_an_overlap_is_found_out(browser):
    page = browser.new_page()
    page.set_content(
        '<div class="lr-explorer" id="x"><div class="lr-controls">'
        '<button style="width: 90px">a</button><button style="margin-left: -40px">b</button></div></div>'
    )
    assert page.evaluate(OVERLAPS) == ["x: BUTTON a over x: BUTTON b"]
    page.close()


def test_scripts_are_loaded_where_an_explorer_is_near(browser, url):
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(url.replace("explorers.html", "glossary.html"))
    page.wait_for_load_state("load")
    assert [link for link in asked if "/explorers/" in link and link.partition("?")[0].endswith(".js")] == [
        next(link for link in asked if "start.js" in link)
    ]
    page.goto(url)
    page.locator("#explorer-quadratic[data-live]").wait_for()
    assert any("core.js" in link for link in asked) and not any("scanner.js" in link for link in asked)
    page.close()


def test_the_finder_draws_how_each_rule_reads(page):
    explorer = page.locator("#explorer-finder")
    readings = set()
    for rule in page.evaluate("LR.formulas.range_test.rules"):
        explorer.get_by_label("rule", exact=True).select_option(rule)
        assert explorer.locator(".lr-words").text_content().startswith(f"{rule}: ")
        assert explorer.locator("tr.lr-chosen th").text_content().strip() == rule
        readings.add(explorer.locator("svg.lr-plot").first.locator("g[clip-path]").inner_html())
    assert len(readings) == len(finder.RULES)


def test_the_edge_shows_the_network_as_well(page):
    explorer = page.locator("#explorer-edge_of_stability")
    assert "times 2p" in explorer.locator(".lr-readout").text_content()
    explorer.get_by_label("system").select_option("network")
    assert "Full-batch descent" in explorer.locator(".lr-readout").text_content()
    assert explorer.locator("svg.lr-plot:visible").count() == 2
    explorer.get_by_label("system").select_option("valley")


def test_the_strip_sets_the_rate_and_the_button_the_best_one(page):
    explorer = page.locator("[data-explorer=quadratic]")
    strip = explorer.locator("svg").last
    strip.click(position={"x": 0.93 * strip.bounding_box()["width"], "y": 20})  # waits until nothing moves
    assert "diverges" in explorer.locator(".lr-readout").text_content()
    explorer.get_by_role("button", name="Best constant rate").click()
    assert "converges" in explorer.locator(".lr-readout").text_content()


def test_every_schedule_can_be_chosen_and_its_line_copied(page):
    explorer = page.locator("[data-explorer=schedules]")
    for name in page.evaluate("Object.keys(LR.formulas.schedules.parameters)"):
        explorer.get_by_label("schedule", exact=True).select_option(name)
        line = explorer.locator("code").first.text_content()
        assert line.startswith("schedule = lrlib.")
    explorer.locator(".lr-formula mjx-container svg").wait_for()
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    explorer.get_by_role("button", name="Copy the lrlib line").click()
    explorer.get_by_text("Copied").wait_for()
    assert page.evaluate("navigator.clipboard.readText()") == line


def test_the_runs_come_apart_without_the_initial_momentum(page):
    explorer = page.locator("[data-explorer=exponential]")
    assert "coincide" in explorer.locator(".lr-readout").text_content()
    explorer.get_by_label("start the momentum").uncheck()
    assert "come apart" in explorer.locator(".lr-readout").text_content()
    explorer.get_by_label("start the momentum").check()


def test_the_climber_steps_and_its_judge_decides_where_it_ends(page):
    explorer = page.locator("[data-explorer=hill_climbing]")
    explorer.get_by_role("button", name="Reset").click()
    readout = explorer.locator(".lr-readout")
    begun = int(re.match(r"Step (\d+):", readout.text_content())[1])
    explorer.get_by_role("button", name="One step").click()
    assert readout.text_content().startswith(f"Step {begun + 1}:")
    ends = {}
    for judge in ("own", "other"):
        explorer.get_by_label("who judges").select_option(judge)
        for _ in range(20):
            explorer.get_by_role("button", name="Ten steps").click()
        assert readout.text_content().startswith("Step 200:")
        ends[judge] = float(explorer.locator(".lr-handle").get_attribute("aria-valuetext"))
    assert ends["own"] > 5 * ends["other"]
    handle = explorer.locator(".lr-handle")
    handle.focus()
    page.keyboard.press("ArrowRight")
    assert readout.text_content().startswith("Step 0:")


TOLD = [
    ("quadratic", "rate=1.9&high=1&low=0.05", "−0.9 and the flat one by 1 − ηh_min = 0.905"),
    ("quadratic", "rate=0", "nothing moves"),
    ("quadratic", "rate=0.5&y=0", "no steep part and converges"),
    ("hill_climbing", "t=6.5", "Step 7:"),
    ("edge_of_stability", "rate=0.1&pull=0.0005", "y stays below it"),
    ("exponential", "rate=1&decay=0.5&momentum=0", "rounding drives them apart"),
    ("adamw", "rate=0.1&decay=1", "does not hold"),
    ("batch_size", "batch=1234", "B = 1234:"),
    ("momentum", "a=0.01&momentum=0&condition=1000", "(0.99999)"),
]


def sent(page, name, query):
    """The explorer at the setting of an address."""
    page.evaluate("(hash) => (location.hash = hash)", f"explorer-{name}?{query}")
    page.wait_for_timeout(50)
    return page.locator(f"#explorer-{name}")


@pytest.mark.parametrize(("name", "query", "told"), TOLD)
def test_a_setting_at_the_edge_is_told_as_it_is(page, name, query, told):
    assert told in sent(page, name, query).locator(".lr-readout").text_content()


def test_nothing_leaves_its_bounds(page):
    for query in ("schedule=linear&steps=100", "schedule=cosine&steps=100"):
        assert "NaN" not in sent(page, "adamw", query).inner_html()
    assert "x 2.5, y −1.4" == sent(page, "quadratic", "x=1e9&y=-9").locator(".lr-handle").get_attribute(
        "aria-valuetext"
    )
    handle = sent(page, "edge_of_stability", "rate=0.4&share=100").locator(".lr-handle")
    assert handle.get_attribute("aria-valuetext").endswith("sharpness 5.25")
    explorer = sent(page, "batch_size", "batch=32")
    explorer.get_by_label("batch size B").focus()
    page.keyboard.press("End")
    assert "B = 4096:" in explorer.locator(".lr-readout").text_content()
    explorer = sent(page, "hill_climbing", "judge=other&epsilon=0.5&rate=0.005&t=200")
    knob, plot = explorer.locator(".lr-knob").bounding_box(), explorer.locator("svg").first.bounding_box()
    assert plot["x"] + 40 < knob["x"] + knob["width"] / 2 < plot["x"] + plot["width"]


def test_home_and_end_move_a_point_but_not_the_page(page):
    handle = sent(page, "hill_climbing", "t=0").locator(".lr-handle")
    handle.focus()
    ends = []
    for key, bound in (("Home", "min"), ("End", "max")):
        page.keyboard.press(key)
        ends.append(float(handle.get_attribute("aria-valuetext")))
        assert handle.get_attribute(f"aria-value{bound}")
    assert ends == [0.005, 10]
    sent(page, "momentum", "a=1").locator(".lr-handle").focus()
    before = page.evaluate("scrollY")
    page.keyboard.press("End")
    page.wait_for_timeout(200)
    assert page.evaluate("scrollY") == before


def test_the_whole_screen_of_a_phone_is_wide_enough(browser, url):
    page = opened(browser, url, 390, 844)
    explorer = page.locator("#explorer-quadratic")
    explorer.get_by_role("button", name="Full screen").click()
    explorer.get_by_role("button", name="Leave full screen").wait_for()
    assert explorer.locator(".lr-stage").bounding_box()["width"] <= 390
    page.close()


def test_the_scanner_plays_and_takes_a_picture_of_ones_own(page, tmp_path):
    explorer = page.locator("[data-explorer=scanner]")
    explorer.get_by_role("button", name="Scan").click()
    explorer.get_by_role("button", name="Stop").click()
    Image.new("RGB", (30, 40), "white").save(tmp_path / "white.png")
    explorer.locator("input[type=file]").set_input_files(tmp_path / "white.png")
    explorer.get_by_text("30 × 40 pixels").wait_for()
    assert '"white.png"' in explorer.locator("code").text_content()
    chosen = explorer.get_by_label("picture", exact=True).locator("option:checked")
    assert chosen.text_content() == "your picture"
    (tmp_path / "no.png").write_text("no picture")
    explorer.locator("input[type=file]").set_input_files(tmp_path / "no.png")
    explorer.get_by_text("not a picture").wait_for()
    explorer.get_by_label("picture", exact=True).select_option(index=1)
    explorer.get_by_text("pixels, shrunk").wait_for()
    assert explorer.locator("input[type=file]").evaluate("e => e.files.length") == 0
    assert explorer.get_by_text("your picture").count() == 0


PLACE = re.compile(
    r'<div class="lr-explorer" data-explorer="(\w+)" id="explorer-(\w+)">\n\n'
    r'<img src="_static/explorers/(\w+)\.png" alt="([^"]{40,})">\n\n</div>'
)
HELPER = '<div class="lr-explorer" data-explorer="choose" id="explorer-choose">\n\n<p>'  # its fallback is a text


@pytest.mark.parametrize("path", sorted((ROOT / "book").glob("*.*[bd]")), ids=lambda path: path.name)
def test_an_explorers_place_in_a_source_is_complete(path):
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".ipynb":
        text = "\n\n".join("".join(cell["source"]) for cell in json.loads(text)["cells"])
    places = PLACE.findall(text)
    assert len(places) + text.count(HELPER) == text.count("lr-explorer"), "write it as CONTRIBUTING.md shows"
    assert all(name == anchor == picture and name in NAMES for name, anchor, picture, _ in places)
    assert len({name for name, *_ in places}) == len(places)


def test_without_scripts_there_is_a_figure_with_a_description(browser, url):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(url)
    for name in NAMES:
        picture = page.locator(f"[data-explorer={name}] img")
        assert picture.is_visible() and picture.evaluate("e => e.naturalWidth") > 400
        assert len(picture.get_attribute("alt")) >= 40
    context.close()


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_a_script_is_small_and_loads_nothing(path):
    text = path.read_text(encoding="utf-8")
    assert len(text.encode()) < 60_000
    loads = ("http://", "https://", "fetch(", "XMLHttpRequest", "import(", "WebSocket", "eval(")
    found = [word for word in loads if word in text.replace("http://www.w3.org/2000/svg", "")]
    assert not found
