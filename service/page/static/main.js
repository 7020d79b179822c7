// Connects the parts of the page.
import { Problem, address, listModels, requiresKey } from "./api.js";
import { storeContrastPhrases } from "./contrasts.js";
import { copy } from "./copy.js";
import { curlCommand } from "./curl.js";
import { ContrastChoice } from "./contrast_choice.js";
import { byId } from "./dom.js";
import { ImageInput, drawSamples } from "./image.js";
import { hideProblem, showProblem, showStatus } from "./messages.js";
import { Result } from "./result.js";
import { duration } from "./scale.js";
import { Session } from "./session.js";
import { Settings } from "./settings.js";

const session = new Session();
const settings = new Settings(() => {
  result.colourByWeight();
  result.update();
});
const result = new Result(settings);
const choice = new ContrastChoice(compareWith);
const image = new ImageInput(() => {
  for (const button of byId("samples").children) button.setAttribute("aria-pressed", "false");
  noteChange();
}, refuseFile);

function refuseFile(file) {
  const detail = `${file.name} is of type ${file.type}; choose a JPEG, PNG, WebP, GIF, BMP or TIFF.`;
  showProblem(new Problem({ title: "Not an image", detail, code: "file_type" }));
}

function currentInput() {
  const [text, prompt] = ["caption", "prompt"].map((id) => byId(id).value.toWellFormed());
  return { image: image.current, text, prompt };
}

/** Marks the result as stale if the input has changed since. */
function noteChange() {
  const now = currentInput();
  const changed = session.answer && Object.keys(now).some((name) => now[name] !== session.input[name]);
  byId("result").classList.toggle("stale", Boolean(changed));
  if (!session.running) showStatus(changed ? "Changed since the last scoring." : "");
}

function setBusy(busy) {
  byId("score-form").setAttribute("aria-busy", String(busy));
  byId("cancel").hidden = !busy;
  if (!busy) return;
  hideProblem();
  showStatus("Scoring…");
}

async function run(input, contrasts) {
  setBusy(true);
  try {
    if (!(await session.score(input, contrasts, chosenMethod))) return; // superseded by a newer request
    setBusy(false);
    showAnswer();
  } catch (error) {
    setBusy(false);
    showStatus("");
    choice.show(session.shown);
    showProblem(error, () => run(input, contrasts));
  }
}

function showAnswer() {
  const { tokens, timing } = session.answer;
  choice.show(session.shown);
  hideProblem();
  result.draw(session.answer);
  noteChange();
  const fresh = !byId("result").classList.contains("stale");
  if (fresh) showStatus(`Scored ${tokens.length} tokens in ${duration(timing.total_ms)}.`);
}

function scoreNow() {
  const input = currentInput();
  if (input.image === null) requestInput("Choose an image first.", "file");
  else if (input.text.trim() === "") requestInput("Enter a caption first.", "caption");
  else run(input, session.shown);
}

function requestInput(text, id) {
  showStatus(text);
  byId(id).focus();
}

function cancel() {
  session.cancel();
  setBusy(false);
  choice.show(session.shown);
  showStatus("Cancelled.");
}

function compareWith(contrasts) {
  if (!session.show(contrasts)) {
    run(session.input, contrasts);
    return;
  }
  setBusy(false);
  showAnswer();
}

async function copyCurl() {
  const { input, shown } = session;
  const request = session.request(input, shown, settings.request);
  const command = await curlCommand(address("v1/score"), input.image, request, await requiresKey());
  const where = input.image.isFile ? `; run it in the folder of ${input.image.name}` : "";
  await copy(command, `curl command${where}`, showStatus);
}

let described = null; // a promise, replaced after a failure

/** Shows the models and methods of the server. Throws Problem. */
async function describeServer() {
  const { default: name, models, methods, default_method: first } = await listModels();
  const model = models.find((each) => each.name === name);
  settings.offer(methods, first);
  byId("model").textContent = name;
  byId("fingerprint").textContent = `Fingerprint ${model.fingerprint.slice(0, 12)}`;
  byId("fingerprint").title = model.fingerprint;
  byId("prompt").placeholder = model.prompt;
  storeContrastPhrases(model.contrast_words);
  choice.offer(model.contrasts);
}

function whenDescribed() {
  described ??= describeServer().catch((error) => {
    described = null;
    throw error;
  });
  return described;
}

async function chosenMethod() {
  await whenDescribed();
  return settings.request;
}

function begin() {
  whenDescribed().catch((error) =>
    showProblem(error, () => {
      hideProblem();
      begin();
    }),
  );
}

byId("score-form").addEventListener("submit", (event) => {
  event.preventDefault();
  scoreNow();
});
byId("caption").addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey)) return;
  event.preventDefault();
  scoreNow();
});
for (const id of ["caption", "prompt"]) byId(id).addEventListener("input", noteChange);
byId("cancel").addEventListener("click", cancel);
byId("copy-json").addEventListener("click", () => {
  copy(`${JSON.stringify(result.toJson(), null, 2)}\n`, "JSON", showStatus);
});
byId("copy-curl").addEventListener("click", copyCurl);

begin();
const drawn = drawSamples((sample, caption) => {
  byId("caption").value = caption;
  image.set(sample);
  scoreNow();
}, showProblem);
drawn.catch(showProblem);
