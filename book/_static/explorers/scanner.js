/* The picture scanner: a picture is shrunk as Pillow does it, and its pixels, read one by one, are the rates. */
(function () {
  "use strict";
  const BITS = 22; // Pillow's fixed-point precision for 8-bit pictures

  function bicubic(x) {
    const [a, y] = [-0.5, Math.abs(x)];
    if (y < 1) return ((a + 2) * y - (a + 3)) * y * y + 1;
    return y < 2 ? (((y - 5) * y + 8) * y - 4) * a : 0;
  }

  /** For each output pixel the first input pixel and the weights, as whole numbers of 2^-22. */
  function weights(from, to) {
    const scale = from / to;
    const filter = Math.max(scale, 1);
    const support = 2 * filter;
    return LR.range(to, (k) => {
      const centre = (k + 0.5) * scale;
      const first = Math.max(0, Math.trunc(centre - support + 0.5));
      const end = Math.min(from, Math.trunc(centre + support + 0.5));
      const raw = LR.range(end - first, (x) => bicubic((x + first - centre + 0.5) * (1 / filter)));
      const total = raw.reduce((p, q) => p + q, 0);
      return [first, raw.map((w) => Math.trunc((w / total) * 2 ** BITS + (w < 0 ? -0.5 : 0.5)))];
    });
  }
  const clip8 = (sum) => Math.min(255, Math.max(0, Math.floor(sum / 2 ** BITS)));

  function alongRows(plane, [width, height], to) {
    const table = weights(width, to);
    const out = new Uint8Array(to * height);
    for (let y = 0; y < height; y++) {
      table.forEach(([first, ks], x) => {
        let sum = 2 ** (BITS - 1);
        ks.forEach((k, i) => (sum += k * plane[y * width + first + i]));
        out[y * to + x] = clip8(sum);
      });
    }
    return out;
  }
  function alongColumns(plane, [width, height], to) {
    const out = new Uint8Array(width * to);
    weights(height, to).forEach(([first, ks], y) => {
      for (let x = 0; x < width; x++) {
        let sum = 2 ** (BITS - 1);
        ks.forEach((k, i) => (sum += k * plane[(first + i) * width + x]));
        out[y * width + x] = clip8(sum);
      }
    });
    return out;
  }
  /** One channel, values 0 to 255 row by row, resized in two passes and rounded in between, in Pillow 13's order. */
  function resize(plane, [width, height], [newWidth, newHeight]) {
    const columnsFirst = height - newHeight > 2 * (width - newWidth) && newHeight < height;
    if (columnsFirst) plane = alongColumns(plane, [width, height], newHeight);
    const between = columnsFirst ? newHeight : height;
    if (newWidth !== width) plane = alongRows(plane, [width, between], newWidth);
    return between === newHeight ? plane : alongColumns(plane, [newWidth, between], newHeight);
  }

  function positions([width, height], order) {
    const places = [];
    if (order === "columns") {
      for (let x = 0; x < width; x++) for (let y = 0; y < height; y++) places.push([x, y]);
    } else {
      for (let y = 0; y < height; y++) {
        for (let x = 0; x < width; x++) places.push([order === "boustrophedon" && y % 2 ? width - 1 - x : x, y]);
      }
    }
    return places;
  }

  /** The picture at a URL, at most `side` pixels a side: its size and RGB values row by row, transparent parts on white. */
  async function decode(url, side) {
    const image = new Image();
    image.src = url;
    await image.decode();
    const shrink = Math.min(1, side / Math.max(image.naturalWidth, image.naturalHeight));
    const page = document.createElement("canvas");
    page.width = Math.max(1, Math.round(image.naturalWidth * shrink));
    page.height = Math.max(1, Math.round(image.naturalHeight * shrink));
    const pen = page.getContext("2d");
    pen.fillStyle = "#fff";
    pen.fillRect(0, 0, page.width, page.height);
    pen.drawImage(image, 0, 0, page.width, page.height);
    const rgba = pen.getImageData(0, 0, page.width, page.height).data;
    return { size: [page.width, page.height], rgb: rgba.filter((_, k) => k % 4 !== 3), shrunk: shrink < 1 };
  }

  const formulas = (LR.formulas.scanner = {
    decode,
    /** From RGB values row by row: the size shrunk to, the values 0 to 255 in reading order, and the rates. */
    scan(rgb, [width, height], steps, low, high, order = "rows") {
      const factor = Math.sqrt((width * height * 3) / steps);
      const size = [Math.trunc(width / factor), Math.trunc(height / factor)];
      const planes = [0, 1, 2].map((c) => resize(LR.range(width * height, (k) => rgb[3 * k + c]), [width, height], size));
      const places = positions(size, order);
      const values = places.flatMap(([x, y]) => planes.map((plane) => plane[y * size[0] + x]));
      const rates = LR.range(steps, (t) => low + (high - low) * (values[Math.min(t, values.length - 1)] / 255));
      return { size, planes, places, values, rates };
    },
  });

  LR.explorer("scanner", (root) => {
    const SIDE = 512; // a larger picture is first brought to this many pixels a side
    const controls = LR.html("div", { class: "lr-controls" });
    const plots = LR.html("div", { class: "lr-plots" });
    root.append(controls, plots);
    const names = Object.keys(LR.pictures);
    const choose = LR.select(controls, { key: "picture", label: "picture", value: names[0], choices: names.map((name) => [name, name.replaceAll("_", " ")]) }, () => loadChosen());
    const path = () => `data/images/${choose.value}.png`; // of the chosen picture, in the book
    const own = LR.html("option", { value: "" }, "your picture"); // in the list while it is shown
    function loadChosen() {
      file.value = "";
      own.remove();
      load(LR.pictures[choose.value], path());
    }
    const file = LR.html("input", { type: "file", accept: "image/*", id: "lr-scanner-file" });
    controls.append(LR.html("div", { class: "lr-select" }, LR.html("label", { for: "lr-scanner-file" }, "or your own: choose a file, or drop one on the picture"), file));
    const steps = LR.slider(controls, { key: "steps", label: "number of steps T", min: 50, max: 3000, step: 10, value: 900 }, () => scan());
    const low = LR.slider(controls, { key: "low", label: "rate of black, base_lr", min: 1e-6, max: 1e-3, log: true, value: 1e-5 }, () => scan());
    const high = LR.slider(controls, { key: "high", label: "rate of white, max_lr", min: 1e-3, max: 1, log: true, value: 1e-2 }, () => scan());
    const order = LR.select(controls, { key: "order", label: "order", value: "rows", choices: [["rows", "row by row"], ["boustrophedon", "to and fro"], ["columns", "column by column"]] }, () => scan());
    const at = LR.slider(controls, { key: "step", label: "step t", min: 0, max: 3000, step: 1, value: 3000, digits: 5 }, () => render());
    const play = LR.button(controls, "Scan", () => (timer ? stop() : start()));
    const canvas = LR.html("canvas", { class: "lr-picture", width: 240, height: 312, role: "img", "aria-label": "The picture, shrunk" });
    const left = LR.html("div", { class: "lr-plot-box" }, LR.html("div", { class: "lr-plot-title" }, "The picture as it is read"), canvas);
    plots.append(left);
    const curve = LR.plot(plots, { title: "Its schedule", height: 300, left: 60 });
    const readout = LR.readout(root);
    const line = LR.code(root, "lrlib");
    let picture = null;
    let scanned = null;
    let timer = 0;
    let note = "";

    file.addEventListener("change", () => file.files[0] && open(file.files[0]));
    for (const kind of ["dragover", "drop"]) {
      root.addEventListener(kind, (event) => {
        event.preventDefault();
        if (kind === "drop" && event.dataTransfer.files[0]) open(event.dataTransfer.files[0]);
      });
    }
    function open(chosen) {
      const reader = new FileReader();
      reader.onload = async () => {
        if (!(await load(reader.result, chosen.name))) return;
        choose.input.append(own);
        choose.value = own.value;
      };
      reader.readAsDataURL(chosen);
    }
    async function load(url, name) {
      try {
        picture = { name, ...(await decode(url, SIDE)) };
      } catch {
        readout.textContent = `${name} is not a picture that this browser can show.`;
        return false;
      }
      note = picture.shrunk ? "It is larger than this page reads and was brought down first, so lrlib's values differ a little. " : "";
      scan();
      return true;
    }
    function scan() {
      if (!picture) return;
      const [width, height] = picture.size;
      const count = Math.min(steps.value, 3 * width * height);
      const factor = Math.sqrt((3 * width * height) / count);
      stop();
      if (Math.trunc(Math.min(width, height) / factor) < 1) {
        scanned = null;
        readout.textContent = "The picture is too narrow for so few steps.";
        return;
      }
      scanned = formulas.scan(picture.rgb, picture.size, count, low.value, high.value, order.value);
      at.input.max = count - 1;
      at.value = Math.min(at.value, count - 1);
      render();
    }
    function start() {
      if (!scanned) return;
      const total = scanned.rates.length;
      if (at.value >= total - 1) at.value = 0;
      play.textContent = "Stop";
      const advance = () => {
        at.value = Math.min(total - 1, at.value + Math.max(1, Math.round(total / 500)));
        render();
        if (at.value >= total - 1) stop();
        else timer = requestAnimationFrame(advance);
      };
      timer = requestAnimationFrame(advance);
    }
    function stop() {
      cancelAnimationFrame(timer);
      timer = 0;
      play.textContent = "Scan";
    }
    function code(name, count) {
      line.text = `schedule = lrlib.image_schedule(\n    "${name}", num_steps=${count}, base_lr=${LR.python(low.value)}, max_lr=${LR.python(high.value)}, order="${order.value}")`;
    }
    function render() {
      if (!scanned) {
        code(picture ? picture.name : path(), steps.value);
        return picture ? undefined : loadChosen();
      }
      const { size: [width, height], planes, places, values, rates } = scanned;
      const t = Math.min(at.value, rates.length - 1);
      const pixel = Math.min(t, values.length - 1);
      const [x, y] = places[Math.floor(pixel / 3)];
      const zoom = Math.max(2, Math.floor(320 / Math.max(width, height)));
      [canvas.width, canvas.height] = [width * zoom, height * zoom];
      const pen = canvas.getContext("2d");
      places.forEach(([px, py], k) => {
        const colour = planes.map((plane) => plane[py * width + px]);
        pen.globalAlpha = 3 * k <= pixel ? 1 : 0.35;
        pen.fillStyle = `rgb(${colour.join(" ")})`;
        pen.fillRect(px * zoom, py * zoom, zoom, zoom);
      });
      pen.globalAlpha = 1;
      pen.lineWidth = 2;
      pen.strokeStyle = "#fff";
      pen.strokeRect(x * zoom - 2, y * zoom - 2, zoom + 4, zoom + 4);
      pen.strokeStyle = "#d00000";
      pen.strokeRect(x * zoom - 1, y * zoom - 1, zoom + 2, zoom + 2);
      canvas.setAttribute("aria-label", `The picture shrunk to ${width} by ${height} pixels; step ${t} reads pixel (${x}, ${y}).`);

      const draw = curve.begin({
        x: { min: 0, max: Math.max(1, rates.length - 1), label: "step t" }, y: { min: 0, max: high.value * 1.05, label: "rate η" },
        label: `The schedule of ${rates.length} steps up to step ${t}, where the rate is ${LR.show(rates[t])}.`,
      });
      draw.line(LR.range(t + 1), rates.slice(0, t + 1), "lr-c1 lr-thin");
      draw.dots([t], [rates[t]], "lr-c2", 5);
      if (values.length < rates.length) draw.mark(values.length - 1, "held from here");
      readout.textContent =
        `${note}${picture.size.join(" × ")} pixels, shrunk to ${width} × ${height}: ${values.length} values for ${rates.length} steps, the last one held for ` +
        `${rates.length - values.length}. Step ${t} reads ${["red", "green", "blue"][pixel % 3]} of pixel (${x}, ${y}): ${values[pixel]} of 255, rate ${LR.show(rates[t])}.`;
      code(picture.name, rates.length);
    }
    return render;
  });
})();
