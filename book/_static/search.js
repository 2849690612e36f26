/* The search page. What it searches is LR.pages, from search-data.js, which tools/search_index.py makes: for each page
   its address and its sections [anchor, heading, text], in the order of the book. */
(() => {
  "use strict";
  const FIRST = "book/choose.html"; // after the pages whose title has what was asked
  const SECTIONS = 3; // shown of a page
  const BEFORE = 60, LENGTH = 220; // characters of a snippet
  const SAME = [ // what a reader may write for the same thing, in small letters without hyphens
    ["learning rate range test", "learning rate finder", "lr range test", "lr finder", "rate finder", "range test"],
    ["warmup", "warm up"], ["learning rate", "lr", "rate"], ["weight decay", "wd"], ["fine tuning", "finetuning", "fine tune"],
    ["one cycle", "onecycle", "1cycle", "superconvergence", "super convergence"], ["warm restarts", "sgdr"],
    ["linear scaling rule", "linear scaling", "linearly with the batch", "proportion to the batch"], ["batch size", "batchsize"], ["language model", "llm", "large language model"], ["pretraining", "pretrain", "from scratch"],
    ["discriminative", "layerwise", "layer wise", "llrd", "layer to layer"], ["vision transformer", "vit"],
    ["rewarming", "re warming", "rewarm"], ["continual pretraining", "continued pretraining", "continue training", "resume training", "going on from a finished run"],
    ["regularisation", "regularization"], ["regulariser", "regularizer"], ["implicit regularisation", "implicit bias", "implicit gradient regularization"],
    ["bfloat16", "bf16"], ["float16", "fp16"], ["float32", "fp32"], ["half precision", "low precision"], ["stochastic rounding", "stochastically rounded"],
    ["forgetting", "forgets", "catastrophic forgetting", "keeps what was learned"],
    ["stochastic weight averaging", "swa", "weight averaging", "mean of the last weights"],
    ["stochastic gradient descent", "sgd"], ["stochastic polyak step size", "polyak step size", "polyak's step", "sps"], ["armijo line search", "backtracking line search", "armijo's line search"], ["edge of stability", "eos"], ["warmup stable decay", "wsd", "trapezoidal"],
    ["mup", "µp", "μp", "maximal update"], ["low rank adaptation", "lora"],
    ...Object.entries({ alpha: "α", beta: "β", gamma: "γ", delta: "δ", epsilon: "ε", eta: "η", theta: "θ", kappa: "κ", lambda: "λ", mu: "μ", rho: "ρ", sigma: "σ", tau: "τ", phi: "φ" }),
  ];
  const SMALL = new Set("a an and are as at by do for from how i in is it my of on or should the to versus vs what when which with".split(" "));
  const ABOUT = "learning rate"; // what every page is about: to have it in the title tells little
  const REFERENCE = /^book\/(index|ledger|glossary|bibliography|api)/; // after the chapters

  /** Small letters without hyphens inside words, and where each letter stood. */
  function fold(text) {
    let folded = "";
    const at = [];
    let end = 0;
    for (const { index, 0: hyphen } of [...text.matchAll(/(?<=\p{L})[-‐‑–](?=\p{L})/gu), { index: text.length, 0: "" }]) {
      for (let k = end; k < index; k++) at.push(k);
      folded += text.slice(end, index);
      end = index + hyphen.length;
    }
    const small = folded.toLowerCase();
    if (small.length === folded.length) folded = small; // else a letter has become two
    return { folded, at };
  }

  const escape = (word) => word.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");
  /** A word begins with the stem; one of three letters or fewer is meant as it stands; -ize is -ise. */
  function pattern(word) {
    const stem = word.length > 4 ? word.replace(/(?<=.{4})(?:ings?|ed|es|s|e)$/, "") : word;
    return escape(stem).replace(/i[sz](?=ation|e|ing|$)/, "i[sz]") + (word.length > 3 ? "[\\p{L}\\p{N}]*" : "(?![\\p{L}\\p{N}])");
  }
  const phrase = (words) => words.split(" ").map(pattern).join("[\\s_]+");

  /** What is asked, as a list of regular expressions that must all be found. */
  function needs(query) {
    let rest = ` ${fold(query).folded.replace(/[^\p{L}\p{N}_.]+/gu, " ").trim()} `;
    const found = [];
    const known = SAME.flatMap((group) => group.map((words) => [words, group])).sort((a, b) => b[0].length - a[0].length);
    for (const [words, group] of known) {
      if (rest.includes(` ${words} `)) {
        found.push(group);
        rest = rest.replaceAll(` ${words} `, "  ");
      }
    }
    const words = rest.split(" ").filter(Boolean);
    const telling = words.filter((word) => !SMALL.has(word));
    found.push(...(telling.length || found.length ? telling : words).map((word) => [word]));
    return found.map((group) => Object.assign(
      new RegExp(`(?<![\\p{L}\\p{N}])(?:${group.map(phrase).join("|")})`, "gu"), { tells: found.length === 1 || group[0] !== ABOUT }));
  }

  const has = (text, wanted, enough = wanted.length) => wanted.filter((one) => text.search(one) >= 0).length >= enough;
  const count = (text, wanted) => wanted.reduce((sum, one) => sum + Math.log1p([...text.matchAll(one)].length), 0);

  /** The pages that have all that is wanted, or, where no chapter has, most of it. */
  function search(pages, wanted, query) {
    let best = { found: [], enough: 0 };
    for (let enough = wanted.length; enough > 0; enough--) {
      const found = having(pages, wanted, query, enough);
      if (!best.enough && found.length) best = { found, enough };
      if (found.some(({ url }) => !REFERENCE.test(url))) return { found, enough };
    }
    return best;
  }

  /** The pages that have enough of what is wanted: that of the function with this name, those with all of it in their
      title, the page to choose by, those with all of it in a heading, those with a part of it in their title, the others;
      each kind in the order of the book, the chapters first, with their best sections. */
  function having(pages, wanted, query, enough) {
    const found = pages.flatMap(([url, ...sections], place) => {
      const title = sections[0][1];
      const inTitle = !url.startsWith("book/api") && has(fold(title).folded, wanted);
      const hits = sections.map(([anchor, heading, text], k) => {
        const own = k ? `${title} ${heading}` : title;
        if (!has(fold(`${own} ${text}`).folded, wanted, enough)) return null;
        const api = heading === anchor; // the entry of a class or a function
        const exact = api && /[._]/.test(query) && heading.split(".").at(-1) === query.split(".").at(-1);
        const named = !api && has(fold(heading).folded, wanted);
        const opening = k ? 0 : 50; // it says what the page is about
        const score = (exact ? 200 : named ? 100 : opening) + 10 * count(fold(heading).folded, wanted) + count(fold(text).folded, wanted);
        return { anchor, heading, text, first: !k, exact, named, score };
      }).filter(Boolean);
      const whole = () => has(fold(sections.flat().join(" ")).folded, wanted, enough);
      if (!hits.length && !whole()) return [];
      hits.sort((a, b) => b.score - a.score);
      const chapter = !REFERENCE.test(url);
      const partly = chapter && wanted.some((one) => one.tells && has(fold(title).folded, [one]));
      const kinds = [hits[0]?.exact, inTitle, url === FIRST, chapter && hits[0]?.named, partly, chapter && hits.length, chapter, hits[0]?.named];
      const kind = kinds.findIndex(Boolean) >>> 0; // -1 is last
      return [{ url, title, place, kind, hits: hits.slice(0, SECTIONS) }];
    });
    return found.sort((a, b) => a.kind - b.kind || a.place - b.place);
  }

  /** The first piece of the text that has most of what is wanted, with all of it marked. */
  function snippet(text, wanted) {
    const { folded, at } = fold(text);
    const spans = wanted.flatMap((one, k) => [...folded.matchAll(one)].map((m) => [at[m.index], at[m.index + m[0].length - 1] + 1, k]));
    spans.sort((a, b) => a[0] - b[0]);
    const kinds = spans.map(([from], n) => new Set(spans.slice(n).filter(([, to]) => to < from + LENGTH - BEFORE).map(([, , k]) => k)).size);
    let start = Math.max(0, (spans[kinds.indexOf(Math.max(...kinds))]?.[0] ?? 0) - BEFORE);
    if (start) start = text.indexOf(" ", start) + 1;
    const end = start + LENGTH < text.length ? text.lastIndexOf(" ", start + LENGTH) : text.length;
    const shown = document.createElement("p");
    shown.className = "context";
    let here = start;
    if (start) shown.append("… ");
    for (const [from, to] of spans) {
      if (from < here || to > end) continue;
      const mark = document.createElement("mark");
      mark.textContent = text.slice(from, to);
      shown.append(text.slice(here, from), mark);
      here = to;
    }
    shown.append(text.slice(here, end), end < text.length ? " …" : "");
    return shown;
  }

  function link(href, text) {
    const made = document.createElement("a");
    made.href = href;
    made.textContent = text;
    return made;
  }

  function show(query) {
    const wanted = needs(query);
    const { found, enough } = search(LR.pages, wanted, query);
    const status = document.createElement("p");
    status.className = "search-summary";
    status.setAttribute("role", "status");
    const pages = `${found.length} ${found.length === 1 ? "page" : "pages"}`;
    status.textContent = !found.length ? `Nothing found for “${query}”.`
      : enough < wanted.length ? `No page has all of “${query}”; ${pages} with a part of it` : pages;
    const list = document.createElement("ul");
    list.className = "search";
    for (const { url, title, hits } of found) {
      const item = document.createElement("li");
      item.append(link(url, title));
      const [best, ...others] = hits;
      if (best?.text) item.append(snippet(best.text, wanted));
      const places = [best, ...others].filter((hit) => hit && !hit.first);
      if (places.length) {
        const line = document.createElement("p");
        line.className = "places";
        places.forEach((hit, k) => line.append(k ? " · " : "→ ", link(`${url}#${hit.anchor}`, hit.heading)));
        item.append(line);
      }
      list.append(item);
    }
    document.getElementById("search-results").replaceChildren(status, list);
  }

  document.addEventListener("DOMContentLoaded", () => {
    const query = new URLSearchParams(location.search).get("q")?.trim();
    if (!query) return;
    document.title = `${query} – ${document.title}`;
    document.querySelectorAll('input[name="q"]').forEach((field) => { field.value = query; });
    show(query);
  });
})();
