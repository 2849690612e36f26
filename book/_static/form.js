// What scrolls sideways says so: data-more names the sides on which there is more, and the keyboard reaches it.
// Printed pages are light, whatever the theme.
(() => {
  const BOXES = ".bd-article :is(.lr-frame, .pst-scrollable-table-container, .output.text_html, .claim, figure.results, pre, .cell_output > .output, div.math, mjx-container[display=true], p:has(.math), table)";
  const ROOM = 2; // px that are lost to rounding

  function mark(box) {
    const left = box.scrollLeft > ROOM, right = box.scrollLeft + box.clientWidth < box.scrollWidth - ROOM;
    const scrolls = (left || right) && getComputedStyle(box).overflowX !== "visible";
    if (!scrolls) {
      if ("more" in box.dataset) box.dataset.more = ""; // it may fit only because it is marked: its first column is narrower
      return;
    }
    box.dataset.more = left && right ? "both" : left ? "left" : "right";
    if (!box.hasAttribute("tabindex")) box.tabIndex = 0;
  }

  document.addEventListener("DOMContentLoaded", () => {
    const seen = new ResizeObserver((entries) => {
      for (const { target } of entries) for (const box of [target, target.parentElement]) if (box?.matches(BOXES)) mark(box);
    });
    for (const box of document.querySelectorAll(BOXES)) {
      seen.observe(box);
      if (box.firstElementChild) seen.observe(box.firstElementChild); // what is inside may grow while the box does not
      box.addEventListener("scroll", () => mark(box), { passive: true });
      for (const picture of box.querySelectorAll("img")) picture.addEventListener("load", () => mark(box));
    }
  });

  // A link in a dialog, as the contents of the page are on a phone, leads out of it.
  document.addEventListener("click", ({ target }) => target.closest("dialog a")?.closest("dialog").close());

  const root = document.documentElement, print = matchMedia("print");
  let theme;
  print.addEventListener("change", () => {
    if (print.matches) [theme, root.dataset.theme] = [root.dataset.theme, "light"];
    else if (theme) root.dataset.theme = theme;
  });
})();
