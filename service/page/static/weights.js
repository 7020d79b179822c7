// Derives token weights from raw scores: a port of scorer/weights.py, so a changed setting needs no request.
// Same operations in the same order; computed in float64, returned as float32. Undefined values are NaN (null in JSON).

/** Converts null to NaN, and rounds numbers to float32 as in the engine. */
const numbers = (values) => Float64Array.from(values, (value) => (value === null ? NaN : Math.fround(value)));

/** Clamps to [low, high], then averages over a centred window: within the turn or, with edges "paper", also over the
 * positions around it that have no label, at low; nothing follows the last token. */
export function clampAndPool(gap, turns, low, high, window, edges) {
  const clamped = gap.map((value) => Math.min(Math.max(value, low), high)); // NaN stays NaN
  const half = Math.floor(window / 2);
  const last = clamped.length - 1;
  const out = new Float32Array(clamped.length);
  for (let t = 0; t <= last; t++) {
    let total = 0;
    let count = 0;
    for (let s = Math.max(0, t - half); s <= Math.min(last, t + half); s++) {
      if (turns[s] !== turns[t]) continue;
      total += clamped[s];
      count++;
    }
    if (edges === "paper") {
      const unlabelled = window - count - (turns[t] === turns[last] ? Math.max(t + half - last, 0) : 0);
      total += low * unlabelled;
      count += unlabelled;
    }
    out[t] = total / count;
  }
  return out;
}

function prior(contrast, alpha) {
  const surprise = contrast.map((logprob) => -Math.expm1(Math.min(logprob, 0)));
  const largest = surprise.reduce((most, value) => Math.max(most, value), 0); // any NaN makes this NaN
  if (largest === 0) return new Float32Array(surprise.length).fill(1);
  const powers = surprise.map((value) => Math.pow(value / largest, alpha));
  const sum = powers.reduce((total, value) => total + value, 0);
  return Float32Array.from(powers, (value) => (powers.length * value) / sum);
}

/** Returns ⌈share · n⌉ in decimal arithmetic: 0.07 · 100 is 7, not 8 as in floating point. */
export function shareOf(share, n) {
  const [digits, exponent = "0"] = String(share).split("e");
  const [whole, fraction = ""] = digits.split(".");
  const places = fraction.length - Number(exponent);
  const product = BigInt(whole + fraction) * BigInt(n);
  if (places <= 0) return Number(product * 10n ** BigInt(-places));
  const unit = 10n ** BigInt(places);
  return Number((product + unit - 1n) / unit);
}

/** Keeps a row whose mean gap reaches the threshold, and of it the tokens that do. */
function vig(gap, threshold) {
  if (!gap.every(Number.isFinite)) return new Float32Array(gap.length).fill(NaN);
  const kept = gap.reduce((total, value) => total + value, 0) / gap.length >= threshold;
  return Float32Array.from(gap, (value) => Number(kept && value >= threshold));
}

/** A stop token is always kept, and is none of those that are ranked. */
function vigRow(gap, stops, threshold, keep) {
  if (threshold !== null) {
    return Float32Array.from(gap, (value, i) => (Number.isNaN(value) ? NaN : Number(stops[i] || value >= threshold)));
  }
  const known = [...gap.keys()].filter((i) => !Number.isNaN(gap[i]));
  const defined = known.filter((i) => !stops[i]);
  const out = new Float32Array(gap.length).fill(NaN);
  for (const i of known) out[i] = Number(stops[i]);
  // Highest first; the sort is stable, so the earlier token wins a tie. (∞ − ∞ would be NaN.)
  const ranked = defined.sort((a, b) => (gap[a] === gap[b] ? 0 : gap[b] > gap[a] ? 1 : -1));
  for (const i of ranked.slice(0, shareOf(keep, defined.length))) out[i] = 1;
  return out;
}

/** A probability from its logarithm, which rounding can push above 0. */
const probability = (logprob) => Math.exp(Math.min(logprob, 0));

function grounded({ clean, contrast }, k, epsilon) {
  return Float32Array.from(clean, (logprob, i) => {
    const [p, q] = [probability(logprob) + epsilon, probability(contrast[i]) + epsilon];
    return Math.min(1, p / q) + (k * Math.max(p - q, 0)) / p;
  });
}

/** The k3 estimate of KL(with image ‖ without), from the label alone. */
function sampledKl({ clean, contrast }) {
  return clean.map((logprob, i) => {
    const d = Math.min(Math.max(contrast[i] - logprob, -20), 20);
    return Math.max(Math.expm1(d) - d, 0);
  });
}

function vppo(dependency, keep) {
  const capped = dependency.map((value) => Math.min(value, 10));
  const known = [...capped.keys()].filter((i) => !Number.isNaN(capped[i]));
  const out = new Float32Array(capped.length).fill(NaN);
  for (const i of known) out[i] = 0;
  const ranked = [...known].sort((a, b) => capped[b] - capped[a]); // stable: the earlier token wins a tie
  for (const i of ranked.slice(0, shareOf(keep, known.length))) out[i] = 1;
  return out;
}

function pgpo(kl, threshold, boost) {
  const dependency = kl.map(Math.log1p);
  const least = dependency.reduce((a, b) => Math.min(a, b), Infinity); // any NaN makes both NaN
  const greatest = dependency.reduce((a, b) => Math.max(a, b), -Infinity);
  if (!(greatest > least)) return new Float32Array(kl.length).fill(dependency.some(Number.isNaN) ? NaN : 1);
  const weights = dependency.map((value) => {
    const scaled = (value - least) / (greatest - least);
    return scaled < threshold ? scaled / threshold : 1 + (boost * (scaled - threshold)) / (1 - threshold);
  });
  const sum = weights.reduce((total, value) => total + value, 0);
  return Float32Array.from(weights, (value) => (weights.length * value) / sum);
}

const tpo = (gap) => Float32Array.from(gap, (value) => 1 / (1 + Math.exp(-value)) + 0.5);

const logprobGap = ({ clean, contrast }) => clean.map((value, i) => value - contrast[i]);

const clampedBy = (gapOf) => (raw, { low, high, window, edges }) =>
  clampAndPool(gapOf(raw), raw.turns, low, high, window, edges);

/** Method name → function of {turns, stops, gap, clean, contrast} and all its parameters that returns weights.
 * GET /v1/models describes the methods; the server derives the weights of one that has no port here. */
export const PORTS = {
  cal: clampedBy((raw) => raw.gap),
  "cal-logprob": clampedBy(logprobGap),
  prior: (raw, { alpha }) => prior(raw.contrast, alpha),
  vig: (raw, { threshold }) => vig(logprobGap(raw), threshold),
  "vig-row": (raw, { threshold, keep }) => vigRow(logprobGap(raw), raw.stops, threshold, keep),
  "top-tokens": (raw, { threshold }) => vigRow(logprobGap(raw), raw.stops, threshold, null),
  vppo: (raw, { keep }) => vppo(sampledKl(raw), keep),
  pgpo: (raw, { threshold, boost }) => pgpo(sampledKl(raw), threshold, boost),
  tpo: (raw) => tpo(raw.gap),
  grounded: (raw, { k, epsilon }) => grounded(raw, k, epsilon),
};

/** Returns the tokens of a response as arrays. */
export function rawScores(tokens) {
  return {
    turns: tokens.map((token) => token.turn),
    stops: tokens.map((token) => token.is_stop === true),
    gap: numbers(tokens.map((token) => token.logit_gap)),
    clean: numbers(tokens.map((token) => token.logprob_clean)),
    contrast: numbers(tokens.map((token) => token.logprob_contrast)),
  };
}
