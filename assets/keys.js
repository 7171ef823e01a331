// Once a page. Arrow keys walk a segmented bar, as in any group of radio buttons (Gradio names each button apart).
document.addEventListener("keydown", (event) => {
  const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
  const bar = step && event.target.matches("input[type=radio]") && event.target.closest(".seg");
  if (!bar) return;
  const all = [...bar.querySelectorAll("input[type=radio]")];
  const next = all[(all.indexOf(event.target) + step + all.length) % all.length];
  event.preventDefault();
  next.focus();
  next.click();
});

// Gradio (6.31) opens a drop-down's list again when Tab has left it, because it takes Tab for a letter. Chromium would
// stop at a list that scrolls.
document.addEventListener(
  "keydown",
  (event) => {
    if (event.key !== "Tab" || !event.target.matches("[role=combobox]")) return;
    event.stopPropagation();
    for (const list of document.querySelectorAll("[role=listbox]")) list.tabIndex = -1;
  },
  true,
);

// What is typed into a drop-down takes the place of its choice, so that it finds others.
document.addEventListener("focusin", ({ target }) => {
  if (!target.matches("[role=combobox]:not([readonly])")) return;
  setTimeout(() => document.activeElement === target && target.select()); // after Gradio has filled it
});
