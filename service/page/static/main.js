// Wires the page together.
import { Problem, listModels, wantsKey } from "./api.js";
import { copy } from "./copy.js";
import { curlCommand } from "./curl.js";
import { byId, el } from "./dom.js";
import { Picture, drawSamples } from "./picture.js";
import { Result } from "./result.js";
import { contrastName, duration } from "./scale.js";
import { Session } from "./session.js";
import { Settings } from "./settings.js";

const session = new Session();
const settings = new Settings(() => {
  result.byWeight();
  result.update();
});
const result = new Result(settings);
const picture = new Picture(
  () => {
    for (const button of byId("samples").children) button.setAttribute("aria-pressed", "false");
    noteChange();
  },
  (file) => showProblem(new Problem({ title: "Not a picture", detail: `${file.name} is of type ${file.type}; choose a JPEG, PNG, WebP, GIF, BMP or TIFF.`, code: "file_type" })),
);

const say = (text) => (byId("status").textContent = text);

function showProblem(problem, retry = null) {
  const box = byId("problem");
  const notes = [problem.code, problem.requestId && `request ${problem.requestId}`].filter(Boolean).join(" · ");
  box.replaceChildren(el("b", {}, problem.title), el("p", {}, problem.detail));
  if (problem.retryAfter !== null) box.append(el("p", {}, `Try again in ${problem.retryAfter} s.`));
  if (notes) box.append(el("p", { class: "small" }, el("code", {}, notes)));
  if (retry) {
    const button = el("button", { type: "button", class: "quiet" }, "Try again");
    button.addEventListener("click", retry);
    box.append(button);
  }
  box.hidden = false;
}

function setBusy(busy) {
  byId("ask").setAttribute("aria-busy", String(busy));
  byId("cancel").hidden = !busy;
  if (busy) {
    byId("problem").hidden = true;
    say("Scoring…");
  }
}

function inputOfNow() {
  return { picture: picture.current, text: byId("caption").value.toWellFormed(), prompt: byId("prompt").value.toWellFormed() };
}

/** Says when what is shown is no longer what is written. */
function noteChange() {
  const now = inputOfNow();
  const changed = session.answer && ["picture", "text", "prompt"].some((name) => now[name] !== session.input[name]);
  byId("result").classList.toggle("stale", Boolean(changed));
  if (changed && !session.running) say("Changed since it was scored.");
  else if (!session.running) say("");
}

async function run(input, contrast) {
  setBusy(true);
  let done = false;
  try {
    done = await session.ask(input, contrast, settings.request);
  } catch (error) {
    setBusy(false);
    say("");
    byId("contrast").value = session.shown ?? "";
    showProblem(error instanceof Problem ? error : new Problem({ title: "The page failed", detail: String(error) }), () => run(input, contrast));
    return;
  }
  if (done) {
    setBusy(false);
    showAnswer();
  }
}

function showAnswer() {
  offerContrasts([session.shown]);
  byId("contrast").value = session.shown;
  byId("problem").hidden = true;
  result.draw(session.answer);
  noteChange();
  if (!byId("result").classList.contains("stale")) {
    say(`Scored ${session.answer.tokens.length} tokens in ${duration(session.answer.timing.total_ms)}.`);
  }
}

function offerContrasts(names) {
  const select = byId("contrast");
  const known = new Set([...select.options].map((option) => option.value));
  for (const name of names) if (!known.has(name)) select.append(el("option", { value: name }, contrastName(name)));
}

function scoreNow() {
  const input = inputOfNow();
  const missing = input.picture === null ? ["Choose a picture first", "file"] : input.text.trim() === "" ? ["Write a caption first", "caption"] : null;
  if (missing) {
    say(`${missing[0]}.`);
    byId(missing[1]).focus();
    return;
  }
  run(input, session.shown);
}

function cancel() {
  session.cancel();
  setBusy(false);
  if (session.shown) byId("contrast").value = session.shown;
  say("Cancelled.");
}

async function describeServer() {
  try {
    const { default: name, models } = await listModels();
    const model = models.find((each) => each.name === name) ?? models[0];
    byId("model").textContent = name;
    byId("fingerprint").textContent = typeof model.fingerprint === "string" ? `Fingerprint ${model.fingerprint}` : "";
    byId("prompt").placeholder = model.prompt ?? "";
    offerContrasts(model.contrasts ?? []);
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
    showProblem(error, () => {
      byId("problem").hidden = true;
      describeServer();
    });
  }
}

byId("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  scoreNow();
});
byId("cancel").addEventListener("click", cancel);
byId("caption").addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey)) return;
  event.preventDefault();
  scoreNow();
});
for (const id of ["caption", "prompt"]) byId(id).addEventListener("input", noteChange);
byId("contrast").addEventListener("change", () => {
  const contrast = byId("contrast").value;
  if (session.show(contrast)) {
    setBusy(false);
    showAnswer();
  } else run(session.input, contrast);
});
byId("copy-json").addEventListener("click", () => copy(`${JSON.stringify(result.toJson(), null, 2)}\n`, "JSON", say));
byId("copy-curl").addEventListener("click", async () => {
  const { input, shown } = session;
  const request = session.request(input, shown, settings.request);
  const command = await curlCommand(new URL("v1/score", document.baseURI).href, input.picture, request, await wantsKey());
  await copy(command, input.picture.isFile ? `curl command, to be run in the folder of ${input.picture.name}` : "curl command", say);
});

describeServer();
drawSamples((sample, caption) => {
  byId("caption").value = caption;
  picture.set(sample);
  scoreNow();
}).catch((error) => showProblem(new Problem({ title: "The samples cannot be shown", detail: String(error), code: "samples" })));
