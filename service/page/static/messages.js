// Messages of the page: the status line and the problem box.
import { Problem } from "./api.js";
import { byId, el } from "./dom.js";

export function showStatus(text) {
  byId("status").textContent = text;
}

export function hideProblem() {
  byId("problem").hidden = true;
}

/** Shows an error, with a button that calls ``retry`` if given. */
export function showProblem(error, retry = null) {
  const unexpected = () => new Problem({ title: "The page failed", detail: String(error), code: "page" });
  const problem = error instanceof Problem ? error : unexpected();
  const box = byId("problem");
  box.replaceChildren(el("b", {}, problem.title), el("p", {}, problem.detail));
  if (problem.retryAfter !== null) box.append(el("p", {}, `Try again in ${problem.retryAfter} s.`));
  const notes = [problem.code, problem.requestId && `request ${problem.requestId}`].filter(Boolean).join(" · ");
  if (notes) box.append(el("p", { class: "small" }, el("code", {}, notes)));
  if (retry) {
    const button = el("button", { type: "button", class: "quiet" }, "Try again");
    button.addEventListener("click", retry);
    box.append(button);
  }
  box.hidden = false;
}
