// Converts numbers to colour steps and text, as in the report (scorer/display/levels.py, pipelines/report/page.py).

/** Gaps in nats where the colour changes: 1.25, 2, 5 and 20 times as likely (or unlikely). */
export const GAP_STEPS = [1.25, 2, 5, 20].map(Math.log);
export const WEIGHT_STEPS = 5;

/** Returns −4 (the image contradicts the token) … 0 (no effect) … 4 (it explains the token); null if undefined. */
export function gapLevel(gap) {
  if (Number.isNaN(gap)) return null;
  const step = GAP_STEPS.filter((edge) => Math.abs(gap) >= edge).length;
  return gap < 0 ? -step || 0 : step;
}

/** Returns 0 … 4 for equal parts of [low, high]; null if the weight is undefined. */
export function weightLevel(weight, [low, high]) {
  if (Number.isNaN(weight)) return null;
  if (high <= low) return 0;
  return Math.min(WEIGHT_STEPS - 1, Math.max(0, Math.floor(((weight - low) / (high - low)) * WEIGHT_STEPS)));
}

/** Returns the range that the weight colours span: the bounds of the method, or 0 to the largest weight. */
export function weightRange({ binary, bounds }, params, weights) {
  if (binary) return [0, 1];
  if (bounds) return bounds.map((name) => params[name]);
  return [0, weights.reduce((most, value) => (value > most ? value : most), 0)];
}

export function signed(value, digits = 2) {
  if (Number.isNaN(value)) return "–";
  if (!Number.isFinite(value)) return value > 0 ? "+∞" : "−∞";
  const text = Math.abs(value).toFixed(digits);
  return Number(text) === 0 ? text : (value < 0 ? "−" : "+") + text;
}

export function percent(probability) {
  if (Number.isNaN(probability)) return "–";
  const value = 100 * probability;
  if (value < 1e-4) return "< 0.0001 %";
  if (value > 99) return value < 99.99 ? `${Number(value.toPrecision(4))} %` : "> 99.99 %";
  return value >= 1e-3 ? `${Number(value.toPrecision(2))} %` : `${value.toFixed(4)} %`;
}

/** Returns how many times more or less likely a gap in nats makes a token. */
export function ratio(gap) {
  const value = Math.exp(Math.min(Math.abs(gap), 50));
  if (value > 1e4) return "over 10,000";
  return value < 9.95 ? value.toFixed(1).replace(/\.0$/, "") : Math.round(value).toLocaleString("en");
}

/** Describes a log-probability gap in nats. ``contrast`` says what the image is compared with, if that has to be said: a
 * phrase that completes “with …”. */
export function comparison(gap, contrast = null) {
  if (Number.isNaN(gap)) return "undefined";
  const times = ratio(gap);
  if (times === "1") return `as likely with the image as ${contrast === null ? "without" : `with ${contrast}`}`;
  const than = contrast === null ? "" : ` than with ${contrast}`;
  return `${times} times ${gap > 0 ? "more" : "less"} likely with the image${than}`;
}

export const duration = (ms) => (ms < 1000 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(1)} s`);
