// How the weights are made: the method, and one slider for each of its parameters.
import { byId, el } from "./dom.js";
import { METHODS } from "./weights.js";

const NAMES = {
  cal: "CAL, by logit gap",
  "cal-logprob": "CAL, by gap",
  prior: "PRIOR, by surprise",
  vig: "VIG, keep or drop",
};

const percentOf = (value) => `${Math.round(100 * value)} %`;
const plain = (digits) => (value) => value.toFixed(digits);

const SLIDERS = {
  low: { name: "clamp from", min: 0, max: 10, step: 0.1, show: plain(1) },
  high: { name: "to", min: 0, max: 10, step: 0.1, show: plain(1) },
  window: { name: "window", min: 1, max: 15, step: 2, show: (value) => `${value} token${value > 1 ? "s" : ""}` },
  alpha: { name: "α", min: 0, max: 5, step: 0.1, show: plain(1) },
  keep: { name: "top", min: 0.01, max: 1, step: 0.01, show: percentOf },
  threshold: { name: "gap from", min: -2, max: 5, step: 0.05, show: plain(2) },
};

/** What is chosen for each method; starts with the defaults. */
export class Settings {
  constructor(onChange) {
    this.method = "cal";
    this.chosen = Object.fromEntries(Object.entries(METHODS).map(([name, { params }]) => [name, { ...params }]));
    this.onChange = onChange;
    const select = byId("method");
    select.append(...Object.keys(METHODS).map((name) => el("option", { value: name }, NAMES[name] ?? name)));
    select.addEventListener("change", () => {
      this.method = select.value;
      this.draw();
      this.onChange();
    });
    this.draw();
  }

  get params() {
    return this.chosen[this.method];
  }

  /** As the API takes them: what is not set is left out. */
  get request() {
    const set = Object.entries(this.params).filter(([, value]) => value !== null);
    return { method: this.method, method_params: Object.fromEntries(set) };
  }

  draw() {
    const names = Object.keys(this.params);
    const shown = names.includes("threshold") ? [this.params.threshold === null ? "keep" : "threshold"] : names;
    const host = byId("params");
    host.replaceChildren(...shown.map((name) => this.slider(name)));
    if (names.includes("threshold")) host.prepend(this.selection());
  }

  slider(name) {
    const { name: label, min, max, step, show } = SLIDERS[name];
    const id = `param-${name}`;
    const value = this.params[name];
    const output = el("output", { for: id }, show(value));
    const input = el("input", { type: "range", id, min, max, step, value, "aria-valuetext": show(value) });
    input.addEventListener("input", () => this.set(name, Number(input.value)));
    return el("div", { class: "setting" }, el("label", { for: id }, label), input, output);
  }

  /** VIG keeps a share of the tokens, or all above a threshold. */
  selection() {
    const options = { keep: "top share", threshold: "threshold" };
    const entries = Object.entries(options).map(([value, text]) => el("option", { value }, text));
    const select = el("select", { id: "selection" }, ...entries);
    select.value = this.params.threshold === null ? "keep" : "threshold";
    select.addEventListener("change", () => {
      this.params.threshold = select.value === "keep" ? null : 0.5;
      this.draw();
      byId("selection").focus();
      this.onChange();
    });
    return el("div", { class: "setting" }, el("label", { for: "selection" }, "keep by"), select);
  }

  set(name, value) {
    this.params[name] = value;
    // low ≤ high: the one that is moved takes the other along.
    if (name === "low" && value > this.params.high) this.params.high = value;
    if (name === "high" && value < this.params.low) this.params.low = value;
    for (const input of byId("params").querySelectorAll("input")) {
      const own = input.id.slice("param-".length);
      const text = SLIDERS[own].show(this.params[own]);
      input.value = this.params[own];
      input.setAttribute("aria-valuetext", text);
      input.parentElement.querySelector("output").textContent = text;
    }
    this.onChange();
  }
}
