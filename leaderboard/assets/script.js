// Sorting, filtering, folding, differences of any two lines, and the theme. What is chosen is kept in the address.
// Without this script every line is there, unfolded, in the order it was built in, with its difference to the best.
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

// ---------------------------------------------------------------- what is chosen, in the address

const chosen = new URLSearchParams(location.search);

function choose(name, value) {
  if (value) chosen.set(name, value);
  else chosen.delete(name);
  const query = chosen.toString();
  history.replaceState(null, "", location.pathname + (query && `?${query}`) + location.hash);
}

// ---------------------------------------------------------------- sorting

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
function sort(table, heading, direction) {
  for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
  heading.setAttribute("aria-sort", direction);
  for (const part of table.tBodies) {
    const rows = [...part.querySelectorAll("tr.row")].map((row) => [sortKey(row, heading.cellIndex), row, folded(row)]);
    rows.sort((a, b) => compare(a[0], b[0], direction === "descending"));
    part.append(...rows.flatMap(([, row, more]) => more ? [row, more] : [row]));
  }
}

// The first click puts what is best first, the next one the reverse.
function nextDirection(heading) {
  const best = heading.dataset.best === "low" ? "ascending" : "descending";
  if (heading.getAttribute("aria-sort") !== best) return best;
  return best === "ascending" ? "descending" : "ascending";
}

function sortable(table) {
  for (const heading of table.tHead.rows[0].cells) {
    const title = heading.querySelector("span");
    const button = labelled(title.textContent, () => {
      const direction = nextDirection(heading);
      sort(table, heading, direction);
      choose("sort", heading.dataset.key);
      choose("order", direction);
    });
    title.replaceWith(button);
    if (heading.dataset.key === chosen.get("sort")) {
      sort(table, heading, chosen.get("order") === "ascending" ? "ascending" : "descending");
    }
  }
}

function labelled(text, act) {
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = text;
  button.addEventListener("click", act);
  return button;
}

// ---------------------------------------------------------------- filtering

function filter(form) {
  const wanted = [...form.querySelectorAll("[data-filter]")].map((select) => [select.dataset.filter, select.value]);
  let shown = 0;
  for (const part of document.querySelectorAll("#rows tbody, #printed tbody")) {
    let own = 0;
    for (const row of part.querySelectorAll("tr.row")) {
      row.hidden = wanted.some(([name, value]) => value !== "" && row.dataset[name] !== value);
      const more = folded(row);
      if (more) more.hidden = row.hidden;
      own += !row.hidden;
    }
    part.hidden = own === 0;
    shown += own;
  }
  document.getElementById("shown").textContent = `${shown} ${shown === 1 ? "row" : "rows"}`;
}

function filters(form) {
  for (const select of form.querySelectorAll("[data-filter]")) {
    const value = chosen.get(select.dataset.filter);
    if ([...select.options].some((option) => option.value === value)) select.value = value;
    select.addEventListener("change", () => {
      choose(select.dataset.filter, select.value);
      filter(form);
    });
  }
  form.addEventListener("submit", (event) => event.preventDefault());
  form.hidden = false;
  filter(form);
}

// ---------------------------------------------------------------- folding

// What folds out of a row is the line below it.
function folded(row) {
  const next = row.nextElementSibling;
  return next && next.classList.contains("more") ? next : null;
}

function fold(row, open) {
  folded(row).classList.toggle("open", open);
  row.querySelector(".unfold").setAttribute("aria-expanded", open);
}

function foldable(table) {
  for (const row of table.querySelectorAll("tr.row")) {
    const tools = document.createElement("span");
    tools.className = "tools";
    const more = labelled("details", () => fold(row, more.getAttribute("aria-expanded") === "false"));
    more.className = "unfold";
    more.setAttribute("aria-label", `details of ${row.dataset.method ?? "this row"}`);
    tools.append(more);
    if (row.dataset.means) {
      const pick = labelled("compare", () => refer(row.id));
      pick.setAttribute("aria-label", `compare all with ${row.dataset.method}`);
      pick.className = "pick";
      tools.append(pick);
    }
    row.cells[0].insertBefore(tools, row.cells[0].querySelector("small"));
    tools.before(" ");
    fold(row, location.hash === `#${row.id}` && row.id !== "");
  }
}

// ---------------------------------------------------------------- differences: `apart` of leaderboard/lines.py

const QUANTILES = [12.7062, 4.30265, 3.18245, 2.77645, 2.57058, 2.44691, 2.36462, 2.306, 2.26216];

// t(0.975, freedom): a table, and above it four terms of its expansion around the normal quantile.
function quantile(freedom) {
  const inverse = 1 / freedom;
  return QUANTILES[freedom - 1] ?? 1.959964 + inverse * (2.37227 + inverse * (2.82250 + inverse * 2.55585));
}

function mean(values) {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}

function variance(values) {
  const middle = mean(values);
  return values.reduce((sum, value) => sum + (value - middle) ** 2, 0) / (values.length - 1);
}

function meansOf(row) {
  return new Map(row.dataset.means.split(" ").filter(Boolean).map((pair) => pair.split(":").map(Number)));
}

// By run, the values of its episodes.
function episodesOf(row) {
  const runs = (row.dataset.episodes ?? "").split(" ").filter(Boolean).map((text) => text.split(":"));
  return new Map(runs.map(([run, values]) => [run, values.split(",").map(Number)]));
}

// What a row has more than another in each episode of a run that both are of, or [].
function byEpisode(row, other) {
  const others = episodesOf(other);
  for (const [run, values] of episodesOf(row)) {
    const theirs = others.get(run) ?? [];
    if (values.length === theirs.length && values.length > 1) return values.map((value, i) => value - theirs[i]);
  }
  return [];
}

// The mean of paired differences, and half of its 95% interval.
function ofPairs(pairs) {
  return [mean(pairs), pairs.length > 1 ? quantile(pairs.length - 1) * Math.sqrt(variance(pairs) / pairs.length) : null];
}

// Mean, half of the 95% interval (null where there is none), shared seeds (0 where it is not paired), and shared
// episodes (0 where the interval is not over them).
function apart(row, other) {
  const [own, others] = [meansOf(row), meansOf(other)];
  if (!own.size || !others.size) return null;
  const within = byEpisode(row, other);
  if (within.length) return [...ofPairs(within), 1, within.length];
  const shared = [...own.keys()].filter((seed) => others.has(seed));
  const least = Math.min(own.size, others.size);
  if (shared.length > 1 || (shared.length === 1 && least === 1)) {
    return [...ofPairs(shared.map((seed) => own.get(seed) - others.get(seed))), shared.length, 0];
  }
  const values = [[...own.values()], [...others.values()]];
  const difference = mean(values[0]) - mean(values[1]);
  if (least < 2) return [difference, null, 0];
  const [a, b] = values.map((of) => variance(of) / of.length);
  if (a + b === 0) return [difference, 0, 0];
  const freedom = (a + b) ** 2 / (a ** 2 / (values[0].length - 1) + b ** 2 / (values[1].length - 1));
  return [difference, quantile(Math.max(1, Math.floor(freedom))) * Math.sqrt(a + b), 0];
}

// One decimal, as Python writes it: what lies in the middle goes to the even digit.
function decimal(value) {
  const tens = value * 10;
  const middle = Number.isInteger(value * 4) && !Number.isInteger(tens);
  return middle ? (2 * Math.round(tens / 2) / 10).toFixed(1) : value.toFixed(1);
}

// What rounds to zero has no sign but plus, from either side.
function signed(value) {
  const text = decimal(value);
  return text === "-0.0" ? "+0.0" : (text.startsWith("-") ? "" : "+") + text;
}

function words([difference, interval, seeds, episodes]) {
  const paired = seeds ? `${seeds} shared seed${seeds === 1 ? "" : "s"}` : "not paired";
  const how = episodes ? `${episodes} shared episodes` : paired;
  if (interval === null) return `no interval, ${how}`;
  const told = Math.abs(difference) > interval ? (difference > 0 ? "better" : "worse") : "not told apart";
  return `${told}, ${how}`;
}

// The line that a row is compared with: one that was picked, a control that was judged alike (the row's own, if there are
// several), or the best of its part.
function referenceOf(row, wanted) {
  if (!wanted) return row.parentElement.querySelector("tr.best");
  if (!wanted.startsWith("control:")) return document.getElementById(wanted);
  const controls = [...row.parentElement.querySelectorAll("tr.control")];
  const named = controls.filter((one) => one.dataset.method === wanted.slice("control:".length));
  const alike = named.filter((one) => one.dataset.judged === row.dataset.judged);
  const most = (one) => [...meansOf(one).keys()].filter((seed) => meansOf(row).has(seed)).length;
  const own = (one) => Number((one.dataset.beside ?? "").split(" ").includes(row.id));
  return alike.sort((a, b) => own(b) - own(a) || most(b) - most(a))[0] ?? null;
}

function show(cell, text, small, key) {
  cell.textContent = text;
  cell.dataset.sort = key;
  if (small) cell.append(Object.assign(document.createElement("small"), { textContent: small }));
}

function showDifference(row, cell, wanted) {
  if (wanted === "printed") {
    const value = row.querySelector("[data-accuracy]")?.dataset.accuracy;
    if (!row.dataset.printed || value === undefined) return show(cell, "–", "", "");
    return show(cell, signed(value - row.dataset.printed), "printed: no interval", value - row.dataset.printed);
  }
  const other = referenceOf(row, wanted);
  if (other === row) return show(cell, "0", "the reference", 0);
  const found = other ? apart(row, other) : null;
  if (!found) return show(cell, "–", "", "");
  const interval = found[1] === null ? "" : ` ± ${decimal(found[1])}`;
  const alike = other.dataset.judged === row.dataset.judged ? "" : "; judged otherwise";
  return show(cell, signed(found[0]) + interval, words(found) + alike, found[0]);
}

// Compare every line with another one: '' for the best of its part, 'control:…', 'printed', or a row's name.
function refer(wanted) {
  const table = document.getElementById("rows");
  const menu = document.getElementById("reference");
  const picked = wanted.startsWith("row-") ? document.getElementById(wanted) : null;
  if (wanted.startsWith("row-") && !picked) wanted = "";
  for (const old of menu.querySelectorAll(".picked")) old.remove();
  for (const old of table.querySelectorAll("tr.reference")) old.classList.remove("reference");
  if (picked) {
    picked.classList.add("reference");
    const title = picked.parentElement.querySelector("h2").firstChild.textContent.trim();
    const option = new Option(`${picked.dataset.method} (${title})`, wanted);
    option.className = "picked";
    menu.add(option);
  }
  menu.value = wanted;
  if (menu.value !== wanted) wanted = menu.value = "";
  const heading = table.querySelector("thead [data-key=difference]");
  heading.querySelector("small").textContent = `to ${menu.selectedOptions[0].textContent}, in points`;
  for (const row of table.querySelectorAll("tr.row")) showDifference(row, row.cells[heading.cellIndex], wanted);
  if (heading.hasAttribute("aria-sort")) sort(table, heading, heading.getAttribute("aria-sort"));
  choose("to", wanted);
}

// ---------------------------------------------------------------- start

function start() {
  theme();
  for (const table of document.querySelectorAll("table.rows")) {
    if (table.querySelector("tr.more")) foldable(table);
  }
  const menu = document.getElementById("reference");
  if (menu) {
    menu.addEventListener("change", () => refer(menu.value));
    if (chosen.get("to")) refer(chosen.get("to"));
  }
  for (const table of document.querySelectorAll("#rows, #printed")) sortable(table);
  const form = document.querySelector(".filters");
  if (form) filters(form);
  if (location.hash.startsWith("#row-")) document.getElementById(location.hash.slice(1))?.scrollIntoView({ block: "center" });
}

start();
