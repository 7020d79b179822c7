// Wires the page together.
import { Problem, address, listModels, wantsKey } from "./api.js";
import { contrastName, learnContrasts } from "./contrasts.js";
import { copy } from "./copy.js";
import { curlCommand } from "./curl.js";
import { byId, el } from "./dom.js";
import { hideProblem, say, showProblem } from "./messages.js";
import { Picture, drawSamples } from "./picture.js";
import { Result } from "./result.js";
import { duration } from "./scale.js";
import { Session } from "./session.js";
import { Settings } from "./settings.js";

const session = new Session();
const settings = new Settings(() => {
  result.byWeight();
  result.update();
});
const result = new Result(settings);
const picture = new Picture(() => {
  for (const button of byId("samples").children) button.setAttribute("aria-pressed", "false");
  noteChange();
}, refuseFile);

function refuseFile(file) {
  const detail = `${file.name} is of type ${file.type}; choose a JPEG, PNG, WebP, GIF, BMP or TIFF.`;
  showProblem(new Problem({ title: "Not a picture", detail, code: "file_type" }));
}

function inputOfNow() {
  const [text, prompt] = ["caption", "prompt"].map((id) => byId(id).value.toWellFormed());
  return { picture: picture.current, text, prompt };
}

/** Says when what is shown is no longer what is written. */
function noteChange() {
  const now = inputOfNow();
  const changed = session.answer && Object.keys(now).some((name) => now[name] !== session.input[name]);
  byId("result").classList.toggle("stale", Boolean(changed));
  if (!session.running) say(changed ? "Changed since it was scored." : "");
}

function setBusy(busy) {
  byId("ask").setAttribute("aria-busy", String(busy));
  byId("cancel").hidden = !busy;
  if (!busy) return;
  hideProblem();
  say("Scoring…");
}

async function run(input, contrast) {
  setBusy(true);
  try {
    if (!(await session.ask(input, contrast, chosenMethod))) return; // another request has taken over
    setBusy(false);
    showAnswer();
  } catch (error) {
    setBusy(false);
    say("");
    byId("contrast").value = session.shown ?? "";
    showProblem(error, () => run(input, contrast));
  }
}

function showAnswer() {
  const { contrast, tokens, timing } = session.answer;
  offerContrasts([contrast]);
  byId("contrast").value = contrast;
  hideProblem();
  result.draw(session.answer);
  noteChange();
  const fresh = !byId("result").classList.contains("stale");
  if (fresh) say(`Scored ${tokens.length} tokens in ${duration(timing.total_ms)}.`);
}

function offerContrasts(names) {
  const select = byId("contrast");
  const known = new Set([...select.options].map((option) => option.value));
  for (const name of names) if (!known.has(name)) select.append(el("option", { value: name }));
  for (const option of select.options) option.textContent = contrastName(option.value);
}

function scoreNow() {
  const input = inputOfNow();
  if (input.picture === null) askFor("Choose a picture first.", "file");
  else if (input.text.trim() === "") askFor("Write a caption first.", "caption");
  else run(input, session.shown);
}

function askFor(words, id) {
  say(words);
  byId(id).focus();
}

function cancel() {
  session.cancel();
  setBusy(false);
  byId("contrast").value = session.shown ?? "";
  say("Cancelled.");
}

function compareWith(contrast) {
  if (!session.show(contrast)) {
    run(session.input, contrast);
    return;
  }
  setBusy(false);
  showAnswer();
}

async function copyCurl() {
  const { input, shown } = session;
  const request = session.request(input, shown, settings.request);
  const command = await curlCommand(address("v1/score"), input.picture, request, await wantsKey());
  const where = input.picture.isFile ? `, to be run in the folder of ${input.picture.name}` : "";
  await copy(command, `curl command${where}`, say);
}

let described = null; // a promise, made anew after a failure

/** Shows what the server offers. Throws Problem. */
async function describeServer() {
  const { default: name, models, methods, default_method: first } = await listModels();
  const model = models.find((each) => each.name === name);
  settings.offer(methods, first);
  byId("model").textContent = name;
  byId("fingerprint").textContent = `Fingerprint ${model.fingerprint.slice(0, 12)}`;
  byId("fingerprint").title = model.fingerprint;
  byId("prompt").placeholder = model.prompt;
  learnContrasts(model.contrast_words);
  offerContrasts(model.contrasts);
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

byId("ask").addEventListener("submit", (event) => {
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
byId("contrast").addEventListener("change", () => compareWith(byId("contrast").value));
byId("copy-json").addEventListener("click", () => copy(`${JSON.stringify(result.toJson(), null, 2)}\n`, "JSON", say));
byId("copy-curl").addEventListener("click", copyCurl);

begin();
const drawn = drawSamples((sample, caption) => {
  byId("caption").value = caption;
  picture.set(sample);
  scoreNow();
}, showProblem);
drawn.catch(showProblem);
