// Sorting, filtering and the theme. Without this script every row is there, in the order it was built in.
"use strict";

const THEMES = ["system", "light", "dark"];

function remembered(value) {
  try {
    if (value !== undefined) localStorage.setItem("theme", value);
    return localStorage.getItem("theme");
  } catch { // pages opened from the file system may have no storage
    return null;
  }
}

function showTheme(name) {
  if (name === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = name;
  document.querySelector("#theme span").textContent = name;
}

function theme() {
  const button = document.getElementById("theme");
  let now = THEMES.includes(remembered()) ? remembered() : "system";
  showTheme(now);
  button.hidden = false;
  button.addEventListener("click", () => {
    now = THEMES[(THEMES.indexOf(now) + 1) % THEMES.length];
    remembered(now);
    showTheme(now);
  });
}

// Numbers by size, texts by their letters, and what is missing last in either direction.
function compare(a, b, descending) {
  if (a === "" || b === "") return (a === "") - (b === "");
  const numbers = [Number(a), Number(b)];
  const order = numbers.every(Number.isFinite) ? numbers[0] - numbers[1] : a.localeCompare(b, "en", { numeric: true });
  return descending ? -order : order;
}

function sortKey(row, column) {
  const cell = row.cells[column];
  return cell.dataset.sort ?? cell.textContent.trim();
}

// Each part of the table is sorted by itself, so that reduced runs never stand among full ones.
function sort(table, heading, column) {
  const descending = heading.getAttribute("aria-sort") === "ascending";
  for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
  heading.setAttribute("aria-sort", descending ? "descending" : "ascending");
  for (const part of table.tBodies) {
    const rows = [...part.querySelectorAll("tr.row")];
    rows.sort((a, b) => compare(sortKey(a, column), sortKey(b, column), descending));
    part.append(...rows);
  }
}

function sortable(table) {
  [...table.tHead.rows[0].cells].forEach((heading, column) => {
    const button = document.createElement("button");
    button.type = "button";
    const title = heading.querySelector("span");
    button.textContent = title.textContent;
    title.replaceWith(button);
    button.addEventListener("click", () => sort(table, heading, column));
  });
}

function filter(table, form) {
  const wanted = [...form.querySelectorAll("select")].map((select) => [select.dataset.filter, select.value]);
  let shown = 0;
  for (const part of table.tBodies) {
    let own = 0;
    for (const row of part.querySelectorAll("tr.row")) {
      row.hidden = wanted.some(([name, value]) => value !== "" && row.dataset[name] !== value);
      own += !row.hidden;
    }
    part.hidden = own === 0;
    shown += own;
  }
  document.getElementById("shown").textContent = `${shown} ${shown === 1 ? "row" : "rows"}`;
}

function start() {
  theme();
  const table = document.getElementById("rows");
  if (!table) return;
  const form = document.querySelector(".filters");
  form.hidden = false;
  form.addEventListener("change", () => filter(table, form));
  form.addEventListener("submit", (event) => event.preventDefault());
  sortable(table);
  filter(table, form);
}

start();
