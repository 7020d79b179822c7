// Numbers → colour steps and words: as in the job's report (pipelines/report/chart.py, pipelines/report/page.py).

/** Where a gap's colour changes, in nats: 1.25, 2, 5, 20 times as likely (or unlikely). */
export const GAP_STEPS = [1.25, 2, 5, 20].map(Math.log);
export const WEIGHT_STEPS = 5;

/** −4 (the picture speaks against the token) … 0 (it says nothing) … 4; null where the gap is not defined. */
export function gapLevel(gap) {
  if (Number.isNaN(gap)) return null;
  const step = GAP_STEPS.filter((edge) => Math.abs(gap) >= edge).length;
  return gap < 0 ? -step || 0 : step;
}

/** 0 … 4 in equal parts of [low, high]; null where the weight is not defined. */
export function weightLevel(weight, [low, high]) {
  if (Number.isNaN(weight)) return null;
  if (high <= low) return 0;
  return Math.min(WEIGHT_STEPS - 1, Math.max(0, Math.floor(((weight - low) / (high - low)) * WEIGHT_STEPS)));
}

/** The range that the weight colours span: what the method can give, by its record, or gives. */
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

/** How many times likelier, or less likely, a gap in nats makes a token. */
export function ratio(gap) {
  const value = Math.exp(Math.min(Math.abs(gap), 50));
  if (value > 1e4) return "over 10,000";
  return value < 9.95 ? value.toFixed(1).replace(/\.0$/, "") : Math.round(value).toLocaleString("en");
}

/** A log-probability gap in words. */
export function comparison(gap) {
  if (Number.isNaN(gap)) return "not defined";
  const times = ratio(gap);
  if (times === "1") return "as likely with the picture as without";
  return `${times} times ${gap > 0 ? "more" : "less"} likely with the picture`;
}

export const duration = (ms) => (ms < 1000 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(1)} s`);
