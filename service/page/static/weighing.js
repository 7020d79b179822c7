// Weights for the settings of now: by the method's port in this page, or, where it has none, by the server.
import { deriveWeights } from "./api.js";
import { PORTS } from "./weights.js";

const PAUSE = 150; // ms: a slider that is being moved is asked for once it rests
const RAW = ["logit_gap", "logprob_clean", "logprob_contrast"];

const numbers = (weights) => Float32Array.from(weights, (weight) => weight ?? NaN);

/** Float32Array [N] from ``rawScores``; null where the method has no port. */
export const derive = ({ method, params }, raw) => (Object.hasOwn(PORTS, method) ? PORTS[method](raw, params) : null);

/** The weights that came with an answer. */
export const ownWeights = ({ tokens }) => numbers(tokens.map((token) => token.weight));

/** Whether these are by ``method`` with ``params``. */
export const isOwn = ({ method, params }, answer) =>
  answer.method === method && Object.entries(params).every(([name, value]) => answer.method_params[name] === value);

/** The same by POST /v1/weights, with what the method reads besides. Throws Problem, or AbortError. */
export async function ask(request, columns, tokens, signal) {
  await new Promise((resolve) => setTimeout(resolve, PAUSE));
  signal.throwIfAborted();
  const column = (name) => tokens.map((token) => token[name]);
  const further = columns.filter((name) => tokens.some((token) => name in token));
  const raw = Object.fromEntries([...RAW, ...further].map((name) => [name, column(name)]));
  return numbers((await deriveWeights({ ...request, ...raw, turns: column("turn") }, signal)).weights);
}
