// The explorer of the report: everything it needs is in the page and in pictures/; no server, no library, no network.
(() => {
  "use strict";
  const data = JSON.parse(document.getElementById("data").textContent);
  const at = (id) => document.getElementById(id);
  const side = 224, grid = data.grid;
  let found = [], here = 0, target = 0, heats = {}, patch = null;

  const text = (tag, words, attributes = {}) => {
    const made = document.createElement(tag);
    made.textContent = words;
    Object.entries(attributes).forEach(([key, value]) => made.setAttribute(key, value));
    return made;
  };
  const fill = (list, items) => list.replaceChildren(...(items.length ? items : [text("li", "none")]));
  const picture = () => data.pictures[found[here]];
  const weights = (c) => new Map(data.weight[c]);
  const score = (p, c) => data.weight[c].reduce((sum, [f, w]) => sum + w * p.values[f], data.constants[c]);
  const signed = (v) => (v < 0 ? "−" : "+") + Math.abs(v).toFixed(2);
  const pageOf = (f) => `feature_${String(f).padStart(2, "0")}.html`;
  const title = (f) => text("a", data.features[f], { href: pageOf(f) });

  // Maps: a picture's are decoded when it is shown, and resized (bilinear) when a class asks for them.
  const bytes = (p) => (p.bytes ??= Uint8Array.from(atob(p.maps), (c) => c.charCodeAt(0)));
  const cell = (p, f, y, x) => (bytes(p)[(f * grid + y) * grid + x] * p.peaks[f]) / 255;
  const enlarged = (at) => {
    const out = new Float32Array(side * side), scale = grid / side;
    for (let y = 0; y < side; y++) {
      const v = Math.min(Math.max((y + 0.5) * scale - 0.5, 0), grid - 1), y0 = Math.floor(v), y1 = Math.min(y0 + 1, grid - 1), b = v - y0;
      for (let x = 0; x < side; x++) {
        const u = Math.min(Math.max((x + 0.5) * scale - 0.5, 0), grid - 1), x0 = Math.floor(u), x1 = Math.min(x0 + 1, grid - 1), a = u - x0;
        out[y * side + x] =
          (1 - b) * ((1 - a) * at(y0, x0) + a * at(y0, x1)) + b * ((1 - a) * at(y1, x0) + a * at(y1, x1));
      }
    }
    return out;
  };
  const heat = (p, f) => (heats[f] ??= enlarged((y, x) => cell(p, f, y, x)));
  // Maps of other methods are those of the predicted class, in parts of 127; evidence against it is below zero.
  const method = () => Number(at("method").value);
  const other = (p, m) => {
    const decoded = () => {
      const values = Int8Array.from(atob(p.others[m]), (c) => c.charCodeAt(0));
      return enlarged((y, x) => values[y * grid + x] / 127);
    };
    return (heats[`method ${m}`] ??= decoded());
  };
  // Clusters of the encoder: a label for each patch among the finest ones, which share a colour where they are merged.
  const CLUSTERS = -2;
  const leaf = (p) => (p.leaves ??= Uint8Array.from(atob(p.clusters), (c) => c.charCodeAt(0)));
  const rgb = (colour) => [1, 3, 5].map((i) => parseInt(colour.slice(i, i + 2), 16));
  const ink = (f) => rgb(data.colours[f]);

  const used = () => {
    const p = picture();
    return [...data.weight[target]].sort((a, b) => b[1] * p.values[b[0]] - a[1] * p.values[a[0]]);
  };
  const on = () => [...at("bars").querySelectorAll("input:checked")].map((box) => Number(box.value));

  const group = (p, context, opacity) => {
    const k = Number(at("granularity").value), n = data.clusters.grid, labels = leaf(p);
    const of = data.clusters.colours[k - 2], inks = of.map(rgb), pixels = context.createImageData(side, side);
    for (let y = 0; y < side; y++) {
      for (let x = 0; x < side; x++) {
        pixels.data.set(inks[labels[Math.floor((y * n) / side) * n + Math.floor((x * n) / side)]], 4 * (y * side + x));
        pixels.data[4 * (y * side + x) + 3] = 255 * 0.7 * opacity;
      }
    }
    context.putImageData(pixels, 0, 0);
    at("frame").classList.toggle("pale", opacity > 0);
    at("granularity_value").textContent = k;
    const here = new Set([...labels].map((l) => of[l])).size;
    at("shown").textContent = `${here} of ${k} clusters of the encoder are in this picture; a colour means the same in all pictures. No class is involved.`;
  };

  const blend = () => {
    const p = picture(), shown = on(), canvas = at("heat"), context = canvas.getContext("2d");
    const opacity = Number(at("opacity").value), threshold = Number(at("threshold").value);
    const chosen = method(), elsewhere = chosen >= 0, grouped = chosen === CLUSTERS;
    at("granular").hidden = !grouped;
    at("bars").querySelectorAll("input").forEach((box) => (box.disabled = elsewhere || grouped));
    ["opacity", "threshold"].forEach((id) => (at(`${id}_value`).textContent = Number(at(id).value).toFixed(2)));
    if (grouped) { group(p, context, opacity); return; }
    const top = elsewhere ? 1 : Math.max(...data.weight[target].map(([f]) => p.peaks[f]), 1e-12);
    const pixels = context.createImageData(side, side), signs = data.signs.map(rgb);
    const maps = elsewhere ? [other(p, chosen)] : shown.map((f) => heat(p, f)), inks = shown.map(ink);
    for (let i = 0; i < side * side; i++) {
      let best = 0, winner = -1;
      for (let m = 0; m < maps.length; m++) {
        const value = elsewhere ? Math.abs(maps[m][i]) : maps[m][i];
        if (value > best) { best = value; winner = m; }
      }
      const strength = best / top;
      if (winner < 0 || strength < threshold) continue;
      pixels.data.set(elsewhere ? signs[maps[0][i] < 0 ? 1 : 0] : inks[winner], 4 * i);
      pixels.data[4 * i + 3] = 255 * opacity * Math.pow(strength, 0.7);
    }
    context.putImageData(pixels, 0, 0);
    at("frame").classList.toggle("pale", (elsewhere || shown.length > 0) && opacity > 0);
    const sides = elsewhere && data.methods[chosen].signed ? " Orange speaks for it, blue against it." : "";
    at("shown").textContent = elsewhere
      ? `Map of ${data.methods[chosen].title} for the predicted class, ${data.classes[p.predicted]}.${sides}`
      : `Features shown: ${shown.map((f) => data.features[f]).join(", ") || "none"}.`;
  };

  const compare = () => {
    const p = picture(), other = Number(at("other").value), mine = weights(target), theirs = weights(other);
    at("same").hidden = other !== target;
    at("difference").hidden = other === target;
    if (other === target) return;
    const gap = score(p, target) - score(p, other);
    at("gap").textContent = `${data.classes[target]} is ${Math.abs(gap).toFixed(2)} ${gap < 0 ? "below" : "above"} ${data.classes[other]}. Each number is what a feature adds to that; the constants of the classes add ${signed(data.constants[target] - data.constants[other])}.`;
    const line = (f) => {
      const item = text("li", "");
      const added = ((mine.get(f) ?? 0) - (theirs.get(f) ?? 0)) * p.values[f];
      item.append(title(f), mine.get(f) === theirs.get(f) ? " (counts for both alike)" : ` ${signed(added)}`);
      return item;
    };
    const all = data.features.map((_, f) => f);
    at("only_here").textContent = `Only ${data.classes[target]}`;
    at("only_there").textContent = `Only ${data.classes[other]}`;
    fill(at("mine"), all.filter((f) => mine.has(f) && !theirs.has(f)).map(line));
    fill(at("theirs"), all.filter((f) => theirs.has(f) && !mine.has(f)).map(line));
    fill(at("both"), all.filter((f) => theirs.has(f) && mine.has(f)).map(line));
  };

  const look = () => {
    const p = picture(), [x, y] = ["column", "row"].map((id) => Math.min(Math.max(Math.floor(Number(at(id).value)), 0), grid - 1));
    const share = data.features.map((_, f) => [f, cell(p, f, y, x), p.peaks[f]]).filter((e) => e[1] > 0);
    share.sort((a, b) => b[1] - a[1]);
    fill(at("firing"), share.slice(0, 6).map(([f, value, peak]) => {
      const item = text("li", "");
      item.append(title(f), ` ${Math.round((100 * value) / peak)} % of its maximum in this picture${weights(target).has(f) ? " (of the class shown)" : ""}`);
      return item;
    }));
    const mark = at("mark").style;
    mark.display = patch ? "block" : "none";
    [mark.left, mark.top, mark.width, mark.height] = [x, y, 1, 1].map((v) => `${(100 * v) / grid}%`);
  };

  const explain = () => {
    const p = picture(), added = used(), longest = Math.max(...added.map(([f, w]) => Math.abs(w * p.values[f])), 1e-9);
    at("bars").replaceChildren(...added.map(([f, w]) => {
      const item = text("li", ""), label = text("label", ""), value = w * p.values[f];
      const box = text("input", "", { type: "checkbox", value: f });
      box.checked = true;
      box.addEventListener("change", blend);
      const bar = text("span", "", { class: value < 0 ? "bar against" : "bar", "aria-hidden": "true" });
      bar.style.setProperty("--ink", data.colours[f]);
      bar.style.width = `${(35 * Math.abs(value)) / longest}%`;
      label.append(box, ` ${data.features[f]}`);
      const more = text("a", "more", { href: pageOf(f), "aria-label": `more about ${data.features[f]}` });
      item.append(label, bar, text("span", signed(value), { class: "value" }), more);
      return item;
    }));
    at("total").textContent = `Score ${score(p, target).toFixed(2)}: the sum of the bars and the constant of the class, ${signed(data.constants[target])}.`;
    blend();
    compare();
    look();
  };

  const show = (position) => {
    here = (position + found.length) % found.length;
    const p = picture(), truth = data.classes[p.truth], answer = data.classes[p.predicted];
    heats = {};
    target = p.predicted;
    at("photo").src = `pictures/${p.row}.jpg`;
    at("photo").alt = `Picture ${p.row}, ${truth}`;
    at("words").textContent = `Picture ${p.row}: predicted ${answer} (${score(p, target).toFixed(2)}); truth ${truth}: ${p.truth === p.predicted ? "right" : "wrong"}.`;
    at("count").textContent = `${here + 1} of ${found.length}`;
    const ranks = data.classes.map((_, c) => [c, score(p, c)]).sort((a, b) => b[1] - a[1]);
    at("explained").value = target;
    at("other").value = p.truth !== target ? p.truth : (ranks.find(([c]) => c !== target) ?? [target])[0];
    const thumbs = at("strip").children;
    const thumb = thumbs[here], strip = at("strip"), moves = strip.contains(document.activeElement);
    [...thumbs].forEach((b, i) => { b.setAttribute("aria-pressed", i === here); b.tabIndex = i === here ? 0 : -1; });  // one tab stop
    if (moves) thumb.focus({ preventScroll: true });
    strip.scrollLeft = thumb.offsetLeft - strip.offsetLeft - (strip.clientWidth - thumb.offsetWidth) / 2;
    try { history.replaceState(null, "", `#${p.row}`); } catch { /* some viewers forbid it: the address stays */ }
    explain();
  };

  const filter = (row) => {
    const c = Number(at("class").value), wrong = at("mistakes").checked;
    const fits = (p) => (c < 0 || p.truth === c) && (!wrong || p.truth !== p.predicted);
    const now = data.pictures.flatMap((p, i) => (fits(p) ? [i] : []));
    at("message").textContent = now.length ? "" : "No picture fits: choose another class, or switch off 'only mistakes'. The one below stays.";
    ["back", "on", "surprise"].forEach((id) => (at(id).disabled = !now.length));
    at("strip").hidden = !now.length;
    at("count").textContent = "";
    if (!now.length) return;
    found = now;
    at("strip").replaceChildren(...found.map((index, i) => {
      const p = data.pictures[index], wrongly = p.truth !== p.predicted;
      const said = `${data.classes[p.truth]}, ${wrongly ? `predicted ${data.classes[p.predicted]}` : "right"}`;
      const button = text("button", "", { type: "button", title: said, class: wrongly ? "wrong" : "right" });
      const image = text("img", "", { src: `pictures/${p.row}.jpg`, alt: `Picture ${p.row}: ${said}`, loading: "lazy", width: 72, height: 72 });
      button.append(image);
      button.addEventListener("click", () => show(i));
      return button;
    }));
    show(Math.max(0, found.findIndex((i) => data.pictures[i].row === row)));
  };

  const jump = () => {
    const row = Number(location.hash.slice(1));
    if (!data.pictures.some((p) => p.row === row) || (found.length && picture().row === row)) return;
    at("class").value = -1;
    at("mistakes").checked = false;
    filter(row);
  };

  data.classes.forEach((name, c) => {
    ["class", "explained", "other"].forEach((id) => at(id).append(text("option", name, { value: c })));
  });
  [["column", grid], ["row", grid]].forEach(([id, n]) => { at(id).max = n - 1; at(id).value = Math.floor((n - 1) / 2); });
  at("class").addEventListener("change", () => filter());
  at("mistakes").addEventListener("change", () => filter());
  at("back").addEventListener("click", () => show(here - 1));
  at("on").addEventListener("click", () => show(here + 1));
  at("surprise").addEventListener("click", () => show(Math.floor(Math.random() * found.length)));
  at("explained").addEventListener("change", (event) => { target = Number(event.target.value); explain(); });
  at("other").addEventListener("change", compare);
  at("methods").hidden = !data.methods.length && !data.clusters;
  if (data.clusters) at("granularity").max = data.clusters.colours.length + 1;
  data.methods.forEach(({ title }, m) => at("method").append(text("option", title, { value: m })));
  if (data.clusters) at("method").append(text("option", "clusters of the encoder", { value: CLUSTERS }));
  at("method").addEventListener("change", blend);
  at("granularity").addEventListener("input", blend);
  ["opacity", "threshold"].forEach((id) => at(id).addEventListener("input", blend));
  ["column", "row"].forEach((id) => at(id).addEventListener("input", () => { patch = true; look(); }));
  at("frame").addEventListener("click", (event) => {
    const box = at("frame").getBoundingClientRect(), place = (v) => Math.min(Math.max(Math.floor(v * grid), 0), grid - 1);
    at("column").value = place((event.clientX - box.left) / box.width);
    at("row").value = place((event.clientY - box.top) / box.height);
    patch = true;
    look();
  });
  document.addEventListener("keydown", (event) => {
    const typing = event.target.matches("select, input:not([type=checkbox])");  // the arrow keys are theirs
    if (typing || at("on").disabled || event.altKey || event.ctrlKey || event.metaKey) return;
    if (event.key === "ArrowLeft") show(here - 1);
    else if (event.key === "ArrowRight") show(here + 1);
    else return;
    event.preventDefault();
  });
  window.addEventListener("hashchange", jump);
  at("heat").width = at("heat").height = side;
  filter(Number(location.hash.slice(1)));
})();
