// What a badge says and how it looks, per state that nodes/shown.py can send. Words come from locales/*/main.json where
// ComfyUI speaks that language; those here stand in.

export const WORDS = {
  memorized: "likely memorized",
  clear: "clear",
  uncalibrated: "no verdict: not calibrated",
  "not applicable": "not applicable",
  stopped: "stopped here",
  passed: "let through",
  off: "off",
  calibrated: "calibrated",
  seed: "seed",
  "vouched for": "vouched for",
  "nobody vouches": "fits, nobody vouches",
  "found again": "found again by content",
  changed: "changed",
  "cannot tell": "cannot tell",
  table: "checked",
  earlier: "earlier:",
  of: "of",
  calibrating: "calibrating",
  interrupted: "stopped; run again to go on",
};

const RED = "#b3261e";
const GREEN = "#2e7d32";
const AMBER = "#8a6500";
const GREY = "#5f6368";
const BLUE = "#2b5f9e";

export const COLOURS = {
  memorized: RED,
  clear: GREEN,
  uncalibrated: AMBER,
  "not applicable": GREY,
  stopped: RED,
  passed: GREEN,
  off: GREY,
  calibrated: BLUE,
  seed: BLUE,
  "vouched for": GREEN,
  "nobody vouches": AMBER,
  "found again": BLUE,
  changed: RED,
  "cannot tell": AMBER,
  table: BLUE,
};

// the worst is what a badge over several prompts says
const ORDER = [
  "memorized",
  "stopped",
  "changed",
  "cannot tell",
  "found again",
  "nobody vouches",
  "uncalibrated",
  "not applicable",
  "off",
];

export async function translate(api, language) {
  try {
    const all = await (await api.fetchApi("/i18n")).json();
    const known = all[language]?.cryptomnesia ?? {};
    for (const [key, word] of Object.entries(known)) if (key in WORDS) WORDS[key] = String(word);
  } catch {
    // an older server: the words above stay
  }
}

const short = (number) => (number < 0.001 ? "< 0.001" : `= ${Number(number.toPrecision(2))}`);

function one(entry) {
  const word = WORDS[entry.state] ?? String(entry.state);
  if (entry.stopped) return WORDS.stopped;
  if (typeof entry.p_value === "number") return `${word}, p ${short(entry.p_value)}`;
  return entry.detail ? `${word} ${entry.detail}` : word;
}

export function headline(entries) {
  if (entries.length === 1) return { text: one(entries[0]), colour: COLOURS[entries[0].state] ?? GREY };
  const worst = ORDER.find((state) => entries.some((entry) => entry.state === state)) ?? entries[0].state;
  const count = entries.filter((entry) => entry.state === worst).length;
  return { text: `${count} ${WORDS.of} ${entries.length} ${WORDS[worst]}`, colour: COLOURS[worst] ?? GREY };
}
