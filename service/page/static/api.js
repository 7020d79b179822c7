// The HTTP API as the page uses it. An answer, or a Problem that says in plain words what went wrong.

/** The URL of a path relative to the page, which may stand below a prefix. Without the user and password that the page
 * may have been opened with: fetch refuses a URL that has them, and the browser sends them by itself. */
export const address = (path) => new URL(path, location.origin + location.pathname).href;

/** What is shown when a request fails: RFC 9457's fields, or words for what has none. */
export class Problem extends Error {
  constructor({ title, detail = "", code = "", requestId = "", retryAfter = null }) {
    super(detail || title);
    Object.assign(this, { title, detail, code, requestId, retryAfter });
  }
}

const text = (value) => (typeof value === "string" ? value : "");

/** Seconds to wait, from Retry-After (a number, or a date); null where the server gave no hint. */
function retryAfter(response) {
  const header = response.headers.get("Retry-After");
  if (!header) return null;
  const seconds = /^\d+$/.test(header) ? Number(header) : (Date.parse(header) - Date.now()) / 1000;
  return Number.isFinite(seconds) ? Math.max(0, Math.ceil(seconds)) : null;
}

async function problemOf(response) {
  const isJson = /\bjson\b/.test(response.headers.get("Content-Type") ?? "");
  const body = isJson ? await response.json().catch(() => ({})) : {};
  const detail = text(body?.detail);
  const errors = Array.isArray(body?.errors) ? body.errors.map(fieldError) : [];
  const fields = errors.filter((each) => each && !detail.includes(each)); // the detail may name the first one
  return new Problem({
    title: text(body?.title) || `The server answered ${response.status} ${response.statusText}`.trim(),
    detail: [detail, ...fields].filter(Boolean).join("; "),
    code: text(body?.code) || `http_${response.status}`,
    requestId: text(body?.request_id) || response.headers.get("X-Request-ID") || "",
    retryAfter: retryAfter(response),
  });
}

function fieldError(error) {
  const place = Array.isArray(error?.loc) ? error.loc.join(".") : text(error?.field);
  const message = text(error?.msg) || text(error?.message) || text(error?.detail);
  return place && message ? `${place}: ${message}` : message;
}

/** The response, if it is a good one. Throws Problem, or AbortError. */
export async function get(path, options = {}) {
  let response;
  try {
    response = await fetch(address(path), options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem({
      title: "The server cannot be reached",
      detail: "It may be stopped or restarting, or it closed the connection on a picture above its limit.",
      code: "network",
    });
  }
  if (!response.ok) throw await problemOf(response);
  return response;
}

async function ask(path, options = {}) {
  const response = await get(path, { cache: "no-store", ...options });
  try {
    return await response.json();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    const detail = "Something between here and the server changed it.";
    throw new Problem({ title: "The answer is not JSON", detail, code: "not_json" });
  }
}

/** GET /v1/models. */
export const listModels = () => ask("v1/models");

/** POST /v1/score, the picture as a file beside the request. */
export function score(picture, request, signal) {
  const form = new FormData();
  form.append("image", picture.blob, picture.name);
  form.append("request", JSON.stringify(request));
  return ask("v1/score", { method: "POST", body: form, signal });
}

/** POST /v1/weights. */
export function deriveWeights(request, signal) {
  const headers = { "Content-Type": "application/json" };
  return ask("v1/weights", { method: "POST", headers, body: JSON.stringify(request), signal });
}

/** Whether the API wants a key: this browser sends the one it was given, a command line has to be told. */
export async function wantsKey() {
  try {
    return (await fetch(address("v1/models"), { credentials: "omit", cache: "no-store" })).status === 401;
  } catch {
    return false; // no server, no key: the command is the same
  }
}
