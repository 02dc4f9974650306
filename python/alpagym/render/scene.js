// A scene: the decoded data of one replay, and how one moment of it is drawn on a canvas.
// World frame: x east, y north, meters. State t is what holds before step t.

const TYPE_NAMES = ["unknown", "vehicle", "pedestrian", "cyclist", "other"];
const MAP = { LANE: 0, LINE: 1, EDGE: 2, CROSSWALK: 3, STOP: 4, BUMP: 5, DRIVEWAY: 6 };
const LIGHT = { RED: 2, YELLOW: 3, GREEN: 4, FLASHING_RED: 5, FLASHING_YELLOW: 6 };
const LANE_WIDTH = 3.7;

/** Running sums of a list of differences, scaled. */
function undelta(list, scale) {
  const out = new Float64Array(list.length);
  let sum = 0;
  for (let i = 0; i < list.length; i++) {
    sum += list[i];
    out[i] = sum / scale;
  }
  return out;
}

function decodeTrack(track) {
  const valid = new Uint8Array(track.x.length);
  for (let i = 0; i < track.valid.length; i += 2) valid.fill(1, track.valid[i], track.valid[i + 1]);
  return { x: undelta(track.x, 100), y: undelta(track.y, 100), yaw: undelta(track.yaw, 1000), valid };
}

/** Path2D of a polyline x0, y0, dx1, dy1, ... in centimeters, added to `path`. */
function addPolyline(path, list) {
  let x = 0;
  let y = 0;
  for (let i = 0; i < list.length; i += 2) {
    x += list[i];
    y += list[i + 1];
    if (i === 0) path.moveTo(x / 100, y / 100);
    else path.lineTo(x / 100, y / 100);
  }
}

function decodeScene(data) {
  const paths = Object.values(MAP).map(() => new Path2D());
  const stops = [];
  for (const element of data.map) {
    if (element.type === MAP.STOP) stops.push([element.xy[0] / 100, element.xy[1] / 100]);
    else addPolyline(paths[element.type], element.xy);
  }
  const route = new Path2D();
  for (const piece of data.route) addPolyline(route, piece);
  const rollouts = data.rollouts.map((r) => ({ ...r, tracks: r.tracks.map(decodeTrack) }));
  const lights = data.lights.map((l) => ({ x: l.xy[0] / 100, y: l.xy[1] / 100, state: l.state }));
  const log = decodeTrack(data.log);
  return { data, paths, stops, route, rollouts, lights, log, logPath: trackPath(log, 0, Infinity) };
}

/** Pose at a time in steps, interpolated between two states that are both valid; else null. */
function poseAt(track, time) {
  const t = Math.max(0, Math.min(Math.floor(time), track.x.length - 1));
  if (!track.valid[t]) return null;
  const next = t + 1 < track.x.length && track.valid[t + 1] ? t + 1 : t;
  const f = Math.max(0, Math.min(1, time - t));
  const mix = (a) => a[t] + (a[next] - a[t]) * f;
  return { x: mix(track.x), y: mix(track.y), yaw: mix(track.yaw) };
}

/** Colors by name from the style sheet, so that light and dark are decided in one place. */
function readPalette() {
  const style = getComputedStyle(document.documentElement);
  const names = ["ground", "asphalt", "lane", "line", "edge", "crosswalk", "vehicle", "pedestrian", "cyclist",
    "other", "ink", "muted", "route", "log", "red", "yellow", "green", "warn", "run0", "run1", "run2", "run3"];
  return Object.fromEntries(names.map((name) => [name, style.getPropertyValue("--" + name).trim()]));
}

const runColor = (palette, index) => palette["run" + (index % 4)];

/** Size a canvas to its box in device pixels; returns its size in CSS pixels. */
function fitCanvas(canvas) {
  const ratio = window.devicePixelRatio || 1;
  const width = Math.max(1, canvas.clientWidth);
  const height = Math.max(1, canvas.clientHeight);
  if (canvas.width !== Math.round(width * ratio)) canvas.width = Math.round(width * ratio);
  if (canvas.height !== Math.round(height * ratio)) canvas.height = Math.round(height * ratio);
  return { width, height, ratio };
}

/** What can be shown or hidden, and whether it is shown at first. */
const LAYERS = {
  "lanes": true, "lines": true, "crosswalks": true, "lights and signs": true, "route": true, "log": true,
  "agents": true, "trail": true, "plan": true, "trails of others": false, "incidents": true, "ids": false,
};
/** Names of the layers that a scene has anything of. */
function layersOf(scene) {
  const plans = scene.rollouts.some((run) => run.plans);
  return Object.keys(LAYERS).filter((name) => name !== "plan" || plans);
}
const FIRST_LAYERS = new Set(Object.keys(LAYERS).filter((name) => LAYERS[name]));

/**
 * Draw one moment.
 * `runs`: indices of rollouts; the first one is drawn whole, of the others only the ego.
 * `view`: { x, y, scale }, the world point in the middle and pixels per meter.
 * `layers`: names of what is shown.
 * `backdrop`: keeps the roads for the next moment.
 */
function drawScene(canvas, scene, runs, time, view, palette, layers = FIRST_LAYERS, backdrop = new Backdrop()) {
  const size = fitCanvas(canvas);
  const { width, height, ratio } = size;
  const ctx = canvas.getContext("2d", { alpha: false });
  const k = view.scale * ratio;
  backdrop.put(ctx, size, scene, view, palette, layers);
  ctx.setTransform(k, 0, 0, -k, (width / 2) * ratio - view.x * k, (height / 2) * ratio + view.y * k);
  const px = 1 / view.scale;

  const ego = scene.data.ego;
  const first = scene.rollouts[runs[0]];
  const shown = (run) => Math.min(time, run.steps);
  const others = layers.has("agents") ? scene.data.agents.map((_, a) => a).filter((a) => a !== ego) : [];
  if (layers.has("trails of others")) {
    for (const a of others) {
      const color = palette[agentColor(scene.data.agents[a].type)];
      stroke(ctx, trackPath(first.tracks[a], 0, shown(first)), color, px);
    }
  }
  for (const a of others) {
    const agent = scene.data.agents[a];
    const pose = poseAt(first.tracks[a], shown(first));
    if (pose) drawBox(ctx, pose, agent, palette[agentColor(agent.type)], palette, px);
  }
  const ghost = layers.has("log") ? poseAt(scene.log, time) : null;
  if (ghost) drawOutline(ctx, ghost, scene.data.agents[ego], palette.log, px);
  for (const index of [...runs].reverse()) {
    const run = scene.rollouts[index];
    const track = run.tracks[ego];
    const color = runColor(palette, index);
    if (layers.has("trail")) stroke(ctx, trackPath(track, 0, shown(run)), color, 2 * px);
    const plan = layers.has("plan") && run.plans ? run.plans[Math.min(Math.floor(time), run.steps - 1)] : [];
    if (plan.length) drawPlan(ctx, plan, color, px);
    const pose = poseAt(track, shown(run));
    if (pose) drawBox(ctx, pose, scene.data.agents[ego], color, palette, px);
  }
  if (layers.has("lights and signs")) {
    drawLights(ctx, scene, Math.min(Math.floor(time), scene.data.steps), palette, px);
  }
  if (layers.has("incidents")) {
    for (const index of runs) drawIncidents(ctx, scene, scene.rollouts[index], time, palette, px);
  }
  if (layers.has("ids")) drawIds(ctx, scene, first, shown(first), palette, px);
}

const agentColor = (type) => ["other", "vehicle", "pedestrian", "cyclist", "other"][type];

function stroke(ctx, path, color, width, dash = []) {
  ctx.strokeStyle = color;
  ctx.lineWidth = width;
  ctx.lineCap = "round";
  ctx.lineJoin = "round";
  ctx.setLineDash(dash);
  ctx.stroke(path);
  ctx.setLineDash([]);
}

function drawMap(ctx, scene, palette, px, layers) {
  const { paths } = scene;
  if (layers.has("lanes")) stroke(ctx, paths[MAP.LANE], palette.asphalt, LANE_WIDTH);
  if (layers.has("crosswalks")) {
    ctx.fillStyle = palette.crosswalk;
    ctx.fill(paths[MAP.CROSSWALK]);
    stroke(ctx, paths[MAP.CROSSWALK], palette.line, px);
  }
  if (layers.has("lines")) {
    stroke(ctx, paths[MAP.BUMP], palette.line, px, [2 * px, 2 * px]);
    stroke(ctx, paths[MAP.DRIVEWAY], palette.line, px);
  }
  if (layers.has("lanes")) {
    ctx.globalAlpha = 0.55;
    stroke(ctx, paths[MAP.LANE], palette.lane, px);
    ctx.globalAlpha = 1;
  }
  if (layers.has("lines")) {
    stroke(ctx, paths[MAP.LINE], palette.line, Math.max(0.15, 1.2 * px));
    stroke(ctx, paths[MAP.EDGE], palette.edge, Math.max(0.25, 1.8 * px));
  }
  for (const [x, y] of layers.has("lights and signs") ? scene.stops : []) {
    polygon(ctx, x, y, 5 * px, 8, Math.PI / 8);
    fillAndOutline(ctx, palette.red, palette.ground, px);
  }
}

function trackPath(track, from, to) {
  const path = new Path2D();
  const end = Math.min(track.x.length - 1, Math.floor(to));
  let down = false;
  for (let t = from; t <= end; t++) {
    if (track.valid[t] && down) path.lineTo(track.x[t], track.y[t]);
    else if (track.valid[t]) path.moveTo(track.x[t], track.y[t]);
    down = Boolean(track.valid[t]);
  }
  const now = down && to < track.x.length - 1 ? poseAt(track, to) : null;
  if (now) path.lineTo(now.x, now.y);
  return path;
}

/** Where the ego means to go: a wide, pale line with dots, so that it differs from where it went. */
function drawPlan(ctx, plan, color, px) {
  const path = new Path2D();
  addPolyline(path, plan);
  ctx.globalAlpha = 0.45;
  stroke(ctx, path, color, Math.max(0.9, 4 * px));
  ctx.globalAlpha = 1;
  stroke(ctx, path, color, 1.5 * px, [0.1 * px, 5 * px]);
}

function inFrameOf(ctx, pose, draw) {
  ctx.save();
  ctx.translate(pose.x, pose.y);
  ctx.rotate(pose.yaw);
  draw();
  ctx.restore();
}

/** A box with a notch that points along the heading; a pedestrian is a disc with a nose. */
function drawBox(ctx, pose, agent, color, palette, px) {
  if (TYPE_NAMES[agent.type] === "pedestrian") {
    const r = Math.max(agent.width / 2, 4.5 * px);
    inFrameOf(ctx, pose, () => {
      ctx.beginPath();
      ctx.arc(0, 0, r, 0.5, 2 * Math.PI - 0.5);
      ctx.lineTo(r * 1.6, 0);
      ctx.closePath();
      fillAndOutline(ctx, color, palette.ground, px);
    });
    return;
  }
  const length = Math.max(agent.length, 12 * px);
  const width = Math.max(agent.width, 5.5 * px);
  inFrameOf(ctx, pose, () => {
    ctx.beginPath();
    ctx.roundRect(-length / 2, -width / 2, length, width, Math.min(width, length) * 0.18);
    fillAndOutline(ctx, color, palette.ground, px);
    ctx.beginPath();
    ctx.moveTo(length * 0.44, 0);
    ctx.lineTo(length * 0.44 - width * 0.45, width * 0.34);
    ctx.lineTo(length * 0.44 - width * 0.45, -width * 0.34);
    ctx.closePath();
    ctx.fillStyle = palette.ground;
    ctx.fill();
  });
}

function drawOutline(ctx, pose, agent, color, px) {
  inFrameOf(ctx, pose, () => {
    ctx.strokeStyle = color;
    ctx.lineWidth = 1.5 * px;
    ctx.setLineDash([3 * px, 2 * px]);
    ctx.strokeRect(-agent.length / 2, -agent.width / 2, agent.length, agent.width);
    ctx.setLineDash([]);
  });
}

function polygon(ctx, x, y, radius, sides, turn) {
  ctx.beginPath();
  for (let i = 0; i < sides; i++) {
    const angle = turn + (2 * Math.PI * i) / sides;
    ctx.lineTo(x + radius * Math.cos(angle), y + radius * Math.sin(angle));
  }
  ctx.closePath();
}

function fillAndOutline(ctx, fill, outline, width) {
  ctx.fillStyle = fill;
  ctx.fill();
  ctx.strokeStyle = outline;
  ctx.lineWidth = width;
  ctx.stroke();
}

/** Names of agents beside them, upright. */
function drawIds(ctx, scene, run, time, palette, px) {
  ctx.fillStyle = palette.ink;
  scene.data.agents.forEach((agent, a) => {
    const pose = poseAt(run.tracks[a], time);
    if (!pose) return;
    ctx.save();
    ctx.translate(pose.x, pose.y);
    ctx.scale(px, -px);
    ctx.font = "11px system-ui, sans-serif";
    ctx.fillText(agent.id, 8, -8);
    ctx.restore();
  });
}

/** The agent under a place in the world, of those that are drawn whole; -1 for none. */
function agentAt(scene, run, time, x, y, margin) {
  let found = -1;
  let nearest = Infinity;
  scene.data.agents.forEach((agent, a) => {
    const pose = poseAt(run.tracks[a], Math.min(time, run.steps));
    if (!pose) return;
    const [dx, dy] = [x - pose.x, y - pose.y];
    const ahead = Math.abs(dx * Math.cos(pose.yaw) + dy * Math.sin(pose.yaw));
    const beside = Math.abs(dy * Math.cos(pose.yaw) - dx * Math.sin(pose.yaw));
    const distance = Math.hypot(dx, dy);
    if (ahead <= agent.length / 2 + margin && beside <= agent.width / 2 + margin && distance < nearest) {
      [found, nearest] = [a, distance];
    }
  });
  return found;
}

/** What there is to read about an agent, as lines of text. */
function agentFacts(scene, run, a, time) {
  const agent = scene.data.agents[a];
  const track = run.tracks[a];
  const now = Math.min(time, run.steps);
  const pose = poseAt(track, now);
  const t = Math.min(Math.floor(now), track.x.length - 2);
  const moving = t >= 0 && track.valid[t] && track.valid[t + 1];
  const speed = moving ? Math.hypot(track.x[t + 1] - track.x[t], track.y[t + 1] - track.y[t]) / scene.data.dt : null;
  const degrees = ((((pose.yaw * 180) / Math.PI) % 360) + 360) % 360;
  return [
    `${a === scene.data.ego ? "ego, " : ""}${TYPE_NAMES[agent.type]} ${agent.id}`,
    `${speed === null ? "–" : speed.toFixed(1)} m/s, heading ${degrees.toFixed(0)}°`,
    `${agent.length.toFixed(1)} × ${agent.width.toFixed(1)} m at (${pose.x.toFixed(1)}, ${pose.y.toFixed(1)}) m`,
  ];
}

/** State by color and by shape: red square, yellow triangle, green disc, unknown small ring. */
function drawLights(ctx, scene, t, palette, px) {
  for (const light of scene.lights) {
    const state = Number(light.state[t]);
    if (!state) continue;
    const red = state === LIGHT.RED || state === LIGHT.FLASHING_RED;
    const yellow = state === LIGHT.YELLOW || state === LIGHT.FLASHING_YELLOW;
    const size = Math.max(0.8, 5 * px);
    if (red) polygon(ctx, light.x, light.y, size * 1.15, 4, Math.PI / 4);
    else if (yellow) polygon(ctx, light.x, light.y, size * 1.3, 3, Math.PI / 2);
    else polygon(ctx, light.x, light.y, state === LIGHT.GREEN ? size : size * 0.6, 24, 0);
    const color = red ? palette.red : yellow ? palette.yellow : state === LIGHT.GREEN ? palette.green : palette.ground;
    fillAndOutline(ctx, color, palette.ink, 1.2 * px);
  }
}

/** A mark where the ego was when something went wrong: a cross, or a triangle for offroad. */
function drawIncidents(ctx, scene, run, time, palette, px) {
  for (const incident of run.incidents) {
    if (time < incident.step + 1 - 1e-6) continue;
    const pose = poseAt(run.tracks[scene.data.ego], incident.step + 1);
    const radius = Math.min(8, Math.max(4.5, 1.4 / px));
    if (pose) drawMark(ctx, incident.kind, pose.x, pose.y, radius * px, palette, 1);
  }
}

/** `up` is 1 where y grows upwards and -1 on a page. */
function drawMark(ctx, kind, x, y, r, palette, up) {
  if (kind === "offroad") polygon(ctx, x, y, r * 1.15, 3, (up * Math.PI) / 2);
  else polygon(ctx, x, y, r, 32, 0);
  fillAndOutline(ctx, palette.warn, palette.ink, r * 0.18);
  ctx.beginPath();
  const a = r * 0.38;
  if (kind === "offroad") {
    ctx.moveTo(x, y + up * r * 0.55);
    ctx.lineTo(x, y - up * r * 0.25);
  } else {
    ctx.moveTo(x - a, y - a);
    ctx.lineTo(x + a, y + a);
    ctx.moveTo(x - a, y + a);
    ctx.lineTo(x + a, y - a);
  }
  ctx.strokeStyle = palette.ink;
  ctx.lineWidth = r * 0.24;
  ctx.stroke();
}
