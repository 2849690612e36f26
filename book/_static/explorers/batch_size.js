/* Batch size: steps against examples on a noisy quadratic, and the best rate of a batch. */
(function () {
  "use strict";
  const DIRECTIONS = 12;
  const LARGEST = 4096;
  const SIZES = LR.range(13, (k) => 2 ** k);
  const LIMIT = 200000; // steps
  /** 1, 2 and 5 times powers of ten, for an axis of few decades. */
  const ticks = (min, max) => LR.range(16, (k) => k - 5).flatMap((k) => [1, 2, 5].map((x) => LR.round(x * 10 ** k))).filter((x) => x >= min && x <= max);
  const axis = (min, max, label) => ({ min, max, label, log: true, ticks: ticks(min, max) });
  const sum = (values) => values.reduce((a, b) => a + b, 0);

  const formulas = (LR.formulas.batch_size = {
    /** Curvatures from 1/κ to 1, all with the same share of the loss, and the noise of one example along them. */
    problem(kappa, noise) {
      const h = LR.range(DIRECTIONS, (k) => kappa ** (k / (DIRECTIONS - 1) - 1));
      return { h, v: h.map((x) => 1 / x), variance: h.map((x) => noise * x) };
    },
    /** The largest rate, and the noise scale, at mean squares v. */
    scale({ h, variance }, v) {
      const curved = sum(h.map((x, k) => x ** 3 * v[k]));
      return [sum(h.map((x, k) => x * x * v[k])) / curved, sum(h.map((x, k) => x * variance[k])) / curved];
    },
    rate([largest, noise], batch) {
      return largest / (1 + noise / batch);
    },
    /** The expected loss before and after each step, all at their best rates, until it is at the target. */
    losses(problem, batch, target) {
      const { h, variance } = problem;
      const v = problem.v.slice();
      const found = [sum(h.map((x, k) => x * v[k])) / 2];
      while (found[found.length - 1] > target && found.length <= LIMIT) {
        let [signal, curved, noisy, loss] = [0, 0, 0, 0];
        for (let k = 0; k < DIRECTIONS; k++) {
          signal += h[k] * h[k] * v[k];
          curved += h[k] ** 3 * v[k];
          noisy += h[k] * variance[k];
        }
        const rate = signal / (curved + noisy / batch);
        for (let k = 0; k < DIRECTIONS; k++) {
          v[k] = (1 - rate * h[k]) ** 2 * v[k] + (rate * rate * variance[k]) / batch;
          loss += (h[k] * v[k]) / 2;
        }
        found.push(loss);
      }
      return found;
    },
    /** Steps to the target, the last one in part. */
    steps(losses, target) {
      const [before, after] = losses.slice(-2);
      return losses.length - 2 + Math.log(before / target) / Math.log(before / after);
    },
    /** S_min and E_min of S = S_min + E_min / B, by least squares of relative errors. */
    fit(sizes, steps) {
      const [p, q] = [steps.map((s) => 1 / s), steps.map((s, k) => 1 / (s * sizes[k]))];
      const dot = (a, b) => sum(a.map((x, k) => x * b[k]));
      const [pp, pq, qq, p1, q1] = [dot(p, p), dot(p, q), dot(q, q), sum(p), sum(q)];
      const det = pp * qq - pq * pq;
      return [(p1 * qq - q1 * pq) / det, (q1 * pp - p1 * pq) / det];
    },
  });

  LR.explorer("batch_size", (root) => {
    const changed = () => render();
    const controls = LR.html("div", { class: "lr-controls" });
    const plots = LR.html("div", { class: "lr-plots" });
    const below = LR.html("div", { class: "lr-plots lr-one" });
    root.append(controls, plots, below);
    const batch = LR.slider(controls, { key: "batch", label: "batch size B", min: 1, max: LARGEST, log: true, value: 32, show: (x) => String(Math.round(x)) }, changed);
    const noise = LR.slider(controls, { key: "noise", label: "noise of one example", min: 0.3, max: 30, log: true, value: 10 }, changed);
    const kappa = LR.slider(controls, { key: "condition", label: "condition number κ", min: 3, max: 50, log: true, digits: 2, value: 50 }, changed);
    const share = LR.slider(controls, { key: "target", label: "target, share of the loss", min: 0.05, max: 0.5, log: true, digits: 2, value: 0.1 }, changed);
    LR.button(controls, "Critical batch", () => {
      batch.value = Math.round(critical);
      render();
    });
    const trade = LR.plot(plots, { title: "Examples and updates: drag", height: 290, left: 60 });
    const rates = LR.plot(plots, { title: "Best rate of the first step", height: 290, left: 56 });
    const curve = LR.plot(below, { title: "Loss against examples: this batch (bold), 1, and the largest (thin)", height: 220, left: 56 });
    const readout = LR.readout(root);
    let critical = 1;

    function render() {
      const problem = formulas.problem(kappa.value, noise.value);
      const B = Math.round(batch.value);
      const start = sum(problem.h.map((x, k) => x * problem.v[k])) / 2;
      const target = share.value * start;
      const paths = SIZES.map((size) => formulas.losses(problem, size, target));
      const steps = paths.map((path) => formulas.steps(path, target));
      const [fewest, least] = formulas.fit(SIZES, steps);
      critical = Math.min(LARGEST, Math.max(1, least / fewest));
      const mine = formulas.losses(problem, B, target);
      const S = formulas.steps(mine, target);
      const scale = formulas.scale(problem, problem.v);
      const rate = formulas.rate(scale, B);
      const examples = SIZES.map((size, k) => size * steps[k]);

      const grid = LR.range(97, (k) => 2 ** (k / 8));
      let draw = trade.begin({
        x: { min: steps[steps.length - 1] / 1.5, max: steps[0] * 1.6, log: true, label: "updates to the target" },
        y: axis(examples[0] / 1.8, examples[examples.length - 1] * 1.6, "examples"),
        label: `Examples against updates for batches from 1 to ${LARGEST}. At ${B}: ${LR.show(S)} updates, ${LR.show(B * S)} examples.`,
      });
      draw.line(grid.map((size) => fewest + least / size), grid.map((size) => fewest * size + least), "lr-c1");
      draw.dots(steps, examples, "lr-c1", 3.5);
      draw.dots([2 * fewest], [2 * least], "lr-c3", 6);
      draw.note(2 * fewest, 2 * least, "critical", "", "start", 9, -6);
      draw.note(steps[0], examples[0], "B = 1", "", "end", -2, -9);
      draw.note(steps[12], examples[12], `B = ${LARGEST}`, "", "start", 9, 8);
      draw.front.append(LR.handle(trade, {
        label: "Batch size", x: S, y: B * S, nudge: [0.5 * S, Math.max(0.25 * B, 1) * S],
        text: `batch ${B}, ${LR.show(S)} updates, ${LR.show(B * S)} examples`,
      }, (x, y) => {
        batch.value = Math.round(y / x);
        render();
      }));

      const curveOf = grid.map((size) => formulas.rate(scale, size));
      draw = rates.begin({
        x: { min: 1, max: LARGEST, log: true, label: "batch size B" }, y: axis(curveOf[0] / 1.5, scale[0] * 2, "rate η"),
        label: `The best rate rises with the batch and levels off at ${LR.show(scale[0])}; at ${B} it is ${LR.show(rate)}.`,
      });
      draw.line(grid, grid.map((size) => (scale[0] * size) / scale[1]), "lr-soft lr-dashed");
      draw.line([1, LARGEST], [scale[0], scale[0]], "lr-soft lr-dashed");
      draw.line(grid, curveOf, "lr-c1");
      if (scale[1] > 1 && scale[1] < LARGEST) draw.vertical(scale[1], "lr-c3 lr-thin");
      draw.note(Math.max(1, scale[1]), curveOf[0] / 1.5, "noise scale", "", "start", 5, -8);
      draw.dots([B], [rate], "lr-c2", 6);

      draw = curve.begin({
        x: { min: 1, max: examples[examples.length - 1] * 1.2, log: true, label: "examples" }, y: axis(target / 1.1, start * 1.1, "loss"),
        label: `Loss against examples; at batch ${B} the target is reached after ${LR.show(B * S)} examples.`,
      });
      const against = (path, size, css) => draw.line(path.map((_, k) => Math.max(1, k * size)), path, css);
      against(paths[0], 1, "lr-c1 lr-thin");
      against(paths[12], LARGEST, "lr-c3 lr-thin");
      against(mine, B, "lr-c2 lr-thick");
      draw.line([1, examples[examples.length - 1] * 1.2], [target, target], "lr-soft lr-dashed");

      const ratio = B / (least / fewest);
      const regime = ratio < 0.25 ? "noise limits the steps: twice the batch nearly halves the updates at little cost in examples."
        : ratio > 4 ? "curvature limits the steps: twice the batch nearly doubles the examples and saves few updates."
          : "noise and curvature both count: this is the region of the critical batch.";
      readout.textContent =
        `B = ${B}: first rate ${LR.show(rate)}, ${LR.show((100 * rate) / scale[0], 2)}% of the largest; ${LR.show(S)} updates and ${LR.show(B * S)} examples. ` +
        `Critical batch ${LR.show(least / fewest)}, noise scale at the start ${LR.show(scale[1])}. Here ${regime}`;
    }
    return render;
  });
})();
