// The answer as it is shown: colours, weights, totals. The server is asked for weights that this page cannot derive.
import { drawCaption, paint, walkWithKeys, weightOf } from "./caption.js";
import { byId, el } from "./dom.js";
import { drawLegend } from "./legend.js";
import { hideProblem, say, showProblem } from "./messages.js";
import { numbersTable, tooltip } from "./numbers.js";
import { comparison, gapLevel, signed, weightLevel, weightRange } from "./scale.js";
import { ask, derive, isOwn, ownWeights } from "./weighing.js";
import { rawScores } from "./weights.js";

const DOUBT = -Math.log(2); // the picture at least halves it, as in the job's report

export class Result {
  constructor(settings) {
    this.settings = settings;
    this.answer = null;
    this.parts = [];
    this.weighing = null; // {record, method, params} of this.weights: what is shown, and not yet what is asked for
    this.asking = null; // AbortController
    walkWithKeys(byId("told"));
    this.refillTip = tooltip(byId("told"), byId("tip"), (element) => {
      const part = this.parts.find((each) => each.element === element);
      return [part, weightOf(part, this.weights), this.answer.contrast];
    });
    byId("numbers").addEventListener("toggle", () => this.fillTable());
    byId("by").addEventListener("change", () => this.repaint());
  }

  get by() {
    return byId("by").querySelector(":checked").value;
  }

  /** Colours by weight from now on. */
  byWeight() {
    byId("by").querySelector("[value=weight]").checked = true;
  }

  /** A new answer: text, tokens and all that follows from them. */
  draw(answer) {
    this.answer = answer;
    this.raw = rawScores(answer.tokens);
    this.parts = drawCaption(byId("told"), answer);
    this.drawDoubt();
    this.weighing = null;
    this.update();
    byId("start").hidden = true;
    byId("result").hidden = false;
  }

  /** New settings: weights, colours, totals. */
  update() {
    if (!this.answer) return;
    if (this.asking) this.stopAsking();
    const { method, record, params } = this.settings;
    const wanted = { method, record, params: { ...params } };
    const weights = derive(wanted, this.raw) ?? (isOwn(wanted, this.answer) ? ownWeights(this.answer) : null);
    if (weights !== null) {
      this.weigh(wanted, weights);
      return;
    }
    if (this.weighing === null) this.weigh(this.came, ownWeights(this.answer)); // until there are better ones
    this.ask(wanted);
  }

  /** The method that the answer came with. */
  get came() {
    const { method, method_params: params } = this.answer;
    return { method, params, record: this.settings.records.get(method) };
  }

  weigh(weighing, weights) {
    [this.weighing, this.weights] = [weighing, weights];
    this.repaint();
    this.drawTotals();
    this.fillTable();
    this.refillTip();
  }

  stopAsking() {
    this.asking.abort();
    this.asking = null;
    say("");
  }

  async ask(wanted) {
    const own = (this.asking = new AbortController());
    hideProblem();
    say("Weighing…");
    try {
      const weights = await ask(this.settings.request, wanted.record.columns, this.answer.tokens, own.signal);
      if (own.signal.aborted) return;
      this.stopAsking();
      this.weigh(wanted, weights);
    } catch (error) {
      if (own.signal.aborted) return;
      this.stopAsking();
      showProblem(error, () => this.update());
    }
  }

  repaint() {
    if (!this.answer) return;
    const { record, params } = this.weighing;
    const range = weightRange(record, params, this.weights);
    const level = {
      gap: (part) => gapLevel(part.gap),
      logit: (part) => gapLevel(part.logit),
      weight: (part) => weightLevel(weightOf(part, this.weights), range),
    }[this.by];
    paint(byId("told"), this.parts, this.by, level);
    drawLegend(byId("legend"), this.by, range, {
      binary: record.binary,
      doubted: this.parts.some((part) => gapLevel(part.gap) < 0),
      unknown: this.parts.some((part) => level(part) === null),
    });
  }

  drawDoubt() {
    const worst = this.parts.reduce((least, part) => (least === null || part.gap < least.gap ? part : least), null);
    const line = byId("doubt");
    line.hidden = !(worst?.gap <= DOUBT);
    if (!line.hidden) line.replaceChildren(el("b", { dir: "auto" }, worst.text), ` is ${comparison(worst.gap)}.`);
  }

  get meanWeight() {
    return this.weights.reduce((total, value) => total + value, 0) / this.weights.length;
  }

  drawTotals() {
    const gaps = this.raw.clean.map((clean, i) => clean - this.raw.contrast[i]);
    const mean = gaps.reduce((total, value) => total + value, 0) / gaps.length;
    const weight = this.meanWeight;
    const entries = [
      ["tokens", this.answer.tokens.length.toLocaleString("en")],
      ["mean gap", signed(mean)],
      ["mean logit gap", signed(this.answer.totals.mean_gap ?? NaN)],
      ["mean weight", Number.isNaN(weight) ? "–" : weight.toFixed(2)],
    ];
    const pairs = entries.map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value)));
    byId("totals").replaceChildren(...pairs);
  }

  fillTable() {
    const details = byId("numbers");
    if (!details.open || this.parts.length === 0) return;
    const weights = this.parts.map((part) => weightOf(part, this.weights));
    details.querySelector("div").replaceChildren(numbersTable(this.parts, weights, this.answer.contrast));
  }

  /** The response as the server would give it for the weights that are shown. */
  toJson() {
    const { method, params } = this.weighing;
    const number = (value) => (Number.isFinite(value) ? value : null);
    return {
      ...this.answer,
      method,
      method_params: params,
      tokens: this.answer.tokens.map((token, i) => ({ ...token, weight: number(this.weights[i]) })),
      totals: { ...this.answer.totals, mean_weight: number(this.meanWeight) },
    };
  }
}
