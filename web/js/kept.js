// Verdicts outlive a reload: kept by the browser, under the workflow's and the node's id, with a digest of what the node
// was fed. They are no part of the workflow: a file that is handed on carries no verdict with it.

import { app } from "../../../scripts/app.js";

const ITEM = "cryptomnesia.verdicts";
const MOST = 200;
const UNTOLD = new Set(["seed", "noise_seed", "control_after_generate", "control_before_generate"]);

const key = (node) => [(app.rootGraph ?? app.graph)?.id, node.graph?.id, node.id].join("/");

function all() {
  try {
    return JSON.parse(localStorage.getItem(ITEM)) ?? {};
  } catch {
    return {};
  }
}

// Of the values of all widgets that feed the node. Image seeds are left out: no verdict hangs on them.
export function fed(node) {
  const waiting = [node];
  const seen = new Set(waiting);
  const found = [];
  while (waiting.length) {
    const next = waiting.pop();
    const widgets = (next.widgets ?? []).filter((one) => one.serialize !== false && !UNTOLD.has(one.name));
    const values = widgets.map((one) => [one.name, typeof one.value === "object" ? null : one.value]);
    found.push(JSON.stringify([String(next.id), next.type, next.mode, values]));
    for (const input of next.inputs ?? []) {
      const link = input.link == null ? null : next.graph?.getLink?.(input.link);
      const source = link && next.graph.getNodeById(link.origin_id);
      if (source && !seen.has(source)) {
        seen.add(source);
        waiting.push(source);
      }
    }
  }
  let digest = 0;
  for (const letter of found.sort().join()) digest = (Math.imul(digest, 31) + letter.codePointAt(0)) | 0;
  return digest;
}

export function keep(node, entries, given) {
  const known = all();
  const name = key(node);
  delete known[name];
  known[name] = { entries, fed: given };
  for (const old of Object.keys(known).slice(0, -MOST)) delete known[old];
  try {
    localStorage.setItem(ITEM, JSON.stringify(known));
  } catch {
    // full, or not allowed: the badge stays until the page goes
  }
}

export function kept(node) {
  const found = all()[key(node)];
  return Array.isArray(found?.entries) && found.entries.length ? found : null;
}
