// The displayed result: colours, weights, totals, for each contrast of the answer. Weights that the page cannot derive
// come from the server.
import { drawCaption, paint, walkWithKeys, weightOf } from "./caption.js";
import { contrastPhrase, contrastsOf, tokensWith } from "./contrasts.js";
import { answerWeights, derive, isFromAnswer, requestWeights } from "./derive.js";
import { byId, el } from "./dom.js";
import { drawLegend } from "./legend.js";
import { hideProblem, showProblem, showStatus } from "./messages.js";
import { contrastTable, numbersTable, tooltip, weightText } from "./numbers.js";
import { comparison, gapLevel, signed, weightLevel, weightRange } from "./scale.js";
import { rawScores } from "./weights.js";

const DOUBT = -Math.log(2); // the image at least halves the probability, as in the report

const mean = (values) => values.reduce((total, value) => total + value, 0) / values.length;

export class Result {
  constructor(settings) {
    this.settings = settings;
    this.answer = null;
    this.compared = []; // for each contrast of the answer: {contrast, tokens, raw, parts, weights}
    this.applied = null; // {record, method, params} of the weights, which may lag behind the settings
    this.pending = null; // AbortController of a request for weights
    walkWithKeys(byId("captions"));
    this.refreshTip = tooltip(byId("captions"), byId("tip"), (element) => this.describe(element));
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
    const contrasts = contrastsOf(answer);
    byId("captions").replaceChildren();
    this.compared = contrasts.map((contrast) => {
      const tokens = tokensWith(answer, contrast);
      const heading = contrasts.length > 1 ? `compared with ${contrastPhrase(contrast)}` : "";
      const parts = drawCaption(byId("captions"), answer.turns, tokens, heading);
      return { contrast, tokens, raw: rawScores(tokens), parts, weights: null };
    });
    this.drawDoubts();
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
    const weights = this.derived(wanted);
    if (!weights.includes(null)) {
      this.apply(wanted, weights);
      return;
    }
    if (this.applied === null) {
      // Until the others arrive; those of a further contrast may be undefined.
      const first = this.derived(this.answerMethod);
      this.apply(this.answerMethod, this.compared.map(({ tokens }, i) => first[i] ?? answerWeights(tokens)));
    }
    this.request(wanted, weights);
  }

  /** Returns the weights for each contrast, null where they must be requested. */
  derived(method) {
    const isAnswered = isFromAnswer(method, this.answer);
    const answered = ({ tokens }, i) => (isAnswered && i === 0 ? answerWeights(tokens) : null);
    return this.compared.map((one, i) => derive(method, one.raw) ?? answered(one, i));
  }

  /** The method of the weights in the answer. */
  get answerMethod() {
    const { method, method_params: params } = this.answer;
    return { method, params, record: this.settings.records.get(method) };
  }

  apply(method, weights) {
    this.applied = method;
    this.compared.forEach((one, i) => (one.weights = weights[i]));
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

  /** Requests the weights that are null in ``known``, which has one entry for each contrast. */
  async request(wanted, known) {
    const own = (this.pending = new AbortController());
    hideProblem();
    showStatus("Deriving weights…");
    try {
      const { request } = this.settings;
      const requested = this.compared.map(
        async ({ tokens }, i) => known[i] ?? requestWeights(request, wanted.record, tokens, own.signal),
      );
      const weights = await Promise.all(requested);
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
    const range = weightRange(record, params, this.compared.flatMap(({ weights }) => [...weights]));
    const levels = {
      gap: () => (part) => gapLevel(part.gap),
      logit: () => (part) => gapLevel(part.logit),
      weight: (weights) => (part) => weightLevel(weightOf(part, weights), range),
    }[this.by];
    const painted = this.compared.flatMap(({ parts, weights }) => paint(parts, levels(weights)));
    byId("captions").dataset.by = this.by;
    drawLegend(byId("legend"), this.by, range, {
      binary: record.binary,
      doubted: this.compared.some(({ parts }) => parts.some((part) => gapLevel(part.gap) < 0)),
      undefinedScore: painted.includes(null),
    });
  }

  /** Returns what the tooltip of a token shows: its numbers for each contrast, and which of them the element is. */
  describe(element) {
    const at = this.compared.findIndex(({ parts }) => parts.some((part) => part.element === element));
    const i = this.compared[at].parts.findIndex((part) => part.element === element);
    const entries = this.compared.map(({ contrast, parts, weights }) => {
      return { contrast, part: parts[i], weight: weightOf(parts[i], weights) };
    });
    return { entries, at };
  }

  /** Names, for each contrast, the token that the image contradicts most. */
  drawDoubts() {
    const lines = this.compared.flatMap(({ contrast, parts }) => {
      const words = parts.filter((part) => !part.isStop);
      const worst = words.reduce((least, part) => (least === null || part.gap < least.gap ? part : least), null);
      if (!(worst?.gap <= DOUBT)) return [];
      const text = comparison(worst.gap, this.compared.length > 1 ? contrastPhrase(contrast) : null);
      return [el("p", {}, el("b", { dir: "auto" }, worst.text), ` is ${text}.`)];
    });
    byId("doubt").hidden = lines.length === 0;
    byId("doubt").replaceChildren(...lines);
  }

  drawTotals() {
    const count = ["tokens", this.answer.tokens.length.toLocaleString("en")];
    const columns = this.compared.map(({ raw, weights }) => [
      ["mean gap", signed(mean(raw.clean.map((clean, i) => clean - raw.contrast[i])))],
      ["mean logit gap", signed(mean(raw.gap))],
      ["mean weight", weightText(mean(weights))],
    ]);
    const pair = ([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value));
    const several = this.compared.length > 1;
    const contrasts = this.compared.map(({ contrast }) => contrast);
    byId("totals").replaceChildren(
      several ? contrastTable(contrasts, count, columns) : el("dl", {}, ...[count, ...columns[0]].map(pair)),
    );
  }

  fillTable() {
    const details = byId("numbers");
    if (!details.open || this.compared.length === 0) return;
    const compared = this.compared.map(({ contrast, parts, weights }) => {
      return { contrast, parts, weights: parts.map((part) => weightOf(part, weights)) };
    });
    details.querySelector("div").replaceChildren(numbersTable(compared));
  }

  /** Returns the response as the server would send it for the displayed weights. */
  toJson() {
    const { method, params } = this.applied;
    const [{ weights }] = this.compared; // those of the first contrast, as from the server
    const number = (value) => (Number.isFinite(value) ? value : null);
    return {
      ...this.answer,
      method,
      method_params: params,
      tokens: this.answer.tokens.map((token, i) => ({ ...token, weight: number(weights[i]) })),
      totals: { ...this.answer.totals, mean_weight: number(mean(weights)) },
    };
  }
}
