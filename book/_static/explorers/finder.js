/* The finder: what a rule picks from a range test, and what full runs at that rate are worth. Tests and sweeps are
   data (finder_data.js), measured by tools/explorers.py; the rules are in rules.js. */
(function () {
  "use strict";
  const { rules, words, smoothed, read, suggest } = LR.formulas.range_test;
  const STYLES = ["lr-c2", "lr-c3", "lr-c4", "lr-c5", "lr-c6"];
  const FORMS = ["constant", "cosine"];

  const formulas = (LR.formulas.finder = {
    /** Rate and accuracy at the best rate of a sweep. */
    best(sweep, form) {
      const k = sweep[form].indexOf(Math.max(...sweep[form]));
      return [sweep.lr[k], sweep[form][k]];
    },
    /** Accuracy at a rate, linear in its logarithm between those tried and level beyond them. */
    at(sweep, form, lr) {
      const values = sweep[form];
      const after = sweep.lr.findIndex((rate) => rate >= lr);
      if (after === 0) return values[0];
      if (after < 0) return values[values.length - 1];
      const share = Math.log(lr / sweep.lr[after - 1]) / Math.log(sweep.lr[after] / sweep.lr[after - 1]);
      return values[after - 1] + share * (values[after] - values[after - 1]);
    },
    regret: (sweep, form, lr) => formulas.best(sweep, form)[1] - formulas.at(sweep, form, lr),
  });

  LR.explorer("finder", (root) => {
    const tasks = LR.finderTasks;
    const changed = () => render();
    const controls = LR.html("div", { class: "lr-controls" });
    const plots = LR.html("div", { class: "lr-plots lr-one" });
    root.append(controls, plots);
    const which = LR.select(controls, { key: "task", label: "task", value: "0", choices: tasks.map((task, k) => [String(k), task.name]) }, changed);
    const rule = LR.select(controls, { key: "rule", label: "rule", value: "steepest", choices: rules.map((name) => [name, name]) }, changed);
    const smoothing = LR.slider(controls, { key: "smoothing", label: "smoothing", min: 0, max: 0.98, step: 0.01, value: 0.9 }, changed);
    const test = LR.plot(plots, { title: "The range test, and how the rule reads it", height: 235, left: 50 });
    const meaning = LR.html("p", { class: "lr-words" });
    plots.append(meaning);
    const sweep = LR.plot(plots, { title: "Runs at each rate: constant (solid), cosine (dashed), the best (ring)", height: 215, left: 50 });
    const table = LR.html("table", { class: "lr-table" });
    root.append(LR.html("div", { class: "lr-table-box", tabindex: 0, role: "region", "aria-label": "Picks and regrets of the rules" }, table));
    const readout = LR.readout(root);

    function drawTest(task, picks, chosen, style) {
      const top = Math.max(...task.initial_loss) * 1.15;
      const x = { min: task.lr[0], max: task.lr[task.lr.length - 1], log: true };
      const draw = test.begin({
        x, y: { min: 0, max: top, label: "loss" },
        label: `A range test of ${task.name}: ` + (picks[chosen].reason ? `${chosen} gives no answer.` : `${chosen} picks ${LR.show(picks[chosen].lr, 2)}.`),
      });
      task.loss.forEach((loss) => draw.dots(task.lr, loss.map((value) => value ?? NaN), "lr-faint", 1.3));
      task.loss.forEach((_, repeat) => draw.line(...smoothed(task, repeat, smoothing.value), "lr-other"));
      if (picks[chosen].reason) return x;
      // The marks are of the repeat whose rate lies nearest to the mean.
      const reads = task.loss.map((_, repeat) => read(task, repeat, smoothing.value, chosen));
      const off = reads.map((one) => (one.reason ? Infinity : Math.abs(Math.log(one.lr / picks[chosen].lr))));
      const shown = off.indexOf(Math.min(...off));
      const marks = reads[shown];
      draw.line(...smoothed(task, shown, smoothing.value), "lr-c1");
      if (marks.band) draw.band(...marks.band, `${style} lr-mark-band`);
      if (marks.line) draw.line(marks.line.map((point) => point[0]), marks.line.map((point) => point[1]), `${style} lr-thick`);
      if (marks.dot) draw.dots([marks.dot[0]], [marks.dot[1]], style, 4);
      draw.vertical(picks[chosen].lr, style);
      return x;
    }

    function drawSweep(task, picks, chosen, style, x) {
      const lowest = Math.min(...FORMS.flatMap((form) => task.sweep[form]));
      const draw = sweep.begin({
        x: { ...x, label: "learning rate η" }, y: { min: Math.max(0, lowest - 8), max: 104, ticks: [0, 25, 50, 75, 100].filter((tick) => tick >= lowest - 8), label: "test accuracy, %" },
        label: `Test accuracy of runs at each rate: best at ${LR.show(formulas.best(task.sweep, "constant")[0], 2)} if constant, at ${LR.show(formulas.best(task.sweep, "cosine")[0], 2)} with a cosine.`,
      });
      const { lr, low, high } = picks[chosen];
      if (low) draw.band(low, high, `${style} lr-mark-band`);
      if (lr) draw.vertical(lr, style);
      FORMS.forEach((form, k) => {
        const css = k ? "lr-c5 lr-dashed" : "lr-c1";
        draw.line(task.sweep.lr, task.sweep[form], css);
        draw.dots(task.sweep.lr, task.sweep[form], k ? "lr-c5" : "lr-c1", 2.5);
        const [rate, accuracy] = formulas.best(task.sweep, form);
        draw.layer.append(LR.svg("circle", { class: `lr-best ${css}`, cx: draw.X(rate), cy: draw.Y(accuracy), r: 7 }));
        if (!lr) return;
        const here = formulas.at(task.sweep, form, lr);
        draw.line([lr, lr], [here, accuracy], `${style} lr-wide`);
        draw.line([lr, rate], [accuracy, accuracy], "lr-soft lr-dotted");
      });
    }

    function render() {
      const task = tasks[Number(which.value)];
      const chosen = rule.value;
      const style = STYLES[rules.indexOf(chosen)];
      const picks = Object.fromEntries(rules.map((name) => [name, suggest(task, smoothing.value, name)]));
      drawSweep(task, picks, chosen, style, drawTest(task, picks, chosen, style));
      meaning.textContent = `${chosen}: ${words[chosen]}`;

      const points = (value) => (value < 0.05 ? "0" : value.toFixed(1));
      const rows = rules.map((name, k) => {
        const { lr } = picks[name];
        const cells = lr ? [LR.show(lr, 2), ...FORMS.map((form) => points(formulas.regret(task.sweep, form, lr)))] : ["no answer", "—", "—"];
        const mark = LR.svg("svg", { width: 14, height: 14, "aria-hidden": "true" }, LR.svg("circle", { class: `lr-dot ${STYLES[k]}`, cx: 7, cy: 7, r: 5 }));
        return LR.html("tr", { class: name === chosen ? "lr-chosen" : null }, LR.html("th", { scope: "row" }, mark, ` ${name}`), ...cells.map((cell) => LR.html("td", {}, cell)));
      });
      table.replaceChildren(
        LR.html("thead", {}, LR.html("tr", {}, ...["rule", "picks", "regret (constant)", "regret (cosine)"].map((name) => LR.html("th", { scope: "col" }, name)))),
        LR.html("tbody", {}, ...rows));
      const { lr, reason } = picks[chosen];
      readout.textContent = reason
        ? `No answer: ${reason}.`
        : `${chosen} picks ${LR.show(lr, 2)}. ` + FORMS.map((form) => {
            const [rate] = formulas.best(task.sweep, form);
            return `With a ${form} rate runs are best at ${LR.show(rate, 2)}, ${LR.show(rate > lr ? rate / lr : lr / rate, 2)} times ${rate > lr ? "higher" : "lower"}: ` +
              `${points(formulas.regret(task.sweep, form, lr))} points of accuracy are lost. `;
          }).join("");
    }
    return render;
  });
})();
