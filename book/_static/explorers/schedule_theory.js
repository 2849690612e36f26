/* A schedule drawn by hand, its bound on the loss of the last weights, and the peak that the bound predicts. */
(function () {
  "use strict";
  const T = 100; // updates
  const EVERY = 5; // steps between two points of the drawing
  const KNOTS = T / EVERY + 1;
  const LEVELS = 100; // of a height in the address
  const at = (f) => LR.range(KNOTS, (k) => f((k * EVERY) / T));
  const cosine = (u) => (1 + Math.cos(Math.PI * u)) / 2;
  const shapes = {
    line: { text: "Line", css: "lr-c3", heights: at((u) => 1 - u) },
    cosine: { text: "Cosine", css: "lr-c2", heights: at(cosine) },
    constant: { text: "Constant", css: "lr-c4", heights: at(() => 1) },
    warmup: { text: "Warm-up and cosine", heights: at((u) => Math.min(1, u / 0.1) * cosine(u)) },
  };

  const formulas = (LR.formulas.schedule_theory = {
    /** The rates of steps 0 to T − 1 along straight lines between the heights. */
    rates: (heights) =>
      LR.range(T, (t) => {
        const [k, share] = [Math.floor(t / EVERY), (t % EVERY) / EVERY];
        return (1 - share) * heights[k] + share * heights[k + 1];
      }),
    /** A₀ and C of the bound, for rates that end with that of the update that is not made. */
    terms(rates) {
      let [A, Q, C] = [0, 0, 0];
      for (let k = rates.length - 1; k >= 0; k--) {
        const [after, eta] = [A, rates[k]];
        A += eta;
        Q += eta * eta;
        if (after > 0) C += ((eta / after) * Q) / A;
      }
      return [A, C + Q / A];
    },
    /** The lowest bound of a shape, and its peak, for D = G = 1; the last rate by golden section over its logarithm. */
    best(rates) {
      const highest = Math.max(...rates);
      const shape = rates.map((rate) => rate / highest);
      const ratio = (u) => {
        const [A, C] = formulas.terms([...shape, Math.exp(u)]);
        return C / A;
      };
      const golden = (Math.sqrt(5) - 1) / 2;
      let [low, high] = [Math.log(1e-12), Math.log(10)];
      for (let k = 0; k < 80; k++) {
        const [left, right] = [high - golden * (high - low), low + golden * (high - low)];
        if (ratio(left) < ratio(right)) high = right;
        else low = left;
      }
      const [A, C] = formulas.terms([...shape, Math.exp((low + high) / 2)]);
      return [Math.sqrt(C / A), 1 / Math.sqrt(A * C)];
    },
  });
  const known = Object.fromEntries(["constant", "cosine", "line"].map((name) => [name, formulas.best(formulas.rates(shapes[name].heights))]));

  LR.explorer("schedule_theory", (root) => {
    const write = (heights) => heights.map((height) => Math.round(LEVELS * height)).join(".");
    const first = at((u) => (u < 0.6 ? 1 : Math.max(0.1, 1 - 2.6 * (u - 0.6))));
    const read = (text) => text.split(".").map((level) => Math.min(LEVELS, Math.max(0, Number(level))) / LEVELS);
    let heights = read(LR.state(root, "drawn", write(first), () => write(heights)));
    if (heights.length !== KNOTS || !heights.every(Number.isFinite) || !Math.max(...heights)) heights = first;
    let cursor = KNOTS >> 1;
    let before = null; // where the pen was

    const buttons = LR.html("div", { class: "lr-presets" });
    root.append(buttons);
    for (const { text, heights: made } of Object.values(shapes)) {
      LR.button(buttons, text, () => {
        heights = made.slice();
        render();
      });
    }
    const controls = LR.html("div", { class: "lr-controls" });
    root.append(controls);
    const cooldown = LR.slider(controls, {
      key: "cooldown", label: "fall over the last", min: 0.05, max: 1, step: 0.05, value: 0.25,
      show: (share) => `${Math.round(100 * share)}%`,
    }, () => set(at((u) => Math.min(1, (1 - u) / cooldown.value))));
    const pad = LR.plot(root, { title: "Draw: with pen, finger or mouse; from the keyboard, move the dot", height: 250 });
    const plots = LR.html("div", { class: "lr-plots" });
    root.append(plots);
    const lower = LR.plot(plots, { title: "Bound, over the line's", height: 170, left: 74 });
    const peaks = LR.plot(plots, { title: "Best peak, over the constant's", height: 170, left: 74 });
    const readout = LR.readout(root);

    const level = (y) => Math.round(LEVELS * Math.min(1, Math.max(0, y))) / LEVELS;
    function set(changed) {
      if (Math.max(...changed)) heights = changed; // a schedule that never moves has no best peak
      render();
    }
    function pen(event) {
      const [x, y] = pad.at(event);
      const here = [Math.min(T, Math.max(0, x)) / EVERY, level(y)];
      const from = before || here;
      const changed = heights.slice();
      const [a, b] = [from, here].sort((p, q) => p[0] - q[0]);
      for (let k = Math.round(a[0]); k <= Math.round(b[0]); k++) {
        const share = b[0] > a[0] ? Math.min(1, Math.max(0, (k - a[0]) / (b[0] - a[0]))) : 1;
        changed[k] = level(a[1] + share * (b[1] - a[1]));
      }
      changed[Math.round(here[0])] = here[1];
      [before, cursor] = [here, Math.round(here[0])];
      set(changed);
    }
    pad.svg.classList.add("lr-draw");
    pad.svg.addEventListener("touchstart", (event) => event.preventDefault(), { passive: false });
    pad.svg.addEventListener("pointerdown", (event) => {
      if (event.button !== 0) return;
      before = null;
      pen(event);
    });
    LR.drag(pad.svg, pen, () => (before = null));

    function compare(plot, rows, x, label) {
      const draw = plot.begin({ x, y: { min: -0.6, max: rows.length - 0.4, ticks: [] }, label });
      rows.forEach(([name, value, css], place) => {
        const y = rows.length - 1 - place;
        draw.line([x.log ? x.min : 0, Math.min(value, x.max)], [y, y], `${css} lr-wide`);
        draw.front.append(LR.svg("text", { x: 68, y: draw.Y(y) + 4, "text-anchor": "end", class: "lr-text" }, name));
        const inside = value > (x.log ? Math.sqrt(x.min * x.max) : (x.min + x.max) / 2);
        draw.note(Math.min(value, x.max), y, LR.show(value), "", inside ? "end" : "start", inside ? -6 : 6, inside ? -7 : 4);
      });
    }

    function render() {
      const [bound, peak] = formulas.best(formulas.rates(heights));
      const [overLine, overConstant] = [bound / known.line[0], peak / known.constant[1]];
      const draw = pad.begin({
        x: { min: 0, max: T, label: "step t" }, y: { min: 0, max: 1.05, label: "rate / peak" },
        label: `The drawn schedule over ${T} updates, beside a line, a cosine and a constant.`,
      });
      const steps = LR.range(KNOTS, (k) => k * EVERY);
      for (const name of ["constant", "cosine", "line"]) draw.line(steps, shapes[name].heights, `${shapes[name].css} lr-thin lr-dashed`);
      for (const [name, dx, dy, anchor] of [["cosine", 6, -3, "start"], ["line", -6, 12, "end"], ["constant", 0, 14, "end"]]) {
        const place = name === "constant" ? KNOTS - 1 : 4;
        draw.note(steps[place], shapes[name].heights[place], name, "", anchor, dx, dy);
      }
      draw.line(steps, heights, "lr-c1 lr-thick");
      draw.front.append(LR.handle(pad, {
        label: "Point of the drawing: left and right choose it, up and down move it",
        x: cursor * EVERY, y: heights[cursor], nudge: [EVERY, 0.05],
        text: `step ${cursor * EVERY}, rate ${LR.show(heights[cursor])} of the peak`,
      }, (x, y) => {
        if (y === heights[cursor]) {
          cursor = Math.min(KNOTS - 1, Math.max(0, Math.round(x / EVERY)));
          render();
        } else if (x === cursor * EVERY) {
          const changed = heights.slice();
          changed[cursor] = level(y);
          set(changed);
        } // else the pen, which draws by itself
      }));

      const others = ["constant", "cosine", "line"];
      compare(lower, [["yours", overLine, "lr-c1"], ...others.map((name) => [name, known[name][0] / known.line[0], shapes[name].css])],
        { min: 0, max: 2.5, label: "bound" }, `Your bound is ${LR.show(overLine)} times the line's.`);
      compare(peaks, [["yours", overConstant, "lr-c1"], ...others.map((name) => [name, known[name][1] / known.constant[1], shapes[name].css])],
        { min: 0.5, max: 20, log: true, ticks: [0.5, 1, 2, 5, 10, 20], label: "peak rate" }, `Your peak is ${LR.show(overConstant)} times the constant's.`);
      readout.textContent =
        `At its best peak your bound is ${LR.show(overLine)} times the line's. Its peak may be ${LR.show(overConstant)} times a tuned constant rate` +
        ` (a line's ${LR.show(known.line[1] / known.constant[1])} times).`;
    }
    return render;
  });
})();
