// What ComfyUI's page shows of the pack: a badge on each node that says what it found, in LiteGraph and in Nodes 2.0.

import { api } from "../../../scripts/api.js";
import { app } from "../../../scripts/app.js";
import { fed, keep, kept } from "./kept.js";
import { show } from "./lines.js";
import { dropped, itemsFor } from "./menu.js";
import { begin, SETTINGS } from "./settings.js";
import { headline, translate, WORDS } from "./words.js";

const OURS = /^Cryptomnesia/;
const COLOUR = { color: "#2b4257", bgcolor: "#1f2f3e" };
const ROOM = 300; // so that names of widgets and values fit beside each other
const GREY = "#5f6368";

// node -> { entries, fed, faded, progress }; nothing of it is saved with the workflow
const shown = new WeakMap();

function badge(node) {
  const state = node.outputs?.length >= 0 ? shown.get(node) : null;
  if (!state) return new LGraphBadge({ text: "" });
  if (state.progress) return new LGraphBadge({ text: state.progress, fgColor: "#fff", bgColor: GREY });
  const { text, colour } = headline(state.entries);
  const words = state.faded ? `${WORDS.earlier} ${text}` : text;
  return new LGraphBadge({ text: words, fgColor: "#fff", bgColor: state.faded ? GREY : colour });
}

function draw(node) {
  const state = shown.get(node);
  if (state && !state.progress) show(node, state.entries, state.faded);
  node.setDirtyCanvas?.(true, true);
  // Nodes 2.0 keeps its own watch on the list of outputs, which `badge` reads: a list that changes has badges drawn anew
  if (node.outputs?.length) node.outputs.push(node.outputs[0]);
  if (node.outputs?.length) node.outputs.pop();
}

function set(node, state) {
  shown.set(node, state);
  draw(node);
}

function executed(node, output) {
  const entries = output?.cryptomnesia;
  if (!Array.isArray(entries) || !entries.length) return;
  keep(node, entries);
  set(node, { entries, fed: fed(node), faded: false });
}

function restore(node) {
  const found = kept(node);
  if (found) set(node, { ...found, faded: found.fed !== fed(node) });
}

function* nodesOf(graph) {
  for (const node of graph?.nodes ?? graph?._nodes ?? []) {
    yield node;
    if (node.isSubgraphNode?.()) yield* nodesOf(node.subgraph);
  }
}

const everyNode = function* () {
  for (const node of nodesOf(app.rootGraph ?? app.graph)) if (OURS.test(node.type)) yield node;
};

// what a verdict was given for is not what stands there now
function changed() {
  for (const node of everyNode()) {
    const state = shown.get(node);
    if (!state || state.progress) continue;
    const faded = state.fed !== fed(node);
    if (faded !== state.faded) set(node, { ...state, faded });
  }
}

function progress({ detail }) {
  const id = detail.display_node_id ?? detail.node;
  for (const node of everyNode()) {
    if (node.type !== "CryptomnesiaCalibrateModel" || String(node.id) !== String(id).split(":").pop()) continue;
    const state = shown.get(node) ?? { entries: [{ state: "calibrated" }], fed: null, faded: true };
    set(node, { ...state, progress: `${WORDS.calibrating}: ${detail.value} ${WORDS.of} ${detail.max}` });
  }
}

// a calibration that was stopped, or whose server has gone, goes on at the next run
function ended() {
  for (const node of everyNode()) {
    const state = shown.get(node);
    if (state?.progress) set(node, { ...state, progress: WORDS.interrupted });
  }
}

app.registerExtension({
  name: "Cryptomnesia",
  settings: SETTINGS,

  async setup() {
    await translate(api, app.extensionManager?.setting?.get("Comfy.Locale") ?? "en");
    api.addEventListener("graphChanged", changed);
    api.addEventListener("progress", progress);
    document.addEventListener("drop", dropped, true);
    for (const event of ["execution_error", "execution_interrupted", "reconnecting"]) api.addEventListener(event, ended);
  },

  beforeRegisterNodeDef(nodeType, nodeData) {
    if (!OURS.test(nodeData.name)) return;
    const own = nodeType.prototype.onExecuted;
    nodeType.prototype.onExecuted = function (output) {
      own?.apply(this, arguments);
      executed(this, output);
    };
  },

  nodeCreated(node) {
    if (!OURS.test(node.comfyClass ?? node.type)) return;
    Object.assign(node, COLOUR);
    if (node.size[0] < ROOM) node.setSize([ROOM, node.size[1]]);
    node.badges.push(() => badge(node));
    begin(node, (id) => app.extensionManager?.setting?.get(id));
  },

  loadedGraphNode(node) {
    if (OURS.test(node.type)) restore(node);
  },

  getNodeMenuItems(node) {
    return itemsFor(node);
  },

  // of a run that was picked from the history
  onNodeOutputsUpdated(outputs) {
    for (const node of everyNode()) {
      const output = outputs[String(node.id)] ?? outputs[`${node.graph?.id}:${node.id}`];
      if (!output?.cryptomnesia) continue;
      // where it is what is known already, what the node was fed is known, too
      if (JSON.stringify(kept(node)?.entries) === JSON.stringify(output.cryptomnesia)) restore(node);
      else executed(node, output);
    }
  },
});
