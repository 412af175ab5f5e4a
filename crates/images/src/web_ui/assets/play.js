// The part of the page that needs a script: further test digits without a reload, and the pad.
"use strict";

const SIDE = 28;
const element = (id) => document.getElementById(id);
const target = () => Object.fromEntries(new FormData(document.querySelector("form")));

// Answers may overtake each other; only the one to the latest request is shown.
let latest = 0;

async function ask(path, options) {
  const turn = ++latest;
  let answer;
  try {
    const response = await fetch(path, options);
    answer = await response.json();
  } catch (error) {
    answer = { error: `the page's own server does not answer (${error.message})` };
  }
  if (turn !== latest) return null;
  const status = element("status");
  status.className = answer.error ? "bad" : "ok";
  status.textContent = answer.error
    ? `Exception making request: ${answer.error}`
    : `Connected (model version: ${answer.version})`;
  element("latency").textContent = answer.error ? "–" : `${answer.latencyMs.toFixed(1)} ms`;
  showBars(answer.probabilities ?? []);
  return answer;
}

function showBars(probabilities) {
  const best = probabilities.indexOf(Math.max(...probabilities));
  element("bars").querySelectorAll("li").forEach((row, digit) => {
    const p = probabilities[digit] ?? 0;
    row.className = digit === best ? "best" : "";
    row.querySelector("meter").value = p;
    row.querySelector("span").textContent = `${(p * 100).toFixed(1)}%`;
  });
}

function imageOf(pixels) {
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = SIDE;
  const context = canvas.getContext("2d");
  const data = context.createImageData(SIDE, SIDE);
  pixels.forEach((value, at) => data.data.set([255 - value, 255 - value, 255 - value, 255], at * 4));
  context.putImageData(data, 0, 0);
  return canvas.toDataURL();
}

async function nextDigit() {
  const answer = await ask(`digit?${new URLSearchParams(target())}`);
  if (!answer || !answer.pixels) return;
  element("image").src = imageOf(answer.pixels);
  element("truth").textContent = answer.truth;
  element("prediction").textContent = answer.prediction ?? "–";
}

// The drawing as the training set has it: scaled into a box of 20 pixels, its centre of mass in the
// middle of 28.
function normalised(pad) {
  const { width, height } = pad;
  const source = pad.getContext("2d").getImageData(0, 0, width, height).data;
  let [left, top, right, bottom] = [width, height, -1, -1];
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      if (source[(y * width + x) * 4 + 3] > 16) {
        left = Math.min(left, x);
        right = Math.max(right, x);
        top = Math.min(top, y);
        bottom = Math.max(bottom, y);
      }
    }
  }
  if (right < 0) return null;
  const [w, h] = [right - left + 1, bottom - top + 1];
  const scale = 20 / Math.max(w, h);
  const draw = (dx, dy) => {
    const small = document.createElement("canvas");
    small.width = small.height = SIDE;
    const context = small.getContext("2d", { willReadFrequently: true });
    context.imageSmoothingQuality = "high";
    const [sw, sh] = [w * scale, h * scale];
    context.drawImage(pad, left, top, w, h, (SIDE - sw) / 2 + dx, (SIDE - sh) / 2 + dy, sw, sh);
    const data = context.getImageData(0, 0, SIDE, SIDE).data;
    return Array.from({ length: SIDE * SIDE }, (_, at) => data[at * 4 + 3] / 255);
  };
  const pixels = draw(0, 0);
  let [mass, cx, cy] = [0, 0, 0];
  pixels.forEach((p, at) => {
    mass += p;
    cx += p * (at % SIDE);
    cy += p * Math.floor(at / SIDE);
  });
  return draw(Math.round(13.5 - cx / mass), Math.round(13.5 - cy / mass));
}

function setUpPad() {
  const pad = element("pad");
  const context = pad.getContext("2d", { willReadFrequently: true });
  Object.assign(context, { lineWidth: 18, lineCap: "round", lineJoin: "round", strokeStyle: "#111" });
  let last = null;
  let scheduled = false;
  const point = (event) => {
    const box = pad.getBoundingClientRect();
    const factor = pad.width / box.width;
    return [(event.clientX - box.left) * factor, (event.clientY - box.top) * factor];
  };
  const stroke = (to) => {
    context.beginPath();
    context.moveTo(...(last ?? to));
    context.lineTo(...to);
    context.stroke();
    last = to;
  };
  const predict = async () => {
    scheduled = false;
    const pixels = normalised(pad);
    if (!pixels) return;
    const answer = await ask("predict", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ ...target(), pixels }),
    });
    if (answer && !answer.error) element("hint").textContent = `The model reads a ${answer.prediction}.`;
  };
  // One question a frame at most, however fast the hand is.
  const schedule = () => {
    if (!scheduled) {
      scheduled = true;
      requestAnimationFrame(predict);
    }
  };
  pad.addEventListener("pointerdown", (event) => {
    pad.setPointerCapture(event.pointerId);
    last = null;
    stroke(point(event));
    schedule();
  });
  pad.addEventListener("pointermove", (event) => {
    if (last && event.buttons) {
      stroke(point(event));
      schedule();
    }
  });
  pad.addEventListener("pointerup", () => {
    last = null;
    schedule();
  });
  element("clear").addEventListener("click", () => {
    context.clearRect(0, 0, pad.width, pad.height);
    element("hint").textContent = "Draw a digit here with the mouse or a finger.";
  });
}

element("draw").hidden = false;
element("next").hidden = false;
element("next").addEventListener("click", nextDigit);
setUpPad();
