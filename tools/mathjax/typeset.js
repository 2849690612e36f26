// From the standard input a JSON list of [TeX, whether it stands by itself], to the standard output
// {formulas: [{html, error}], glyphs: {id: path}}: what to show for each formula, and the shapes that it refers to.
const fs = require("fs");

const glyphs = {};
let adaptor;

const escape = (text) => text.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/"/g, "&quot;");
const attributes = (list) => list.map(([name, value]) => ` ${name}="${escape(String(value))}"`).join("");

/** The drawing without what only scripts would read, and a glyph as <use href="#id">. */
function drawing(node) {
  const kind = adaptor.kind(node);
  if (kind === "#text") return escape(adaptor.value(node));
  if (kind === "defs") {
    for (const path of adaptor.childNodes(node)) {
      glyphs[adaptor.getAttribute(path, "id").replace(/^MJX-\d+-/, "")] = adaptor.getAttribute(path, "d");
    }
    return "";
  }
  let kept = adaptor.allAttributes(node).map(({ name, value }) => [name, value])
    .filter(([name, value]) => !/^(data-(?!line|frame)|xmlns|stroke-width$)/.test(name) && value !== "currentColor");
  if (kind === "use") {
    kept = kept.map(([name, value]) => (name === "xlink:href" ? ["href", value.replace(/^#MJX-\d+-/, "#")] : [name, value]));
    const glyph = kept.find(([name]) => name === "href")[1].slice(1);
    if (!glyphs[glyph]) return ""; // a blank
  }
  const children = adaptor.childNodes(node).map(drawing).filter(Boolean);
  if (kind === "g") {
    if (!children.length) return "";
    if (!kept.length) return children.join("");
    const [only] = children;
    const plain = children.length === 1 && kept.length === 1 && kept[0][0] === "transform";
    if (plain && /^<use href="[^"]*"\/>$/.test(only)) return only.replace("/>", `${attributes(kept)}/>`);
  }
  return children.length ? `<${kind}${attributes(kept)}>${children.join("")}</${kind}>` : `<${kind}${attributes(kept)}/>`;
}

function mathml(node) {
  if (adaptor.kind(node) === "#text") return escape(adaptor.value(node));
  const kept = adaptor.allAttributes(node).map(({ name, value }) => [name, value]).filter(([name]) => !/^(data-|xmlns$)/.test(name));
  const kind = adaptor.kind(node);
  return `<${kind}${attributes(kept)}>${adaptor.childNodes(node).map(mathml).join("")}</${kind}>`;
}

function typeset(MathJax, tex, display) {
  const [svg, assistive] = adaptor.childNodes(MathJax.tex2svg(tex, { display }));
  const kept = ["width", "height", "viewBox"].map((name) => [name, adaptor.getAttribute(svg, name)]);
  const depth = adaptor.getStyle(svg, "vertical-align");
  if (depth) kept.push(["style", `vertical-align:${depth}`]);
  const made = adaptor.outerHTML(svg);
  const error = made.match(/data-mjx-error="([^"]*)"/)?.[1]
    || (/ fill="red"/.test(made) && "an unknown command") || (kept[0][1].endsWith("%") && "a \\tag, which the page would have to place");
  const shown = `<svg${attributes(kept)} aria-hidden="true">${adaptor.childNodes(svg).map(drawing).join("")}</svg>`;
  const read = `<mjx-assistive-mml>${mathml(adaptor.childNodes(assistive)[0])}</mjx-assistive-mml>`;
  return { html: `<mjx-container${display ? ' display="true" tabindex="0"' : ""}>${shown}${read}</mjx-container>`, error: error || null };
}

require("./node-main.js").init({
  loader: { load: ["adaptors/liteDOM", "input/tex-full", "output/svg", "a11y/assistive-mml"] },
  svg: { fontCache: "local" }, startup: { typeset: false },
}).then((MathJax) => {
  adaptor = MathJax.startup.adaptor;
  const formulas = JSON.parse(fs.readFileSync(0, "utf-8")).map(([tex, display]) => typeset(MathJax, tex, display));
  process.stdout.write(JSON.stringify({ formulas, glyphs }));
}).catch((error) => { console.error(error); process.exit(1); });
