/* The rules of lrlib.finder: what they read off a range test, and the marks that show how. */
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
    if (loss[loss.length - 1] <= loss[lowest] + 0.1 * (Math.max(...loss.slice(0, lowest + 1)) - loss[lowest])) {
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
      const [xs, ys] = [log.slice(best, best + width), loss.slice(best, best + width)];
      const line = (x) => [Math.exp(x), mean(ys) + slopes[best] * (x - mean(xs))];
      return { lr: Math.exp(mean(xs)), line: [line(xs[0] - 0.7), line(xs[width - 1] + 0.7)] };
    },
    "minimum/10"(lr, loss) {
      const lowest = mustRise(lr, loss);
      const [x, y] = [lr[lowest], loss[lowest]];
      return { lr: x / 10, line: [[x / 10, y], [x, y]], dot: [x, y] };
    },
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
      return { lr: lr[first + roundHalfEven((2 * (last - first)) / 3)], band: [lr[first], lr[last]] };
    },
    slide(lr, loss) {
      mustRise(lr, loss);
      const lowest = argmin(loss);
      const fall = Math.max(...loss.slice(0, lowest + 1)) - Math.min(...loss);
      const slope = gradient(loss.map((value) => value / fall), lr.map(Math.log));
      const window = Math.max(2, Math.floor(lr.length / 7));
      for (let right = lr.length - 1; right > window - 1; right--) {
        if (Math.abs(slope[right] - slope[right - window]) <= 0.05 && right <= lowest) {
          return { lr: lr[right - window], band: [lr[right - window], lr[right]] };
        }
      }
      return { lr: lr[0] };
    },
    largest_stable(lr, loss) {
      const lowest = mustRise(lr, loss);
      const limit = loss[lowest] + 0.1 * (Math.max(...loss.slice(0, lowest + 1)) - loss[lowest]);
      const last = lowest + loss.slice(lowest).findIndex((value) => value > limit) - 1;
      return { lr: lr[last], line: [[lr[lowest], limit], [lr[last] * 2, limit]], dot: [lr[lowest], loss[lowest]] };
    },
  };
  const words = {
    steepest: "Fit a line to every stretch a tenth of the curve long, up to the minimum. The middle of the stretch that falls fastest per decade.",
    "minimum/10": "A tenth of the rate at which the smoothed loss is lowest.",
    valley: "The longest run of ever lower losses, points in between left out. Two thirds of the way along it.",
    slide: "A window, a seventh of the curve wide, slides down from the highest rate until the slopes at its two ends are nearly the same. Its left end.",
    largest_stable: "The last rate before the smoothed loss has risen above its minimum by a tenth of its whole fall.",
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
    words,
    smoothed,
    /** What a rule reads off one repeat: {lr} and the marks that show how, in data coordinates; or {reason}. */
    read(test, repeat, smoothing, rule) {
      try {
        return rules[rule](...usable(test, repeat, smoothing));
      } catch (error) {
        return { reason: error.message };
      }
    },
    /** {lr, low, high, n} as RangeTest.suggest tells it, or {reason} where it raises NoSuggestion. */
    suggest(test, smoothing, rule) {
      const found = [];
      const reasons = [];
      for (let repeat = 0; repeat < test.loss.length; repeat++) {
        const read = formulas.read(test, repeat, smoothing, rule);
        read.reason ? reasons.push(read.reason) : found.push(Math.log(read.lr));
      }
      if (found.length <= test.loss.length / 2) return { reason: reasons[0], n: found.length };
      const centre = mean(found);
      if (found.length === 1) return { lr: Math.exp(centre), low: null, high: null, n: 1 };
      const spread = Math.sqrt(sum(found.map((x) => (x - centre) ** 2)) / (found.length - 1) / found.length);
      const half = T[found.length - 2] * spread;
      return { lr: Math.exp(centre), low: Math.exp(centre - half), high: Math.exp(centre + half), n: found.length };
    },
  });

})();
