// The picture: dropped, pasted, chosen, or one of the samples.
import { address, get } from "./api.js";
import { byId, el } from "./dom.js";

/** What the page scores: {blob, name, isFile, alt}; isFile tells that the user has it on disk under this name. */
export class Picture {
  constructor(onChange, onRefused) {
    this.current = null;
    this.onChange = onChange;
    this.onRefused = onRefused;
    byId("file").addEventListener("change", (event) => this.take(event.target.files, true));
    this.listenForDrops();
    document.addEventListener("paste", (event) => {
      if (event.clipboardData.files.length === 0) return; // text goes where the cursor is
      event.preventDefault();
      this.take(event.clipboardData.files, false);
    });
  }

  listenForDrops() {
    const drop = byId("drop");
    const carriesFiles = (event) => event.dataTransfer.types.includes("Files");
    document.addEventListener("dragover", (event) => {
      if (!carriesFiles(event)) return;
      event.preventDefault();
      drop.classList.add("over");
    });
    document.addEventListener("dragleave", (event) => event.relatedTarget || drop.classList.remove("over"));
    document.addEventListener("drop", (event) => {
      drop.classList.remove("over");
      if (!carriesFiles(event)) return;
      event.preventDefault();
      this.take(event.dataTransfer.files, true);
    });
  }

  take(files, isFile) {
    const file = files[0];
    if (!file) return;
    // A type that the browser does not know is left to the server, which looks at the bytes.
    if (file.type && !file.type.startsWith("image/")) this.onRefused(file);
    else this.set({ blob: file, name: file.name, isFile, alt: `Your picture ${file.name}` });
    byId("file").value = ""; // so that the same file can be chosen again, changed
  }

  set(picture) {
    this.current = picture;
    const preview = byId("preview");
    URL.revokeObjectURL(preview.src);
    preview.src = URL.createObjectURL(picture.blob);
    preview.alt = picture.alt;
    preview.hidden = false;
    // The server reads formats that this browser may not draw (TIFF).
    preview.onerror = () => (preview.hidden = true);
    byId("picture-name").textContent = picture.isSample ? "Use your own" : picture.name;
    this.onChange(picture);
  }
}

/** Draws the samples. The one that is picked goes to choose(picture, caption), a Problem with one to onFailed. */
export async function drawSamples(choose, onFailed) {
  const host = byId("samples");
  let latest = null;
  const pick = async (sample, button) => {
    latest = sample;
    const blob = await (await get(`page/samples/${sample.file}`)).blob();
    if (latest !== sample) return; // another one was picked meanwhile
    choose({ blob, name: sample.file, isFile: false, isSample: true, alt: sample.alt }, sample.caption);
    for (const other of host.children) other.setAttribute("aria-pressed", String(other === button));
  };
  for (const sample of await (await get("page/samples/samples.json")).json()) {
    const image = el("img", { src: address(`page/samples/${sample.file}`), alt: sample.alt, width: 72, height: 72 });
    const button = el("button", { type: "button", "aria-pressed": "false" }, image);
    button.addEventListener("click", () => pick(sample, button).catch(onFailed));
    host.append(button);
  }
  byId("samples-note").hidden = false;
}
