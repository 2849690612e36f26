/* Rate on a quadratic: L = (h_min x² + h_max y²) / 2, and the path of gradient descent on it. */
(function () {
  "use strict";
  const STEPS = 60;
  const FIELD = [[-2.5, 2.5], [-1.4, 1.4]]; // where a path may start
  const FASTEST = 2; // rate

  const formulas = (LR.formulas.quadratic = {
    limit: (h) => 2 / h,
    /** Rate and factor per step of the best constant rate. */
    best: (low, high) => [2 / (low + high), (high - low) / (high + low)],
    /** Points before the first update and after each: [[x, y], ...]. */
    path(low, high, start, rate, steps) {
      const points = [start.slice()];
      for (let t = 0; t < steps; t++) {
        const [x, y] = points[t];
        points.push([x - rate * (low * x), y - rate * (high * y)]);
      }
      return points;
    },
    loss: (low, high, [x, y]) => (low * x * x + high * y * y) / 2,
  });

  LR.explorer("quadratic", (root) => {
    const start = [
      LR.clamp(LR.state(root, "x", -2, () => start[0]), ...FIELD[0]), LR.clamp(LR.state(root, "y", 0.8, () => start[1]), ...FIELD[1]),
    ];
    const changed = () => render();
    const controls = LR.html("div", { class: "lr-controls" });
    const plots = LR.html("div", { class: "lr-plots" });
    root.append(controls, plots);
    const rate = LR.slider(controls, { key: "rate", label: "rate η", min: 0, max: FASTEST, step: 0.002, value: 0.17 }, changed);
    const high = LR.slider(controls, { key: "high", label: "steepest h_max", min: 1, max: 20, step: 0.1, value: 10 }, changed);
    const low = LR.slider(controls, { key: "low", label: "flattest h_min", min: 0.05, max: 1, step: 0.01, value: 0.5 }, changed);
    LR.button(controls, "Best constant rate", () => {
      rate.value = formulas.best(low.value, high.value)[0];
      render();
    });
    const map = LR.plot(plots, { title: "Path: drag the start", height: 280 });
    const curve = LR.plot(plots, { title: "Loss after each step", height: 280, left: 60 });
    const strip = LR.plot(root, { title: "Where the rate stands: drag along the strip", height: 84 });
    const readout = LR.readout(root);

    strip.svg.classList.add("lr-drag-x");
    const follow = (event) => {
      rate.value = LR.round(strip.at(event)[0], 3);
      render();
    };
    strip.svg.addEventListener("pointerdown", follow);
    LR.drag(strip.svg, follow);

    function render() {
      const [h, l, eta] = [high.value, low.value, rate.value];
      const points = formulas.path(l, h, start, eta, STEPS);
      const losses = points.map((point) => formulas.loss(l, h, point));
      const limit = formulas.limit(h);
      const factors = [1 - eta * h, 1 - eta * l];
      const most = start[1] ? limit : formulas.limit(l); // without a steep part only the flat one can grow
      const state = eta === 0 || !(start[0] || start[1]) ? "nothing moves"
        : `the path ${start[1] ? "" : "has no steep part and "}${eta > most ? "diverges" : eta === most ? "neither falls nor grows" : "converges"}`;

      let draw = map.begin({
        x: { min: -2.6, max: 2.6, label: "flat direction x" }, y: { min: -1.5, max: 1.5, label: "steep direction y" },
        label: `Contours of the loss with the path of ${STEPS} steps from (${LR.show(start[0])}, ${LR.show(start[1])}); ${state}.`,
      });
      for (let k = 1; k <= 8; k++) {
        const level = 0.06 * k * k * (h / 10 + 0.3);
        draw.layer.append(LR.svg("ellipse", {
          class: "lr-contour", cx: draw.X(0), cy: draw.Y(0),
          rx: draw.X(Math.sqrt((2 * level) / l)) - draw.X(0), ry: draw.Y(0) - draw.Y(Math.sqrt((2 * level) / h)),
        }));
      }
      const [xs, ys] = [0, 1].map((axis) => points.map((point) => point[axis]));
      draw.line(xs, ys, "lr-c1");
      draw.dots(xs, ys, "lr-c1", 2.5);
      draw.front.append(LR.handle(map, {
        label: "Start of the path", x: start[0], y: start[1], nudge: [0.1, 0.1],
        text: `x ${LR.show(start[0])}, y ${LR.show(start[1])}`,
      }, (x, y) => {
        start[0] = LR.round(LR.clamp(x, ...FIELD[0]), 3);
        start[1] = LR.round(LR.clamp(y, ...FIELD[1]), 3);
        render();
      }));

      draw = curve.begin({
        x: { min: 0, max: STEPS, label: "step t" }, y: { min: 1e-8, max: 1e6, log: true, label: "loss" },
        label: `The loss goes from ${LR.show(losses[0])} to ${LR.show(losses[STEPS])} in ${STEPS} steps.`,
      });
      draw.line(LR.range(STEPS + 1), losses, "lr-c1");

      const end = Math.max(1.3 * limit, Math.min(FASTEST, 1.05 * eta));
      draw = strip.begin({ x: { min: 0, max: end, label: "rate η" }, y: { min: 0, max: 1, ticks: [] }, label: `Rate ${LR.show(eta)}, limit ${LR.show(limit)}.` });
      for (const [from, to, zone] of [[0, 1 / h, "creep"], [1 / h, limit, "zigzag"], [limit, end, "diverge"]]) {
        draw.band(from, to, `lr-zone-${zone}`);
        if (draw.X(to) - draw.X(from) > 56) draw.note(from, 0.5, `${zone}s`, "", "start", 6, 4);
      }
      draw.vertical(eta, "lr-c1 lr-thick");

      readout.textContent =
        `A step multiplies the steep coordinate by 1 − ηh_max = ${LR.show(factors[0])} and the flat one by 1 − ηh_min = ` +
        `${LR.show(factors[1])}. The limit 2/h_max is ${LR.show(limit)}: ${state}. ` +
        `The best constant rate is ${LR.show(formulas.best(l, h)[0])}, with a factor of ${LR.show(formulas.best(l, h)[1])}.`;
    }
    return render;
  });
})();
