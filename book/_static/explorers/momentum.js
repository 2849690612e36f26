/* Momentum and rate: the spectral radius of a step, the regimes of damping, and the path in a valley. */
(function () {
  "use strict";
  const STEPS = 80;
  const WIDEST = 4.4; // of ηh on the map

  const formulas = (LR.formulas.momentum = {
    /** The larger modulus of the roots of z² − (1 + β − a) z + β, a = ηh. */
    radius(a, beta) {
      const trace = Math.abs(1 + beta - a);
      const discriminant = trace * trace - 4 * beta;
      return discriminant >= 0 ? (trace + Math.sqrt(discriminant)) / 2 : Math.sqrt(beta);
    },
    /** θ of v ← βv + hθ, θ ← θ − ηv from θ = 1, v = 0. */
    path(h, rate, beta, steps) {
      const theta = [1];
      let v = 0;
      for (let t = 0; t < steps; t++) {
        v = beta * v + h * theta[t];
        theta.push(theta[t] - rate * v);
      }
      return theta;
    },
    /** What the error of a direction does in the long run, by the roots; critical within `near` of a double root. */
    regime(a, beta, near = 0) {
      const [lower, upper] = [(1 - Math.sqrt(beta)) ** 2, (1 + Math.sqrt(beta)) ** 2];
      if (a === 0) return "at rest";
      if (a >= 2 * (1 + beta)) return "unstable";
      if (Math.abs(a - lower) <= near * lower) return "critical";
      if (a < lower) return "over-damped";
      return a < upper ? "under-damped" : "flipping";
    },
    /** The momentum at which a direction is critically damped, for ηh from 0 to 1. */
    critical: (a) => (1 - Math.sqrt(a)) ** 2,
    /** The best rate and momentum together, and their factor per step. */
    best(low, high) {
      const [p, q] = [Math.sqrt(low), Math.sqrt(high)];
      const rho = (q - p) / (q + p);
      return [(2 / (p + q)) ** 2, rho * rho, rho];
    },
  });

  // Dark blue: a fast fall; light: a slow one; red: growth.
  function colour(radius) {
    if (radius >= 1) {
      const s = Math.min(1, Math.log(radius) / 0.7);
      return [235 - 60 * s, 170 - 110 * s, 140 - 90 * s];
    }
    const s = radius ** 3;
    return [20 + 215 * s, 60 + 180 * s, 120 + 125 * s];
  }

  const WORDS = {
    "at rest": "does not move", "over-damped": "is over-damped: it creeps in", critical: "is critically damped: the fastest fall without a swing",
    "under-damped": "is under-damped: it swings past and comes back", flipping: "flips its sign at every step", unstable: "diverges",
  };
  const factor = (x) => LR.show(x, Math.abs(x - 1) < 1e-3 ? 6 : 3);
  const NEAR = 0.02; // how close to the double root counts as critical here
  const START = [-2.2, 1];

  LR.explorer("momentum", (root) => {
    const changed = () => render();
    const controls = LR.html("div", { class: "lr-controls" });
    const plots = LR.html("div", { class: "lr-plots" });
    const below = LR.html("div", { class: "lr-plots lr-one" });
    root.append(controls, plots, below);
    const a = LR.slider(controls, { key: "a", label: "rate × curvature ηh", min: 0, max: WIDEST, step: 0.01, value: 1.6 }, changed);
    const beta = LR.slider(controls, { key: "momentum", label: "momentum β", min: 0, max: 0.999, step: 0.001, value: 0.6 }, changed);
    const kappa = LR.slider(controls, { key: "condition", label: "condition number κ", min: 1, max: 1000, log: true, value: 25 }, changed);
    LR.button(controls, "Best for this κ", () => {
      const [rate, momentum] = formulas.best(1 / kappa.value, 1);
      a.value = rate;
      beta.value = momentum;
      render();
    });
    LR.button(controls, "Critical for the flattest", () => {
      beta.value = formulas.critical(Math.min(1, a.value / kappa.value));
      render();
    });
    const map = LR.plot(plots, { title: "Factor per step: drag the point", height: 290 });
    const valley = LR.plot(plots, { title: "Path in the valley", height: 290, left: 46 });
    const curve = LR.plot(below, { title: "Each direction's distance from the minimum", height: 210, left: 46 });
    const readout = LR.readout(root);
    const picture = document.createElement("canvas");
    [picture.width, picture.height] = [220, 120];
    const pixels = picture.getContext("2d").createImageData(picture.width, picture.height);
    for (let row = 0; row < picture.height; row++) {
      for (let column = 0; column < picture.width; column++) {
        const radius = formulas.radius(((column + 0.5) / picture.width) * WIDEST, 1 - (row + 0.5) / picture.height);
        pixels.data.set([...colour(radius), 255], 4 * (row * picture.width + column));
      }
    }
    picture.getContext("2d").putImageData(pixels, 0, 0);
    const url = picture.toDataURL();

    function render() {
      const [x, b, k] = [a.value, beta.value, kappa.value];
      const radii = [formulas.radius(x, b), formulas.radius(x / k, b)];
      const regimes = [formulas.regime(x, b, NEAR), formulas.regime(x / k, b, NEAR)];
      let draw = map.begin({
        x: { min: 0, max: WIDEST, label: "ηh" }, y: { min: 0, max: 1, label: "momentum β" },
        label: `The stability region: ηh below 2(1 + β). The point is at ηh = ${LR.show(x)}, β = ${LR.show(b)}.`,
      });
      draw.layer.append(LR.svg("image", {
        href: url, x: draw.inside.x, y: draw.inside.y, width: draw.inside.width, height: draw.inside.height, preserveAspectRatio: "none",
      }));
      const betas = LR.range(101, (i) => i / 100);
      draw.line(betas.map((v) => 2 * (1 + v)), betas, "lr-on-map lr-thick");
      draw.line(betas.map((v) => (1 - Math.sqrt(v)) ** 2), betas, "lr-on-map lr-dashed");
      draw.line(betas.map((v) => (1 + Math.sqrt(v)) ** 2), betas, "lr-on-map lr-dashed");
      draw.note(0, 0.03, "creeps", "lr-map-text", "start", 4, 0);
      draw.note(1.5, 0.86, "swings", "lr-map-text", "middle", 0, 0);
      draw.note(1.3, 0.03, "flips", "lr-map-text", "start", 0, 0);
      draw.note(3.15, 0.2, "diverges", "lr-map-text", "start", 0, 0);
      draw.line([x / k, x], [b, b], "lr-on-map");
      draw.dots([x / k], [b], "lr-on-map-dot", 5);
      draw.front.append(LR.handle(map, {
        label: "Rate times curvature, and momentum", x, y: b, nudge: [0.05, 0.02],
        text: `ηh ${LR.show(x)}, momentum ${LR.show(b)}, factor ${factor(radii[0])}, ${regimes[0]}`,
      }, (p, q) => {
        a.value = LR.round(Math.min(WIDEST, Math.max(0, p)), 3);
        beta.value = LR.round(Math.min(0.999, Math.max(0, q)), 3);
        render();
      }));

      const steep = formulas.path(1, x, b, STEPS);
      const flat = formulas.path(1, x / k, b, STEPS);
      draw = valley.begin({
        x: { min: -2.6, max: 2.6, label: "flattest direction" }, y: { min: -1.4, max: 1.4, label: "steepest direction" },
        label: `Contours of a valley ${LR.show(k)} times steeper across than along, with the path of ${STEPS} steps.`,
      });
      for (let level = 1; level <= 8; level++) {
        const across = 0.22 * level;
        draw.layer.append(LR.svg("ellipse", {
          class: "lr-contour", cx: draw.X(0), cy: draw.Y(0),
          rx: draw.X(across * Math.sqrt(k)) - draw.X(0), ry: draw.Y(0) - draw.Y(across),
        }));
      }
      const [xs, ys] = [flat.map((value) => START[0] * value), steep.map((value) => START[1] * value)];
      draw.line(xs, ys, "lr-c1");
      draw.dots(xs, ys, "lr-c1", 2.5);
      draw.dots(xs.slice(0, 1), ys, "lr-c2", 5);

      draw = curve.begin({
        x: { min: 0, max: STEPS, label: "step t" }, y: { min: -1.5, max: 1.5, label: "θ" },
        label: `Distance from the minimum over ${STEPS} steps: the steepest direction is ${regimes[0]}, the flattest ${regimes[1]}.`,
      });
      draw.line(LR.range(STEPS + 1), flat, "lr-c2 lr-dashed");
      draw.line(LR.range(STEPS + 1), steep, "lr-c1");
      draw.note(STEPS, 1.5, "solid: steepest, dashed: flattest", "", "end", -4, 14);

      const worst = Math.max(...radii);
      readout.textContent =
        `The steepest direction ${WORDS[regimes[0]]} (factor ${factor(radii[0])} a step). The flattest ${WORDS[regimes[1]]} ` +
        `(${factor(radii[1])}). Together: ` +
        (worst < 1 ? `${LR.show(Math.log(10) / -Math.log(worst))} steps for each digit. ` : "no convergence. ") +
        `Stable below ηh = 2(1 + β) = ${LR.show(2 * (1 + b))}.`;
    }
    return render;
  });
})();
