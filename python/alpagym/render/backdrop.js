// What does not move, drawn once and shifted while the camera stays near.

/** How much wider and higher the kept picture is than the canvas. */
const BACKDROP_MARGIN = 1.5;

class Backdrop {
  constructor() {
    this.canvas = document.createElement("canvas");
    this.key = "";
    this.at = { x: 0, y: 0 };
  }

  /** Put the roads of a scene under what is drawn next. */
  put(ctx, size, scene, view, palette, layers) {
    const k = view.scale * size.ratio;
    const width = Math.ceil(size.width * size.ratio * BACKDROP_MARGIN);
    const height = Math.ceil(size.height * size.ratio * BACKDROP_MARGIN);
    const key = [k, width, height, palette.ground, ...layers].join();
    const room = (BACKDROP_MARGIN - 1) / 2 / BACKDROP_MARGIN;
    const inside = Math.abs(view.x - this.at.x) * k < room * width && Math.abs(view.y - this.at.y) * k < room * height;
    if (key !== this.key || !inside) this.render(key, width, height, k, scene, view, palette, layers);
    const x = (this.at.x - view.x) * k + (size.width * size.ratio - width) / 2;
    const y = (view.y - this.at.y) * k + (size.height * size.ratio - height) / 2;
    ctx.setTransform(1, 0, 0, 1, 0, 0);
    ctx.drawImage(this.canvas, Math.round(x), Math.round(y));
  }

  render(key, width, height, k, scene, view, palette, layers) {
    this.key = key;
    this.at = { x: view.x, y: view.y };
    this.canvas.width = width;
    this.canvas.height = height;
    const ctx = this.canvas.getContext("2d", { alpha: false });
    ctx.fillStyle = palette.ground;
    ctx.fillRect(0, 0, width, height);
    ctx.setTransform(k, 0, 0, -k, width / 2 - view.x * k, height / 2 + view.y * k);
    const px = 1 / view.scale;
    drawMap(ctx, scene, palette, px, layers);
    if (layers.has("route")) stroke(ctx, scene.route, palette.route, Math.max(1.2, 3 * px));
    if (layers.has("log")) stroke(ctx, scene.logPath, palette.log, 1.5 * px, [4 * px, 4 * px]);
  }
}
