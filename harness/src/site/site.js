// What needs a script: searching and filtering the matrix, comparing any two kernels, moving through cells by arrow keys.
// Without it every page is readable and every link works.
"use strict";

const find = (selector) => document.querySelector(selector);

function reveal() {
  for (const part of document.querySelectorAll(".needs-script")) part.hidden = false;
}

/** Keeps the fields' values in the address, so that a view can be linked to. */
function remember(fields) {
  const query = new URLSearchParams();
  for (const field of fields) if (field.value !== "") query.set(field.id, field.value);
  const text = query.toString();
  try {
    history.replaceState(null, "", text ? "?" + text + location.hash : location.pathname + location.hash);
  } catch {
    // A browser may refuse this for a page that was opened as a file; the view works without.
  }
}

function recall(fields) {
  const query = new URLSearchParams(location.search);
  for (const field of fields) {
    const value = query.get(field.id);
    if (value !== null) field.value = value;
  }
}

function onChange(fields, act) {
  let waiting = 0;
  const later = () => {
    cancelAnimationFrame(waiting);
    waiting = requestAnimationFrame(() => { remember(fields); act(); });
  };
  for (const field of fields) field.addEventListener("input", later);
  find("form").addEventListener("submit", (event) => event.preventDefault());
  recall(fields);
  act();
}

/** Whether a row's cells fit what is asked for; `place` is a kernel's column, or empty for any. */
function fits(classes, show, place) {
  if (show === "changed") return new Set(classes).size > 1;
  const wanted = place === "" ? classes : [classes[place]];
  const usable = (name) => name === "y" || name === "c";
  if (show === "y") return wanted.some(usable);
  if (show === "x") return wanted.some((name) => name === "n" || name === "a");
  if (show === "u") return wanted.some((name) => name === "u" || name === "b" || name === "m");
  return true;
}

function matrix() {
  const fields = ["#search", "#kind", "#show", "#kernel"].map(find);
  const [search, kind, show, kernel] = fields;
  const sections = [...document.querySelectorAll("section.matrix")].map((section) => ({
    section,
    rows: [...section.querySelectorAll("tbody tr")].map((row) => ({
      row,
      name: row.cells[0].textContent.toLowerCase(),
      classes: [...row.cells].slice(1).map((cell) => cell.className),
    })),
  }));
  onChange(fields, () => {
    const words = search.value.trim().toLowerCase();
    let shown = 0;
    for (const { section, rows } of sections) {
      let here = 0;
      const wanted = kind.value === "" || kind.value === section.id;
      for (const { row, name, classes } of rows) {
        const visible = wanted && name.includes(words) && fits(classes, show.value, kernel.value);
        row.hidden = !visible;
        here += visible;
      }
      section.hidden = here === 0;
      shown += here;
    }
    find("#count").value = shown + " shown";
  });
}

function differences() {
  const table = JSON.parse(find("#table").textContent);
  const fields = ["#from", "#to", "#search"].map(find);
  const [from, to, search] = fields;
  const body = find("#differences tbody");
  const cell = (tag, text) => Object.assign(document.createElement(tag), { textContent: text });
  onChange(fields, () => {
    const words = search.value.trim().toLowerCase();
    find("#before").textContent = table.kernels[from.value];
    find("#after").textContent = table.kernels[to.value];
    const rows = [];
    const [before, after] = [Number(from.value), Number(to.value)];
    for (const [name, page, numbers, behind] of table.rows) {
      if (numbers[before] === numbers[after] || !name.toLowerCase().includes(words)) continue;
      // Where only one of the two was asked before the probe changed, what differs may be the probe.
      const mixed = behind.includes(before) !== behind.includes(after);
      const said = (place) =>
        table.answers[numbers[place]] + (mixed && behind.includes(place) ? " (asked before the probe changed)" : "");
      const row = document.createElement("tr");
      const head = document.createElement("th");
      head.scope = "row";
      head.append(Object.assign(cell("a", name), { href: page }));
      row.append(head, cell("td", said(before)), cell("td", said(after)));
      rows.push(row);
    }
    body.replaceChildren(...rows);
    find("#count").value = rows.length + (rows.length === 1 ? " difference" : " differences");
  });
}

/** From a cell's link to its neighbour's. */
function arrows(event) {
  const step = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
  const cell = document.activeElement.closest(".matrix td, .matrix tbody th");
  if (!step || !cell) return;
  let row = cell.parentElement;
  if (step[0] !== 0) {
    do row = step[0] < 0 ? row.previousElementSibling : row.nextElementSibling; while (row && row.hidden);
  }
  const link = row && row.cells[cell.cellIndex + step[1]] && row.cells[cell.cellIndex + step[1]].querySelector("a");
  if (link) {
    event.preventDefault();
    link.focus();
  }
}

document.addEventListener("keydown", (event) => {
  const search = find("#search");
  const typing = ["INPUT", "SELECT", "TEXTAREA"].includes(document.activeElement.tagName);
  if (event.key === "/" && search && !typing) {
    event.preventDefault();
    search.focus();
  } else if (!typing) {
    arrows(event);
  }
});

reveal();
if (find("section.matrix")) matrix();
if (find("#table")) differences();
