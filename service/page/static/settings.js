// How weights are derived: the method, and a slider or a list for each parameter, as described by the server.
import { byId, el } from "./dom.js";

/** Formats a value: a share as a percentage, a number of tokens, or with the decimals of the slider step. */
function shown(value, { unit, slider }) {
  if (unit === "share") return `${Math.round(100 * value)} %`;
  if (unit === "tokens") return `${value} token${value === 1 ? "" : "s"}`;
  return value.toFixed((String(slider.step).split(".")[1] ?? "").length);
}

/** The chosen method and the parameters of every method, initially the defaults. */
export class Settings {
  constructor(onChange) {
    this.onChange = onChange;
    this.records = new Map(); // by name, from GET /v1/models; empty until ``offer``
    this.chosen = {}; // parameter values by method
    this.method = null;
    byId("method").addEventListener("change", () => {
      this.method = byId("method").value;
      this.draw();
      this.onChange();
    });
  }

  /** Offers the methods, keeping earlier choices. */
  offer(records, first) {
    this.records = new Map(records.map((record) => [record.name, record]));
    for (const { name, params, of_dataset: ofDataset } of records) {
      // What follows from a whole dataset is set by hand here: there is one sample.
      const first = (own, parameter) => (ofDataset.includes(own) ? parameter.slider.start : parameter.default);
      const defaults = Object.entries(params).map(([own, parameter]) => [own, first(own, parameter)]);
      this.chosen[name] = { ...Object.fromEntries(defaults), ...this.chosen[name] };
    }
    this.method ??= first;
    byId("method").replaceChildren(...records.map(({ name, label }) => el("option", { value: name }, label)));
    byId("method").value = this.method;
    this.draw();
  }

  get record() {
    return this.records.get(this.method);
  }

  get params() {
    return this.chosen[this.method];
  }

  /** The method and its parameters for the API, without those that are not set. */
  get request() {
    const set = Object.entries(this.params).filter(([, value]) => value !== null);
    return { method: this.method, method_params: Object.fromEntries(set) };
  }

  draw() {
    const all = Object.values(this.record.params);
    const set = (parameter) => this.params[parameter.name] !== null;
    const overridden = new Set(all.filter(set).map((parameter) => parameter.overrides));
    const drawn = all.filter((parameter) => !overridden.has(parameter.name));
    byId("params").replaceChildren(...drawn.map((parameter) => this.setting(parameter, set(parameter))));
    byId("method").title = this.record.words;
  }

  setting(parameter, isSet) {
    const { name, label, meaning } = parameter;
    const nullable = parameter.nullable && !this.record.of_dataset.includes(name);
    const id = `param-${name}`;
    const title = el("label", { for: nullable ? `set-${name}` : id, title: meaning }, label);
    const toggle = nullable ? [this.toggle(parameter, isSet)] : [];
    return el("div", { class: "setting" }, ...toggle, title, ...(isSet ? this.control(id, parameter) : []));
  }

  /** Creates the checkbox that sets a nullable parameter or clears it. */
  toggle({ name, slider }, isSet) {
    const input = el("input", { type: "checkbox", id: `set-${name}`, checked: isSet });
    input.addEventListener("change", () => {
      this.params[name] = input.checked ? slider.start : null;
      this.draw();
      byId(`set-${name}`).focus();
      this.onChange();
    });
    return input;
  }

  control(id, parameter) {
    return parameter.type === "choice" ? [this.list(id, parameter)] : this.slider(id, parameter);
  }

  /** Creates the list of a parameter that takes one of a few words. */
  list(id, { name, choices }) {
    const options = Object.entries(choices).map(([word, meaning]) => el("option", { value: word, title: meaning }, word));
    const input = el("select", { id }, ...options);
    input.value = this.params[name];
    input.addEventListener("change", () => this.set(name, input.value));
    return input;
  }

  slider(id, parameter) {
    const { name, label, slider } = parameter;
    const [value, text] = [this.params[name], shown(this.params[name], parameter)];
    const { minimum: min, maximum: max, step } = slider;
    const range = { type: "range", id, min, max, step, value, "aria-label": label, "aria-valuetext": text };
    const input = el("input", range);
    input.addEventListener("input", () => this.set(name, Number(input.value)));
    return [input, el("output", { for: id }, text)];
  }

  set(name, value) {
    this.params[name] = value;
    // Keep ordered pairs in order: the moved slider pushes the other one.
    for (const [low, high] of this.record.ordered) {
      if (name === low && value > this.params[high]) this.params[high] = value;
      if (name === high && value < this.params[low]) this.params[low] = value;
    }
    for (const input of byId("params").querySelectorAll("input[type=range]")) {
      const own = input.id.slice("param-".length);
      const text = shown(this.params[own], this.record.params[own]);
      input.value = this.params[own];
      input.setAttribute("aria-valuetext", text);
      input.parentElement.querySelector("output").textContent = text;
    }
    this.onChange();
  }
}
