// Once a page: arrow keys walk a segmented bar, as in any group of radio buttons (Gradio names each button apart).
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
