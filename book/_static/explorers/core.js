/* What the explorers share: controls, plots, dragging. No framework, and nothing is loaded from elsewhere.

An explorer registers itself by LR.explorer(name, mount); mount(stage) builds it in the page's
<div class="lr-explorer" data-explorer="name" id="explorer-name"> and returns its render function. The static figure
inside is then removed. Formulas lie in LR.formulas, so that tests can compare them with lrlib. The setting of every
control stands in the address (#explorer-name?rate=0.2&...), so that it can be shared. start.js loads the scripts. */
(function () {
  "use strict";
  const LR = Object.assign((window.LR = window.LR || {}), { formulas: {} });
  const NAMESPACE = "http://www.w3.org/2000/svg";
  const ROOMY = 640; // px: from this width on figures and their text are drawn larger
  const STOPS = 240; // positions of a logarithmic slider

  function fill(element, attributes, children) {
    for (const [name, value] of Object.entries(attributes || {})) {
      if (value !== null && value !== undefined && value !== false) element.setAttribute(name, value);
    }
    element.append(...children);
    return element;
  }
  LR.html = (tag, attributes, ...children) => fill(document.createElement(tag), attributes, children);
  LR.svg = (tag, attributes, ...children) => fill(document.createElementNS(NAMESPACE, tag), attributes, children);

  LR.range = (count, f = (k) => k) => Array.from({ length: count }, (_, k) => f(k));
  LR.round = (x, digits = 3) => Number(x.toPrecision(digits));
  LR.clamp = (x, min, max) => Math.min(max, Math.max(min, x));

  /** A number for readers: 0.0123, 1.2e-5, ∞. */
  LR.show = (x, digits = 3) => {
    if (!Number.isFinite(x)) return Number.isNaN(x) ? "not a number" : x > 0 ? "∞" : "−∞";
    const size = Math.abs(x);
    if (size !== 0 && (size < 1e-3 || size >= 1e5)) {
      const [mantissa, exponent] = size.toExponential(digits - 1).split("e");
      return `${x < 0 ? "−" : ""}${Number(mantissa)}e${Number(exponent)}`;
    }
    return String(LR.round(x, digits)).replace(/^-/, "−");
  };
  /** A number for Python: exactly the double that was drawn. */
  LR.python = (x) => String(x).replace("e+", "e");

  // Starting, the state in the address, the whole screen -------------------------------------------------------------
  const SETTLED = 300; // ms without a change before the address is rewritten
  const WIDTHS = [900, 1100, 1300, 1500, 1700]; // of the stage on the whole screen, before it is magnified
  const live = new WeakMap(); // from each root: its stage, render function, kept values and those of the address

  const mounts = {};
  LR.explorer = (name, mount) => {
    mounts[name] = mount;
    document.querySelectorAll(`.lr-explorer[data-explorer="${name}"]:not([data-live])`).forEach(start);
  };
  const of = (element) => live.get(element.closest(".lr-explorer"));

  /** The initial value of a state by its key: that of the address, if there is one; get tells the present value. */
  LR.state = (element, key, initial, get) => {
    const { kept, saved } = of(element);
    kept.set(key, { element, get });
    if (!saved.has(key)) return initial;
    const text = saved.get(key);
    if (typeof initial === "boolean") return text === "true";
    if (typeof initial === "string") return text;
    return text !== "" && Number.isFinite(Number(text)) ? Number(text) : initial;
  };

  const inAddress = (root) => {
    const [id, state] = location.hash.slice(1).split("?");
    return new URLSearchParams(root.id && id === root.id ? state : "");
  };
  function present(root) {
    const { kept } = live.get(root);
    const values = [...kept].filter(([, { element }]) => element.isConnected).map(([key, { get }]) => [key, String(get())]);
    return `#${root.id}?${new URLSearchParams(values)}`;
  }

  function mount(root, saved) {
    const stage = LR.html("div", { class: "lr-stage" });
    const old = live.get(root)?.stage;
    old ? old.replaceWith(stage) : root.append(stage);
    const explorer = { stage, kept: new Map(), saved, render: () => {} };
    live.set(root, explorer);
    explorer.render = mounts[root.dataset.explorer](stage);
    explorer.render();
    explorer.saved = new URLSearchParams();
    explorer.address = present(root);
  }

  function start(root) {
    root.dataset.live = "true";
    const figure = [...root.childNodes];
    mount(root, inAddress(root));
    figure.forEach((node) => node.remove());
    root.append(tools(root));

    let waiting;
    const changed = () => {
      clearTimeout(waiting);
      waiting = setTimeout(() => {
        const address = present(root);
        if (address === live.get(root).address) return;
        live.get(root).address = address;
        history.replaceState(history.state, "", address);
      }, SETTLED);
    };
    for (const event of ["input", "change", "click", "keyup", "pointerup"]) root.addEventListener(event, changed);
    window.addEventListener("hashchange", () => {
      if (String(inAddress(root))) mount(root, inAddress(root));
    });
    let width = root.clientWidth;
    new ResizeObserver(() => {
      if (root.clientWidth === width) return;
      width = root.clientWidth;
      live.get(root).render();
    }).observe(root);
    root.addEventListener("fullscreenchange", () => fit(root));
  }

  /** On the whole screen the stage has the width at which it can be magnified most, and is never wider than the screen. */
  function fit(root) {
    const { stage, render } = live.get(root);
    const whole = document.fullscreenElement === root;
    const set = (width, zoom) => Object.assign(stage.style, { width, zoom });
    let [best, zoom] = [0, 0];
    for (const width of whole ? WIDTHS : []) {
      set(`${width}px`, 1);
      render();
      const largest = Math.min((innerWidth - 40) / width, (innerHeight - 80) / stage.offsetHeight);
      if (largest > zoom) [best, zoom] = [width, largest];
    }
    if (zoom < 1) best = Math.min(best, innerWidth - 40);
    whole ? set(`${best}px`, Math.max(1, zoom)) : set("", "");
    render();
  }

  /** Reset, copy the address, whole screen. */
  function tools(root) {
    const bar = LR.html("div", { class: "lr-tools" });
    LR.button(bar, "Reset", () => {
      mount(root, new URLSearchParams());
      if (document.fullscreenElement === root) fit(root);
      history.replaceState(history.state, "", location.href.split("#")[0]);
    });
    const link = LR.button(bar, "Copy link", () => copy(location.href.split("#")[0] + present(root), link, bar));
    link.title = "Copy the address of this page with the present setting";
    if (document.fullscreenEnabled) {
      const whole = LR.button(bar, "Full screen", () => {
        document.fullscreenElement ? document.exitFullscreen() : root.requestFullscreen();
      });
      root.addEventListener("fullscreenchange", () => {
        whole.textContent = document.fullscreenElement === root ? "Leave full screen" : "Full screen";
      });
    }
    return bar;
  }

  /** Copy a text and say so on the button; where the clipboard is closed, select it. */
  async function copy(text, button, host) {
    const label = button.textContent;
    const done = () => {
      button.textContent = "Copied";
      setTimeout(() => (button.textContent = label), 1500);
    };
    try {
      await navigator.clipboard.writeText(text);
      done();
    } catch {
      const box = LR.html("textarea", { class: "lr-copied", "aria-hidden": "true" });
      box.value = text;
      host.append(box);
      box.select();
      if (document.execCommand("copy")) done();
      box.remove();
    }
  }

  // Controls ---------------------------------------------------------------------------------------------------------
  let count = 0;
  const fresh = () => `lr-control-${count++}`;

  /** A labelled slider; options: key, label, min, max, value, step, log, digits, show. Its .value can be read and set. */
  LR.slider = (host, options, changed) => {
    const { key, label, min, max, step = 0.001, log = false, digits = 3, show = (x) => LR.show(x, digits) } = options;
    const id = fresh();
    const input = LR.html("input", { type: "range", id, min: log ? 0 : min, max: log ? STOPS : max, step: log ? 1 : step });
    const output = LR.html("output", { for: id });
    const box = LR.html("div", { class: "lr-slider" }, LR.html("label", { for: id }, label), output, input);
    let current;
    const control = {
      box,
      input,
      get value() {
        return current;
      },
      set value(x) {
        current = LR.clamp(Number.isInteger(step) ? min + step * Math.round((x - min) / step) : x, min, max);
        input.value = log ? Math.round((STOPS * Math.log(current / min)) / Math.log(max / min)) : current;
        name();
      },
    };
    function name() {
      output.textContent = show(current);
      input.setAttribute("aria-valuetext", show(current));
    }
    input.addEventListener("input", () => {
      current = log ? LR.clamp(LR.round(min * (max / min) ** (input.value / STOPS), digits), min, max) : Number(input.value);
      name();
      changed();
    });
    host.append(box);
    control.value = LR.state(box, key, options.value, () => current);
    return control;
  };

  /** A labelled choice among [value, text] pairs. */
  LR.select = (host, { key, label, choices, value }, changed) => {
    const id = fresh();
    const input = LR.html("select", { id }, ...choices.map(([key, text]) => LR.html("option", { value: key }, text)));
    input.addEventListener("change", changed);
    const box = LR.html("div", { class: "lr-select" }, LR.html("label", { for: id }, label), input);
    host.append(box);
    const wanted = LR.state(box, key, value, () => input.value);
    input.value = choices.some(([known]) => known === wanted) ? wanted : value;
    return { box, input, get value() { return input.value; }, set value(key) { input.value = key; } };
  };

  LR.checkbox = (host, { key, label, value = false }, changed) => {
    const id = fresh();
    const input = LR.html("input", { type: "checkbox", id });
    input.addEventListener("change", changed);
    host.append(LR.html("div", { class: "lr-checkbox" }, input, LR.html("label", { for: id }, label)));
    input.checked = LR.state(input, key, value, () => input.checked);
    return { input, get value() { return input.checked; }, set value(on) { input.checked = on; } };
  };

  LR.button = (host, label, pressed) => {
    const button = LR.html("button", { type: "button", class: "lr-button" }, label);
    button.addEventListener("click", pressed);
    host.append(button);
    return button;
  };

  /** Text that screen readers hear when it changes. */
  LR.readout = (host) => {
    const box = LR.html("p", { class: "lr-readout", "aria-live": "polite" });
    host.append(box);
    return box;
  };

  // Plots ------------------------------------------------------------------------------------------------------------
  function linearTicks(min, max, wanted) {
    const raw = (max - min) / wanted;
    const power = 10 ** Math.floor(Math.log10(raw));
    const step = power * [1, 2, 5, 10].find((factor) => factor * power >= raw * 0.999);
    const first = Math.ceil(min / step - 1e-9);
    return LR.range(Math.max(0, Math.floor(max / step + 1e-9) - first + 1), (k) => LR.round((first + k) * step, 12));
  }
  function logTicks(min, max, wanted) {
    const low = Math.ceil(Math.log10(min) - 1e-9);
    const high = Math.floor(Math.log10(max) + 1e-9);
    if (high - low < 1) return linearTicks(min, max, wanted).filter((x) => x > 0);
    const every = Math.max(1, Math.ceil((high - low) / wanted));
    return LR.range(Math.floor((high - low) / every) + 1, (k) => 10 ** (low + k * every));
  }
  const superscript = (n) => String(n).replace(/./g, (c) => "⁰¹²³⁴⁵⁶⁷⁸⁹"[c] ?? "⁻");
  function tickText(x, log) {
    const power = Math.log10(x);
    if (log && Number.isInteger(LR.round(power, 12)) && Math.abs(power) > 2.5) return "10" + superscript(Math.round(power));
    return LR.show(x, 6);
  }

  function scale({ min, max, log }, from, to) {
    const f = log ? Math.log : (x) => x;
    const low = f(min);
    const high = f(max);
    const forward = (x) => {
      const pixel = from + ((f(log ? Math.max(x, 1e-320) : x) - low) / (high - low)) * (to - from);
      return Math.min(1e5, Math.max(-1e5, pixel));
    };
    forward.back = (pixel) => {
      const y = low + ((pixel - from) / (to - from)) * (high - low);
      return log ? Math.exp(y) : y;
    };
    return Object.assign(forward, { min, max });
  }

  /** A figure in a host; begin({x, y}) clears it, draws the axes and returns the drawing functions. */
  LR.plot = (host, { height = 250, title = "", left = 52 } = {}) => {
    const svg = LR.svg("svg", { class: "lr-plot", role: "img", "aria-label": title });
    const heading = LR.html("div", { class: "lr-plot-title" }, title);
    const box = LR.html("div", { class: "lr-plot-box" }, ...(title ? [heading] : []), svg);
    host.append(box);
    const clip = fresh();
    const plot = { box, svg };
    const enlarged = () => (of(box).stage.clientWidth >= ROOMY ? 1.15 : 1);
    svg.setAttribute("height", height * enlarged()); // also before it is drawn for the first time
    plot.begin = ({ x, y, label = title }) => {
      const larger = enlarged();
      const width = Math.max(240, (box.clientWidth || 320) / larger);
      const [right, top, bottom] = [18, 10, x.label ? 42 : 24];
      const X = (plot.X = scale(x, left, width - right));
      const Y = (plot.Y = scale(y, height - bottom, top));
      svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
      svg.setAttribute("height", height * larger);
      svg.setAttribute("aria-label", label);
      const inside = { x: left, y: top, width: width - left - right, height: height - top - bottom };
      const back = LR.svg("g", { "aria-hidden": "true" });
      const layer = LR.svg("g", { "clip-path": `url(#${clip})` });
      const front = LR.svg("g", {});
      svg.replaceChildren(
        LR.svg("defs", {}, LR.svg("clipPath", { id: clip }, LR.svg("rect", inside))), back, layer, front);
      const text = (at, dx, dy, anchor, string, css = "") =>
        LR.svg("text", { x: at[0] + dx, y: at[1] + dy, "text-anchor": anchor, class: `lr-text ${css}` }, string);
      for (const tick of x.ticks || (x.log ? logTicks : linearTicks)(x.min, x.max, width < 420 ? 4 : 7)) {
        back.append(
          LR.svg("line", { class: "lr-grid", x1: X(tick), x2: X(tick), y1: top, y2: height - bottom }),
          text([X(tick), height - bottom], 0, 16, "middle", tickText(tick, x.log)));
      }
      for (const tick of y.ticks || (y.log ? logTicks : linearTicks)(y.min, y.max, 5)) {
        back.append(
          LR.svg("line", { class: "lr-grid", x1: left, x2: width - right, y1: Y(tick), y2: Y(tick) }),
          text([left, Y(tick)], -6, 4, "end", tickText(tick, y.log)));
      }
      if (x.label) back.append(text([(left + width - right) / 2, height], 0, -6, "middle", x.label, "lr-axis"));
      if (y.label) {
        const middle = (top + height - bottom) / 2;
        const turned = text([0, 0], 0, 0, "middle", y.label, "lr-axis");
        turned.setAttribute("transform", `translate(12 ${middle}) rotate(-90)`);
        back.append(turned);
      }
      const draw = {
        X, Y, inside, layer, front, width,
        line(xs, ys, css) {
          let path = "";
          let pen = "M";
          xs.forEach((value, k) => {
            if (!Number.isFinite(ys[k])) {
              pen = "M";
              return;
            }
            path += `${pen}${X(value).toFixed(2)} ${Y(ys[k]).toFixed(2)}`;
            pen = "L";
          });
          const drawn = LR.svg("path", { class: `lr-line ${css}`, d: path });
          layer.append(drawn);
          return drawn;
        },
        dots(xs, ys, css, radius = 3) {
          xs.forEach((value, k) => {
            if (Number.isFinite(ys[k])) {
              layer.append(LR.svg("circle", { class: `lr-dot ${css}`, cx: X(value), cy: Y(ys[k]), r: radius }));
            }
          });
        },
        /** Many small dots, as one path. */
        cloud(xs, ys, css) {
          const path = xs.map((value, k) => `M${X(value).toFixed(1)} ${Y(ys[k]).toFixed(1)}h0`).join("");
          layer.append(LR.svg("path", { class: `lr-line lr-cloud ${css}`, d: path }));
        },
        vertical(value, css) {
          layer.append(LR.svg("line", { class: `lr-line ${css}`, x1: X(value), x2: X(value), y1: top, y2: height - bottom }));
        },
        band(from, to, css) {
          const [a, b] = [X(from), X(to)].sort((p, q) => p - q);
          layer.append(LR.svg("rect", { class: css, x: a, y: top, width: b - a, height: inside.height }));
        },
        note(x0, y0, string, css = "", anchor = "start", dx = 4, dy = -4) {
          front.append(text([X(x0), Y(y0)], dx, dy, anchor, string, css));
        },
        /** A dashed line with its name beside it, on the side that has room. */
        mark(value, string) {
          draw.vertical(value, "lr-soft lr-dashed");
          const early = X(value) < left + inside.width / 3;
          draw.note(value, y.max, string, "", early ? "start" : "end", early ? 5 : -5, 14);
        },
      };
      return draw;
    };
    /** The data coordinates of a pointer event. */
    plot.at = (event) => {
      const box = svg.getBoundingClientRect();
      const factor = svg.viewBox.baseVal.width / box.width;
      return [plot.X.back((event.clientX - box.left) * factor), plot.Y.back((event.clientY - box.top) * factor)];
    };
    return plot;
  };

  /** Follow a pointer from where it goes down on the target until it is lifted. */
  LR.drag = (target, follow, ended = () => {}) => {
    target.addEventListener("pointerdown", (event) => {
      if (event.button !== 0) return;
      event.preventDefault();
      const same = (next) => next.pointerId === event.pointerId;
      const move = (next) => same(next) && follow(next);
      const end = (next) => {
        if (!same(next)) return;
        window.removeEventListener("pointermove", move);
        for (const last of ["pointerup", "pointercancel"]) window.removeEventListener(last, end);
        ended();
      };
      window.addEventListener("pointermove", move);
      for (const last of ["pointerup", "pointercancel"]) window.addEventListener(last, end);
    });
  };

  /** A point that is dragged by pointer or moved by the arrow keys, to an end by Home and End where it has one direction
      only; moved(x, y) gets data coordinates. */
  LR.handle = (plot, { label, x, y, text, nudge }, moved) => {
    const at = { transform: `translate(${plot.X(x)} ${plot.Y(y)})` };
    const handle = LR.svg("g", {
      class: "lr-handle", tabindex: 0, role: "slider", "aria-label": label, "aria-valuetext": text,
      "aria-valuemin": LR.round(plot.X.min, 4), "aria-valuenow": LR.round(x, 4), "aria-valuemax": LR.round(plot.X.max, 4), ...at,
    }, LR.svg("circle", { r: 20, class: "lr-reach" }), LR.svg("circle", { r: 8, class: "lr-knob" }));
    handle.addEventListener("keydown", (event) => {
      const move = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[event.key];
      const end = { Home: "min", End: "max" }[event.key];
      if (!move && !end) return;
      event.preventDefault();
      move ? moved(x + move[0] * nudge[0], y + move[1] * nudge[1]) : moved(nudge[1] ? x : plot.X[end], nudge[0] ? y : plot.Y[end]);
      plot.svg.querySelector(".lr-handle").focus();
    });
    // Without this a finger on the handle pans the page; touch-action has no effect on a <g>.
    handle.addEventListener("touchstart", (event) => event.preventDefault(), { passive: false });
    LR.drag(handle, (event) => moved(...plot.at(event)), () => plot.svg.querySelector(".lr-handle").focus());
    plot.svg.setAttribute("role", "group");
    return handle;
  };

  /** A line of code with a button that copies it. */
  LR.code = (host, label) => {
    const code = LR.html("code", {});
    const button = LR.html("button", { type: "button", class: "lr-button" }, "Copy");
    button.setAttribute("aria-label", `Copy the ${label} line`);
    button.addEventListener("click", () => copy(code.textContent, button, button.parentElement));
    host.append(
      LR.html("div", { class: "lr-code" },
        LR.html("div", { class: "lr-code-head" }, LR.html("span", {}, label), button),
        LR.html("pre", { tabindex: 0, "aria-label": `${label} code` }, code)));
    return { button, get text() { return code.textContent; }, set text(value) { code.textContent = value; } };
  };
})();
