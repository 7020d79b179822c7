// The numbers of one token in a tooltip, and of all tokens in a table.
import { contrastPhrase } from "./contrasts.js";
import { el } from "./dom.js";
import { comparison, percent, signed } from "./scale.js";

const weightText = (weight) => (Number.isNaN(weight) ? "–" : weight.toFixed(2));
const count = (part) => (part.to - part.from > 1 ? `${part.to - part.from} tokens` : "");

function lines(part, weight, contrast) {
  return [
    ["with the image", percent(part.clean)],
    [`with ${contrastPhrase(contrast)}`, percent(part.contrast)],
    ["gap", signed(part.gap)],
    ["logit gap", signed(part.logit)],
    ["weight", weightText(weight)],
  ];
}

/** Shows a tooltip above or below the token that is hovered or focused; Escape hides it. describe(element) returns the
 * arguments of ``lines``. Returns a function that refreshes the tooltip. */
export function tooltip(host, tip, describe) {
  let shown = null;
  const fill = () => {
    const [part, weight, contrast] = describe(shown);
    const rows = lines(part, weight, contrast).map(([name, value]) =>
      el("tr", {}, el("th", { scope: "row" }, name), el("td", {}, value)),
    );
    tip.replaceChildren(
      el("b", { dir: "auto" }, part.text),
      count(part) && el("span", { class: "count" }, count(part)),
      el("p", {}, comparison(part.gap)),
      el("table", {}, ...rows),
    );
  };
  const show = (element) => {
    shown = element;
    fill();
    tip.hidden = false;
    const at = element.getClientRects()[0];
    const left = Math.min(at.left, document.documentElement.clientWidth - tip.offsetWidth - 8);
    const above = at.top - tip.offsetHeight - 8;
    tip.style.left = `${Math.max(8, left) + scrollX}px`;
    tip.style.top = `${(above > 0 ? above : at.bottom + 8) + scrollY}px`;
  };
  const hide = () => {
    shown = null;
    tip.hidden = true;
  };
  const over = (handle) => (event) => {
    const element = event.target.closest?.(".t");
    if (element) handle(element);
  };
  host.addEventListener("mouseover", over(show));
  host.addEventListener("focusin", over(show));
  host.addEventListener("focusout", hide);
  // When the pointer leaves a token, show the focused one again.
  host.addEventListener("mouseout", () => {
    const focused = document.activeElement.closest(".t");
    if (host.contains(focused)) show(focused);
    else hide();
  });
  document.addEventListener("keydown", (event) => event.key === "Escape" && hide());
  return () => (shown?.isConnected ? fill() : hide());
}

/** Creates a table of all parts, with one entry of ``weights`` for each. */
export function numbersTable(parts, weights, contrast) {
  const heads = ["token", ...lines(parts[0], NaN, contrast).map(([name]) => name)];
  const rows = parts.map((part, i) => {
    const cells = lines(part, weights[i], contrast).map(([, value]) => el("td", {}, value));
    const name = el("th", { scope: "row" }, el("bdi", {}, part.text));
    if (count(part)) name.append(" ", el("span", { class: "muted" }, `(${count(part)})`));
    return el("tr", {}, name, ...cells);
  });
  const head = el("thead", {}, el("tr", {}, ...heads.map((name) => el("th", { scope: "col" }, name))));
  return el("table", {}, head, el("tbody", {}, ...rows));
}
