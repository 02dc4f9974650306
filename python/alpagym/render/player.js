// The replay player: the rollouts of one scenario in step, side by side or laid over each other.

const SPEEDS = [0.25, 0.5, 1, 2, 4];
const ZOOM = { start: 7, min: 0.5, max: 60 };

/** Make an element; properties are set, children appended; text is never parsed as HTML. */
function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.startsWith("aria")) setAria(element, name, value);
    else if (name in element) element[name] = value;
    else element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

/** ariaLabel and its like as attributes, which every browser knows. */
function setAria(element, name, value) {
  element.setAttribute("aria-" + name.slice(4).toLowerCase(), value);
}

class Player {
  constructor(root, data) {
    this.scene = decodeScene(data);
    this.time = 0;
    this.rate = 1;
    this.playing = false;
    this.follow = true;
    this.overlay = false;
    this.zoom = ZOOM.start;
    this.center = { x: 0, y: 0 };
    this.quantity = "speed";
    this.layers = new Set(FIRST_LAYERS);
    this.palette = readPalette();
    this.root = root;
    this.dispose = new AbortController();
    this.build();
    this.listen();
    this.jumpToEgo();
    this.draw();
  }

  build() {
    const { scene } = this;
    const button = (text, label, action) =>
      make("button", { type: "button", textContent: text, title: label, ariaLabel: label, onclick: action });
    this.panels = scene.rollouts.map((run, index) => this.buildPanel(run, index));
    this.stage = make("div", { className: "stage" }, ...this.panels.map((p) => p.figure));
    this.playButton = button("Play", "Play", () => this.toggle());
    this.playButton.className = "primary";
    this.range = make("input", {
      type: "range", min: 0, max: scene.data.steps, step: 1, value: 0, ariaLabel: "Step", className: "scrub",
      oninput: () => this.seek(Number(this.range.value)),
    });
    this.clock = make("output", { className: "clock" });
    this.rateSelect = this.select("Speed", SPEEDS.map((s) => [s, s + "×"]), 1, (v) => { this.rate = Number(v); });
    this.plotSelect = this.select("Plot", quantityNames(scene).map((n) => [n, n === "speed" ? "speed [m/s]" : n]),
      "speed", (v) => { this.quantity = v; this.draw(); });
    this.followButton = button("Follow ego", "Follow the ego", () => this.setFollow(!this.follow));
    this.overlayButton = button("Overlay", "Lay the rollouts over each other", () => this.setOverlay(!this.overlay));
    this.overlayButton.hidden = scene.rollouts.length < 2;
    this.plot = make("canvas", { className: "plot", role: "img" });
    const left = make("div", { className: "bar" }, this.playButton,
      button("Start", "Back to the start", () => this.seek(0)), button("−1", "One step back", () => this.nudge(-1)),
      button("+1", "One step on", () => this.nudge(1)), this.rateSelect, this.clock);
    this.incidentButton = button("Next incident", "Go to the next incident", () => this.toIncident());
    this.incidentButton.hidden = !this.incidentTimes().length;
    this.partButton = button("Where they part", "Go to where the rollouts begin to differ", () => this.seek(scene.data.parts));
    this.partButton.hidden = scene.data.parts === null;
    const right = make("div", { className: "bar" }, this.incidentButton, this.partButton, this.followButton,
      this.overlayButton, this.buildLayers(), button("−", "Zoom out", () => this.zoomBy(1 / 1.3)),
      button("+", "Zoom in", () => this.zoomBy(1.3)));
    this.root.classList.add("player");
    this.root.tabIndex = -1;
    this.root.replaceChildren(this.stage, make("div", { className: "bars" }, left, right), this.range,
      make("div", { className: "plot-head" }, this.plotSelect, this.buildLegend()), this.plot, this.buildFacts());
    this.setFollow(true);
    this.setOverlay(false);
  }

  buildPanel(run, index) {
    const canvas = make("canvas", { role: "img", ariaLabel: `Top-down view of rollout ${run.label}` });
    const key = (r, i) => make("span", { className: "name" }, make("i", { className: "dot run" + (i % 4) }),
      r.label || `rollout ${i + 1}`);
    const others = make("span", { className: "others" },
      ...this.scene.rollouts.flatMap((r, i) => (i === index ? [] : [key(r, i)])));
    const status = make("span", { className: "status" });
    const tip = make("div", { className: "tip", hidden: true });
    const figure = make("figure", {}, make("figcaption", {}, make("span", {}, key(run, index), others), status), canvas, tip);
    return { figure, canvas, status, others, tip, index, pointer: null, backdrop: new Backdrop() };
  }

  select(label, options, value, action) {
    const list = make("select", {}, ...options.map(([v, text]) => make("option", { value: v, textContent: text })));
    list.value = value;
    list.onchange = () => action(list.value);
    return make("label", { className: "field" }, label + " ", list);
  }

  buildLayers() {
    const boxes = layersOf(this.scene).map((name) => {
      const box = make("input", { type: "checkbox", checked: this.layers.has(name), onchange: () => {
        if (box.checked) this.layers.add(name);
        else this.layers.delete(name);
        this.draw();
      } });
      return make("label", {}, box, " " + name);
    });
    return make("details", { className: "layers" }, make("summary", { textContent: "Layers" }), make("div", {}, ...boxes));
  }

  /** When incidents happened, of all rollouts, in order. */
  incidentTimes() {
    const times = this.scene.rollouts.flatMap((run) => run.incidents.map((i) => i.step + 1));
    return [...new Set(times)].sort((a, b) => a - b);
  }

  /** To the next incident after now, or the first one again. */
  toIncident() {
    const times = this.incidentTimes();
    const next = times.find((t) => t > this.time + 1e-6) ?? times[0];
    if (next !== undefined) this.seek(next);
  }

  buildLegend() {
    const types = new Set(this.scene.data.agents.filter((_, a) => a !== this.scene.data.ego).map((a) => a.type));
    const items = [["log", "log of the ego"], ["route", "route"],
      ...[...types].sort().map((t) => [agentColor(t), TYPE_NAMES[t]])];
    return make("span", { className: "legend" }, ...items.map(([name, text]) =>
      make("span", {}, make("i", { className: "swatch " + name }), text)));
  }

  buildFacts() {
    const { data, rollouts } = this.scene;
    const names = [...new Set(rollouts.flatMap((run) => Object.keys(run.metrics)))];
    const show = (v) => (typeof v === "boolean" ? (v ? "yes" : "no") : typeof v === "number" ? formatNumber(v)
      : v === null || v === undefined ? "–" : typeof v === "string" ? v : JSON.stringify(v));
    const table = make("table", {}, make("tr", {}, make("th", { textContent: "" }),
      ...rollouts.map((run) => make("th", { textContent: run.label }))),
    ...names.map((name) => make("tr", {}, make("th", { textContent: name.replaceAll("_", " "), scope: "row" }),
      ...rollouts.map((run) => make("td", { textContent: show(run.metrics[name]) })))));
    const facts = [["scenario", data.id], ["kind", data.kind || "–"], ["dataset", data.dataset],
      ["license", data.license], ["start frame", String(data.start_frame)], ["notes", data.notes.join("; ")]];
    const list = make("dl", {}, ...facts.filter(([, v]) => v).flatMap(([k, v]) =>
      [make("dt", { textContent: k }), make("dd", { textContent: v })]));
    const keys = make("p", { className: "muted", textContent: "Keys: space play · ← → one step (shift: ten) · " +
      "+ − zoom · F follow · O overlay · N next incident · D where they part. Drag to pan, wheel to zoom, point to read." });
    return make("div", { className: "facts" }, list, names.length ? table : "", keys);
  }

  listen() {
    const { signal } = this.dispose;
    const redraw = () => this.draw();
    new ResizeObserver(redraw).observe(this.stage);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
      this.palette = readPalette();
      this.draw();
    }, { signal });
    this.root.addEventListener("keydown", (event) => this.onKey(event), { signal });
    for (const panel of this.panels) this.listenPanel(panel, signal);
    const scrub = (event) => {
      if (event.buttons & 1) this.seek(Math.round(timeAtPlot(this.scene, this.plot, event.offsetX)));
    };
    this.plot.addEventListener("pointerdown", scrub, { signal });
    this.plot.addEventListener("pointermove", scrub, { signal });
  }

  listenPanel(panel, signal) {
    const { canvas } = panel;
    canvas.addEventListener("wheel", (event) => {
      event.preventDefault();
      this.zoomBy(Math.exp(-event.deltaY * 0.0015));
    }, { signal, passive: false });
    canvas.addEventListener("pointerdown", (event) => canvas.setPointerCapture(event.pointerId), { signal });
    canvas.addEventListener("pointerleave", () => this.point(panel, null), { signal });
    canvas.addEventListener("pointermove", (event) => {
      this.point(panel, { x: event.offsetX, y: event.offsetY });
      if (!(event.buttons & 1)) return;
      this.setFollow(false);
      this.center.x -= event.movementX / this.zoom;
      this.center.y += event.movementY / this.zoom;
      this.draw();
    }, { signal });
    canvas.addEventListener("dblclick", () => {
      this.zoom = ZOOM.start;
      this.setFollow(true);
    }, { signal });
  }

  onKey(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const inField = ["INPUT", "SELECT"].includes(event.target.tagName);
    const onButton = event.target.tagName === "BUTTON";
    const steps = event.shiftKey ? 10 : 1;
    const actions = {
      " ": () => this.toggle(), ArrowLeft: () => this.nudge(-steps), ArrowRight: () => this.nudge(steps),
      Home: () => this.seek(0), End: () => this.seek(this.scene.data.steps), "+": () => this.zoomBy(1.3),
      "=": () => this.zoomBy(1.3), "-": () => this.zoomBy(1 / 1.3), f: () => this.setFollow(!this.follow),
      o: () => this.setOverlay(!this.overlay && this.panels.length > 1), n: () => this.toIncident(),
      d: () => { if (this.scene.data.parts !== null) this.seek(this.scene.data.parts); },
    };
    const action = actions[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    // Fields keep their own arrow keys, and a focused button its own space.
    const own = (inField && event.key !== " ") || (event.target.tagName === "SELECT") || (onButton && event.key === " ");
    if (!action || own) return;
    event.preventDefault();
    action();
  }

  toggle() {
    this.setPlaying(!this.playing);
  }

  setPlaying(on) {
    if (on && this.time >= this.scene.data.steps) this.time = 0;
    this.playing = on;
    this.playButton.textContent = this.playButton.title = on ? "Pause" : "Play";
    setAria(this.playButton, "ariaLabel", this.playButton.title);
    if (on) requestAnimationFrame((now) => this.advance(now, now));
  }

  advance(now, before) {
    if (!this.playing || !this.root.isConnected) return;
    this.time = Math.min(this.scene.data.steps, this.time + ((now - before) / 1000 / this.scene.data.dt) * this.rate);
    if (this.time >= this.scene.data.steps) this.setPlaying(false);
    this.draw();
    requestAnimationFrame((next) => this.advance(next, now));
  }

  seek(time) {
    this.setPlaying(false);
    this.time = Math.max(0, Math.min(this.scene.data.steps, time));
    this.draw();
  }

  nudge(steps) {
    this.seek(Math.round(this.time) + steps);
  }

  zoomBy(factor) {
    this.zoom = Math.max(ZOOM.min, Math.min(ZOOM.max, this.zoom * factor));
    this.draw();
  }

  setFollow(on) {
    if (this.follow && !on) this.jumpToEgo();
    this.follow = on;
    setAria(this.followButton, "ariaPressed", on);
    this.draw();
  }

  setOverlay(on) {
    this.overlay = on;
    setAria(this.overlayButton, "ariaPressed", on);
    const last = this.panels.length - 1;
    this.panels.forEach((panel, i) => {
      panel.figure.hidden = on && i !== last;
      panel.others.hidden = !on;
    });
    this.draw();
  }

  egoAt(index) {
    const run = this.scene.rollouts[index];
    return poseAt(run.tracks[this.scene.data.ego], Math.min(this.time, run.steps));
  }

  /** Show what is under the pointer of a panel, null for nowhere. */
  point(panel, pointer) {
    panel.pointer = pointer;
    this.tell(panel);
  }

  tell(panel) {
    const { scene, time } = this;
    const { canvas, tip, pointer } = panel;
    const run = scene.rollouts[panel.index];
    let found = -1;
    if (pointer && this.layers.has("agents")) {
      const at = this.viewOf(panel);
      const x = at.x + (pointer.x - canvas.clientWidth / 2) / this.zoom;
      const y = at.y - (pointer.y - canvas.clientHeight / 2) / this.zoom;
      found = agentAt(scene, run, time, x, y, 4 / this.zoom);
    }
    tip.hidden = found < 0;
    if (found < 0) return;
    tip.textContent = agentFacts(scene, run, found, time).join("\n");
    const right = pointer.x > canvas.clientWidth / 2;
    tip.style.left = right ? "" : `${pointer.x + 14}px`;
    tip.style.right = right ? `${canvas.clientWidth - pointer.x + 14}px` : "";
    tip.style.top = `${canvas.offsetTop + Math.min(pointer.y, canvas.clientHeight - 70)}px`;
  }

  viewOf(panel) {
    const pose = this.follow ? this.egoAt(panel.index) : null;
    const at = pose || this.center;
    return { x: at.x, y: at.y, scale: this.zoom };
  }

  jumpToEgo() {
    const pose = this.egoAt(this.scene.rollouts.length - 1);
    if (pose) this.center = { x: pose.x, y: pose.y };
  }

  draw() {
    const { scene, time } = this;
    for (const panel of this.panels) {
      if (panel.figure.hidden) continue;
      const others = this.overlay ? this.panels.map((p) => p.index).filter((i) => i !== panel.index) : [];
      drawScene(panel.canvas, scene, [panel.index, ...others], time, this.viewOf(panel), this.palette, this.layers,
        panel.backdrop);
      this.tell(panel);
      panel.status.textContent = [panel.index, ...others].map((i) => statusAt(scene.rollouts[i], time))
        .filter((text) => text).join(" · ");
    }
    drawPlot(this.plot, scene, this.quantity, time, this.palette);
    setAria(this.plot, "ariaLabel", `${this.quantity} over time`);
    const step = Math.floor(time + 1e-6);
    this.range.value = step;
    setAria(this.range, "ariaValueText", `step ${step} of ${scene.data.steps}`);
    this.clock.textContent = `${(time * scene.data.dt).toFixed(1)} s · step ${step}/${scene.data.steps}`;
  }

  /** Stop for good; the element may be emptied. */
  close() {
    this.playing = false;
    this.dispose.abort();
  }
}

/** What has happened to the ego by now, in words. */
function statusAt(run, time) {
  const past = run.incidents.filter((i) => time >= i.step + 1 - 1e-6).map((i) =>
    i.name + (i.kind === "collision" && !i.at_fault ? " (not at fault)" : ""));
  if (run.ended && time >= run.steps) past.push("ended");
  return past.join(" · ");
}

/** The first incident, or the end, as a still picture. */
function drawThumbnail(canvas, data, index) {
  const scene = decodeScene(data);
  const run = scene.rollouts[index];
  const pose = poseAt(run.tracks[data.ego], run.thumbnail) || { x: 0, y: 0 };
  drawScene(canvas, scene, [index], run.thumbnail, { x: pose.x, y: pose.y, scale: canvas.clientWidth / 60 }, readPalette());
}

const REPLAYS = JSON.parse(document.getElementById("replays").textContent);

for (const root of document.querySelectorAll("[data-player]")) {
  new Player(root, REPLAYS[Number(root.dataset.player)]);
}
