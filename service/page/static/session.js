// What was asked and what came back: one request at a time, one answer kept for each contrast.
import { score } from "./api.js";

export class Session {
  constructor() {
    this.input = null; // {picture, text, prompt} of the answers below
    this.answers = new Map(); // contrast → response
    this.shown = null; // contrast
    this.running = null; // AbortController
  }

  get answer() {
    return this.answers.get(this.shown) ?? null;
  }

  /** The JSON body of a request for ``input``, without the picture. */
  request(input, contrast, method) {
    return {
      text: input.text,
      ...(input.prompt ? { prompt: input.prompt } : {}),
      ...(contrast ? { contrast } : {}),
      ...method,
    };
  }

  /**
   * Scores ``input`` against ``contrast`` (null: the server's own choice), by what ``method`` promises as the method and
   * its parameters. An older request that still runs is aborted.
   * Returns false where a newer one, or ``cancel``, has taken over. Throws Problem.
   */
  async ask(input, contrast, method) {
    this.cancel();
    const own = (this.running = new AbortController());
    try {
      const request = this.request(input, contrast, await method());
      if (own.signal.aborted) return false;
      const answer = await score(input.picture, request, own.signal);
      if (own.signal.aborted) return false;
      if (input !== this.input) this.answers.clear();
      this.input = input;
      this.shown = answer.contrast;
      this.answers.set(answer.contrast, answer);
      return true;
    } catch (error) {
      if (own.signal.aborted) return false;
      throw error;
    } finally {
      if (this.running === own) this.running = null;
    }
  }

  /** Shows an answer that is there; false where it has to be asked for. */
  show(contrast) {
    if (!this.answers.has(contrast)) return false;
    this.cancel();
    this.shown = contrast;
    return true;
  }

  cancel() {
    this.running?.abort();
    this.running = null;
  }
}
