/* On every page: load an explorer's scripts when the reader comes near it, and go to the one that the address names. */
(function () {
  "use strict";
  const base = new URL(".", document.currentScript.src).href;
  const DATA = {
    scanner: ["pictures"], range_test: ["range_test_data", "rules"], finder: ["finder_data", "rules"],
    edge_of_stability: ["edge_data"], schedules: ["formulas"],
  };
  const NEAR = "800px 0px";
  const loaded = new Set();

  function load(file) {
    if (loaded.has(file)) return;
    loaded.add(file);
    const script = document.createElement("script");
    script.src = `${base}${file}.js`;
    script.async = false; // in this order, though fetched together
    document.head.append(script);
  }
  function wake(root) {
    const name = root.dataset.explorer;
    ["core", ...(DATA[name] || []), name].forEach(load);
  }
  function go() {
    const id = location.hash.match(/^#(explorer-\w+)\?/)?.[1];
    document.getElementById(id)?.scrollIntoView();
  }

  document.addEventListener("DOMContentLoaded", () => {
    const roots = document.querySelectorAll(".lr-explorer");
    if (!roots.length) return;
    const watch = new IntersectionObserver((entries) => {
      for (const entry of entries.filter((e) => e.isIntersecting)) {
        watch.unobserve(entry.target);
        wake(entry.target);
      }
    }, { rootMargin: NEAR });
    roots.forEach((root) => watch.observe(root));
    go();
    window.addEventListener("load", go);
    window.addEventListener("hashchange", go);
  });
})();
