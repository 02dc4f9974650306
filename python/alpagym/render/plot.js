// A small plot of one quantity of each rollout over time, with the cursor and the incidents.

const PLOT = { left: 46, right: 10, top: 18, bottom: 18 };

/** About `count` round values within [low, high]. */
function niceTicks(low, high, count) {
  const raw = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 2.5, 5, 10].map((m) => m * power).find((s) => s >= raw);
  const ticks = [];
  for (let v = Math.ceil(low / step) * step; v <= high + step * 1e-9; v += step) ticks.push(v);
  return ticks;
}

function formatNumber(value) {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-3 || size >= 1e5)) return value.toExponential(1);
  return String(Number(value.toPrecision(3)));
}

/** Values of a quantity of one rollout by step. */
function quantity(run, name) {
  return name === "speed" ? run.speed : run.rewards[name.slice("reward ".length)] || [];
}

function quantityNames(scene) {
  const terms = new Set(scene.rollouts.flatMap((run) => Object.keys(run.rewards)));
  return ["speed", ...[...terms].map((term) => "reward " + term)];
}

/** Time in steps at a horizontal position of the plot. */
function timeAtPlot(scene, canvas, offsetX) {
  const inner = canvas.clientWidth - PLOT.left - PLOT.right;
  return Math.max(0, Math.min(1, (offsetX - PLOT.left) / inner)) * scene.data.steps;
}

function drawPlot(canvas, scene, name, time, palette) {
  const { width, height, ratio } = fitCanvas(canvas);
  const ctx = canvas.getContext("2d");
  ctx.setTransform(ratio, 0, 0, ratio, 0, 0);
  ctx.clearRect(0, 0, width, height);
  ctx.font = "11px system-ui, sans-serif";
  const series = scene.rollouts.map((run) => quantity(run, name));
  const values = series.flat().filter((v) => v !== null);
  let low = Math.min(0, ...values);
  let high = Math.max(0, ...values);
  if (high - low < 1e-9) high = low + 1;
  const toX = (t) => PLOT.left + (t / scene.data.steps) * (width - PLOT.left - PLOT.right);
  const toY = (v) => height - PLOT.bottom - ((v - low) / (high - low)) * (height - PLOT.top - PLOT.bottom);

  ctx.textBaseline = "middle";
  ctx.textAlign = "right";
  for (const tick of niceTicks(low, high, 3)) {
    ctx.fillStyle = palette.muted;
    ctx.fillText(formatNumber(tick), PLOT.left - 6, toY(tick));
    ctx.fillStyle = palette.lane;
    ctx.fillRect(PLOT.left, Math.round(toY(tick)), width - PLOT.left - PLOT.right, 0.5);
  }
  ctx.fillStyle = palette.muted;
  ctx.textAlign = "center";
  const seconds = scene.data.steps * scene.data.dt;
  for (const tick of niceTicks(0, seconds, 8)) {
    ctx.fillText(formatNumber(tick) + " s", toX(tick / scene.data.dt), height - 7);
  }
  series.forEach((list, index) => drawSeries(ctx, list, toX, toY, runColor(palette, index)));
  scene.rollouts.forEach((run) => {
    for (const i of run.incidents) drawMark(ctx, i.kind, toX(i.step + 1), PLOT.top - 9, 6, palette, -1);
  });
  if (scene.data.parts !== null) {
    ctx.fillStyle = palette.muted;
    ctx.fillRect(Math.round(toX(scene.data.parts)) - 0.5, PLOT.top, 1, height - PLOT.top - PLOT.bottom);
    ctx.textAlign = "left";
    ctx.fillText("they part", toX(scene.data.parts) + 4, PLOT.top + 4);
  }
  ctx.fillStyle = palette.ink;
  ctx.fillRect(Math.round(toX(time)) - 0.5, PLOT.top - 4, 1, height - PLOT.top - PLOT.bottom + 4);
}

function drawSeries(ctx, list, toX, toY, color) {
  ctx.beginPath();
  let down = false;
  list.forEach((value, t) => {
    if (value === null) {
      down = false;
      return;
    }
    if (down) ctx.lineTo(toX(t + 0.5), toY(value));
    else ctx.moveTo(toX(t + 0.5), toY(value));
    down = true;
  });
  ctx.strokeStyle = color;
  ctx.lineWidth = 1.75;
  ctx.lineJoin = "round";
  ctx.stroke();
}
