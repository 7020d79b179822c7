// Requests and answers: one request at a time, and one stored answer per contrast.
import { score } from "./api.js";

export class Session {
  constructor() {
    this.input = null; // {image, text, prompt} of the answers below
    this.answers = new Map(); // contrast → response
    this.shown = null; // contrast
    this.running = null; // AbortController
  }

  get answer() {
    return this.answers.get(this.shown) ?? null;
  }

  /** Returns the JSON body of a request for ``input``, without the image. */
  request(input, contrast, method) {
    return {
      text: input.text,
      ...(input.prompt ? { prompt: input.prompt } : {}),
      ...(contrast ? { contrast } : {}),
      ...method,
    };
  }

  /**
   * Scores ``input`` against ``contrast`` (null: the default of the server). ``method`` returns a promise of the method
   * and its parameters. A request that is still running is aborted.
   * Returns false if superseded by a newer request or cancelled. Throws Problem.
   */
  async score(input, contrast, method) {
    this.cancel();
    const own = (this.running = new AbortController());
    try {
      const request = this.request(input, contrast, await method());
      if (own.signal.aborted) return false;
      const answer = await score(input.image, request, own.signal);
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

  /** Shows a stored answer; returns false if it must be requested. */
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
