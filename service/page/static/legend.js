// The legend of the colours.
import { el } from "./dom.js";
import { GAP_STEPS, WEIGHT_STEPS, ratio, signed } from "./scale.js";

const swatch = (level, label, doubt = null) =>
  el("i", { class: "t", "data-level": level, "data-doubt": doubt }, label);

const LEVELS = [-4, -3, -2, -1, 0, 1, 2, 3, 4];

function gapLegend(by) {
  const logit = by === "logit";
  const label = (level) => {
    if (Math.abs(level) < 2) return "";
    const edge = GAP_STEPS[Math.abs(level) - 1];
    return logit ? signed(Math.sign(level) * edge, 1) : (level < 0 ? "÷" : "×") + ratio(edge);
  };
  const steps = LEVELS.map((level) => swatch(level, label(level), !logit && level < 0 ? level : null));
  return [logit ? "lower" : "less likely", steps, logit ? "higher" : "more likely"];
}

function weightLegend([low, high], binary) {
  if (binary) return ["weight", [swatch(0, "0"), swatch(WEIGHT_STEPS - 1, "1")], ""];
  const steps = Array.from({ length: WEIGHT_STEPS }, (_, i) =>
    swatch(i, (low + ((high - low) * i) / WEIGHT_STEPS).toFixed(1)),
  );
  return ["weight", steps, `to ${high.toFixed(1)}`];
}

/** Draws the legend of the current colours into ``host``. Flags: weights are ``binary`` (0 or 1); some token is
 * ``doubted`` (contradicted by the image) or ``undefinedScore``. */
export function drawLegend(host, by, range, { binary, doubted, undefinedScore }) {
  const [before, steps, after] = by === "weight" ? weightLegend(range, binary) : gapLegend(by);
  host.dataset.by = by;
  const scale = el("span", { class: "steps", "aria-hidden": "true" }, ...steps);
  host.replaceChildren(el("p", { class: "key" }, el("span", {}, before), scale, el("span", {}, after)));
  const notes = el("p", { class: "notes" });
  const underlined = el("u", { "data-doubt": -3 }, "underlined");
  if (doubted) notes.append(el("span", {}, underlined, ": contradicted by the image"));
  if (undefinedScore) notes.append(el("span", {}, swatch("none", "?"), " undefined"));
  if (doubted || undefinedScore) host.append(notes);
}
