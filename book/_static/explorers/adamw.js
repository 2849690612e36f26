/* AdamW's weights as a memory of its updates: what they are made of, how large they become, and how fast they turn. */
(function () {
  "use strict";
  const START = 0.1; // RMS of the initial weights
  const PARTS = 20; // of the run, a bar each
  const RATE = { min: 1e-5, max: 0.1 };
  const DECAY = { min: 1e-3, max: 10 };

  const SHAPES = {
    constant: () => 1,
    linear: (x) => 1 - x,
    cosine: (x) => (1 + Math.cos(Math.PI * x)) / 2,
  };

  const formulas = (LR.formulas.adamw = {
    /** What lrlib.ema_timescale tells. */
    timescale: (eta, lambda) => 1 / (eta * lambda),
    /** The rate of step t of a run of T steps. */
    rate: (shape, eta, t, T) => eta * SHAPES[shape](t / T),
    /** The share of the start, and of each update's target, in the weights after T steps. */
    shares(shape, eta, lambda, T) {
      const share = new Float64Array(T);
      let later = 1;
      for (let t = T - 1; t >= 0; t--) {
        const forgets = formulas.rate(shape, eta, t, T) * lambda;
        share[t] = forgets * later;
        later *= 1 - forgets;
      }
      return { start: later, share };
    },
    /** RMS of the weights, angle of a step with momentum β₁, and angle per step over many, under noise. */
    equilibrium: (eta, lambda, beta1) => ({
      rms: Math.sqrt(eta / (2 * lambda)),
      step: Math.sqrt((2 * eta * lambda * (1 - beta1)) / (1 + beta1)),
      pace: Math.sqrt(2 * eta * lambda),
    }),
    /** RMS of the weights after each of T steps, of independent updates of RMS one. */
    sizes(shape, eta, lambda, T, start) {
      const sizes = [start];
      let square = start * start;
      for (let t = 0; t < T; t++) {
        const rate = formulas.rate(shape, eta, t, T);
        square = (1 - rate * lambda) ** 2 * square + rate * rate;
        sizes.push(Math.sqrt(square));
      }
      return sizes;
    },
  });

  LR.explorer("adamw", (root) => {
    const changed = () => render();
    const controls = LR.html("div", { class: "lr-controls" });
    const plots = LR.html("div", { class: "lr-plots" });
    const below = LR.html("div", { class: "lr-plots" });
    root.append(controls, plots, below);
    const eta = LR.slider(controls, { key: "rate", label: "peak rate η", ...RATE, log: true, value: 1e-3 }, changed);
    const lambda = LR.slider(controls, { key: "decay", label: "weight decay λ", ...DECAY, log: true, value: 0.3 }, changed);
    const horizon = LR.slider(controls, {
      key: "steps", label: "steps T", min: 100, max: 100000, log: true, digits: 2, value: 10000, show: (x) => Math.round(x).toLocaleString("en"),
    }, changed);
    const shape = LR.select(controls, {
      key: "schedule", label: "schedule", value: "constant",
      choices: [["constant", "constant"], ["linear", "linear to zero"], ["cosine", "cosine to zero"]],
    }, changed);
    const beta1 = LR.slider(controls, { key: "beta1", label: "momentum β₁", min: 0, max: 0.99, step: 0.01, value: 0.9 }, changed);
    LR.button(controls, "PyTorch's defaults", () => {
      [eta.value, lambda.value] = [1e-3, 1e-2];
      render();
    });
    const map = LR.plot(plots, { title: "Rate and decay: drag the point", height: 280, left: 56 });
    const memory = LR.plot(plots, { title: "What the final weights are made of", height: 280, left: 46 });
    const size = LR.plot(below, { title: "Size of scale-invariant weights", height: 240, left: 56 });
    const angle = LR.plot(below, { title: "How far one step turns them", height: 240, left: 56 });
    const readout = LR.readout(root);

    function render() {
      const [e, l, T, b] = [eta.value, lambda.value, Math.round(horizon.value), beta1.value];
      const tau = formulas.timescale(e, l);
      const { start, share } = formulas.shares(shape.value, e, l, T);
      const balance = formulas.equilibrium(e, l, b);

      let draw = map.begin({
        x: { ...RATE, log: true, label: "peak rate η" }, y: { ...DECAY, log: true, label: "decay λ" },
        label: `Rate ${LR.show(e)} and decay ${LR.show(l)}: a memory of ${LR.show(tau)} steps, the run has ${T}.`,
      });
      const { x, y, width, height } = draw.inside;
      const corner = (rate, decay) => `${draw.X(rate)},${draw.Y(decay)}`;
      const decayAt = (steps, rate) => 1 / (steps * rate);
      const [low, high] = [RATE.min, RATE.max];
      draw.layer.append(
        LR.svg("rect", { class: "lr-zone-creep", x, y, width, height }),
        LR.svg("polygon", {
          class: "lr-zone-zigzag",
          points: [corner(low, decayAt(T, low)), corner(high, decayAt(T, high)), corner(high, DECAY.max * 1e6), corner(low, DECAY.max * 1e6)].join(" "),
        }));
      draw.line([low, high], [decayAt(T, low), decayAt(T, high)], "lr-c3 lr-thick");
      draw.line([low, high], [decayAt(tau, low), decayAt(tau, high)], "lr-c2 lr-dashed");
      draw.line([low, high], [(l / e) * low, (l / e) * high], "lr-c1 lr-dotted");
      draw.note(low, DECAY.min, "keeps its start", "", "start", 6, -8);
      draw.note(high, Math.sqrt(DECAY.max * decayAt(T, high)), "forgets it", "", "end", -6, 4);
      draw.front.append(LR.handle(map, {
        label: "Peak rate and weight decay", x: e, y: l, nudge: [0.05 * e, 0.05 * l],
        text: `rate ${LR.show(e)}, decay ${LR.show(l)}, memory ${LR.show(tau)} steps`,
      }, (p, q) => {
        eta.value = LR.round(p, 3);
        lambda.value = LR.round(q, 3);
        render();
      }));

      const edges = LR.range(PARTS + 1, (k) => Math.round((k * T) / PARTS));
      const parts = LR.range(PARTS, (k) => share.subarray(edges[k], edges[k + 1]).reduce((sum, value) => sum + value, 0));
      const tallest = 100 * Math.max(start, ...parts);
      draw = memory.begin({
        x: { min: -1.6, max: PARTS + 0.2, ticks: [], label: "start, then the run in twentieths" }, y: { min: 0, max: 1.1 * tallest, label: "share, %" },
        label: `The start makes up ${LR.show(100 * start)}% of the final weights, the last twentieth of the run ${LR.show(100 * parts[PARTS - 1])}%.`,
      });
      const bar = (from, value, css) => draw.layer.append(LR.svg("rect", {
        class: `lr-dot ${css}`, x: draw.X(from), y: draw.Y(100 * value), width: draw.X(0.8) - draw.X(0), height: draw.Y(0) - draw.Y(100 * value),
      }));
      bar(-1.2, start, "lr-c2");
      parts.forEach((value, k) => bar(k + 0.1, value, "lr-c1"));

      const sizes = formulas.sizes(shape.value, e, l, T, START);
      const shown = LR.range(201, (k) => Math.round((k * T) / 200));
      const level = (t) => formulas.equilibrium(formulas.rate(shape.value, e, t, T), l, b);
      const at = shown.map((t) => sizes[t]);
      draw = size.begin({
        x: { min: 0, max: T, label: "step t", ticks: [0, T / 2, T] },
        y: { min: Math.min(...at, balance.rms) / 2, max: Math.max(...at, balance.rms) * 2, log: true, label: "RMS of θ" },
        label: `The size goes from ${START} to ${LR.show(sizes[T])}; the equilibrium is ${LR.show(balance.rms)}.`,
      });
      draw.line(shown, shown.map((t) => level(t).rms || NaN), "lr-c3 lr-dashed");
      draw.line(shown, at, "lr-c1");

      const momentum = Math.sqrt((1 - b) / (1 + b));
      const degrees = (radians) => (180 / Math.PI) * radians;
      const before = shown.filter((t) => t < T); // at T the rate may be zero
      const turns = before.map((t, k) => degrees(Math.atan((formulas.rate(shape.value, e, t, T) * momentum) / at[k])));
      const settled = before.map((t) => degrees(level(t).step));
      draw = angle.begin({
        x: { min: 0, max: T, label: "step t", ticks: [0, T / 2, T] },
        y: { min: Math.min(...turns, ...settled) / 2, max: Math.max(...turns, ...settled) * 2, log: true, label: "degrees" },
        label: `A step turns the weights by ${LR.show(turns[0])} degrees at first; in equilibrium by ${LR.show(degrees(balance.step))}.`,
      });
      draw.line(before, settled, "lr-c3 lr-dashed");
      draw.line(before, turns, "lr-c1");

      readout.textContent =
        `Memory τ = 1/(ηλ) = ${LR.show(tau)} steps, ${LR.show(tau / T, 2)} of the run. Of the start ${LR.show(100 * start, 2)}% is left. ` +
        (e * l > 0.1 * (1 - b) ? "Here ηλ is not small beside 1 − β₁: the formula of the equilibrium does not hold. "
          : `In equilibrium at the peak rate the weights have an RMS of ${LR.show(balance.rms)}, one step turns them by ${LR.show(degrees(balance.step), 2)} degrees, ` +
            `and many by ${LR.show(degrees(balance.pace), 2)} times the root of their number. `) +
        `Along the dashed line the memory stays, along the dotted one the size.`;
    }
    return render;
  });
})();
