// Which contrasts the image is compared with: a first one, and a further one if wanted.
import { contrastPhrase } from "./contrasts.js";
import { byId, el } from "./dom.js";

const NONE = "";

const options = (names) => names.map((name) => el("option", { value: name }, contrastPhrase(name)));

export class ContrastChoice {
  /** ``onChange`` gets the chosen contrasts, the first one first. */
  constructor(onChange) {
    this.onChange = onChange;
    this.chosen = []; // none until there is an answer
    byId("contrast").addEventListener("change", () => {
      const first = byId("contrast").value;
      // A further one that becomes the first one changes places with it.
      this.choose([first, ...this.chosen.slice(1).map((name) => (name === first ? this.chosen[0] : name))]);
    });
    byId("further").addEventListener("change", () => {
      const further = byId("further").value;
      this.choose([byId("contrast").value, ...(further === NONE ? [] : [further])]);
    });
  }

  /** Offers the contrasts that the server serves. */
  offer(names) {
    byId("contrast").replaceChildren(...options(names));
    byId("further").replaceChildren(el("option", { value: NONE }, "nothing else"), ...options(names));
    byId("further").parentElement.hidden = names.length < 2;
    this.show(this.chosen);
  }

  choose(contrasts) {
    this.show(contrasts);
    this.onChange(contrasts);
  }

  /** Shows contrasts as chosen, without telling so. */
  show(contrasts) {
    this.chosen = contrasts;
    const [first = "", further = NONE] = contrasts;
    byId("contrast").value = first;
    byId("further").value = further;
    // Not every browser hides options; none lets a disabled one be chosen.
    for (const option of byId("further").options) {
      option.hidden = option.disabled = option.value !== NONE && option.value === first;
    }
  }
}
