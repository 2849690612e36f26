/* The edge of stability: a valley that gets sharper along its floor, L = y x² / 2 − p y, and a small network, whose
   runs are data (edge_data.js), measured by tools/explorers.py. */
(function () {
  "use strict";
  const formulas = (LR.formulas.edge_of_stability = {
    limit: (rate) => 2 / rate,
    /** Steps to draw: a swing takes about 1/η² of them. */
    steps: (rate) => Math.min(8000, 100 * Math.round(3.2 / rate ** 2)),
    loss: (pull, [x, y]) => (y * x * x) / 2 - pull * y,
    /** Points before the first update of gradient descent and after each: [[x, y], ...]. */
    path(pull, start, rate, steps) {
      const points = [start.slice()];
      for (let t = 0; t < steps; t++) {
        const [x, y] = points[t];
        points.push([x - rate * (x * y), y - rate * ((x * x) / 2 - pull)]);
      }
      return points;
    },
  });

  const ACROSS = [0.005, 0.3];
  const ALONG = [0.85, 1.05];

  LR.explorer("edge_of_stability", (root) => {
    const { every, runs } = LR.edge;
    const changed = () => render();
    const controls = LR.html("div", { class: "lr-controls" });
    const plots = LR.html("div", { class: "lr-plots" });
    const below = LR.html("div", { class: "lr-plots lr-one" });
    root.append(controls, plots, below);
    const system = LR.select(controls, { key: "system", label: "system", value: "valley", choices: [["valley", "two parameters"], ["network", "a small network"]] }, changed);
    const rate = LR.slider(controls, { key: "rate", label: "rate η", min: 0.1, max: 0.8, log: true, value: 0.4 }, changed);
    const pull = LR.slider(controls, { key: "pull", label: "pull p", min: 5e-4, max: 0.01, log: true, digits: 2, value: 0.002 }, changed);
    const plane = LR.plot(plots, { title: "The path: drag the start", height: 280, left: 46 });
    const sharp = LR.plot(plots, { title: "Sharpness, and the line 2/η", height: 280, left: 46 });
    const curve = LR.plot(below, { title: "Loss", height: 200, left: 60 });
    const readout = LR.readout(root);
    // Where to start: across the valley, and along it as a share of the limit 2/η.
    const start = [
      LR.clamp(LR.state(root, "x", 0.06, () => start[0]), ...ACROSS), LR.clamp(LR.state(root, "share", 0.97, () => start[1]), ...ALONG),
    ];

    function line(draw, limit, end) {
      draw.line([0, end], [limit, limit], "lr-c2 lr-dashed");
      draw.note(end, limit, `2/η = ${LR.show(limit)}`, "lr-note-c2", "end", -4, -6);
    }

    function valley() {
      const [eta, p] = [rate.value, pull.value];
      const [limit, steps] = [formulas.limit(eta), formulas.steps(eta)];
      const points = formulas.path(p, [start[0], start[1] * limit], eta, steps);
      const gone = points.findIndex(([x, y]) => y < 0 || !(Math.abs(x) < 1e6));
      const kept = gone < 0 ? points : points.slice(0, gone);
      const t = LR.range(kept.length);
      const [xs, ys] = [0, 1].map((axis) => kept.map((point) => point[axis]));
      const losses = kept.map((point) => formulas.loss(p, point));
      const wide = 1.15 * Math.max(0.1, ...xs.map(Math.abs));
      const y = { min: Math.min(0.93 * limit, 0.98 * Math.min(...ys)), max: Math.max(1.07 * limit, 1.02 * Math.max(...ys)), label: "sharpness y" };

      let draw = plane.begin({
        x: { min: -wide, max: wide, label: "across the valley x" }, y,
        label: `The path from x = ${LR.show(start[0])}, y = ${LR.show(start[1] * limit)}: y is the sharpness of the valley's floor, ${LR.show(limit)} the limit.`,
      });
      draw.line([-wide, wide], [limit, limit], "lr-c2 lr-dashed");
      draw.line([0, 0], [y.min, y.max], "lr-soft");
      draw.cloud(xs, ys, "lr-c1");
      draw.front.append(LR.handle(plane, {
        label: "Start of the path", x: start[0], y: start[1] * limit, nudge: [0.01, 0.01 * limit],
        text: `x ${LR.show(start[0])}, sharpness ${LR.show(start[1] * limit)}`,
      }, (x, sharpness) => {
        start[0] = LR.round(LR.clamp(Math.abs(x), ...ACROSS), 3);
        start[1] = LR.round(LR.clamp(sharpness / limit, ...ALONG), 3);
        render();
      }));

      draw = sharp.begin({ x: { min: 0, max: steps, label: "step t" }, y, label: `The sharpness over ${steps} steps, between ${LR.show(Math.min(...ys))} and ${LR.show(Math.max(...ys))}; the limit is ${LR.show(limit)}.` });
      draw.line(t, ys, "lr-c1");
      line(draw, limit, steps);
      const [lowest, highest] = [Math.min(...losses), Math.max(...losses)];
      draw = curve.begin({
        x: { min: 0, max: steps, label: "step t" }, y: { min: lowest - 0.05 * (highest - lowest), max: highest + 0.05 * (highest - lowest), label: "loss" },
        label: `The loss over ${steps} steps, from ${LR.show(losses[0])} to ${LR.show(losses[losses.length - 1])}.`,
      });
      draw.line(t, losses, "lr-c1");

      const crossings = ys.filter((value, k) => k > 0 && ys[k - 1] <= limit && value > limit).length;
      const highestShare = Math.max(...ys) / limit;
      readout.textContent = gone >= 0
        ? `At step ${gone} the swing has thrown the point out of the valley: it started too far from the limit for this rate and pull. Start nearer to 2/η.`
        : highestShare < 1
        ? `In ${steps} steps the pull sharpens the valley to ${LR.show(highestShare)} of the limit 2/η = ${LR.show(limit)} only: y stays below it, and x dies away.`
        : `The pull sharpens the valley to 2/η = ${LR.show(limit)}. Above it x grows, and its swing x²/2 pushes y back down: ` +
          `${crossings} time${crossings === 1 ? "" : "s"} in ${steps} steps. On average y is ${LR.show(ys.reduce((a, b) => a + b) / ys.length / limit)} of the limit, ` +
          `and x² is ${LR.show(xs.reduce((a, b) => a + b * b, 0) / xs.length / (2 * p))} times 2p.`;
    }

    function network() {
      const nearest = runs.reduce((best, run) => (Math.abs(Math.log(run.lr / rate.value)) < Math.abs(Math.log(best.lr / rate.value)) ? run : best));
      const limit = formulas.limit(nearest.lr);
      const t = nearest.loss.map((_, k) => k * every);
      const end = t[t.length - 1];
      const others = runs.filter((run) => run !== nearest);
      let draw = sharp.begin({
        x: { min: 0, max: end, label: "step t" }, y: { min: 0, max: 23, label: "sharpness S" },
        label: `The sharpness of the network at rate ${LR.show(nearest.lr)}: from ${LR.show(nearest.sharpness[0])} to ${LR.show(nearest.sharpness[t.length - 1])}; the limit is ${LR.show(limit)}.`,
      });
      for (const run of others) draw.line(t, run.sharpness, "lr-other");
      draw.line(t, nearest.sharpness, "lr-c1");
      line(draw, limit, end);
      draw = curve.begin({
        x: { min: 0, max: end, label: "step t" }, y: { min: 1e-3, max: 1, log: true, label: "training loss" },
        label: `The training loss of the network at rate ${LR.show(nearest.lr)}, from ${LR.show(nearest.loss[0])} to ${LR.show(nearest.loss[t.length - 1])}.`,
      });
      for (const run of others) draw.line(t, run.loss, "lr-other");
      draw.line(t, nearest.loss, "lr-c1");

      const reached = nearest.sharpness.findIndex((value) => value >= limit);
      const late = nearest.sharpness.slice(-20);
      readout.textContent =
        `Full-batch descent at the recorded rate ${LR.show(nearest.lr)} (thin: the other ${others.length}). The sharpness starts at ${LR.show(nearest.sharpness[0])}` +
        (reached === 0 ? `, above 2/η = ${LR.show(limit)} from the first step on, and comes down. ` : reached < 0 ? `, and is still below 2/η = ${LR.show(limit)} at the end. ` : ` and reaches 2/η = ${LR.show(limit)} by step ${reached * every}. `) +
        `Over the last ${20 * every} steps it is ${LR.show(late.reduce((a, b) => a + b) / late.length / limit)} of the limit on average.`;
    }

    function render() {
      const model = system.value === "valley";
      plane.box.hidden = pull.box.hidden = !model;
      plots.classList.toggle("lr-one", !model);
      model ? valley() : network();
    }
    return render;
  });
})();
