// The HTTP API as used by the page: each call returns a response, or throws a Problem that says what went wrong.

/** Returns the URL of a path relative to the page, which may be mounted under a prefix. It has no user or password, even
 * if the page was opened with them: fetch refuses such a URL, and the browser sends them anyway. */
export const address = (path) => new URL(path, location.origin + location.pathname).href;

/** What is shown when a request fails: the fields of RFC 9457, or a description if the response has none. */
export class Problem extends Error {
  constructor({ title, detail = "", code = "", requestId = "", retryAfter = null }) {
    super(detail || title);
    Object.assign(this, { title, detail, code, requestId, retryAfter });
  }
}

const text = (value) => (typeof value === "string" ? value : "");

/** Returns the seconds to wait, from Retry-After (a number or a date); null if the server gave no hint. */
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
  const fields = errors.filter((each) => each && !detail.includes(each)); // the detail may include the first one
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

/** Returns a successful response. Throws Problem or AbortError. */
export async function get(path, options = {}) {
  let response;
  try {
    response = await fetch(address(path), options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem({
      title: "The server cannot be reached",
      detail: "It may be stopped or restarting, or it closed the connection because the image exceeds its limit.",
      code: "network",
    });
  }
  if (!response.ok) throw await problemOf(response);
  return response;
}

async function requestJson(path, options = {}) {
  const response = await get(path, { cache: "no-store", ...options });
  try {
    return await response.json();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    const detail = "Something between this page and the server changed it.";
    throw new Problem({ title: "The response is not JSON", detail, code: "not_json" });
  }
}

/** GET /v1/models. */
export const listModels = () => requestJson("v1/models");

/** POST /v1/score, with the image as a file next to the request. */
export function score(image, request, signal) {
  const form = new FormData();
  form.append("image", image.blob, image.name);
  form.append("request", JSON.stringify(request));
  return requestJson("v1/score", { method: "POST", body: form, signal });
}

/** POST /v1/weights. */
export function deriveWeights(request, signal) {
  const headers = { "Content-Type": "application/json" };
  return requestJson("v1/weights", { method: "POST", headers, body: JSON.stringify(request), signal });
}

/** Returns whether the API requires a key. The browser sends its key itself; a command needs it as an option. */
export async function requiresKey() {
  try {
    return (await fetch(address("v1/models"), { credentials: "omit", cache: "no-store" })).status === 401;
  } catch {
    return false; // unreachable server: leave the key out
  }
}
