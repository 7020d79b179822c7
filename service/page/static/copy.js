// Text to the clipboard; where the browser has none (a page that came over plain HTTP), into a window to copy from.
import { byId } from "./dom.js";

export async function copy(text, what, say) {
  try {
    await navigator.clipboard.writeText(text);
    say(`Copied: ${what}.`);
  } catch {
    const area = byId("copied-text");
    area.value = text;
    byId("copied-title").textContent = `Copy the ${what}`;
    byId("copied").showModal();
    area.focus();
    area.select();
  }
}
