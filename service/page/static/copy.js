// Copies text to the clipboard. Without access to it (a page over plain HTTP), shows the text in a dialog instead.
import { byId } from "./dom.js";

export async function copy(text, what, showStatus) {
  try {
    await navigator.clipboard.writeText(text);
    showStatus(`Copied: ${what}.`);
  } catch {
    const area = byId("copied-text");
    area.value = text;
    byId("copied-title").textContent = `Copy the ${what}`;
    byId("copied").showModal();
    area.focus();
    area.select();
  }
}
