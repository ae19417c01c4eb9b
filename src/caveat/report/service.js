// A picture goes to the service, the verdict comes back; all that is shown is put there as text.
const at = (id) => document.getElementById(id);
const percent = (x) => (x === null ? "not known" : `${(100 * x).toFixed(1)} %`);
const number = (x) => (x === null ? "not known" : String(Number(x.toPrecision(4))));
const nats = (x) => (x === null ? "not known" : `${x.toFixed(3)} nats`);

function fail(text) {
  at("answer").hidden = true;
  at("trouble").hidden = false;
  at("trouble").textContent = text;
}

function bars(verdict, classes) {
  const best = verdict.probs.map((share, k) => [share ?? 0, classes[k]]).sort((a, b) => b[0] - a[0]).slice(0, 5);
  at("classes").replaceChildren(...best.map(([share, name]) => {
    const row = document.createElement("p");
    const meter = document.createElement("meter");
    meter.value = share;
    row.append(meter, ` ${percent(share)} ${name}`);
    return row;
  }));
}

function examples(near) {
  at("nearest").replaceChildren(...near.map((one) => {
    const figure = document.createElement("figure");
    const picture = document.createElement("img");
    const words = document.createElement("figcaption");
    picture.src = one.picture;
    picture.alt = `Known example of ${one.label}`;
    words.textContent = `${one.label}, similarity ${one.similarity.toFixed(3)}`;
    figure.append(picture, words);
    return figure;
  }));
}

// What the tiles say, by the kind of verdict: answer, a second number, uncertainty; what it would be, and two asides.
function ofClasses(verdict) {
  return {
    answer: verdict.label, second: percent(verdict.confidence), uncertainty: nats(verdict.aleatoric),
    would: verdict.predicted_name,
    uncertain: verdict.epistemic === null ? "between the classes (entropy)" : `between the classes; about the network ${nats(verdict.epistemic)}`,
  };
}

function ofNumbers(verdict, found) {
  const answer = verdict.prediction === null ? null : number(verdict.prediction);
  return {
    answer, second: verdict.lower === null ? "not known" : `${number(verdict.lower)} to ${number(verdict.upper)}`,
    uncertainty: number(verdict.aleatoric), would: answer,
    promised: `holds the label of accepted inputs in ${percent(1 - found.error)} or more`,
    uncertain: verdict.epistemic === null ? "standard deviation of the label" : `of the label; about the network ${number(verdict.epistemic)}`,
  };
}

function ofLabels(verdict, found) {
  const named = (labels) => (labels === null ? null : labels.join(", ") || "no label");
  return {
    answer: named(verdict.labels), second: verdict.predicted === null ? "not known" : String(verdict.predicted.length),
    uncertainty: number(verdict.score), would: named(verdict.predicted),
    promised: `probability of at least ${number(found.label_threshold)}`,
    uncertain: `${found.score}; refused above ${number(found.threshold)}`,
  };
}

function show(found) {
  const verdict = found.verdicts[0];
  const told = ("prediction" in verdict ? ofNumbers : "labels" in verdict ? ofLabels : ofClasses)(verdict, found);
  const shown = [verdict.accepted ? told.answer : "abstains", told.second, percent(verdict.p_value), told.uncertainty];
  document.querySelectorAll(".tiles dd:nth-child(2)").forEach((cell, k) => { cell.textContent = shown[k]; });
  at("name").textContent = verdict.accepted ? "accepted" : told.would === null ? verdict.reason : `would be ${told.would}`;
  at("uncertain").textContent = told.uncertain;
  if (at("promised")) at("promised").textContent = told.promised;
  at("sentence").textContent = `${verdict.explanation}.`;
  if (at("classes")) bars(verdict, found.classes);
  if (at("nearest")) examples(verdict.nearest);
  at("trouble").hidden = true;
  at("answer").hidden = false;
  at("answer").dataset.accepted = verdict.accepted;
}

async function ask(file) {
  const reader = new FileReader();
  reader.onload = () => { at("picture").src = reader.result; };
  reader.readAsDataURL(file);
  const headers = { "content-type": file.type || "image/png" };
  if (at("token")) headers.authorization = `Bearer ${at("token").value}`;
  try {
    const answer = await fetch(at("nearest") ? "v1/verdict?nearest=3" : "v1/verdict", { method: "POST", body: file, headers });
    const found = await answer.json();
    if (answer.ok) show(found);
    else fail(found.error.message);
  } catch {
    fail("The service does not answer.");
  }
}

const drop = at("drop");
if (drop) {
  at("file").addEventListener("change", () => { if (at("file").files.length) ask(at("file").files[0]); });
  drop.addEventListener("dragover", (event) => { event.preventDefault(); drop.classList.add("over"); });
  drop.addEventListener("dragleave", () => drop.classList.remove("over"));
  drop.addEventListener("drop", (event) => {
    event.preventDefault();
    drop.classList.remove("over");
    if (event.dataTransfer.files.length) ask(event.dataTransfer.files[0]);
  });
}
