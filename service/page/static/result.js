// The displayed result: colours, weights, totals. Weights that the page cannot derive come from the server.
import { drawCaption, paint, walkWithKeys, weightOf } from "./caption.js";
import { answerWeights, derive, isFromAnswer, requestWeights } from "./derive.js";
import { byId, el } from "./dom.js";
import { drawLegend } from "./legend.js";
import { hideProblem, showProblem, showStatus } from "./messages.js";
import { numbersTable, tooltip } from "./numbers.js";
import { comparison, gapLevel, signed, weightLevel, weightRange } from "./scale.js";
import { rawScores } from "./weights.js";

const DOUBT = -Math.log(2); // the image at least halves the probability, as in the report

export class Result {
  constructor(settings) {
    this.settings = settings;
    this.answer = null;
    this.parts = [];
    this.applied = null; // {record, method, params} of this.weights, which may lag behind the settings
    this.pending = null; // AbortController of a request for weights
    walkWithKeys(byId("captions"));
    this.refreshTip = tooltip(byId("captions"), byId("tip"), (element) => {
      const part = this.parts.find((each) => each.element === element);
      return [part, weightOf(part, this.weights), this.answer.contrast];
    });
    byId("numbers").addEventListener("toggle", () => this.fillTable());
    byId("by").addEventListener("change", () => this.repaint());
  }

  get by() {
    return byId("by").querySelector(":checked").value;
  }

  /** Switches to colouring by weight. */
  colourByWeight() {
    byId("by").querySelector("[value=weight]").checked = true;
  }

  /** Draws a new answer: text, tokens and everything that depends on them. */
  draw(answer) {
    this.answer = answer;
    this.raw = rawScores(answer.tokens);
    this.parts = drawCaption(byId("captions"), answer);
    this.drawDoubt();
    this.applied = null;
    this.update();
    byId("start").hidden = true;
    byId("result").hidden = false;
  }

  /** Applies new settings: weights, colours, totals. */
  update() {
    if (!this.answer) return;
    if (this.pending) this.stopPending();
    const { method, record, params } = this.settings;
    const wanted = { method, record, params: { ...params } };
    const weights = derive(wanted, this.raw) ?? (isFromAnswer(wanted, this.answer) ? answerWeights(this.answer) : null);
    if (weights !== null) {
      this.apply(wanted, weights);
      return;
    }
    if (this.applied === null) this.apply(this.answerMethod, answerWeights(this.answer)); // until the others arrive
    this.request(wanted);
  }

  /** The method of the weights in the answer. */
  get answerMethod() {
    const { method, method_params: params } = this.answer;
    return { method, params, record: this.settings.records.get(method) };
  }

  apply(method, weights) {
    [this.applied, this.weights] = [method, weights];
    this.repaint();
    this.drawTotals();
    this.fillTable();
    this.refreshTip();
  }

  stopPending() {
    this.pending.abort();
    this.pending = null;
    showStatus("");
  }

  async request(wanted) {
    const own = (this.pending = new AbortController());
    hideProblem();
    showStatus("Deriving weights…");
    try {
      const weights = await requestWeights(this.settings.request, wanted.record, this.answer.tokens, own.signal);
      if (own.signal.aborted) return;
      this.stopPending();
      this.apply(wanted, weights);
    } catch (error) {
      if (own.signal.aborted) return;
      this.stopPending();
      showProblem(error, () => this.update());
    }
  }

  repaint() {
    if (!this.answer) return;
    const { record, params } = this.applied;
    const range = weightRange(record, params, this.weights);
    const level = {
      gap: (part) => gapLevel(part.gap),
      logit: (part) => gapLevel(part.logit),
      weight: (part) => weightLevel(weightOf(part, this.weights), range),
    }[this.by];
    paint(byId("captions"), this.parts, this.by, level);
    drawLegend(byId("legend"), this.by, range, {
      binary: record.binary,
      doubted: this.parts.some((part) => gapLevel(part.gap) < 0),
      undefinedScore: this.parts.some((part) => level(part) === null),
    });
  }

  drawDoubt() {
    const words = this.parts.filter((part) => !part.isStop);
    const worst = words.reduce((least, part) => (least === null || part.gap < least.gap ? part : least), null);
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

  /** Returns the response as the server would send it for the displayed weights. */
  toJson() {
    const { method, params } = this.applied;
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
