/* The range test: the smoothing and what it does to each rule's suggestion. The curves are data (range_test_data.js),
   measured by lrlib.range_test; the rules are those of lrlib.finder. */
(function () {
  "use strict";
  const MIN_POINTS = 10;
  // Student's 97.5% points for 1 to 9 degrees of freedom.
  const T = [12.706204736174704, 4.302652729749464, 3.182446305283710, 2.776445105197799, 2.570581835636316,
    2.446911851144969, 2.364624251592785, 2.306004135204167, 2.262157162798205];

  const sum = (xs) => xs.reduce((a, b) => a + b, 0);
  const mean = (xs) => sum(xs) / xs.length;
  const argmin = (xs) => xs.indexOf(Math.min(...xs));
  const median = (xs) => {
    const sorted = [...xs].sort((a, b) => a - b);
    const half = sorted.length >> 1;
    return sorted.length % 2 ? sorted[half] : (sorted[half - 1] + sorted[half]) / 2;
  };
  const roundHalfEven = (x) => {
    const floor = Math.floor(x);
    if (x - floor !== 0.5) return Math.round(x);
    return floor % 2 ? floor + 1 : floor;
  };

  function exponentialMean(values, smoothing) {
    let [total, weight] = [0, 0];
    return values.map((value) => {
      total = smoothing * total + value;
      weight = smoothing * weight + 1;
      return total / weight;
    });
  }
  function slopeOfLine(xs, ys) {
    const [mx, my] = [mean(xs), mean(ys)];
    return sum(xs.map((x, k) => (x - mx) * (ys[k] - my))) / sum(xs.map((x) => (x - mx) ** 2));
  }
  /** numpy.gradient of ys over unevenly spaced xs. */
  function gradient(ys, xs) {
    const n = ys.length;
    return ys.map((_, k) => {
      if (k === 0) return (ys[1] - ys[0]) / (xs[1] - xs[0]);
      if (k === n - 1) return (ys[n - 1] - ys[n - 2]) / (xs[n - 1] - xs[n - 2]);
      const [before, after] = [xs[k] - xs[k - 1], xs[k + 1] - xs[k]];
      return (before ** 2 * ys[k + 1] + (after ** 2 - before ** 2) * ys[k] - after ** 2 * ys[k - 1]) / (before * after * (before + after));
    });
  }

  function mustRise(lr, loss) {
    const lowest = argmin(loss);
    if (loss[loss.length - 1] - loss[lowest] < 0.1 * (Math.max(...loss.slice(0, lowest + 1)) - loss[lowest])) {
      throw new Error("the loss has not risen again");
    }
    return lowest;
  }
  const rules = {
    steepest(lr, loss) {
      const width = Math.max(3, Math.floor(lr.length / 10));
      const log = lr.map(Math.log);
      const slopes = LR.range(Math.max(1, argmin(loss) + 2 - width), (k) => slopeOfLine(log.slice(k, k + width), loss.slice(k, k + width)));
      const best = argmin(slopes);
      return Math.exp(mean(log.slice(best, best + width)));
    },
    "minimum/10": (lr, loss) => lr[mustRise(lr, loss)] / 10,
    valley(lr, loss) {
      const length = loss.map(() => 1);
      const previous = loss.map(() => -1);
      for (let k = 1; k < loss.length; k++) {
        let best = -1;
        for (let j = 0; j < k; j++) if (loss[j] > loss[k] && (best < 0 || length[j] > length[best])) best = j;
        if (best >= 0) [length[k], previous[k]] = [length[best] + 1, best];
      }
      const last = length.indexOf(Math.max(...length));
      let first = last;
      while (previous[first] >= 0) first = previous[first];
      return lr[first + roundHalfEven((2 * (last - first)) / 3)];
    },
    slide(lr, loss) {
      mustRise(lr, loss);
      const lowest = argmin(loss);
      const fall = Math.max(...loss.slice(0, lowest + 1)) - Math.min(...loss);
      const slope = gradient(loss.map((value) => value / fall), lr.map(Math.log));
      const window = Math.max(2, Math.floor(lr.length / 7));
      for (let right = lr.length - 1; right > window - 1; right--) {
        if (Math.abs(slope[right] - slope[right - window]) <= 0.05 && right <= lowest) return lr[right - window];
      }
      return lr[0];
    },
    largest_stable(lr, loss) {
      const lowest = mustRise(lr, loss);
      const limit = loss[lowest] + 0.1 * (Math.max(...loss.slice(0, lowest + 1)) - loss[lowest]);
      return lr[lowest + loss.slice(lowest).findIndex((value) => value > limit) - 1];
    },
  };

  function smoothed(test, repeat, smoothing) {
    const end = test.loss[repeat].findIndex((value) => value === null);
    const count = end < 0 ? test.lr.length : end;
    return [exponentialMean(test.lr.slice(0, count).map(Math.log), smoothing).map(Math.exp), exponentialMean(test.loss[repeat].slice(0, count), smoothing)];
  }
  function usable(test, repeat, smoothing) {
    const [lr, loss] = smoothed(test, repeat, smoothing);
    const initial = test.initial_loss[repeat];
    if (lr.length < MIN_POINTS) throw new Error("too few points");
    const raw = [initial, ...test.loss[repeat].slice(0, lr.length)];
    const start = mean(raw.slice(0, roundHalfEven(1 / (1 - smoothing)) + 1));
    if (argmin(loss) < 2 && loss[loss.length - 1] > start) throw new Error("it diverged at once");
    const deviation = (median(raw.slice(1).map((value, k) => Math.abs(value - raw[k]))) * 1.4826) / Math.sqrt(2);
    const noise = deviation * Math.sqrt((1 - smoothing) / (1 + smoothing));
    if (start - Math.min(...loss) <= Math.max(0.02 * Math.abs(start), 5 * noise)) throw new Error("the curve is flat");
    const averaged = Math.min(roundHalfEven(1 / (1 - smoothing)), lr.length - MIN_POINTS);
    return [lr.slice(averaged), loss.slice(averaged)];
  }

  const formulas = (LR.formulas.range_test = {
    rules: Object.keys(rules),
    smoothed,
    /** {lr, low, high, n} as RangeTest.suggest tells it, or {reason} where it raises NoSuggestion. */
    suggest(test, smoothing, rule) {
      const found = [];
      const reasons = [];
      for (let repeat = 0; repeat < test.loss.length; repeat++) {
        try {
          found.push(Math.log(rules[rule](...usable(test, repeat, smoothing))));
        } catch (error) {
          reasons.push(error.message);
        }
      }
      if (found.length <= test.loss.length / 2) return { reason: reasons[0], n: found.length };
      const centre = mean(found);
      if (found.length === 1) return { lr: Math.exp(centre), low: null, high: null, n: 1 };
      const spread = Math.sqrt(sum(found.map((x) => (x - centre) ** 2)) / (found.length - 1) / found.length);
      const half = T[found.length - 2] * spread;
      return { lr: Math.exp(centre), low: Math.exp(centre - half), high: Math.exp(centre + half), n: found.length };
    },
  });

  LR.explorer("range_test", (root) => {
    const tests = LR.rangeTests;
    const controls = LR.html("div", { class: "lr-controls" });
    const plots = LR.html("div", { class: "lr-plots lr-one" });
    root.append(controls, plots);
    const which = LR.select(controls, { label: "measured on", value: "0", choices: tests.map((test, k) => [String(k), test.name]) }, () => render());
    const smoothing = LR.slider(controls, { label: "smoothing", min: 0, max: 0.98, step: 0.01, value: 0.9 }, () => render());
    const plot = LR.plot(plots, { title: "", height: 300, left: 50 });
    const table = LR.html("table", { class: "lr-table" });
    root.append(LR.html("div", { class: "lr-table-box", tabindex: 0, role: "region", "aria-label": "Suggestions of the rules" }, table));
    const readout = LR.readout(root);
    const styles = ["lr-c2", "lr-c3", "lr-c4", "lr-c5", "lr-c6"];

    function render() {
      const test = tests[Number(which.value)];
      const s = smoothing.value;
      const curves = test.loss.map((_, repeat) => smoothed(test, repeat, s));
      const top = Math.max(...test.initial_loss) * 1.15;
      const draw = plot.begin({
        x: { min: test.lr[0], max: test.lr[test.lr.length - 1], log: true, label: "learning rate η" }, y: { min: 0, max: top, label: "loss after the update" },
        label: `Loss over the rate for ${test.loss.length} repeats, smoothing ${LR.show(s)}, with a mark where each rule points.`,
      });
      test.loss.forEach((loss) => draw.dots(test.lr, loss.map((value) => value ?? NaN), "lr-faint", 1.3));
      curves.forEach(([lr, loss]) => draw.line(lr, loss, "lr-c1 lr-thin"));
      const rows = formulas.rules.map((rule, k) => {
        const told = formulas.suggest(test, s, rule);
        if (!told.reason) {
          const y = top * (0.97 - 0.055 * k);
          if (told.low !== null) draw.line([told.low, told.high], [y, y], `${styles[k]} lr-thick`);
          draw.line([told.lr, told.lr], [0, y], `${styles[k]} lr-dashed`);
          draw.dots([told.lr], [y], styles[k], 5);
        }
        const cells = told.reason ? ["—", "—", told.reason] : [LR.show(told.lr, 2), told.low === null ? "—" : `${LR.show(told.low, 2)} to ${LR.show(told.high, 2)}`, `${told.n} of ${test.loss.length}`];
        const mark = LR.svg("svg", { width: 14, height: 14, "aria-hidden": "true" }, LR.svg("circle", { class: `lr-dot ${styles[k]}`, cx: 7, cy: 7, r: 5 }));
        return LR.html("tr", {}, LR.html("th", { scope: "row" }, mark, ` ${rule}`), ...cells.map((cell) => LR.html("td", {}, cell)));
      });
      table.replaceChildren(
        LR.html("thead", {}, LR.html("tr", {}, ...["rule", "rate", "95% interval", "repeats"].map((name) => LR.html("th", { scope: "col" }, name)))),
        LR.html("tbody", {}, ...rows));
      const rates = formulas.rules.map((rule) => formulas.suggest(test, s, rule).lr).filter(Boolean);
      readout.textContent = rates.length > 1
        ? `The rules' rates lie within a factor of ${LR.show(Math.max(...rates) / Math.min(...rates), 2)}. The smoothing averages over about ${LR.show(1 / (1 - s), 2)} updates of ${test.lr.length}.`
        : "At most one rule gives an answer.";
    }
    return render;
  });
})();
