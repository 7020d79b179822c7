// The numbers of one token in a tooltip, and of all tokens in a table, for each contrast of the answer.
import { contrastPhrase } from "./contrasts.js";
import { el } from "./dom.js";
import { comparison, percent, signed } from "./scale.js";

const SHARED = "with the image";

export const weightText = (weight) => (Number.isNaN(weight) ? "–" : weight.toFixed(2));
const count = (part) => (part.to - part.from > 1 ? `${part.to - part.from} tokens` : "");

/** Names the probabilities without the image: by the contrast, unless there are several, which heads name. */
const without = (contrasts) => (contrasts.length === 1 ? `with ${contrastPhrase(contrasts[0])}` : "without");

/** Returns the numbers of a part that depend on the contrast, as [name, text]. */
const numbersOf = (part, weight, name) => [
  [name, percent(part.contrast)],
  ["gap", signed(part.gap)],
  ["logit gap", signed(part.logit)],
  ["weight", weightText(weight)],
];

/** Creates a table with a row for each number, [name, text]: first one that all contrasts share, then those in ``columns``,
 * a list for each contrast. Several contrasts are named above their columns. */
export function contrastTable(contrasts, [name, text], columns) {
  const rowOf = (heading, ...cells) => el("tr", {}, el("th", { scope: "row" }, heading), ...cells);
  const rows = columns[0].map(([own], i) => rowOf(own, ...columns.map((column) => el("td", {}, column[i][1]))));
  const shared = rowOf(name, el("td", { colspan: contrasts.length > 1 && contrasts.length }, text));
  const body = el("tbody", {}, shared, ...rows);
  if (contrasts.length === 1) return el("table", {}, body);
  const heads = contrasts.map((contrast) => el("th", { scope: "col" }, contrastPhrase(contrast)));
  return el("table", {}, el("thead", {}, el("tr", {}, el("td"), ...heads)), body);
}

/** Shows a tooltip above or below the token that is hovered or focused; Escape hides it. describe(element) returns the
 * token's {entries: [{contrast, part, weight}, …], at}, where entries[at] is the element's. Returns a function that
 * refreshes the tooltip. */
export function tooltip(host, tip, describe) {
  let shown = null;
  const fill = () => {
    const { entries, at } = describe(shown);
    const contrasts = entries.map(({ contrast }) => contrast);
    const columns = entries.map(({ part, weight }) => numbersOf(part, weight, without(contrasts)));
    const { part } = entries[at];
    tip.replaceChildren(
      el("b", { dir: "auto" }, part.text),
      count(part) && el("span", { class: "count" }, count(part)),
      el("p", {}, comparison(part.gap, entries.length > 1 ? contrastPhrase(contrasts[at]) : null)),
      contrastTable(contrasts, [SHARED, percent(part.clean)], columns),
    );
  };
  const show = (element) => {
    shown = element;
    fill();
    tip.hidden = false;
    const at = element.getClientRects()[0];
    const left = Math.min(at.left, document.documentElement.clientWidth - tip.offsetWidth - 8);
    const [above, below] = [at.top - tip.offsetHeight - 8, at.bottom + 8];
    // Do not cover the same caption in the colours of another contrast, above this one.
    const avoided = element.closest(".comparison").previousElementSibling && below + tip.offsetHeight < innerHeight;
    tip.style.left = `${Math.max(8, left) + scrollX}px`;
    tip.style.top = `${(above > 0 && !avoided ? above : below) + scrollY}px`;
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

/** Creates a table of all parts from {contrast, parts, weights} of each contrast, with a weight for each part. */
export function numbersTable(compared) {
  const contrasts = compared.map(({ contrast }) => contrast);
  const name = without(contrasts);
  const rows = compared[0].parts.map((part, i) => {
    const numbers = compared.flatMap(({ parts, weights }) => numbersOf(parts[i], weights[i], name));
    const cells = [percent(part.clean), ...numbers.map(([, text]) => text)].map((text) => el("td", {}, text));
    const heading = el("th", { scope: "row" }, el("bdi", {}, part.text));
    if (count(part)) heading.append(" ", el("span", { class: "muted" }, `(${count(part)})`));
    return el("tr", {}, heading, ...cells);
  });
  return el("table", {}, el("thead", {}, ...tableHeads(contrasts, name)), el("tbody", {}, ...rows));
}

function tableHeads(contrasts, name) {
  const names = numbersOf({}, NaN, name).map(([own]) => own);
  const heads = (all) => all.map((own) => el("th", { scope: "col" }, own));
  if (contrasts.length === 1) return [el("tr", {}, ...heads(["token", SHARED, ...names]))];
  const groups = contrasts.map((contrast) =>
    el("th", { scope: "colgroup", colspan: names.length }, `compared with ${contrastPhrase(contrast)}`),
  );
  const both = ["token", SHARED].map((own) => el("th", { scope: "col", rowspan: 2 }, own));
  return [el("tr", {}, ...both, ...groups), el("tr", {}, ...contrasts.flatMap(() => heads(names)))];
}
