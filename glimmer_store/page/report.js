"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const PAGE = 100, PRINTED = 2000;
  const unfold = list => { let last = ""; return list.map(s => last = last.slice(0, parseInt(s.slice(0, 2), 36)) + s.slice(2)); };
  const names = unfold(data.names), ids = unfold(data.ids), keys = data.keys, count = ids.length, wide = data.places.length;
  const codes = data.codes, states = data.states, lower = names.map((name, i) => (name + " " + ids[i] + " " + keys[i]).toLowerCase());
  const el = (tag, attributes = {}, ...children) => {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) if (value !== null) made.setAttribute(name, value);
    made.append(...children);
    return made;
  };
  const find = id => document.getElementById(id);
  const body = find("rows"), search = find("search"), klass = find("class"), status = find("status");
  const filters = {
    "safe": i => data.state[i] === "s", "at risk": i => data.state[i] === "r", "unreachable": i => data.state[i] === "u",
    "one copy": i => data.one[i] === "1", "unverified": i => data.unverified[i] === "1", "drift": i => i in data.drift,
  };
  let filter = "", shown = [], page = 0, open = new Set(), at = [0, 0];

  const time = seconds => new Date(seconds * 1000).toISOString().slice(0, 16).replace("T", " ") + " UTC";
  const placeNames = list => list.map(p => typeof p === "number" ? data.places[p].name : p).join(", ");

  const breakable = name => name.split(/(?<=[/_])/).flatMap(part => [part, el("wbr")]);

  const row = (i, r) => {
    const [label, look] = states[data.state[i]], chips = [];
    for (let p = 0; p < wide; p++) {
      const [symbol, meaning, style] = codes[data.cells[i * wide + p]];
      chips.push(el("td", {class: "cell" + (data.first.includes(p) ? " first" : ""), role: "gridcell", tabindex: -1, title: data.places[p].name + ": " + meaning,
        "aria-label": data.places[p].name + ": " + meaning}, el("span", {class: "chip " + style, "aria-hidden": "true"}, symbol)));
    }
    return el("tr", {class: "row", role: "row", "data-i": i, "aria-rowindex": r + 3, "aria-expanded": open.has(i)},
      el("th", {scope: "row", role: "rowheader", tabindex: -1}, ...breakable(names[i])),
      el("td", {class: "class", role: "gridcell", tabindex: -1}, data.classes[data.class[i]]),
      el("td", {role: "gridcell", tabindex: -1}, el("span", {class: "badge " + look}, data.live[i] + "/" + data.needed[i] + " " + label)), ...chips);
  };

  const detail = i => {
    const fields = [["Node", ids[i]], ["Key", keys[i] || "none"], ["Class", data.classes[data.class[i]]]];
    for (const [minutes, kind, places] of data.proofs[i] || [])
      fields.push(["Proof", placeNames(places) + ": " + data.proofKinds[kind] + (minutes === null ? "" : ", " + time((data.base + minutes) * 60))]);
    const list = el("dl");
    for (const [name, value] of fields) list.append(el("dt", {}, name), el("dd", name === "Key" ? {class: "key"} : {}, value));
    if (data.drift[i]) list.append(el("dt", {}, "Drift"), el("dd", {}, data.drift[i].join("; ")));
    const events = (data.history[i] || []).map(e => data.events[e]);
    if (events.length) list.append(el("dt", {}, "History"), el("dd", {}, el("ul", {class: "history"}, ...events.map(([seconds, got, lost]) =>
      el("li", {}, time(seconds) + ": " + [got.length ? "at " + placeNames(got) : "", lost.length ? "gone from " + placeNames(lost) : ""].filter(Boolean).join("; "))))));
    const inside = el("div", {class: "inside"}, list);
    for (const [text, command] of data.matters[i] || []) inside.append(matter(text, command.replaceAll("\u0001", ids[i]).replaceAll("\u0002", keys[i])));
    return el("tr", {class: "detail"}, el("td", {colspan: wide + 3}, inside));
  };

  const matter = (text, command) => {
    const made = el("div", {class: "matter"}, text);
    if (command) {
      const button = el("button", {type: "button"}, "Copy");
      button.addEventListener("click", event => {
        event.stopPropagation();
        const done = () => { button.textContent = "Copied"; status.textContent = "Command copied"; };
        const by_hand = () => { const range = document.createRange(); range.selectNodeContents(button.previousSibling);
          const chosen = getSelection(); chosen.removeAllRanges(); chosen.addRange(range); document.execCommand("copy"); done(); };
        navigator.clipboard ? navigator.clipboard.writeText(command).then(done, by_hand) : by_hand();
      });
      made.append(el("div", {class: "command"}, el("code", {}, command), button));
    }
    return made;
  };

  const render = (from = page * PAGE, to = from + PAGE) => {
    const parts = document.createDocumentFragment();
    for (let r = from; r < Math.min(to, shown.length); r++) { parts.append(row(shown[r], r)); if (open.has(shown[r])) parts.append(detail(shown[r])); }
    if (!shown.length) parts.append(el("tr", {}, el("td", {colspan: wide + 3}, "Nothing matches.")));
    body.replaceChildren(parts);
    find("previous").disabled = page === 0;
    find("next").disabled = (page + 1) * PAGE >= shown.length;
    const first = shown.length ? from + 1 : 0;
    status.textContent = `${first.toLocaleString("en")}–${Math.min(to, shown.length).toLocaleString("en")} of ${shown.length.toLocaleString("en")}`;
    find("table").setAttribute("aria-rowcount", shown.length + 2);
    const cell = cellAt(...at) || cellAt(0, 0);
    if (cell) cell.tabIndex = 0;
  };
  const rows = () => body.querySelectorAll("tr.row");
  const cellAt = (r, c) => { const found = rows()[r]; return found ? found.children[c] : null; };
  const choose = () => {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean), keep = filters[filter] || (() => true), wanted = klass.value;
    shown = [];
    for (let i = 0; i < count; i++)
      if (keep(i) && (wanted === "" || data.class[i] === wanted) && words.every(word => lower[i].includes(word))) shown.push(i);
    page = 0; at = [0, 0]; render();
  };
  const turn = by => { const last = Math.max(0, Math.ceil(shown.length / PAGE) - 1), next = Math.min(last, Math.max(0, page + by));
    if (next === page) return false; page = next; at = [by > 0 ? 0 : PAGE - 1, at[1]]; render(); find("grid").scrollTop = by > 0 ? 0 : find("grid").scrollHeight; return true; };
  const focus = (r, c) => {
    const length = rows().length, old = cellAt(...at);
    if (r < 0 && !turn(-1)) return; else if (r >= length && !turn(1)) return; else if (r >= 0 && r < length) at = [r, at[1]];
    const way = c < at[1] ? -1 : 1, line = Math.min(at[0], rows().length - 1);
    let column = Math.min(wide + 2, Math.max(0, c)), cell = cellAt(line, column);
    while (cell && cell.offsetParent === null) cell = cellAt(line, column += way);  // a column that is left out where it is narrow
    if (!cell) return;
    if (old) old.tabIndex = -1;
    at = [line, column];
    for (const other of body.querySelectorAll('[tabindex="0"]')) other.tabIndex = -1;
    cell.tabIndex = 0; cell.focus();
    cell.scrollIntoView({block: "nearest", inline: "nearest"});
  };
  const toggle = line => {
    const i = Number(line.dataset.i);
    if (open.delete(i)) line.nextSibling.remove(); else { open.add(i); line.after(detail(i)); }
    line.setAttribute("aria-expanded", open.has(i));
  };

  body.addEventListener("click", event => {
    const line = event.target.closest("tr.row");
    if (!line || String(getSelection())) return;
    at = [[...rows()].indexOf(line), [...line.children].indexOf(event.target.closest("td,th"))];
    toggle(line);
  });
  body.addEventListener("focusin", event => {
    const cell = event.target.closest("tr.row > *");
    if (cell) at = [[...rows()].indexOf(cell.parentNode), [...cell.parentNode.children].indexOf(cell)];
  });
  body.addEventListener("keydown", event => {
    const cell = event.target.closest("tr.row > *");
    if (!cell || event.altKey || event.metaKey) return;
    const [r, c] = at, ends = event.ctrlKey;
    const moves = {ArrowDown: [r + 1, c], ArrowUp: [r - 1, c], ArrowRight: [r, c + 1], ArrowLeft: [r, c - 1], Home: [ends ? 0 : r, 0], End: [ends ? rows().length - 1 : r, wide + 2]};
    if (event.key in moves) focus(...moves[event.key]);
    else if (event.key === "PageDown") { if (turn(1)) focus(0, c); }
    else if (event.key === "PageUp") { if (turn(-1)) focus(0, c); }
    else if (event.key === "Enter" || event.key === " ") toggle(cell.parentNode);
    else if (event.key === "Escape" && open.has(Number(cell.parentNode.dataset.i))) toggle(cell.parentNode);
    else return;
    event.preventDefault();
  });
  for (const tile of document.querySelectorAll("[data-filter]")) tile.addEventListener("click", () => {
    filter = filter === tile.dataset.filter ? "" : tile.dataset.filter;
    for (const other of document.querySelectorAll("[data-filter]")) other.setAttribute("aria-pressed", other.dataset.filter === filter);
    choose();
  });
  search.addEventListener("input", choose);
  klass.addEventListener("change", choose);
  find("previous").addEventListener("click", () => turn(-1));
  find("next").addEventListener("click", () => turn(1));
  document.addEventListener("keydown", event => {
    if (event.key === "/" && !/^(INPUT|SELECT|TEXTAREA)$/.test(document.activeElement.tagName)) { event.preventDefault(); search.focus(); }
  });
  addEventListener("beforeprint", () => { page = 0; render(0, PRINTED);
    if (shown.length > PRINTED) body.append(el("tr", {}, el("td", {colspan: wide + 3}, `The first ${PRINTED} of ${shown.length} are printed: filter for the others.`))); });
  addEventListener("afterprint", () => render());
  find("tools").hidden = false;
  choose();
  const second = () => document.documentElement.style.setProperty("--second", find("tiers").getBoundingClientRect().height + "px");
  second(); addEventListener("resize", second);
})();
