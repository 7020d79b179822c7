// Requests and answers: one request at a time, and one stored answer per choice of contrasts.
import { score } from "./api.js";
import { contrastsOf } from "./contrasts.js";

const keyOf = (contrasts) => contrasts.join(" ");

export class Session {
  constructor() {
    this.input = null; // {image, text, prompt} of the answers below
    this.answers = new Map(); // key of the contrasts → response
    this.shown = []; // the contrasts of the answer that is shown, the first one first; none: no answer
    this.running = null; // AbortController
  }

  get answer() {
    return this.answers.get(keyOf(this.shown)) ?? null;
  }

  /** Returns the JSON body of a request for ``input``, without the image. */
  request(input, [contrast, ...further], method) {
    return {
      text: input.text,
      ...(input.prompt ? { prompt: input.prompt } : {}),
      ...(contrast ? { contrast } : {}),
      ...(further.length > 0 ? { further_contrasts: further } : {}),
      ...method,
    };
  }

  /**
   * Scores ``input`` against ``contrasts``, the first one first (none: the default of the server). ``method`` returns a
   * promise of the method and its parameters. A request that is still running is aborted.
   * Returns false if superseded by a newer request or cancelled. Throws Problem.
   */
  async score(input, contrasts, method) {
    this.cancel();
    const own = (this.running = new AbortController());
    try {
      const request = this.request(input, contrasts, await method());
      if (own.signal.aborted) return false;
      const answer = await score(input.image, request, own.signal);
      if (own.signal.aborted) return false;
      if (input !== this.input) this.answers.clear();
      this.input = input;
      this.shown = contrastsOf(answer);
      this.answers.set(keyOf(this.shown), answer);
      return true;
    } catch (error) {
      if (own.signal.aborted) return false;
      throw error;
    } finally {
      if (this.running === own) this.running = null;
    }
  }

  /** Shows a stored answer; returns false if it must be requested. */
  show(contrasts) {
    if (!this.answers.has(keyOf(contrasts))) return false;
    this.cancel();
    this.shown = contrasts;
    return true;
  }

  cancel() {
    this.running?.abort();
    this.running = null;
  }
}
