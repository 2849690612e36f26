/* The schedule explorer: a schedule's formula, its curve, and the lines that make it in lrlib and in PyTorch. */
(function () {
  "use strict";
  const py = LR.python;
  const halfCosine = (high, low, u) => low + ((high - low) * (1 + Math.cos(Math.PI * u))) / 2;
  const clip = (u) => Math.min(1, Math.max(0, u));
  const torch = (lr, call) =>
    `optimizer = torch.optim.SGD(model.parameters(), lr=${py(lr)})\nscheduler = torch.optim.lr_scheduler.${call}`;

  // Parameters: slider settings by name. A value is what the slider shows, so a line makes exactly the curve drawn.
  const LR_MAX = { label: "lr", min: 1e-4, max: 1, log: true, value: 0.1 };
  const steps = (label, value, min = 1, max = 300) => ({ label, min, max, step: 1, value });
  const low = (label) => ({ label, min: 0, max: 1, step: 0.01, value: 0, ofPeak: true });
  const choice = (label, ...values) => ({ label, choices: values.map((value) => [value, value]), value: values[0] });

  const schedules = {
    constant: {
      text: "Constant", tex: String.raw`\eta_t = \eta`, parameters: { lr: LR_MAX },
      rate: (p) => () => p.lr,
      lrlib: (p) => `lrlib.constant(${py(p.lr)})`,
      torch: (p) => torch(p.lr, "LambdaLR(optimizer, lambda t: 1.0)"),
    },
    step: {
      text: "Step decay", tex: String.raw`\eta_t = \eta\,\gamma^{\lfloor t / s \rfloor}`,
      parameters: { lr: LR_MAX, step_size: steps("step_size", 60), gamma: { label: "gamma", min: 0.05, max: 1, step: 0.01, value: 0.3 } },
      rate: (p) => (t) => p.lr * p.gamma ** Math.floor(t / p.step_size),
      lrlib: (p) => `lrlib.step(${py(p.lr)}, step_size=${p.step_size}, gamma=${py(p.gamma)})`,
      torch: (p) => torch(p.lr, `StepLR(optimizer, step_size=${p.step_size}, gamma=${py(p.gamma)})`),
    },
    multistep: {
      text: "Milestones", tex: String.raw`\eta_t = \eta\,\gamma^{\#\{m \in M:\ m \le t\}}`,
      parameters: {
        lr: LR_MAX, first: steps("first milestone", 100, 1, 200), gap: steps("steps to the second", 50, 1, 100),
        gamma: { label: "gamma", min: 0.05, max: 1, step: 0.01, value: 0.1 },
      },
      rate: (p) => (t) => p.lr * p.gamma ** ((p.first <= t) + (p.first + p.gap <= t)),
      lrlib: (p) => `lrlib.multistep(${py(p.lr)}, milestones=[${p.first}, ${p.first + p.gap}], gamma=${py(p.gamma)})`,
      torch: (p) => torch(p.lr, `MultiStepLR(optimizer, milestones=[${p.first}, ${p.first + p.gap}], gamma=${py(p.gamma)})`),
    },
    exponential: {
      text: "Exponential", tex: String.raw`\eta_t = \eta\,\gamma^t`,
      parameters: { lr: LR_MAX, gamma: { label: "gamma", min: 0.95, max: 1.01, step: 0.0005, digits: 5, value: 0.985 } },
      rate: (p) => (t) => p.lr * p.gamma ** t,
      lrlib: (p) => `lrlib.exponential(${py(p.lr)}, gamma=${py(p.gamma)})`,
      torch: (p) => torch(p.lr, `ExponentialLR(optimizer, gamma=${py(p.gamma)})`),
    },
    inverse_time: {
      text: "One over the step", tex: String.raw`\eta_t = \frac{\eta}{1 + t/\tau}, \quad \tau = \frac{1}{\text{decay}}`,
      parameters: { lr: LR_MAX, decay: { label: "decay", min: 1e-3, max: 1, log: true, value: 0.05 } },
      rate: (p) => (t) => p.lr / (1 + p.decay * t),
      lrlib: (p) => `lrlib.inverse_time(${py(p.lr)}, decay=${py(p.decay)})`,
      torch: (p) => torch(p.lr, `LambdaLR(optimizer, lambda t: 1 / (1 + ${py(p.decay)} * t))`),
    },
    inverse_sqrt: {
      text: "Warm-up, then one over the root", tex: String.raw`\eta_t = \eta\,\min\!\big(\tfrac{t + 1}{w}, \sqrt{\tfrac{w}{t + 1}}\big)`,
      parameters: { lr: LR_MAX, warmup_steps: steps("warmup_steps", 40) },
      rate: (p) => (t) => p.lr * Math.min((t + 1) / p.warmup_steps, Math.sqrt(p.warmup_steps / (t + 1))),
      lrlib: (p) => `lrlib.inverse_sqrt(${py(p.lr)}, warmup_steps=${p.warmup_steps})`,
      torch: (p) => torch(p.lr, `LambdaLR(\n    optimizer, lambda t: min((t + 1) / ${p.warmup_steps}, (${p.warmup_steps} / (t + 1)) ** 0.5))`),
    },
    polynomial: {
      text: "Polynomial", tex: String.raw`\eta_t = \eta\,(1 - \min(t, T) / T)^p`,
      parameters: { lr: LR_MAX, total_iters: steps("total_iters", 200), power: { label: "power", min: 0.1, max: 4, step: 0.1, value: 1 } },
      rate: (p) => (t) => p.lr * (1 - Math.min(t, p.total_iters) / p.total_iters) ** p.power,
      lrlib: (p) => `lrlib.polynomial(${py(p.lr)}, total_iters=${p.total_iters}, power=${py(p.power)})`,
      torch: (p) => torch(p.lr, `PolynomialLR(optimizer, total_iters=${p.total_iters}, power=${py(p.power)})`),
    },
    cosine: {
      text: "Cosine", tex: String.raw`\eta_t = \eta_{min} + \tfrac12(\eta - \eta_{min})(1 + \cos(\pi \min(t, T)/T))`,
      parameters: { lr: LR_MAX, T_max: steps("T_max", 200), eta_min: low("eta_min") },
      rate: (p) => (t) => halfCosine(p.lr, p.eta_min, Math.min(t, p.T_max) / p.T_max),
      lrlib: (p) => `lrlib.cosine(${py(p.lr)}, T_max=${p.T_max}, eta_min=${py(p.eta_min)})`,
      torch: (p) => torch(p.lr, `CosineAnnealingLR(optimizer, T_max=${p.T_max}, eta_min=${py(p.eta_min)})`),
      end: (p) => p.T_max, remark: "Past step T_max PyTorch's rises again; lrlib's stays at eta_min.",
    },
    warmup: {
      text: "Warm-up, then cosine", tex: String.raw`\eta_t = \tfrac12 \eta\,(1 + \cos(\pi \min(t, T)/T))\,\big(f + (1 - f) \min(t/w, 1)\big), \quad f = 1/w`,
      parameters: { lr: LR_MAX, T_max: steps("T_max", 200, 20), steps: steps("warm-up steps", 20, 1, 20) },
      rate: (p) => (t) => halfCosine(p.lr, 0, Math.min(t, p.T_max) / p.T_max) * (1 / p.steps + (1 - 1 / p.steps) * Math.min(t / p.steps, 1)),
      lrlib: (p) => `lrlib.warmup(lrlib.cosine(${py(p.lr)}, T_max=${p.T_max}), steps=${p.steps}, start_factor=1 / ${p.steps})`,
      torch: (p) => torch(p.lr,
        `ChainedScheduler([\n    torch.optim.lr_scheduler.LinearLR(optimizer, start_factor=1 / ${p.steps}, total_iters=${p.steps}),\n` +
        `    torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=${p.T_max}),\n])`),
      end: (p) => p.T_max, remark: "Past step T_max PyTorch's rises again; lrlib's stays at 0.",
    },
    cosine_restarts: {
      text: "Cosine with restarts", tex: String.raw`\eta_t = \eta_{min} + \tfrac12(\eta - \eta_{min})(1 + \cos(\pi T_{cur}/T_i)), \quad T_i = T_0\,m^i`,
      parameters: { lr: LR_MAX, T_0: steps("T_0", 30, 1, 150), T_mult: steps("T_mult", 2, 1, 4), eta_min: low("eta_min") },
      rate: (p) => (t) => {
        let [start, length] = [0, p.T_0];
        while (t >= start + length) [start, length] = [start + length, length * p.T_mult];
        return halfCosine(p.lr, p.eta_min, (t - start) / length);
      },
      lrlib: (p) => `lrlib.cosine_restarts(${py(p.lr)}, T_0=${p.T_0}, T_mult=${p.T_mult}, eta_min=${py(p.eta_min)})`,
      torch: (p) => torch(p.lr, `CosineAnnealingWarmRestarts(\n    optimizer, T_0=${p.T_0}, T_mult=${p.T_mult}, eta_min=${py(p.eta_min)})`),
    },
    cyclic: {
      text: "Triangular cycles", tex: String.raw`\eta_t = \eta_{min} + (\eta_{max} - \eta_{min})(1 - x)\,a_t, \quad x = |t/s - 2c + 1|, \quad c = \lfloor 1 + t/(2s) \rfloor`,
      parameters: {
        lr: { ...LR_MAX, label: "max_lr" }, base_lr: low("base_lr"), step_size_up: steps("step_size_up", 40, 1, 150),
        mode: choice("mode", "triangular", "triangular2", "exp_range"), gamma: { label: "gamma (exp_range)", min: 0.98, max: 1, step: 0.0005, digits: 5, value: 0.99 },
      },
      rate: (p) => (t) => {
        const finished = Math.floor(t / (2 * p.step_size_up));
        const x = Math.abs((t - 2 * p.step_size_up * finished) / p.step_size_up - 1);
        const height = { triangular: 1, triangular2: 0.5 ** finished, exp_range: p.gamma ** t }[p.mode];
        return p.base_lr + (p.lr - p.base_lr) * (1 - x) * height;
      },
      lrlib: (p) => `lrlib.cyclic(${py(p.base_lr)}, ${py(p.lr)}, step_size_up=${p.step_size_up}, mode="${p.mode}"${p.mode === "exp_range" ? `, gamma=${py(p.gamma)}` : ""})`,
      torch: (p) => torch(p.lr,
        `CyclicLR(\n    optimizer, base_lr=${py(p.base_lr)}, max_lr=${py(p.lr)}, step_size_up=${p.step_size_up}, mode="${p.mode}",\n` +
        `    ${p.mode === "exp_range" ? `gamma=${py(p.gamma)}, ` : ""}cycle_momentum=False)`),
    },
    one_cycle: {
      text: "One cycle", tex: String.raw`\eta_{max}/d \;\nearrow\; \eta_{max} \;\searrow\; \eta_{max}/(d f), \quad \text{the peak at step } pT - 1`,
      parameters: {
        lr: { ...LR_MAX, label: "max_lr" }, total_steps: steps("total_steps", 200, 20), pct_start: { label: "pct_start", min: 0.1, max: 0.9, step: 0.01, value: 0.3 },
        div_factor: { label: "div_factor", min: 1, max: 100, log: true, value: 25 }, final_div_factor: { label: "final_div_factor", min: 1, max: 1e5, log: true, value: 1e4 },
        anneal_strategy: choice("anneal_strategy", "cos", "linear"),
      },
      rate: (p) => (t) => {
        const [peak, last, first] = [p.pct_start * p.total_steps - 1, p.total_steps - 1, p.lr / p.div_factor];
        const between = p.anneal_strategy === "cos" ? halfCosine : (from, to, u) => (1 - u) * from + u * to;
        return t <= peak ? between(first, p.lr, t / peak) : between(p.lr, first / p.final_div_factor, clip((t - peak) / (last - peak)));
      },
      lrlib: (p) =>
        `lrlib.one_cycle(\n    ${py(p.lr)}, total_steps=${p.total_steps}, pct_start=${py(p.pct_start)}, div_factor=${py(p.div_factor)},\n` +
        `    final_div_factor=${py(p.final_div_factor)}, anneal_strategy="${p.anneal_strategy}")`,
      torch: (p) => torch(p.lr,
        `OneCycleLR(\n    optimizer, max_lr=${py(p.lr)}, total_steps=${p.total_steps}, pct_start=${py(p.pct_start)}, div_factor=${py(p.div_factor)},\n` +
        `    final_div_factor=${py(p.final_div_factor)}, anneal_strategy="${p.anneal_strategy}", cycle_momentum=False)`),
      end: (p) => p.total_steps - 1, remark: "Past the last step PyTorch's extrapolates once, then refuses; lrlib's holds the last value.",
    },
    wsd: {
      text: "Warm-up, stable, decay", tex: String.raw`\eta_t = \eta\,\min(t/w, 1)\,\delta(u), \quad u = (t - T + d)/d \text{ clipped to } [0, 1]`,
      parameters: {
        lr: LR_MAX, total_steps: steps("total_steps", 200, 100), warmup_steps: steps("warmup_steps", 20, 1, 50), decay_steps: steps("decay_steps", 40, 1, 50),
        decay: choice("decay", "linear", "cosine", "sqrt"),
      },
      rate: (p) => (t) => {
        const u = clip((t - p.total_steps + p.decay_steps) / p.decay_steps);
        const shape = { linear: 1 - u, cosine: halfCosine(1, 0, u), sqrt: 1 - Math.sqrt(u) }[p.decay];
        return p.lr * shape * Math.min(t / p.warmup_steps, 1);
      },
      lrlib: (p) => `lrlib.wsd(\n    ${py(p.lr)}, total_steps=${p.total_steps}, warmup_steps=${p.warmup_steps}, decay_steps=${p.decay_steps}, decay="${p.decay}")`,
      torch: (p) => {
        const shape = { linear: "1 - u", cosine: "(1 + math.cos(math.pi * u)) / 2", sqrt: "1 - u ** 0.5" }[p.decay];
        return `def factor(t):\n    u = min(max((t - ${p.total_steps - p.decay_steps}) / ${p.decay_steps}, 0), 1)\n` +
          `    return min(t / ${p.warmup_steps}, 1) * (${shape})\n\n` + torch(p.lr, "LambdaLR(optimizer, factor)");
      },
    },
  };

  const COUNT = 301; // steps drawn
  LR.formulas.schedules = {
    parameters: Object.fromEntries(Object.entries(schedules).map(([name, schedule]) => [name, schedule.parameters])),
    /** The rates of steps 0 to count - 1 and the two lines. */
    make(name, p, count = COUNT) {
      const schedule = schedules[name];
      return {
        rates: LR.range(count, schedule.rate(p)), lrlib: schedule.lrlib(p), torch: schedule.torch(p),
        end: schedule.end ? schedule.end(p) : null,
      };
    },
  };

  LR.explorer("schedules", (root) => {
    const pick = LR.html("div", { class: "lr-controls" });
    const controls = LR.html("div", { class: "lr-controls" });
    const formula = LR.html("div", { class: "lr-formula math", tabindex: 0, role: "region", "aria-label": "Formula" });
    const plots = LR.html("div", { class: "lr-plots lr-one" });
    root.append(pick, formula, controls, plots);
    const choose = LR.select(pick, { key: "schedule", label: "schedule", value: "cosine", choices: Object.entries(schedules).map(([name, s]) => [name, s.text]) }, () => build());
    const log = LR.checkbox(pick, { key: "log", label: "logarithmic rate axis" }, () => render());
    const plot = LR.plot(plots, { title: "", height: 260, left: 60 });
    const readout = LR.readout(root);
    const lines = { lrlib: LR.code(root, "lrlib"), torch: LR.code(root, "PyTorch") };
    let sliders;

    function build() {
      const schedule = schedules[choose.value];
      controls.replaceChildren();
      sliders = {};
      for (const [name, settings] of Object.entries(schedule.parameters)) {
        const options = settings.ofPeak ? { key: name, ...settings, show: (share) => LR.show(lowest(share)) } : { key: name, ...settings };
        sliders[name] = (settings.choices ? LR.select : LR.slider)(controls, options, () => render());
      }
      formula.innerHTML = LR.typeset[schedule.tex]; // formulas.js, which the build makes
      render();
    }
    /** A formula that is wider than the column becomes smaller, down to two thirds. */
    function shrink() {
      formula.style.fontSize = "";
      const typeset = formula.firstElementChild; // scrolls by itself
      const fits = typeset ? typeset.clientWidth / typeset.scrollWidth : 1;
      if (fits < 1) formula.style.fontSize = `${Math.max(2 / 3, fits) * parseFloat(getComputedStyle(formula).fontSize)}px`;
    }
    const lowest = (share) => LR.round(share * sliders.lr.value, 3);
    function values() {
      const p = {};
      for (const [name, slider] of Object.entries(sliders)) {
        const settings = schedules[choose.value].parameters[name];
        p[name] = settings.ofPeak ? lowest(slider.value) : slider.value;
        if (settings.ofPeak) slider.value = slider.value; // shows the rate, which moves with the peak
      }
      return p;
    }
    function render() {
      if (!sliders) return build();
      shrink();
      const made = LR.formulas.schedules.make(choose.value, values());
      const highest = Math.max(...made.rates, 1e-12);
      const positive = made.rates.filter((rate) => rate > 0);
      const bottom = Math.max(Math.min(...positive) / 1.5, highest * 1e-6);
      const draw = plot.begin({
        x: { min: 0, max: COUNT - 1, label: "step t" },
        y: log.value ? { min: bottom, max: highest * 1.5, log: true, label: "rate η" } : { min: 0, max: highest * 1.08, label: "rate η" },
        label: `${schedules[choose.value].text}: from ${LR.show(made.rates[0])} at step 0 over at most ${LR.show(highest)} to ${LR.show(made.rates[COUNT - 1])} at step ${COUNT - 1}.`,
      });
      draw.line(LR.range(COUNT), made.rates, "lr-c1 lr-thick");
      if (made.end !== null && made.end < COUNT - 1) draw.mark(made.end, "planned end");
      readout.textContent =
        `Step 0: ${LR.show(made.rates[0])}. Highest: ${LR.show(highest)}, first at step ${made.rates.indexOf(highest)}. ` +
        `Step ${COUNT - 1}: ${LR.show(made.rates[COUNT - 1])}. ${schedules[choose.value].remark || ""}`;
      lines.lrlib.text = `schedule = ${made.lrlib}`;
      lines.torch.text = made.torch;
    }
    return render;
  });
})();
