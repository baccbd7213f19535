// The page of a limner server: paint as you type, enlarge, compare, keep. It talks to the public API under v1/ alone.
import { WORDS } from "./words.js";

const $ = (id) => document.getElementById(id);
const WAIT = 70; // ms after the last key
const REST = 1500; // ms at which a picture is worth keeping
const MOST_KEPT = 120;
const PLAIN_FORMATS = ["png", "jpeg", "webp"];

// ------------------------------------------------------------------------------------------------------------- words

let language = remembered("language") ?? (navigator.language.toLowerCase().startsWith("zh") ? "zh" : "en");

function t(key, ...values) {
  return values.reduce((text, value, at) => text.replace(`{${at}}`, value), WORDS[language][key]);
}

function translate() {
  document.documentElement.lang = language === "zh" ? "zh-CN" : "en";
  for (const each of document.querySelectorAll("[data-t]")) each.textContent = t(each.dataset.t);
  for (const each of document.querySelectorAll("[data-label]")) each.setAttribute("aria-label", t(each.dataset.label));
  for (const each of document.querySelectorAll("[data-placeholder]")) each.placeholder = t(each.dataset.placeholder);
  $("language").textContent = t("otherLanguage");
  $("language").lang = language === "zh" ? "en" : "zh-CN";
  $("language").setAttribute("aria-label", t("toOther"));
}

function remembered(name) {
  try { return localStorage.getItem(`limner-${name}`); } catch { return null; }
}

function remember(name, value) {
  try { localStorage.setItem(`limner-${name}`, value); } catch { /* private windows keep nothing */ }
}

// --------------------------------------------------------------------------------------------------------------- API

let key = "";

class Refusal extends Error {
  constructor(status, message, retry) {
    super(message);
    this.status = status;
    this.retry = retry;
  }
}

async function call(path, options = {}) {
  const headers = { ...options.headers, ...(key && { authorization: `Bearer ${key}` }) };
  const answer = await fetch(path, { ...options, headers });
  if (answer.ok) return answer;
  const body = await answer.json().catch(() => null);
  throw new Refusal(answer.status, body?.error?.message ?? answer.statusText, Number(answer.headers.get("retry-after")));
}

const post = (path, body, signal) =>
  call(path, { method: "POST", body: JSON.stringify(body), headers: { "content-type": "application/json" }, signal });

// Seconds until the same request may work; 0 when it never will.
function waits(error) {
  if (error instanceof Refusal) return error.status === 503 || error.status === 429 ? error.retry || 1 : 0;
  return 2;
}

function explain(error) {
  if (error instanceof Refusal && error.status === 401) {
    $("key-form").hidden = false;
    $("key").focus();
  }
  if (!(error instanceof Refusal)) return t("unreachable");
  return error.status === 503 ? t("busy") : error.message;
}

function notify(text) {
  $("notice").textContent = text;
  $("notice").hidden = !text;
}

function fileOf(base64, type) {
  const bytes = Uint8Array.from(atob(base64), (sign) => sign.charCodeAt(0));
  return new Blob([bytes], { type });
}

// ----------------------------------------------------------------------------------------------------------- widgets

function radios(box, name, choices, chosen, change) {
  box.replaceChildren(...choices.map(({ value, text, word }) => {
    const label = document.createElement("label");
    const input = Object.assign(document.createElement("input"), { type: "radio", name, value });
    input.checked = value === chosen;
    input.addEventListener("change", change);
    const shown = Object.assign(document.createElement("span"), { textContent: word ? t(word) : text });
    if (word) shown.dataset.t = word;
    label.append(input, shown);
    return label;
  }));
}

const picked = (name) => document.querySelector(`input[name="${name}"]:checked`)?.value ?? "";

function options(select, names) {
  select.replaceChildren(...names.map((name) => new Option(name, name)));
  select.closest(".field").hidden = names.length < 2;
}

function open(tab) {
  for (const each of document.querySelectorAll("[role=tab]")) {
    const on = each === tab;
    each.setAttribute("aria-selected", String(on));
    each.tabIndex = on ? 0 : -1;
    $(each.getAttribute("aria-controls")).hidden = !on;
  }
}

// ------------------------------------------------------------------------------------------------------------- paint

let settings = {};
let models = [];
let shown = []; // what the stage shows
let kept = []; // what the gallery shows
let running = null; // the request under way
let timer = 0;
let resting = 0;

const painter = () => models.find((each) => each.id === $("model").value);
const randomSeed = () => Math.floor(Math.random() * 1e6);

function seed() {
  const given = Number.parseInt($("seed").value, 10);
  return Number.isSafeInteger(given) && given >= 0 ? given : 0;
}

function soon(wait = WAIT) {
  clearTimeout(timer);
  clearTimeout(resting);
  timer = setTimeout(paint, wait);
}

async function paint() {
  const prompt = $("prompt").value.trim();
  running?.abort();
  if (!prompt || !painter()) {
    show([]);
    return;
  }
  const mine = (running = new AbortController());
  const asked = { model: $("model").value, prompt, n: Number(picked("count")), seed: seed(), size: picked("size") };
  if (picked("style")) asked.style = picked("style");
  $("pictures").classList.add("stale");
  const start = performance.now();
  try {
    const body = await (await post("v1/images/generations", asked, mine.signal)).json();
    const files = body.data.map((each) => fileOf(each.b64_json, `image/${body.output_format}`));
    const milliseconds = performance.now() - start;
    if (mine !== running) return;
    show(files.map((file, at) => ({ ...asked, seed: body.data[at].seed ?? asked.seed + at, file, milliseconds })));
    told(milliseconds, body);
    resting = setTimeout(keep, REST, shown);
  } catch (error) {
    if (mine !== running || error.name === "AbortError") return;
    failed(error);
  }
}

function told(milliseconds, body) {
  notify("");
  $("latency").textContent = duration(milliseconds);
  $("status").textContent = t(body.data.length > 1 ? "paintedMany" : "painted", body.data.length);
  $("warning").textContent = (body.warnings ?? []).join(" ");
  $("warning").hidden = !body.warnings?.length;
}

function failed(error) {
  $("pictures").classList.remove("stale");
  notify(explain(error));
  const seconds = waits(error);
  if (seconds) soon(1000 * seconds);
}

function show(pictures) {
  for (const each of shown) if (!kept.includes(each)) URL.revokeObjectURL(each.url);
  for (const each of pictures) each.url = URL.createObjectURL(each.file);
  shown = pictures;
  const list = $("pictures");
  list.dataset.count = String(pictures.length || Number(picked("count")) || 4);
  list.classList.remove("stale");
  list.replaceChildren(...(pictures.length ? pictures.map((each) => item(each, true)) : blanks()));
}

function blanks() {
  return Array.from({ length: Number(picked("count")) || 4 }, () => {
    const place = document.createElement("li");
    place.className = "blank";
    return place;
  });
}

function item(picture, large) {
  const place = document.createElement("li");
  const button = Object.assign(document.createElement("button"), { type: "button" });
  button.setAttribute("aria-label", t("again1", picture.prompt, picture.seed));
  const image = Object.assign(document.createElement("img"), { src: picture.url, alt: "", decoding: "async" });
  const label = Object.assign(document.createElement("span"), { textContent: picture.seed, className: "seed" });
  button.append(image);
  button.addEventListener("click", () => detail(picture));
  if (large) button.append(label);
  place.append(button);
  if (!large) place.append(label);
  if (!large) button.title = picture.prompt;
  return place;
}

function keep(pictures) {
  const fresh = pictures.filter((each) => shown.includes(each) && !kept.some((other) => same(each, other)));
  if (!fresh.length) return;
  kept = [...fresh, ...kept];
  for (const old of kept.splice(MOST_KEPT)) if (!shown.includes(old)) URL.revokeObjectURL(old.url);
  listKept();
}

const same = (a, b) => ["model", "prompt", "seed", "style", "size"].every((name) => a[name] === b[name]);

function listKept() {
  $("gallery").replaceChildren(...kept.map((each) => item(each, false)));
  $("gallery-empty").hidden = $("clear").hidden = false;
  $(kept.length ? "gallery-empty" : "clear").hidden = true;
}

function clear() {
  for (const each of kept) if (!shown.includes(each)) URL.revokeObjectURL(each.url);
  kept = [];
  listKept();
}

function newSeeds() {
  keep(shown);
  $("seed").value = randomSeed();
  soon(0);
}

function nameOf(picture) {
  const words = picture.prompt.toLowerCase().replace(/[^\p{L}\p{N}]+/gu, "-").replace(/^-|-$/g, "").slice(0, 60);
  return [words || "picture", picture.style, picture.seed].filter((part) => part !== undefined).join("-") + ".png";
}

// ------------------------------------------------------------------------------------------------------------ detail

let looked = null;

function detail(picture) {
  looked = picture;
  keep(shown.includes(picture) ? [picture] : []);
  $("detail-picture").src = picture.url;
  $("detail-picture").alt = t("picture", picture.prompt, picture.seed);
  $("detail-title").textContent = picture.prompt;
  const facts = [["seed", picture.seed], ["size", picture.size], ["model", picture.model], ["took", duration(picture.milliseconds)]];
  if (picture.style) facts.push(["style", picture.style]);
  $("detail-facts").replaceChildren(...facts.flatMap(([word, value]) => [
    Object.assign(document.createElement("dt"), { textContent: t(word) }),
    Object.assign(document.createElement("dd"), { textContent: value }),
  ]));
  Object.assign($("detail-download"), { href: picture.url, download: nameOf(picture) });
  $("rate").hidden = !settings.feedback;
  showRating();
  $("detail").showModal();
}

function showRating() {
  for (const each of $("rate").querySelectorAll("button")) {
    each.setAttribute("aria-pressed", String(Number(each.dataset.rating) === looked.rating));
  }
}

async function rate(event) {
  const rating = Number(event.currentTarget.dataset.rating);
  const picture = looked;
  try {
    if (picture.rating === rating) {
      await call(`v1/images/feedback/${picture.rated}`, { method: "DELETE" });
      picture.rating = picture.rated = undefined;
      $("status").textContent = t("unrated");
    } else {
      const { prompt, seed, model, style, size, milliseconds, rated: id } = picture;
      const answer = await post("v1/images/feedback", { prompt, seed, model, style, size, milliseconds, rating, id });
      picture.rated = (await answer.json()).id;
      picture.rating = rating;
      $("status").textContent = t("rated");
    }
    showRating();
  } catch (error) {
    $("detail").close();
    notify(explain(error));
  }
}

function useSeed() {
  $("detail").close();
  const { model, prompt, style, seed: first, size } = looked;
  $("model").value = model;
  adapt();
  $("prompt").value = prompt;
  $("seed").value = first;
  for (const [name, value] of [["style", style ?? ""], ["size", size]]) {
    const input = [...document.querySelectorAll(`input[name="${name}"]`)].find((each) => each.value === value);
    if (input) input.checked = true;
  }
  soon(0);
  $("prompt").focus();
}

// Styles and sizes are the chosen painter's.
function adapt() {
  const { styles = [], sizes = [] } = painter() ?? {};
  const [style, size, count] = [picked("style"), picked("size"), picked("count")];
  const plain = { value: "", word: "noStyle" };
  radios($("styles"), "style", [plain, ...styles.map((each) => ({ value: each, text: each }))], styles.includes(style) ? style : "", () => soon(0));
  $("style-field").hidden = !styles.length;
  radios($("sizes"), "size", sizes.map((each) => ({ value: each, text: each.split("x")[0] })), sizes.includes(size) ? size : sizes[0], () => soon(0));
  const counts = ["1", "4", "9"].filter((each) => Number(each) <= (settings.pictures ?? 9));
  radios($("counts"), "count", counts.map((each) => ({ value: each, text: each })), count || counts[1] || "1", () => soon(0));
}

// ----------------------------------------------------------------------------------------------------------- enlarge

let source = null;
let enlarging = null;

const bytes = (count) => (count < 1e6 ? `${Math.ceil(count / 1000)} kB` : `${(count / 1e6).toFixed(1)} MB`);

function take(file) {
  if (!file) return;
  if (file.type && !file.type.startsWith("image/")) return notify(t("noPicture", file.name));
  if (file.size > settings.uploadBytes) return notify(t("tooLarge", file.name, bytes(settings.uploadBytes)));
  source = file;
  enlarge();
}

async function enlarge() {
  enlarging?.abort();
  if (!source || !$("upscaler").value) return;
  const mine = (enlarging = new AbortController());
  const file = source;
  notify("");
  busy(t("workingOn", file.name || "…"));
  const start = performance.now();
  try {
    const answer = await call("v1/images/upscale", { method: "POST", body: form(file), signal: mine.signal });
    const made = await answer.blob();
    if (mine !== enlarging) return;
    busy("");
    await compare(file, made, performance.now() - start);
  } catch (error) {
    if (mine !== enlarging) return;
    busy("");
    if (error.name === "AbortError") return;
    notify(explain(error));
    const seconds = waits(error);
    if (seconds) setTimeout(() => mine === enlarging && enlarge(), 1000 * seconds);
  }
}

function form(file) {
  const fields = new FormData();
  fields.append("image", file, file.name || "picture.png");
  fields.append("model", $("upscaler").value);
  fields.append("response_format", "binary");
  fields.append("output_format", picked("format"));
  if (picked("scale")) fields.append("scale", picked("scale"));
  return fields;
}

function busy(text) {
  $("working").hidden = !text;
  $("working-text").textContent = text;
  $("compare").setAttribute("aria-busy", String(Boolean(text)));
}

async function compare(file, made, milliseconds) {
  for (const id of ["before", "after"]) if ($(id).src) URL.revokeObjectURL($(id).src);
  $("after").src = URL.createObjectURL(made);
  $("before").src = URL.createObjectURL(file);
  $("compare").hidden = false;
  $("enlarge").classList.add("result");
  const [after, before] = await Promise.all(["after", "before"].map((id) => $(id).decode().then(() => $(id), () => null)));
  $("frame").classList.toggle("alone", !(before && after));
  $("after").alt = t("after");
  $("before").alt = t("before");
  const sides = [before, after].flatMap((each) => (each ? [each.naturalWidth, each.naturalHeight] : ["?", "?"]));
  $("facts").textContent = t("facts", ...sides, bytes(made.size), duration(milliseconds));
  if (!before) notify(t("noPreview"));
  Object.assign($("download"), { href: $("after").src, download: enlargedName(file, made.type) });
  $("compare").scrollIntoView({ block: "nearest" });
}

function duration(milliseconds) {
  if (milliseconds >= 999.5) return `${(milliseconds / 1000).toFixed(1)} s`;
  return `${milliseconds < 9.95 ? milliseconds.toFixed(1) : Math.round(milliseconds)} ms`;
}

function enlargedName(file, type) {
  const stem = (file.name || "picture").replace(/\.[^.]+$/, "");
  const scale = picked("scale") || models.find((each) => each.id === $("upscaler").value)?.scale;
  return `${stem}-x${scale}.${type === "image/jpeg" ? "jpg" : type.split("/")[1]}`;
}

function scales() {
  const own = models.find((each) => each.id === $("upscaler").value)?.scale ?? 4;
  const choices = [...new Set([2, 3, 4, own])].sort((a, b) => a - b);
  radios($("scales"), "scale", choices.map((each) => ({ value: String(each), text: `×${each}` })), String(own), enlarge);
}

async function enlargePainted() {
  $("detail").close();
  open($("tab-enlarge"));
  take(new File([looked.file], nameOf(looked), { type: looked.file.type }));
  $("tab-enlarge").focus();
}

// ------------------------------------------------------------------------------------------------------------- start

function wire() {
  $("language").addEventListener("click", () => {
    language = language === "zh" ? "en" : "zh";
    remember("language", language);
    translate();
    examples();
  });
  $("prompt").addEventListener("input", () => soon());
  $("prompt").addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.isComposing) return;
    event.preventDefault();
    if (event.ctrlKey || event.metaKey) newSeeds();
    else { soon(0); keep(shown); }
  });
  $("seed").addEventListener("input", () => soon());
  $("model").addEventListener("change", () => { adapt(); soon(0); });
  $("again").addEventListener("click", newSeeds);
  $("clear").addEventListener("click", clear);
  $("detail-use").addEventListener("click", useSeed);
  $("detail-enlarge").addEventListener("click", enlargePainted);
  for (const each of $("rate").querySelectorAll("button")) each.addEventListener("click", rate);
  $("detail").addEventListener("click", (event) => event.target === $("detail") && $("detail").close());
  $("key-form").addEventListener("submit", (event) => {
    event.preventDefault();
    key = $("key").value.trim();
    $("key-form").hidden = true;
    start();
  });
  wireTabs();
  wireEnlarging();
  addEventListener("keydown", (event) => {
    const typing = /^(INPUT|TEXTAREA|SELECT)$/.test(document.activeElement?.tagName ?? "");
    if (event.key !== "/" || typing || $("detail").open) return;
    event.preventDefault();
    open($("tab-paint"));
    $("prompt").focus();
  });
}

function wireTabs() {
  const tabs = [...document.querySelectorAll("[role=tab]")];
  for (const [at, tab] of tabs.entries()) {
    tab.addEventListener("click", () => open(tab));
    tab.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (!step) return;
      const next = tabs[(at + step + tabs.length) % tabs.length];
      open(next);
      next.focus();
    });
  }
}

function wireEnlarging() {
  const drop = $("drop");
  $("file").addEventListener("change", () => { take($("file").files[0]); $("file").value = ""; });
  $("upscaler").addEventListener("change", () => { scales(); enlarge(); });
  $("stop").addEventListener("click", () => { enlarging?.abort(); notify(t("stopped")); });
  $("split").addEventListener("input", () => $("frame").style.setProperty("--split", `${$("split").value}%`));
  // A picture may be dropped anywhere: missing the field must not leave the page.
  addEventListener("dragover", (event) => { event.preventDefault(); drop.classList.add("over"); });
  addEventListener("dragleave", (event) => event.relatedTarget || drop.classList.remove("over"));
  addEventListener("drop", (event) => {
    event.preventDefault();
    drop.classList.remove("over");
    if (!event.dataTransfer.files.length) return;
    open($("tab-enlarge"));
    take(event.dataTransfer.files[0]);
  });
  addEventListener("paste", (event) => {
    const file = [...(event.clipboardData?.files ?? [])].find((each) => each.type.startsWith("image/"));
    if (!file) return;
    open($("tab-enlarge"));
    take(file);
  });
  const formats = PLAIN_FORMATS.map((each) => ({ value: each, text: each.toUpperCase() }));
  radios($("formats"), "format", formats, "png", enlarge);
}

function examples() {
  $("examples").replaceChildren(...WORDS[language].prompts.map((prompt) => {
    const button = Object.assign(document.createElement("button"), { type: "button", textContent: prompt, lang: "en" });
    button.addEventListener("click", () => { $("prompt").value = prompt; soon(0); });
    return button;
  }));
}

// The stage is never empty: the first example stands there until somebody types over it.
function greet() {
  if ($("prompt").value) return;
  $("prompt").value = WORDS[language].prompts[0];
  $("prompt").addEventListener("focus", () => $("prompt").select(), { once: true });
}

async function start() {
  try {
    settings = await (await call("page/settings.json")).json();
    models = (await (await call("v1/models")).json()).data;
  } catch (error) {
    notify(explain(error));
    const seconds = waits(error);
    if (seconds) setTimeout(start, 1000 * seconds);
    return;
  }
  notify("");
  $("version").textContent = `limner ${settings.version}`;
  $("prompt").maxLength = settings.promptCharacters;
  const named = (task) => models.filter((each) => each.task === task).map((each) => each.id);
  options($("model"), named("generate"));
  options($("upscaler"), named("upscale"));
  adapt();
  scales();
  if (!named("generate").length) { notify(t("noPainter")); $("again").disabled = true; open($("tab-enlarge")); }
  else if (!named("upscale").length) { $("tab-enlarge").disabled = true; $("detail-enlarge").hidden = true; }
  document.body.dataset.ready = "true";
  greet();
  soon(0);
}

$("seed").value = randomSeed();
translate();
examples();
adapt();
show([]);
wire();
start();
