// Runs once for every column of knobs. Gradio gives it: element, props, trigger, watch.
// Python sends {method, groups: [{title, rows}]}; from then on props.value is {method, said}, what the knobs say.
let said = {};
let method = "";

function make(tag, attributes, ...children) {
  const made = document.createElement(tag);
  for (const [key, value] of Object.entries(attributes)) if (value !== undefined) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

// The knobs say `value` now. Gradio takes what is in props.value when the event reaches it.
function say(key, expert, value) {
  if (expert === undefined) said[key] = value;
  else said[key][expert] = value;
  props.value = JSON.stringify({ method, said });
  when();
  trigger("input");
}

// Rows that belong to some choices of another knob, "key=one|other", are there while one of them is chosen.
function when() {
  for (const row of element.querySelectorAll("[data-when]")) {
    const [key, choices] = row.dataset.when.split("=");
    row.hidden = !choices.split("|").includes(said[key]);
  }
}

// As many digits as its box holds; its title has all of them.
function short(now) {
  if (String(now).length <= 6) return String(now);
  return Math.abs(now) < 0.01 ? now.toExponential(1).replace(".0", "") : String(Number(now.toPrecision(3)));
}

function slider(row, name, expert, role) {
  const value = expert === undefined ? said[row.key] : said[row.key][expert];
  const low = Math.min(row.low, value); // a file may say more than the slider's own range
  const high = Math.max(row.high, value);
  const about = expert === undefined || !row.label ? name : `${name}, ${row.label}`;
  const bounds = { min: low, max: high, step: row.step };
  const range = make("input", { type: "range", "aria-label": `range slider for ${about}`, ...bounds });
  const number = make("input", { type: "number", "aria-label": `number input for ${about}`, ...bounds, step: "any" });
  const reset = make("button", { type: "button", class: "reset", "aria-label": `Reset ${about}`, title: "Reset" }, "↺");
  const show = (now) => {
    range.value = number.title = now;
    number.value = short(now);
    range.style.setProperty("--at", `${(100 * (now - low)) / (high - low)}%`);
  };
  const varies = expert === undefined ? row.varies : row.experts[expert].varies;
  const title = "The recipe gives it by layer or tensor. Moving the slider makes it one number.";
  const byLayer = varies ? [make("small", { class: "varies", title }, "by layer")] : [];
  const set = (now) => {
    byLayer.forEach((mark) => mark.remove());
    show(now);
    say(row.key, expert, now);
  };
  range.addEventListener("input", () => set(Number(range.value)));
  number.addEventListener("change", () => set(Math.min(high, Math.max(low, Number(number.value) || 0))));
  reset.addEventListener("click", () => set(row.start));
  show(value);
  const head = make("div", { class: "head" }, make("span", { class: "name" }, name, ...byLayer), reset, number);
  const help = expert === undefined && row.help ? [make("p", { class: "help" }, row.help)] : [];
  return make("div", { class: role ? `knob expert r-${role}` : "knob" }, head, ...help, range);
}

function labelled(row, control, ...before) {
  const name = make("span", { class: "name" }, ...before, row.label);
  const help = row.help ? [make("span", { class: "help" }, row.help)] : [];
  return make("label", { class: `knob ${row.kind}` }, name, ...help, ...(before.length ? [] : [control]));
}

const draws = {
  number: (row) => slider(row, row.label),
  switch: (row) => {
    const box = make("input", { type: "checkbox" });
    box.checked = said[row.key];
    box.addEventListener("change", () => say(row.key, undefined, box.checked));
    return labelled(row, box, box);
  },
  choice: (row) => {
    const list = make("select", {}, ...row.choices.map((choice) => make("option", { value: choice }, choice)));
    list.value = said[row.key];
    list.addEventListener("change", () => say(row.key, undefined, list.value));
    return labelled(row, list);
  },
  globs: (row) => {
    const box = make("input", { type: "text", placeholder: "none" });
    box.value = said[row.key];
    box.addEventListener("change", () => say(row.key, undefined, box.value));
    return labelled(row, box);
  },
  note: (row) => make("p", { class: "help" }, row.help),
  experts: (row) => {
    const title = row.label ? [make("h3", {}, row.label), make("p", { class: "help" }, row.help)] : [];
    return make("div", { class: "row" }, ...title, ...row.experts.map(({ name, role }, i) => slider(row, name, i, role)));
  },
};

function draw() {
  const sent = JSON.parse(props.value || "{}");
  if (!sent.groups) return; // our own words
  method = sent.method;
  said = Object.fromEntries(sent.groups.flatMap(({ rows }) => rows.filter((row) => row.key).map((row) => [row.key, row.value])));
  const open = new Set([...element.querySelectorAll("details[open]")].map((group) => group.dataset.title));
  const groups = sent.groups.map(({ title, rows }) => {
    const drawn = rows.map((row) => {
      const made = draws[row.experts ? "experts" : row.kind](row);
      if (row.when) made.dataset.when = row.when;
      return made;
    });
    if (!title) return make("div", { class: "first" }, ...drawn);
    const group = make("details", { class: "more", "data-title": title }, make("summary", {}, title), ...drawn);
    group.open = open.has(title);
    return group;
  });
  element.replaceChildren(...groups);
  props.value = JSON.stringify({ method, said });
  when();
}
watch("value", draw);
draw();
