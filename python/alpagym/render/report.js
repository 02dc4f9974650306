// The run report: read-outs of the curves, thumbnails, and the dialog in which replays open.

function listenChart(svg) {
  const data = JSON.parse(svg.dataset.chart);
  const cursor = svg.querySelector(".cursor");
  const outputs = svg.closest("figure").querySelectorAll("output");
  const caption = svg.closest("figure").querySelector("figcaption");
  const title = caption.textContent;
  const leave = () => {
    cursor.setAttribute("visibility", "hidden");
    caption.textContent = title;
    outputs.forEach((output) => { output.textContent = output.dataset.last; });
  };
  svg.addEventListener("pointermove", (event) => {
    const box = svg.getBoundingClientRect();
    const f = ((event.clientX - box.left) / box.width - data.left) / (1 - data.left - data.right);
    const at = data.x0 + f * (data.x1 - data.x0);
    const nearest = data.series.map((s) => s.x.reduce((best, x, i) =>
      (Math.abs(x - at) < Math.abs(s.x[best] - at) ? i : best), 0));
    const step = data.series.map((s, i) => s.x[nearest[i]])
      .reduce((best, x) => (Math.abs(x - at) < Math.abs(best - at) ? x : best));
    const x = (data.left + ((step - data.x0) / (data.x1 - data.x0)) * (1 - data.left - data.right))
      * svg.viewBox.baseVal.width;
    cursor.setAttribute("x1", x);
    cursor.setAttribute("x2", x);
    cursor.setAttribute("visibility", "visible");
    caption.textContent = `${title} · ${data.label} ${step}`;
    outputs.forEach((output, i) => { output.textContent = formatNumber(data.series[i].y[nearest[i]]); });
  });
  svg.addEventListener("pointerleave", leave);
}

function listenCards() {
  const dialog = document.getElementById("viewer");
  const heading = dialog.querySelector("h2");
  let player = null;
  const open = (index) => {
    if (player) player.close();
    const root = make("section");
    heading.textContent = REPLAYS[index].id;
    dialog.querySelector(".body").replaceChildren(root);
    if (!dialog.open) dialog.showModal();
    player = new Player(root, REPLAYS[index]);
    root.focus({ preventScroll: true });
    history.replaceState(null, "", "#replay-" + index);
  };
  dialog.querySelector("[data-close]").addEventListener("click", () => dialog.close());
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog) dialog.close();
  });
  dialog.addEventListener("close", () => {
    if (player) player.close();
    player = null;
    history.replaceState(null, "", location.pathname + location.search);
  });
  for (const card of document.querySelectorAll("[data-replay]")) {
    card.addEventListener("click", () => open(Number(card.dataset.replay)));
  }
  const linked = /^#replay-(\d+)$/.exec(location.hash);
  if (linked && REPLAYS[Number(linked[1])]) open(Number(linked[1]));
}

function drawThumbnails() {
  for (const card of document.querySelectorAll("[data-replay]")) {
    drawThumbnail(card.querySelector("canvas"), REPLAYS[Number(card.dataset.replay)], Number(card.dataset.run));
  }
}

document.querySelectorAll("svg[data-chart]").forEach(listenChart);
drawThumbnails();
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawThumbnails);
listenCards();
