// Derives weights for the current settings: in the page if the method is ported to it, otherwise on the server.
import { deriveWeights } from "./api.js";
import { PORTS } from "./weights.js";

const PAUSE = 150; // ms: wait until a slider rests before sending a request
const RAW = ["logit_gap", "logprob_clean", "logprob_contrast"];

const numbers = (weights) => Float32Array.from(weights, (weight) => weight ?? NaN);

/** Returns a Float32Array [N] from ``rawScores``, or null if the method has no port. */
export const derive = ({ method, params }, raw) => (Object.hasOwn(PORTS, method) ? PORTS[method](raw, params) : null);

/** Returns the weights in the tokens of an answer. */
export const answerWeights = (tokens) => numbers(tokens.map((token) => token.weight));

/** Returns whether the weights in an answer were derived by ``method`` with ``params``. */
export const isFromAnswer = ({ method, params }, answer) =>
  answer.method === method && Object.entries(params).every(([name, value]) => answer.method_params[name] === value);

/** Derives weights with POST /v1/weights by the method with this record. Throws Problem or AbortError. */
export async function requestWeights(request, record, tokens, signal) {
  await new Promise((resolve) => setTimeout(resolve, PAUSE));
  signal.throwIfAborted();
  const column = (name) => tokens.map((token) => token[name]);
  const further = [...record.columns, ...record.if_given].filter((name) => tokens.some((token) => name in token));
  const raw = Object.fromEntries([...RAW, ...further].map((name) => [name, column(name)]));
  return numbers((await deriveWeights({ ...request, ...raw, turns: column("turn") }, signal)).weights);
}
