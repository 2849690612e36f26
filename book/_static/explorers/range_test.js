/* The range test: the smoothing and what it does to each rule's suggestion. The curves are data (range_test_data.js),
   measured by lrlib.range_test; the rules are in rules.js. */
(function () {
  "use strict";
  const formulas = LR.formulas.range_test;

  LR.explorer("range_test", (root) => {
    const tests = LR.rangeTests;
    const controls = LR.html("div", { class: "lr-controls" });
    const plots = LR.html("div", { class: "lr-plots lr-one" });
    root.append(controls, plots);
    const which = LR.select(controls, { key: "test", label: "measured on", value: "0", choices: tests.map((test, k) => [String(k), test.name]) }, () => render());
    const smoothing = LR.slider(controls, { key: "smoothing", label: "smoothing", min: 0, max: 0.98, step: 0.01, value: 0.9 }, () => render());
    const plot = LR.plot(plots, { title: "", height: 300, left: 50 });
    const table = LR.html("table", { class: "lr-table" });
    root.append(LR.html("div", { class: "lr-table-box", tabindex: 0, role: "region", "aria-label": "Suggestions of the rules" }, table));
    const readout = LR.readout(root);
    const styles = ["lr-c2", "lr-c3", "lr-c4", "lr-c5", "lr-c6"];

    function render() {
      const test = tests[Number(which.value)];
      const s = smoothing.value;
      const curves = test.loss.map((_, repeat) => formulas.smoothed(test, repeat, s));
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
