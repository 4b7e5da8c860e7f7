// Right-click: verify an image and show its provenance, calibrate a model. All that is shown is set as text.

import { api } from "../../../scripts/api.js";
import { app } from "../../../scripts/app.js";

const CALIBRATE = "CryptomnesiaCalibrateModel";

function line(parent, tag, text, style = "") {
  const element = document.createElement(tag);
  element.textContent = text;
  element.style.cssText = style;
  parent.append(element);
  return element;
}

function dialog(title, lines) {
  const box = document.createElement("dialog");
  box.className = "cryptomnesia-dialog";
  box.style.cssText =
    "max-width: 40em; padding: 1.2em; border: 1px solid #666; border-radius: 8px; font: 14px/1.5 sans-serif;" +
    " margin: auto; background: var(--comfy-menu-bg, #222); color: var(--input-text, #ddd)";
  line(box, "h3", title, "margin: 0 0 .6em; font-size: 16px; font-weight: bold");
  for (const text of lines) line(box, "p", text, "margin: .3em 0; overflow-wrap: anywhere; white-space: pre-wrap");
  const button = line(box, "button", "Close", "margin-top: .8em; padding: .3em 1em; border: 1px solid; border-radius: 6px");
  button.onclick = () => box.close();
  box.onclose = () => box.remove();
  document.body.append(box);
  box.showModal();
}

// the file of the image that a node shows, as ComfyUI's /view names it
export function imageOf(node) {
  const chosen = node.widgets?.find((one) => one.name === "image" && typeof one.value === "string")?.value;
  if (node.comfyClass === "LoadImage" && chosen) {
    const parts = chosen.replace(/ \[\w+\]$/, "").split("/");
    const type = / \[(\w+)\]$/.exec(chosen)?.[1] ?? "input";
    return { filename: parts.pop(), subfolder: parts.join("/"), type };
  }
  const locator = node.graph === (app.rootGraph ?? app.graph) ? String(node.id) : `${node.graph?.id}:${node.id}`;
  const images = app.nodeOutputs?.[locator]?.images ?? [];
  return images[node.imageIndex ?? 0] ?? images[0] ?? null;
}

async function verified(image) {
  const { filename, subfolder = "", type = "output", sha256 } = image;
  const body = JSON.stringify(sha256 ? { filename, sha256 } : { filename, subfolder, type });
  const headers = { "Content-Type": "application/json" };
  const answer = await api.fetchApi("/cryptomnesia/verify", { method: "POST", headers, body });
  return answer.json();
}

const told = (value) => (value !== null && typeof value === "object" ? JSON.stringify(value) : String(value));

async function show(image, provenance) {
  try {
    const found = await verified(image);
    if (found.error) return dialog(image.filename, [found.error]);
    if (!provenance) return dialog(`${image.filename}: ${found.headline}`, found.lines);
    const claims = Object.entries(found.claims ?? {}).filter(([, value]) => value !== null && value !== "");
    const lines = claims.map(([name, value]) => `${name.replaceAll("_", " ")}: ${told(value)}`);
    return dialog(image.filename, lines.length ? [found.headline, ...lines] : found.lines);
  } catch {
    return dialog(image.filename, ["ComfyUI's server does not answer: start it again, then try once more."]);
  }
}

function calibrate(node) {
  const made = LiteGraph.createNode(CALIBRATE);
  made.pos = [node.pos[0] + node.size[0] + 60, node.pos[1]];
  node.graph.add(made);
  for (const [type, name] of [["MODEL", "model"], ["CLIP", "clip"]]) {
    const slot = node.outputs.findIndex((one) => one.type === type);
    if (slot >= 0) node.connect(slot, made, made.inputs.findIndex((one) => one.name === name));
  }
  const latent = node.graph.nodes.find((one) => /^Empty.*Latent/.test(one.type));
  if (latent) latent.connect(0, made, made.inputs.findIndex((one) => one.name === "latent"));
  app.canvas.selectNode?.(made);
  app.canvas.setDirty(true, true);
}

export function itemsFor(node) {
  const items = [];
  const image = imageOf(node);
  if (image) {
    items.push({ content: "Cryptomnesia: verify this image", callback: () => void show(image, false) });
    items.push({ content: "Cryptomnesia: show its provenance", callback: () => void show(image, true) });
  }
  if (node.outputs?.some((one) => one.type === "MODEL") && LiteGraph.registered_node_types[CALIBRATE])
    items.push({ content: "Cryptomnesia: calibrate this model", callback: () => calibrate(node) });
  return items.length ? [null, ...items] : [];
}

// An image that is dragged in brings its workflow, which is ComfyUI's part; this says what its provenance file says.
export async function dropped(event) {
  const file = event.dataTransfer?.files?.[0];
  if (!file?.type.startsWith("image/") || !globalThis.crypto?.subtle) return;
  try {
    const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", await file.arrayBuffer()));
    const sha256 = [...digest].map((byte) => byte.toString(16).padStart(2, "0")).join("");
    const found = await verified({ filename: file.name, sha256 });
    if (found.error || found.sidecar !== "found") return;
    const detail = [found.headline, ...found.lines].join("\n");
    const severity = found.matches ? "info" : "warn";
    app.extensionManager?.toast?.add({ severity, summary: file.name, detail, life: 15000 });
  } catch {
    // no server, or a file that cannot be read: ComfyUI says so
  }
}
