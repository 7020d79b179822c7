// The scored text as coloured token runs, and keyboard navigation between them.
import { el } from "./dom.js";
import { drawn, tokenRuns, visible } from "./token_runs.js";
import { gapLevel } from "./scale.js";

/** Sums the scores of tokens first … last − 1, which multiplies their probabilities. */
function numbersOf(run, offset, tokens) {
  const own = tokens.slice(offset + run.first, offset + run.last);
  const sum = (name) => own.reduce((total, token) => total + (token[name] ?? NaN), 0);
  const [clean, contrast] = [sum("logprob_clean"), sum("logprob_contrast")];
  return {
    text: run.text.trim() || visible(run.text) || "∅",
    from: offset + run.first,
    to: offset + run.last,
    gap: clean - contrast,
    logit: sum("logit_gap"),
    clean: Math.exp(clean),
    contrast: Math.exp(contrast),
  };
}

/** Returns the mean weight of the tokens of a part. */
export function weightOf(part, weights) {
  let total = 0;
  for (let i = part.from; i < part.to; i++) total += weights[i];
  return total / (part.to - part.from);
}

/** Draws the mark of a stop token, which has no text; its word comes from the style sheet, so that it is not copied. */
function drawStop(paragraph, at, tokens) {
  const part = { ...numbersOf({ text: "end", first: 0, last: 1 }, at, tokens), isStop: true };
  const attributes = { role: "option", tabindex: -1, "aria-selected": "false", "aria-describedby": "tip" };
  part.element = el("span", { class: "t stop", "aria-label": "end of the text", ...attributes });
  paragraph.append(part.element);
  return part;
}

function drawPart(paragraph, run, offset, tokens) {
  if (run.first === run.last) {
    paragraph.append(el("span", { class: "unscored" }, run.text));
    return [];
  }
  const part = numbersOf(run, offset, tokens);
  const { before, core, after } = drawn(run.text);
  const doubt = Math.min(0, gapLevel(part.gap) ?? 0);
  const attributes = { role: "option", tabindex: -1, "aria-selected": "false", "aria-describedby": "tip" };
  part.element = el("span", { class: core.trim() ? "t" : "t space", "data-doubt": doubt || null, ...attributes }, core);
  paragraph.append(before, part.element, after);
  return [part];
}

/** Draws all turns at the end of ``host``, under a heading if there is one, and returns their scored parts in order. */
export function drawCaption(host, turns, tokens, heading = "") {
  const parts = [];
  const drawing = el("div", { class: "comparison" });
  if (heading) drawing.append(el("p", { class: "label" }, heading));
  turns.forEach((text, turn) => {
    const offset = tokens.findIndex((token) => token.turn === turn);
    const own = offset < 0 ? [] : tokens.filter((token) => token.turn === turn && !token.is_stop);
    const name = turns.length > 1 ? `Text ${turn + 1} of ${turns.length}` : "Caption";
    const paragraph = el("p", {
      class: "caption",
      dir: "auto",
      role: "listbox",
      "aria-orientation": "horizontal",
      "aria-label": `${[name, heading].filter(Boolean).join(" ")}, token by token; use the arrow keys to move`,
    });
    const starts = own.map((token) => token.start);
    for (const run of tokenRuns(text, starts, own.map((token) => token.end))) {
      parts.push(...drawPart(paragraph, run, Math.max(0, offset), tokens));
    }
    const stop = tokens.findIndex((token) => token.turn === turn && token.is_stop);
    if (stop >= 0) parts.push(drawStop(paragraph, stop, tokens));
    paragraph.querySelector(".t")?.setAttribute("tabindex", "0");
    drawing.append(paragraph);
  });
  host.append(drawing);
  return parts;
}

/** Colours every part by level(part): an integer, or null if the score is undefined. Returns the levels. */
export function paint(parts, level) {
  return parts.map((part) => {
    const step = level(part);
    part.element.dataset.level = step === null ? "none" : step;
    return step;
  });
}

const STEPS = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: 1, ArrowUp: -1 };

/** Lets the arrow keys, Home and End move between the parts of a drawing. One part of each text is in the tab order. */
export function walkWithKeys(host) {
  host.addEventListener("keydown", (event) => {
    const at = event.target.closest(".t");
    if (!at || event.ctrlKey || event.metaKey || event.altKey) return;
    const all = [...at.closest(".comparison").querySelectorAll(".t")];
    const rightToLeft = getComputedStyle(at).direction === "rtl" && /Left|Right/.test(event.key);
    const step = (STEPS[event.key] ?? 0) * (rightToLeft ? -1 : 1);
    const next = { Home: all[0], End: all.at(-1) }[event.key] ?? (step ? all[all.indexOf(at) + step] : null);
    if (event.key in STEPS || next) event.preventDefault();
    next?.focus();
  });
  host.addEventListener("focusin", (event) => {
    const at = event.target.closest(".t");
    if (!at) return;
    for (const other of at.parentElement.querySelectorAll('.t[tabindex="0"]')) {
      other.tabIndex = -1;
      other.setAttribute("aria-selected", "false");
    }
    at.tabIndex = 0;
    at.setAttribute("aria-selected", "true");
  });
  host.addEventListener("click", (event) => event.target.closest(".t")?.focus());
}
