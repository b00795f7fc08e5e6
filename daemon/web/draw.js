// Drawing a frame and, over the part of it that the model sees, what the model looked at.

// Inferno of Matplotlib (van der Walt and Smith, CC0) at 17 even steps: its lightness grows evenly, so equal
// steps of relevance look equal, in greyscale and to colour-blind eyes too.
const inferno = [
  [0, 0, 4], [9, 6, 33], [27, 12, 66], [51, 10, 95], [75, 12, 107], [99, 20, 110], [121, 28, 109], [144, 37, 103],
  [166, 45, 96], [187, 55, 84], [207, 68, 70], [224, 83, 54], [237, 105, 37], [247, 131, 16], [252, 160, 8],
  [249, 201, 50], [252, 255, 164],
];

function colour(v) { // 0..1
  const at = Math.min(Math.max(v, 0), 1) * (inferno.length - 1);
  const i = Math.min(Math.floor(at), inferno.length - 2), f = at - i;
  return inferno[i].map((c, k) => c + (inferno[i + 1][k] - c) * f);
}

export function drawScale(canvas) {
  const pen = canvas.getContext("2d");
  for (let x = 0; x < canvas.width; x++) {
    pen.fillStyle = `rgb(${colour(x / (canvas.width - 1)).map(Math.round)})`;
    pen.fillRect(x, 0, 1, canvas.height);
  }
}

// frame is the answer of /view with its picture decoded; kind is "", "relevance" or "attention".
export function drawFrame(canvas, frame, kind, strength) {
  const { width, height, bitmap, overlay, second } = frame;
  if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
  const pen = canvas.getContext("2d");
  pen.drawImage(bitmap, 0, 0);
  const levels = overlay && kind && overlay[kind];
  if (levels) drawOverlay(pen, levels, overlay, width, height, strength);
  if (second) drawBox(pen, second, width);
}

function drawOverlay(pen, levels, overlay, width, height, strength) {
  const [left, top, right, bottom] = overlay.view;
  pen.fillStyle = `rgb(0 0 0 / ${0.6 * strength})`; // what the model does not see
  pen.beginPath();
  pen.rect(0, 0, width, height);
  pen.rect(left, top, right - left, bottom - top);
  pen.fill("evenodd");
  pen.imageSmoothingQuality = "high";
  pen.drawImage(colourMap(levels, overlay.rows, overlay.cols, strength), left, top, right - left, bottom - top);
}

// drawBox shows where the model looked a second time: a white line on a black one, to be seen on anything.
function drawBox(pen, [left, top, right, bottom], width) {
  const line = Math.max(1, Math.round(width / 320));
  for (const [colour, thick] of [["rgb(0 0 0 / 0.6)", 3 * line], ["white", line]]) {
    pen.strokeStyle = colour;
    pen.lineWidth = thick;
    pen.strokeRect(left, top, right - left, bottom - top);
  }
}

// colourMap enlarges the patch grid bilinearly, as the published map is, before the colours: values between
// two patches get the colour of that value. Little relevance is transparent, so that the picture shows.
function colourMap(levels, rows, cols, strength) {
  const by = 8, width = cols * by, height = rows * by;
  const image = new ImageData(width, height);
  for (let y = 0, p = 0; y < height; y++) {
    const gy = Math.max(0, (y + 0.5) / by - 0.5), y0 = Math.floor(gy), y1 = Math.min(y0 + 1, rows - 1), fy = gy - y0;
    for (let x = 0; x < width; x++, p += 4) {
      const gx = Math.max(0, (x + 0.5) / by - 0.5), x0 = Math.floor(gx), x1 = Math.min(x0 + 1, cols - 1), fx = gx - x0;
      const above = levels[y0 * cols + x0] * (1 - fx) + levels[y0 * cols + x1] * fx;
      const below = levels[y1 * cols + x0] * (1 - fx) + levels[y1 * cols + x1] * fx;
      const v = (above * (1 - fy) + below * fy) / 255;
      const c = colour(v);
      image.data[p] = c[0]; image.data[p + 1] = c[1]; image.data[p + 2] = c[2];
      image.data[p + 3] = 255 * strength * (0.45 + 0.55 * v);
    }
  }
  const canvas = new OffscreenCanvas(width, height);
  canvas.getContext("2d").putImageData(image, 0, 0);
  return canvas;
}
