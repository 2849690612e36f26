// A link to a theorem, an equation, a figure, an exercise, a verdict, a source or a term shows it while the pointer or
// the focus is on the link; where there is no pointer, a first tap shows it and a second one follows the link. What there is to show is in previews-data.js, which tools/previews.py makes.
window.LR = window.LR || {};

(() => {
  const LINKS = ".bd-article a[href*='#']:not(.headerlink)";
  const DELAY = 200; // ms, so that a pointer on its way elsewhere opens nothing
  const MARGIN = 8; // px between a preview and the edge of the window
  const root = new URL(document.documentElement.dataset.content_root || "./", location.href).href;
  const tip = document.createElement("div");
  let timer, current, data;

  const load = () => data ??= new Promise((resolve) => {
    const script = document.createElement("script");
    script.src = `${root}_static/previews-data.js`;
    script.onload = script.onerror = () => resolve(LR.previews || {});
    document.head.append(script);
  });

  /** Glyphs of the shown formulas that this page itself has no use for. */
  function lend() {
    const names = [...tip.querySelectorAll("use")].map((use) => use.getAttribute("href").slice(1));
    const paths = [...new Set(names)].filter((name) => !document.getElementById(name))
      .map((name) => `<path id="${name}" d="${LR.glyphs[name]}"/>`);
    if (paths.length) tip.insertAdjacentHTML("beforeend", `<svg class="lr-glyphs" width="0" height="0"><defs>${paths.join("")}</defs></svg>`);
  }

  /** Below the link, or above it where there is more room; what has no room there scrolls. */
  function place(link) {
    tip.style.removeProperty("--room");
    const bar = document.querySelector(".bd-header-article")?.getBoundingClientRect().bottom ?? 0; // it covers what is under it
    const at = link.getClientRects()[0], above = at.top - bar - MARGIN, under = innerHeight - at.bottom - MARGIN;
    const below = tip.offsetHeight <= under || above <= under;
    tip.style.setProperty("--room", `${below ? under : above}px`);
    const box = tip.getBoundingClientRect();
    const right = document.querySelector("article.bd-article").getBoundingClientRect().right;
    tip.style.left = `${scrollX + Math.max(MARGIN, Math.min(at.left, right - box.width))}px`;
    tip.style.top = `${scrollY + (below ? at.bottom : at.top - box.height)}px`;
  }

  async function show(link) {
    current = link;
    const shown = (await load())[link.href.replace(root, "")];
    if (current !== link || !shown) return;
    tip.innerHTML = shown;
    lend();
    tip.hidden = false;
    link.setAttribute("aria-describedby", tip.id);
    place(link);
  }

  function hide() {
    clearTimeout(timer);
    current?.removeAttribute("aria-describedby");
    current = undefined;
    tip.hidden = true;
  }

  function later(action) {
    clearTimeout(timer);
    timer = setTimeout(action, DELAY);
  }

  document.addEventListener("DOMContentLoaded", () => {
    Object.assign(tip, { id: "lr-preview", className: "lr-preview bd-article", hidden: true });
    tip.setAttribute("role", "tooltip");
    document.querySelector("main")?.append(tip);
    tip.addEventListener("pointerenter", () => clearTimeout(timer));
    tip.addEventListener("pointerleave", () => later(hide));
    for (const link of document.querySelectorAll(LINKS)) {
      link.addEventListener("pointerenter", (event) => {
        if (event.pointerType === "mouse") later(() => { hide(); show(link); });
      });
      link.addEventListener("pointerleave", () => later(hide));
      link.addEventListener("focus", () => { hide(); show(link); });
      link.addEventListener("blur", hide);
      let first = false;
      link.addEventListener("pointerdown", (event) => {
        first = event.pointerType === "touch" && (current !== link || tip.hidden);
        tip.classList.toggle("lr-tapped", event.pointerType === "touch");
      });
      link.addEventListener("click", async (event) => {
        if (!first) return;
        first = false;
        event.preventDefault();
        if (!(await load())[link.href.replace(root, "")]) location.href = link.href;
        else if (current !== link) { hide(); show(link); }
      });
    }
    document.addEventListener("pointerdown", (event) => {
      if (!tip.contains(event.target) && !current?.contains(event.target)) hide();
    });
    document.addEventListener("keydown", (event) => { if (event.key === "Escape") hide(); });
  });
})();
