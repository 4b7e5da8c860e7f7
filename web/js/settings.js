// The pack's page in ComfyUI's settings: what new nodes begin with, and where calibrations live. Workflows that are opened
// keep what they were saved with.

import { api } from "../../../scripts/api.js";

const PLACE = ["Cryptomnesia", "New nodes"];
// setting -> the widgets that it fills
const FILLS = {
  "Cryptomnesia.Policy": ["policy", ["CryptomnesiaGuardedKSampler", "CryptomnesiaGuardedGuider"]],
  "Cryptomnesia.Unverified": ["unverified", ["CryptomnesiaGuardedKSampler", "CryptomnesiaGuardedGuider"]],
  "Cryptomnesia.Alpha": ["alpha", ["CryptomnesiaCalibrateModel"]],
  "Cryptomnesia.Draws": ["draws", ["CryptomnesiaCalibrateModel", "CryptomnesiaMemorizationCheck"]],
  "Cryptomnesia.Prompts": ["prompts", ["CryptomnesiaSaveImage"]],
};

function folder() {
  const element = document.createElement("div");
  element.style.cssText = "max-width: 32em; overflow-wrap: anywhere; user-select: text";
  element.textContent = "...";
  api
    .fetchApi("/cryptomnesia/calibrations")
    .then((answer) => answer.json())
    .then((found) => {
      const names = found.calibrations.map((one) => one.name.replace(/\.calibration\.json$/, ""));
      element.textContent = `${found.folder} (${names.length ? names.join(", ") : "none yet"})`;
    })
    .catch(() => {
      element.textContent = "the server does not answer";
    });
  return element;
}

export const SETTINGS = [
  {
    id: "Cryptomnesia.Policy",
    sortOrder: 50,
    category: [...PLACE, "Policy"],
    name: "Policy of new guarded samplers",
    type: "combo",
    options: ["warn", "block", "rewrite", "embed", "off"],
    defaultValue: "warn",
  },
  {
    id: "Cryptomnesia.Unverified",
    sortOrder: 40,
    category: [...PLACE, "Unverified"],
    name: "What new guarded samplers do about what could not be checked",
    type: "combo",
    options: ["as the policy says", "allow", "warn", "block"],
    defaultValue: "as the policy says",
  },
  {
    id: "Cryptomnesia.Alpha",
    sortOrder: 20,
    category: [...PLACE, "Alpha"],
    name: "False-alarm rate that new calibrations promise",
    tooltip: "0.01 needs 99 prompts or more.",
    type: "number",
    attrs: { min: 0.0001, max: 0.5, step: 0.001, minFractionDigits: 2, maxFractionDigits: 4 },
    defaultValue: 0.01,
  },
  {
    id: "Cryptomnesia.Draws",
    sortOrder: 30,
    category: [...PLACE, "Draws"],
    name: "Noise draws of new checks and calibrations",
    tooltip: "A check needs as many as its calibration.",
    type: "number",
    attrs: { min: 1, max: 64, step: 1 },
    defaultValue: 4,
  },
  {
    id: "Cryptomnesia.Prompts",
    sortOrder: 10,
    category: [...PLACE, "Prompts"],
    name: "Prompts in new provenance files",
    tooltip: "The image's own metadata is another matter: start ComfyUI with --disable-metadata to leave that out.",
    type: "combo",
    options: ["plain", "hash", "none"],
    defaultValue: "plain",
  },
  {
    id: "Cryptomnesia.Folder",
    category: ["Cryptomnesia", "Calibrations", "Folder"],
    name: "Where calibrations live",
    type: folder,
    defaultValue: "",
  },
];

export function begin(node, get) {
  for (const [id, [name, kinds]] of Object.entries(FILLS)) {
    const widget = kinds.includes(node.comfyClass ?? node.type) && node.widgets?.find((one) => one.name === name);
    const value = widget ? get(id) : undefined;
    if (value !== undefined && value !== null && value !== "") widget.value = value;
  }
}
