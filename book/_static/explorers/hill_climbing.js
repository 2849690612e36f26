/* A rate that climbs: φ(η) of the next step, the two probes, and the rate step by step, on a noisy quadratic. */
(function () {
  "use strict";
  const STEPS = 200;
  const BEGUN = 6; // steps taken at first, so that the rate is seen to climb
  const CURVATURES = [0.1, 1];
  const START = [4, 1.5];
  const RATES = { max: 20, log: true };

  const sum = (f) => f(0) + f(1);

  const formulas = (LR.formulas.hill_climbing = {
    /** Where batch t has its minimum, at noise 1: two numbers like random ones, of mean 0 and variance 1. */
    batch: (t) => [1, 2].map((k) => {
      const x = Math.sin(12.9898 * t + 78.233 * k) * 43758.5453;
      return (x - Math.floor(x) - 0.5) * Math.sqrt(12);
    }),
    loss: (theta, at) => sum((k) => (CURVATURES[k] * (theta[k] - at[k]) ** 2) / 2),
    gradient: (theta, at) => CURVATURES.map((h, k) => h * (theta[k] - at[k])),
    /** φ(η), the judge's loss after a step of rate η. */
    phi: ({ theta, g, judge }, rate) => formulas.loss(theta.map((x, k) => x - rate * g[k]), judge),
    /** Where φ is lowest; below zero where standing still is best. */
    best: ({ theta, g, judge }) =>
      sum((k) => CURVATURES[k] * (theta[k] - judge[k]) * g[k]) / sum((k) => CURVATURES[k] * g[k] ** 2),
    /** All steps: where each begins, its gradient, its judge, the rate before it and whether the rule raises that. */
    run(rate, epsilon, noise, own, steps) {
      const at = (t) => formulas.batch(t).map((x) => noise * x);
      let theta = START;
      return LR.range(steps + 1, (t) => {
        const step = { theta, g: formulas.gradient(theta, at(t)), judge: at(own ? t : t + 0.5), rate };
        step.up = formulas.phi(step, rate * (1 + epsilon)) < formulas.phi(step, rate * (1 - epsilon));
        rate *= step.up ? 1 + epsilon : 1 - epsilon;
        theta = theta.map((x, k) => x - rate * step.g[k]);
        return step;
      });
    },
  });

  LR.explorer("hill_climbing", (root) => {
    const changed = () => render();
    const controls = LR.html("div", { class: "lr-controls" });
    const plots = LR.html("div", { class: "lr-plots" });
    root.append(controls, plots);
    const rate = LR.slider(controls, { key: "rate", label: "rate η to begin with", min: 0.005, max: 10, log: true, value: 0.05 }, changed);
    const epsilon = LR.slider(controls, { key: "epsilon", label: "size of the probes ε", min: 0.01, max: 0.5, log: true, digits: 2, value: 0.2 }, changed);
    const noise = LR.slider(controls, { key: "noise", label: "noise of the batches σ", min: 0, max: 2, step: 0.05, value: 0.5 }, changed);
    const judge = LR.select(controls, {
      key: "judge", label: "who judges", value: "own", choices: [["own", "the batch of the step"], ["other", "another batch"]],
    }, changed);
    const t = LR.slider(controls, { key: "t", label: "steps taken", min: 0, max: STEPS, step: 1, value: BEGUN }, changed);
    const buttons = LR.html("div", {});
    controls.append(buttons);
    for (const [count, label] of [[1, "One step"], [10, "Ten steps"]]) {
      LR.button(buttons, label, () => {
        t.value += count;
        render();
      });
    }
    const curve = LR.plot(plots, { title: "Loss after the step: drag its rate", height: 270, left: 56 });
    const path = LR.plot(plots, { title: "The rate; dots: the best of each step", height: 270, left: 56 });
    const readout = LR.readout(root);

    function render() {
      const steps = formulas.run(rate.value, epsilon.value, noise.value, judge.value === "own", STEPS);
      const now = steps[t.value];
      const phi = (eta) => formulas.phi(now, eta);
      const best = formulas.best(now);
      const [still, low] = [phi(0), phi(Math.max(best, 0))];
      const reach = Math.max(still - low, 0.05 * still);
      const probes = [1 - epsilon.value, 1 + epsilon.value].map((factor) => factor * now.rate);
      const least = Math.min(0.005, 0.9 * probes[0]);

      let draw = curve.begin({
        x: { min: least, ...RATES, label: "rate η of the step" }, y: { min: low - 0.15 * reach, max: still + 0.5 * reach, label: "loss after the step" },
        label: `φ is lowest at a rate of ${LR.show(best)}; the rate is ${LR.show(now.rate)}, and its probes say ${now.up ? "raise" : "lower"} it.`,
      });
      const etas = LR.range(241, (k) => least * (RATES.max / least) ** (k / 240));
      draw.line(etas, etas.map(phi), "lr-c1");
      if (best > 0) draw.vertical(best, "lr-soft lr-dashed");
      draw.line(probes, probes.map(phi), "lr-c2 lr-thick");
      draw.dots(probes, probes.map(phi), "lr-c2", 5);
      draw.front.append(LR.handle(curve, {
        label: "Rate", x: Math.min(now.rate, RATES.max), y: low - 0.15 * reach, nudge: [0.1 * now.rate, 0], text: LR.show(now.rate),
      }, (x) => {
        [rate.value, t.value] = [LR.round(x), 0];
        render();
      }));

      const taken = steps.slice(0, t.value + 1);
      draw = path.begin({
        x: { min: 0, max: STEPS, label: "step t" }, y: { min: Math.min(0.0005, ...taken.map((step) => step.rate)), ...RATES, label: "rate η" },
        label: `After ${t.value} steps the rate has gone from ${LR.show(rate.value)} to ${LR.show(now.rate)}.`,
      });
      draw.dots(taken.map((step, k) => k), taken.map(formulas.best), "lr-faint", 2.5);
      draw.line(taken.map((step, k) => k), taken.map((step) => step.rate), "lr-c2");

      readout.textContent =
        `Step ${t.value}: the probe at ${LR.show(probes[1])} gives ${LR.show(phi(probes[1]), 5)}, the one at ${LR.show(probes[0])} gives ` +
        `${LR.show(phi(probes[0]), 5)}: the rule ${now.up ? "raises" : "lowers"} the rate to ${LR.show(probes[now.up ? 1 : 0])}. ` +
        `The best rate of this step is ${best > 0 ? LR.show(best) : "zero, standing still"}. The loss without noise is ${LR.show(formulas.loss(now.theta, [0, 0]))}.`;
    }
    return render;
  });
})();
