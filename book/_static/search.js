/* The search page. What it searches is LR.pages, from search-data.js, which tools/search_index.py makes: for each page
   its address and its sections [anchor, heading, text], in the order of the book. */
(() => {
  "use strict";
  const FIRST = "book/choose.html"; // after the pages whose title has what was asked
  const SECTIONS = 3; // shown of a page
  const BEFORE = 60, LENGTH = 220; // characters of a snippet
  const SAME = [ // what a reader may write for the same thing, in small letters without hyphens
    ["learning rate range test", "learning rate finder", "lr range test", "lr finder", "rate finder", "range test"],
    ["warmup", "warm up"], ["learning rate", "lr"], ["weight decay", "wd"], ["fine tuning", "finetuning", "fine tune"],
    ["one cycle", "onecycle", "1cycle", "superconvergence"], ["warm restarts", "sgdr"], ["batch size", "batchsize"],
    ["stochastic gradient descent", "sgd"], ["edge of stability", "eos"], ["warmup stable decay", "wsd", "trapezoidal"],
    ["mup", "µp", "μp", "maximal update"], ["low rank adaptation", "lora"],
  ];
  const SMALL = new Set("a an and are as at by do for from how i in is it my of on or the to what when which with".split(" "));

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
  /** A word begins with the stem; one of three letters or fewer is meant as it stands. */
  function pattern(word) {
    const stem = word.length > 4 ? word.replace(/(?<=.{4})(?:ings?|ed|es|s|e)$/, "") : word;
    return escape(stem) + (word.length > 3 ? "[\\p{L}\\p{N}]*" : "(?![\\p{L}\\p{N}])");
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
    return found.map((group) => new RegExp(`(?<![\\p{L}\\p{N}])(?:${group.map(phrase).join("|")})`, "gu"));
  }

  const has = (text, wanted) => wanted.every((one) => text.search(one) >= 0);
  const count = (text, wanted) => wanted.reduce((sum, one) => sum + Math.log1p([...text.matchAll(one)].length), 0);

  /** The pages that have all that is wanted: that of the function with this name, those with it in their title, the page
      to choose by, those with it in a heading, the others; each kind in the order of the book, with its best sections. */
  function search(pages, wanted, query) {
    const found = pages.flatMap(([url, ...sections], place) => {
      const title = sections[0][1];
      const inTitle = !url.startsWith("book/api") && has(fold(title).folded, wanted);
      const hits = sections.map(([anchor, heading, text], k) => {
        const own = k ? `${title} ${heading}` : title;
        if (!has(fold(`${own} ${text}`).folded, wanted)) return null;
        const api = heading === anchor; // the entry of a class or a function
        const exact = api && /[._]/.test(query) && heading.split(".").at(-1) === query.split(".").at(-1);
        const named = !api && has(fold(heading).folded, wanted);
        const score = (exact ? 200 : named ? 100 : 0) + 10 * count(fold(heading).folded, wanted) + count(fold(text).folded, wanted);
        return { anchor, heading, text, first: !k, exact, named, score };
      }).filter(Boolean);
      const whole = () => has(fold(sections.flat().join(" ")).folded, wanted);
      if (!hits.length && !whole()) return [];
      hits.sort((a, b) => b.score - a.score);
      const kind = [hits[0]?.exact, inTitle, url === FIRST, hits[0]?.named, hits.length].findIndex(Boolean) >>> 0; // -1 is last
      return [{ url, title, place, kind, hits: hits.slice(0, SECTIONS) }];
    });
    return found.sort((a, b) => a.kind - b.kind || a.place - b.place);
  }

  /** A piece of the text around the first of what is wanted, with all of it marked. */
  function snippet(text, wanted) {
    const { folded, at } = fold(text);
    const spans = wanted.flatMap((one) => [...folded.matchAll(one)].map((m) => [at[m.index], at[m.index + m[0].length - 1] + 1]));
    spans.sort((a, b) => a[0] - b[0]);
    let start = Math.max(0, (spans[0]?.[0] ?? 0) - BEFORE);
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
    const found = wanted.length ? search(LR.pages, wanted, query) : [];
    const status = document.createElement("p");
    status.className = "search-summary";
    status.setAttribute("role", "status");
    status.textContent = found.length ? `${found.length} ${found.length === 1 ? "page" : "pages"}` : `Nothing found for “${query}”.`;
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
