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
// prompt id -> what each node was fed when it was queued; and which prompt is running
const queued = new Map();
let latest = null;
let running = null;

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
  // what it was fed when it was queued: somebody may have written on meanwhile
  const given = (queued.get(running) ?? latest)?.get(node) ?? fed(node);
  keep(node, entries, given);
  set(node, { entries, fed: given, faded: given !== fed(node) });
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

function queueing() {
  const own = api.queuePrompt;
  api.queuePrompt = async function () {
    const now = (latest = new Map([...everyNode()].map((node) => [node, fed(node)])));
    const answer = await own.apply(this, arguments);
    if (answer?.prompt_id) queued.set(answer.prompt_id, now);
    for (const old of [...queued.keys()].slice(0, -50)) queued.delete(old);
    return answer;
  };
}

function started({ detail }) {
  running = detail.prompt_id;
}

// What hangs on a node that stopped was skipped, and would go on showing the picture of an earlier run.
function blank(stopped, outputs, prompt_id) {
  const waiting = [stopped];
  const seen = new Set(waiting);
  while (waiting.length) {
    const node = waiting.pop();
    const links = (node.outputs ?? []).flatMap((one) => (one.type === "STRING" ? [] : (one.links ?? [])));
    for (const link of links) {
      const next = node.graph.getNodeById(node.graph.getLink?.(link)?.target_id);
      if (next && !seen.has(next)) {
        seen.add(next);
        waiting.push(next);
      }
    }
    const id = String(node.id);
    const old = app.nodeOutputs?.[id];
    if (node === stopped || id in outputs || !(old?.images?.length || old?.text?.length)) continue;
    const output = { ...(old.images && { images: [] }), ...(old.text && { text: [""] }) };
    api.dispatchEvent(new CustomEvent("executed", { detail: { node: id, display_node: id, output, prompt_id } }));
    node.imgs = undefined;
    node.setDirtyCanvas?.(true, true);
  }
}

const stops = (node) => shown.get(node)?.entries.every((one) => one.state === "stopped" || one.stopped);

// which nodes put something out stands in ComfyUI's history, a moment later
async function succeeded({ detail }) {
  for (let tries = 0; tries < 8 && detail.prompt_id === running; tries++) {
    const found = (await (await api.fetchApi(`/history/${detail.prompt_id}`)).json())[detail.prompt_id];
    if (found) {
      for (const node of everyNode()) {
        const top = node.graph === (app.rootGraph ?? app.graph);
        if (top && String(node.id) in found.outputs && stops(node)) blank(node, found.outputs, detail.prompt_id);
      }
      return;
    }
    await new Promise((done) => setTimeout(done, 250));
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
    queueing();
    api.addEventListener("execution_start", started);
    api.addEventListener("execution_success", (event) => void succeeded(event).catch(() => {}));
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
