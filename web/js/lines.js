// Lines below a node's widgets: why there is no verdict, what was stopped, and which words were changed. Text comes from
// prompts and is only ever set as text: no HTML is made of it.

const NAME = "cryptomnesia_lines";
const LINE = 17;
const MARGIN = 6;
const STYLE =
  "font: 12px/17px sans-serif; color: var(--input-text, #ddd); overflow: hidden auto; overflow-wrap: anywhere;" +
  " white-space: pre-wrap; padding: 4px 8px; box-sizing: border-box; border-radius: 6px;" +
  " background: var(--comfy-input-bg, #222)";

function add(parent, tag, text, style = "") {
  const element = document.createElement(tag);
  element.textContent = text;
  element.style.cssText = style;
  parent.append(element);
}

// The words of both prompts, in order: what only the first has is struck out, what only the second has is underlined.
export function difference(before, after) {
  const [a, b] = [before, after].map((text) => text.split(/(\s+)/).filter((word) => word.trim()));
  const most = a.map(() => Array(b.length + 1).fill(0));
  most.push(Array(b.length + 1).fill(0));
  for (let i = a.length - 1; i >= 0; i--)
    for (let j = b.length - 1; j >= 0; j--)
      most[i][j] = a[i] === b[j] ? most[i + 1][j + 1] + 1 : Math.max(most[i + 1][j], most[i][j + 1]);
  const parts = [];
  for (let i = 0, j = 0; i < a.length || j < b.length; ) {
    if (i < a.length && j < b.length && a[i] === b[j]) parts.push(["same", a[i++], j++]);
    else if (i < a.length && (j === b.length || most[i + 1][j] >= most[i][j + 1])) parts.push(["gone", a[i++]]);
    else parts.push(["new", b[j++]]);
  }
  return parts.map(([kind, word]) => [kind, word]);
}

function fill(element, entry) {
  if (entry.stopped) add(element, "div", entry.stopped);
  const about = entry.mitigation;
  for (const text of [entry.reason, entry.note, about && !about.held ? about.reason : null])
    if (text) add(element, "div", String(text));
  const texts = [about?.original, about?.rewritten];
  if (!about?.held || texts.some((text) => typeof text !== "string" || text.length > 2000)) return;
  if (texts[0] === texts[1]) return;
  const line = document.createElement("div");
  for (const [kind, word] of difference(...texts)) {
    const tag = { same: "span", gone: "del", new: "ins" }[kind];
    const style = { gone: "color: #e57373", new: "color: #81c784; font-weight: bold" }[kind];
    add(line, tag, word, style);
    line.append(" ");
  }
  element.append(line);
}

export function show(node, entries, faded) {
  const element = document.createElement("div");
  for (const entry of entries.slice(0, 8)) fill(element, entry);
  let widget = node.widgets?.find((one) => one.name === NAME);
  if (!element.childNodes.length) {
    if (widget) widget.element.replaceChildren();
    if (widget) widget.hidden = true;
    return;
  }
  if (!widget) {
    const holder = document.createElement("div");
    holder.className = "cryptomnesia-lines";
    const height = () => Math.min(7, Math.ceil(holder.textContent.length / Math.max(24, node.size[0] / 7)) + 1) * LINE + 2 * MARGIN;
    const options = { serialize: false, hideOnZoom: true, margin: MARGIN, getMinHeight: height, getMaxHeight: height };
    widget = node.addDOMWidget(NAME, "cryptomnesia", holder, { ...options, getValue: () => "" });
    widget.serialize = false;
  }
  widget.hidden = false;
  widget.element.style.cssText = STYLE + (faded ? "; opacity: .6" : "");
  widget.element.replaceChildren(...element.childNodes);
  const [width, room] = [node.size[0], node.computeSize()[1]];
  if (node.size[1] < room) node.setSize([width, room]);
}
