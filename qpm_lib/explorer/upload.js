// A button to choose a picture file. What is too large for Jupyter's connection (10 MB a message) or to be decoded again is made smaller here.
const BYTES = 8e6;
const SIDE = 2048;

async function prepared(file, maxPixels) {
  let bitmap = null;
  try {
    bitmap = await createImageBitmap(file);
  } catch {
    // a format that this browser does not read: Python may, and says so where it cannot
  }
  const many = bitmap && bitmap.width * bitmap.height > maxPixels;
  if (file.size <= BYTES && !many) return { bytes: await file.arrayBuffer(), note: "" };
  const megabytes = `${Math.ceil(file.size / 1e6)} MB`;
  if (!bitmap) throw new Error(`${file.name} has ${megabytes}, and this browser cannot read it as a picture; at most ${BYTES / 1e6} MB of any other file are taken: save it as JPEG or PNG.`);
  const scale = SIDE / Math.max(bitmap.width, bitmap.height);
  const [width, height] = [bitmap.width, bitmap.height].map((side) => Math.max(1, Math.round(side * Math.min(1, scale))));
  const canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.fillStyle = "#fff"; // JPEG has no transparency; the library puts it on white, too
  context.fillRect(0, 0, width, height);
  context.drawImage(bitmap, 0, 0, width, height);
  const blob = await canvas.convertToBlob({ type: "image/jpeg", quality: 0.95 });
  const done = scale < 1 ? `was made smaller before it was sent: ${width} x ${height} pixels` : "was sent as JPEG";
  const note = `${file.name} (${bitmap.width} x ${bitmap.height} pixels, ${megabytes}) ${done}.`;
  return { bytes: await blob.arrayBuffer(), note };
}

export default {
  render({ model, el }) {
    const button = document.createElement("button");
    button.className = "jupyter-button widget-button";
    button.textContent = model.get("description");
    Object.assign(button.style, { width: "auto", margin: "2px" });
    const input = document.createElement("input");
    input.type = "file";
    input.accept = "image/*";
    input.hidden = true;
    button.addEventListener("click", () => input.click());
    input.addEventListener("change", async () => {
      const file = input.files[0];
      if (!file) return;
      button.disabled = true;
      try {
        const { bytes, note } = await prepared(file, model.get("max_pixels"));
        model.send({ name: file.name, note, problem: "" }, undefined, [bytes]);
      } catch (error) {
        model.send({ name: file.name, note: "", problem: error.message });
      } finally {
        input.value = "";
        button.disabled = false;
      }
    });
    el.append(button, input);
  },
};
