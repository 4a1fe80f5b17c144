// A JPEG with a text for those who do not see it. A click on it says where, in fractions of width and height.

// JupyterLab reads single keys as commands ("x" cuts the cell, arrows leave it) unless the element that has the focus says otherwise.
function keepKeys(el, tries = 100) {
  const root = el.closest(".qpm-explorer");
  if (!root && tries) setTimeout(() => keepKeys(el, tries - 1), 50);
  if (!root || root.dataset.keys) return;
  root.dataset.keys = "kept";
  root.addEventListener("focusin", (event) => (event.target.dataset.lmSuppressShortcuts = "true"));
}

export default {
  render({ model, el }) {
    const image = document.createElement("img");
    let address = null;
    const show = () => {
      const bytes = model.get("value");
      const old = address;
      address = bytes.byteLength ? URL.createObjectURL(new Blob([bytes], { type: "image/jpeg" })) : null;
      if (address) image.src = address;
      if (old) URL.revokeObjectURL(old);
    };
    const describe = () => {
      image.alt = image.title = model.get("text");
    };
    const side = model.get("side");
    if (side) image.width = image.height = side;
    else image.style.maxWidth = "100%";
    image.draggable = false;
    image.style.display = "block";
    if (model.get("clickable")) {
      image.style.cursor = "crosshair";
      image.addEventListener("click", (event) => {
        const box = image.getBoundingClientRect();
        model.send({ x: (event.clientX - box.left) / box.width, y: (event.clientY - box.top) / box.height });
      });
    }
    model.on("change:value", show);
    model.on("change:text", describe);
    show();
    describe();
    el.append(image);
    keepKeys(el);
    return () => {
      model.off("change:value", show);
      model.off("change:text", describe);
      if (address) URL.revokeObjectURL(address);
    };
  },
};
