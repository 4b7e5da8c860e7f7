"use strict";
/*
 * The table of an audit: sorts, searches, filters and pages through rows that Python has put in order, worst first.
 *
 * Numbers and verdicts of all rows stand in the page (#audit-data). Texts stand there, too, or in files beside it that
 * are loaded as scripts when they are needed, since a page opened from disk may not fetch. Texts may hold anything:
 * they only ever become textContent.
 */
(() => {
  const PAGE = 50; // rows shown at a time
  const LONG = 240; // characters; the rest of a text folds away
  const AT_ONCE = 6; // files being loaded
  const ARRAYS = { f32: Float32Array, u32: Uint32Array, u8: Uint8Array };

  const find = (selector) => document.querySelector(selector);
  const all = (selector) => [...document.querySelectorAll(selector)];
  const data = JSON.parse(find("#audit-data").textContent);
  const columns = new Map(data.columns.map((column) => [column.key, { ...column, values: decoded(column) }]));
  const body = find("#rows tbody");
  const state = { key: null, down: false, words: new Map(), search: "", rejected: false, once: false, cluster: null, page: 0 };
  let shown = new Uint32Array(0); // numbers of the rows that pass the filters, in order
  let latest = 0; // counts what was asked for, so that an answer that comes late is dropped

  /** A column's values, little-endian in base64. */
  function decoded(column) {
    const binary = atob(column.data);
    const bytes = new Uint8Array(binary.length);
    for (let i = 0; i < binary.length; i++) bytes[i] = binary.charCodeAt(i);
    return new ARRAYS[column.kind](bytes.buffer);
  }

  // --- texts ---

  const texts = data.texts ?? new Array(data.rows);
  const files = new Map(); // number of a file -> promise of its texts being there

  /** Called by the files beside the page. */
  window.auditTexts = (first, found) => found.forEach((text, i) => (texts[first + i] = text));

  function load(file) {
    if (!files.has(file)) {
      const name = `${data.folder}/texts-${String(file).padStart(5, "0")}.js`;
      const promise = new Promise((resolve, reject) => {
        const script = document.createElement("script");
        script.onload = resolve;
        script.onerror = () => reject(new Error(`${name} cannot be read: keep the folder "report" beside this page.`));
        script.src = name;
        document.head.append(script);
      });
      promise.catch(() => files.delete(file)); // the next one who asks tries again
      files.set(file, promise);
    }
    return files.get(file);
  }

  /** Texts of these rows; `each` hears how many files of how many are there. */
  async function need(rows, each = () => {}) {
    if (data.texts) return;
    const wanted = new Set();
    for (const row of rows) if (texts[row] === undefined) wanted.add(Math.floor(row / data.chunk));
    const waiting = [...wanted];
    let there = 0;
    const worker = async () => {
      while (waiting.length) {
        await load(waiting.shift());
        each(++there, wanted.size);
      }
    };
    await Promise.all(Array.from({ length: AT_ONCE }, worker));
  }

  // --- order and filters ---

  const orders = new Map();

  /** Row numbers sorted by a column; ties stay worst first, missing values come last either way. */
  function order(key, down) {
    const name = `${key} ${down}`;
    if (!orders.has(name)) {
      const rows = Uint32Array.from({ length: data.rows }, (_, i) => i);
      if (key !== null) {
        const { values } = columns.get(key);
        const sign = down ? -1 : 1;
        const there = rows.filter((i) => !Number.isNaN(values[i]));
        const missing = rows.filter((i) => Number.isNaN(values[i]));
        there.sort((a, b) => sign * (values[a] - values[b]) || a - b);
        rows.set(there);
        rows.set(missing, there.length);
      }
      orders.set(name, rows);
    }
    return orders.get(name);
  }

  /** What a row must pass; each test is true or false of its number. */
  function tests() {
    const found = [];
    for (const [key, code] of state.words) {
      const { values } = columns.get(key);
      found.push((i) => values[i] === code);
    }
    const cluster = columns.get("cluster")?.values;
    const adjusted = columns.get("adjusted")?.values;
    if (state.cluster !== null) found.push((i) => cluster[i] === state.cluster);
    else if (state.once) found.push((i) => cluster[i] === i);
    if (state.rejected) found.push((i) => adjusted[i] <= data.level);
    for (const word of state.search.toLowerCase().split(/\s+/).filter(Boolean)) {
      found.push((i) => texts[i].toLowerCase().includes(word));
    }
    return found;
  }

  async function update(page = 0) {
    const turn = ++latest;
    find("#rows").setAttribute("aria-busy", "true");
    try {
      if (state.search.trim()) {
        await need(order(null, false), (there, of) => turn === latest && say(`reading the texts: ${there} of ${of} files`));
      }
      if (turn !== latest) return;
      const passed = tests();
      shown = order(state.key, state.down).filter((i) => passed.every((test) => test(i)));
      state.page = Math.max(0, Math.min(page, Math.ceil(shown.length / PAGE) - 1));
      const rows = shown.subarray(state.page * PAGE, (state.page + 1) * PAGE);
      await need(rows);
      if (turn !== latest) return;
      body.replaceChildren(...Array.from(rows, line));
      say(counted(rows.length));
      turned();
    } catch (error) {
      if (turn === latest) say(error.message);
    } finally {
      if (turn === latest) find("#rows").removeAttribute("aria-busy");
    }
  }

  // --- what is seen ---

  const whole = (number) => number.toLocaleString("en");
  const say = (words) => (find("#status").textContent = words);

  function counted(rows) {
    if (!rows) return `none of ${whole(data.rows)} rows`;
    const first = state.page * PAGE;
    const from = shown.length === data.rows ? `${whole(data.rows)} rows` : `${whole(shown.length)} of ${whole(data.rows)} rows`;
    return `${from}; these are ${whole(first + 1)} to ${whole(first + rows)}`;
  }

  /** Buttons that lead nowhere are off. */
  function turned() {
    const last = Math.max(0, Math.ceil(shown.length / PAGE) - 1);
    for (const button of all("[data-turn]")) button.disabled = target(button.dataset.turn) === state.page;
    find("#page").max = last + 1;
    find("#page").value = state.page + 1;
    find("#pages").textContent = `of ${whole(last + 1)}`;
  }

  function target(turn) {
    const last = Math.max(0, Math.ceil(shown.length / PAGE) - 1);
    const to = { first: 0, back: state.page - 1, on: state.page + 1, last }[turn];
    return Math.max(0, Math.min(last, to));
  }

  function element(tag, name, ...children) {
    const found = document.createElement(tag);
    if (name) found.className = name;
    found.append(...children); // strings become text
    return found;
  }

  function written(column, value) {
    if (Number.isNaN(value)) return "–";
    if (column.shown === "p") return value.toFixed(value >= 0.001 ? 3 : 5);
    return value.toFixed({ whole: 0, score: 2, fine: 3 }[column.shown]);
  }

  function text(i) {
    const found = texts[i];
    if (found.length <= LONG) return element("td", "text", found);
    return element("td", "text", element("details", "", element("summary", "", `${found.slice(0, LONG)}…`), found));
  }

  function cell(head, i) {
    const column = columns.get(head.dataset.key);
    if (!column) return text(i);
    const value = column.values[i];
    if (!column.words) return element("td", head.className, written(column, value));
    return element("td", `${head.className} ${column.looks[value]}`, element("span", "badge", column.words[value]));
  }

  const heads = all("#rows th");
  const line = (i) => element("tr", "", ...heads.map((head) => cell(head, i)));

  // --- what is asked ---

  /** First click: largest first, but smallest first for p-values and row numbers. Second: the other way. Third: worst first. */
  function sort(head) {
    const { key, first } = head.dataset;
    const down = first === "down";
    if (state.key !== key) Object.assign(state, { key, down });
    else if (state.down === down) state.down = !down;
    else state.key = null;
    for (const one of heads) {
      const active = one.dataset.key === state.key;
      if (active) one.setAttribute("aria-sort", state.down ? "descending" : "ascending");
      else one.removeAttribute("aria-sort");
    }
    update();
  }

  function group(cluster) {
    state.cluster = cluster;
    find("#group").hidden = cluster === null;
    update();
  }

  function listen() {
    let timer;
    find("#search").addEventListener("input", (event) => {
      clearTimeout(timer);
      find("#rows").setAttribute("aria-busy", "true");
      timer = setTimeout(() => {
        state.search = event.target.value;
        update();
      }, 150);
    });
    for (const select of all("[data-words]")) {
      select.addEventListener("change", () => {
        if (select.value === "") state.words.delete(select.dataset.words);
        else state.words.set(select.dataset.words, Number(select.value));
        update();
      });
    }
    for (const box of all("[data-only]")) {
      box.addEventListener("change", () => {
        state[box.dataset.only] = box.checked;
        update();
      });
    }
    for (const head of heads) head.querySelector("button")?.addEventListener("click", () => sort(head));
    for (const button of all("[data-turn]")) button.addEventListener("click", () => update(target(button.dataset.turn)));
    find("#page").addEventListener("change", (event) => update(Number(event.target.value) - 1 || 0));
    find("#group")?.addEventListener("click", () => group(null));
    for (const button of all("[data-cluster]")) {
      button.addEventListener("click", () => {
        group(Number(button.dataset.cluster));
        find("#all-rows").scrollIntoView();
        find("#group").focus({ preventScroll: true });
      });
    }
  }

  listen();
  update();
})();
