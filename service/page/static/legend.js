// What the colours mean.
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

function weightLegend([low, high]) {
  const steps = Array.from({ length: WEIGHT_STEPS }, (_, i) =>
    swatch(i, (low + ((high - low) * i) / WEIGHT_STEPS).toFixed(1)),
  );
  return ["weight", steps, `to ${high.toFixed(1)}`];
}

/** Fills ``host`` for what the tokens are coloured by; says what is ``doubted`` or ``unknown`` where any token is. */
export function drawLegend(host, by, range, { doubted, unknown }) {
  const [before, steps, after] = by === "weight" ? weightLegend(range) : gapLegend(by);
  host.dataset.by = by;
  host.replaceChildren(
    el("span", {}, before),
    el("span", { class: "steps", "aria-hidden": "true" }, ...steps),
    el("span", {}, after),
  );
  if (doubted) host.append(el("span", { class: "notes" }, el("u", { "data-doubt": -3 }, "underlined"), ": the picture speaks against it"));
  if (unknown) host.append(el("span", { class: "notes" }, swatch("none", "?"), " not defined"));
}
