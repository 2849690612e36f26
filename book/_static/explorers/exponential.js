/* Weight decay as a growing rate: two runs on a loss that does not see the length of θ, and whether they coincide. */
(function () {
  "use strict";
  const STEPS = 400;

  /** A loss of the direction only, other at each step like that of mini-batches: the quotient θᵀAθ / θᵀθ; its gradient. */
  function gradient(t, [x, y]) {
    const angle = 0.9 * Math.sin(2.4 * t) + 0.5 * Math.sin(0.37 * t * t);
    const [c, s] = [Math.cos(2 * angle), Math.sin(2 * angle)];
    const square = x * x + y * y;
    const [ax, ay] = [-c * x - s * y, -s * x + c * y];
    const value = (x * ax + y * ay) / square;
    return [(2 * (ax - value * x)) / square, (2 * (ay - value * y)) / square];
  }

  const formulas = (LR.formulas.exponential = {
    gradient,
    /** What lrlib.exponential_equivalent tells; null where the roots are complex or not positive. */
    equivalent(lr, decay, momentum) {
      const [product, root] = [decay * lr, Math.sqrt(momentum)];
      const limit = (1 - root) ** 2;
      if (product > limit || product >= 1) return null;
      const discriminant = (limit - product) * ((1 + root) ** 2 - product);
      const d = (2 * product) / (1 - momentum + product + Math.sqrt(discriminant));
      const logAlpha = Math.log1p(-d);
      return {
        alpha: 1 - d, growth: Math.exp(-2 * logAlpha), initialMomentum: -d / ((1 - d) * lr),
        rate: (t) => lr * Math.exp(-(2 * t + 1) * logAlpha),
      };
    },
    /** Points of v ← βv + g + λθ, θ ← θ − η_t v; the buffer starts at f times θ_0. */
    run(rate, decay, momentum, f, steps) {
      let theta = [1, 0.2];
      let v = theta.map((x) => f * x);
      const points = [theta];
      for (let t = 0; t < steps; t++) {
        const g = gradient(t, theta);
        v = v.map((x, k) => momentum * x + g[k] + decay * theta[k]);
        theta = theta.map((x, k) => x - rate(t) * v[k]);
        points.push(theta);
      }
      return points;
    },
  });

  const angles = (points) => {
    let turns = 0;
    let last = 0;
    return points.map(([x, y]) => {
      const angle = Math.atan2(y, x);
      if (angle - last > Math.PI) turns--;
      if (angle - last < -Math.PI) turns++;
      last = angle;
      return ((angle + 2 * Math.PI * turns) * 180) / Math.PI;
    });
  };

  /** Between two directions, in degrees, at most 180. */
  const between = (a, b) => Math.abs(((((a - b) % 360) + 540) % 360) - 180);

  LR.explorer("exponential", (root) => {
    const changed = () => render();
    const controls = LR.html("div", { class: "lr-controls" });
    const plots = LR.html("div", { class: "lr-plots" });
    root.append(controls, plots);
    const lr = LR.slider(controls, { key: "rate", label: "rate η", min: 0.01, max: 1, log: true, value: 0.1 }, changed);
    const decay = LR.slider(controls, { key: "decay", label: "weight decay λ", min: 1e-4, max: 0.5, log: true, value: 0.02 }, changed);
    const momentum = LR.slider(controls, { key: "momentum", label: "momentum β", min: 0, max: 0.95, step: 0.01, value: 0.8 }, changed);
    const start = LR.checkbox(controls, { key: "start", label: "start the momentum as the theorem asks", value: true }, changed);
    LR.button(controls, "η 0.1, λ 5e-4, β 0.9", () => {
      [lr.value, decay.value, momentum.value] = [0.1, 5e-4, 0.9];
      render();
    });
    const rates = LR.plot(plots, { title: "Rate", height: 240, left: 56 });
    const lengths = LR.plot(plots, { title: "Length of θ", height: 240, left: 56 });
    const wide = LR.html("div", { class: "lr-plots lr-one" });
    root.append(wide);
    const directions = LR.plot(wide, { title: "Direction of θ, all that the loss sees (wide: decay; thin: growing rate)", height: 260, left: 56 });
    const readout = LR.readout(root);
    const t = LR.range(STEPS + 1);
    const span = (values) => ({ min: Math.min(...values), max: Math.max(...values) });

    function render() {
      const [eta, lambda, beta] = [lr.value, decay.value, momentum.value];
      const same = formulas.equivalent(eta, lambda, beta);
      for (const plot of [rates, lengths, directions]) plot.box.hidden = !same;
      if (!same) {
        readout.textContent =
          `λη = ${LR.show(lambda * eta)} is above (1 − √β)² = ${LR.show((1 - Math.sqrt(beta)) ** 2)}: the roots are complex, and no ` +
          "exponential rate gives the same functions. Lower the decay, the rate or the momentum.";
        return;
      }
      const plain = formulas.run(() => eta, lambda, beta, 0, STEPS);
      const grown = formulas.run(same.rate, 0, beta, start.value ? same.initialMomentum : 0, STEPS);
      const norms = [plain, grown].map((points) => points.map((point) => Math.hypot(...point)));
      const [a, b] = [angles(plain), angles(grown)];
      const apart = Math.max(...a.map((angle, k) => between(angle, b[k])));

      const grows = t.map(same.rate);
      let draw = rates.begin({
        x: { min: 0, max: STEPS, label: "step t" }, y: { min: Math.min(eta, grows[0]) / 1.3, max: Math.max(grows[STEPS], eta) * 1.6, log: true, label: "rate" },
        label: `The constant rate ${LR.show(eta)}, and the one that grows to ${LR.show(grows[STEPS])} in ${STEPS} steps.`,
      });
      draw.line([0, STEPS], [eta, eta], "lr-c2 lr-wide");
      draw.line(t, grows, "lr-c1");
      draw.note(STEPS, eta, "with decay", "", "end", -4, -8);
      draw.note(t[160], grows[160], "no decay", "", "end", -8, -4);
      draw = lengths.begin({
        x: { min: 0, max: STEPS, label: "step t" }, y: { min: span(norms.flat()).min / 1.2, max: span(norms.flat()).max * 1.2, log: true, label: "‖θ‖" },
        label: `The length of the weights ends at ${LR.show(norms[0][STEPS])} with decay, at ${LR.show(norms[1][STEPS])} with the growing rate.`,
      });
      draw.line(t, norms[0], "lr-c2 lr-wide");
      draw.line(t, norms[1], "lr-c1");
      draw.note(STEPS, norms[0][STEPS], "with decay", "", "end", -4, -10);
      draw.note(t[160], norms[1][160], "no decay", "", "end", -8, -6);
      const turn = span([...a, ...b]);
      draw = directions.begin({
        x: { min: 0, max: STEPS, label: "step t" }, y: { min: turn.min - 5, max: turn.max + 5, label: "angle of θ, degrees" },
        label: `The directions of the two runs differ by at most ${LR.show(apart)} degrees.`,
      });
      draw.line(t, a, "lr-c2 lr-wide");
      draw.line(t, b, "lr-c1");

      readout.textContent =
        `α = ${LR.show(same.alpha, 6)}: the rate grows by a factor of ${LR.show(same.growth, 8)} a step, ${LR.show(same.growth ** 391, 6)} over 391 steps. ` +
        `The momentum buffer starts at ${LR.show(start.value ? same.initialMomentum : 0)} times θ. ` +
        `The directions differ by at most ${LR.show(apart, 2)} degrees: ` + (apart < 1e-6 ? "the two runs coincide."
          : start.value || beta === 0 ? "they would coincide, but rounding drives them apart." : "the two runs come apart.");
    }
    return render;
  });
})();
