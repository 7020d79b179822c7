// The image: dropped, pasted, chosen, or one of the samples.
import { address, get } from "./api.js";
import { byId, el } from "./dom.js";

/** The image to score: {blob, name, isFile, alt}. isFile means that the user has a file of this name on disk. */
export class ImageInput {
  constructor(onChange, onRefused) {
    this.current = null;
    this.onChange = onChange;
    this.onRefused = onRefused;
    byId("file").addEventListener("change", (event) => this.take(event.target.files, true));
    this.listenForDrops();
    document.addEventListener("paste", (event) => {
      if (event.clipboardData.files.length === 0) return; // let text be pasted at the cursor
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
    // If the browser does not know the type, the server decides from the bytes.
    if (file.type && !file.type.startsWith("image/")) this.onRefused(file);
    else this.set({ blob: file, name: file.name, isFile, alt: `Your image ${file.name}` });
    byId("file").value = ""; // allow choosing the same file again after a change
  }

  set(image) {
    this.current = image;
    const preview = byId("preview");
    URL.revokeObjectURL(preview.src);
    preview.src = URL.createObjectURL(image.blob);
    preview.alt = image.alt;
    preview.hidden = false;
    // The server reads formats that this browser may not display (TIFF).
    preview.onerror = () => (preview.hidden = true);
    byId("image-name").textContent = image.isSample ? "Use your own" : image.name;
    this.onChange(image);
  }
}

/** Draws the samples. Picking one calls choose(image, caption), or onFailed(problem) if it cannot be loaded. */
export async function drawSamples(choose, onFailed) {
  const host = byId("samples");
  let latest = null;
  const pick = async (sample, button) => {
    latest = sample;
    const blob = await (await get(`page/samples/${sample.file}`)).blob();
    if (latest !== sample) return; // another one has been picked since
    choose({ blob, name: sample.file, isFile: false, isSample: true, alt: sample.alt }, sample.caption);
    for (const other of host.children) other.setAttribute("aria-pressed", String(other === button));
  };
  for (const sample of await (await get("page/samples/samples.json")).json()) {
    const src = address(`page/samples/${sample.file}`);
    const thumbnail = el("img", { src, alt: sample.alt, width: 72, height: 72 });
    const button = el("button", { type: "button", "aria-pressed": "false" }, thumbnail);
    button.addEventListener("click", () => pick(sample, button).catch(onFailed));
    host.append(button);
  }
  byId("samples-note").hidden = false;
}
