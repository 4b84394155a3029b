"use strict";
(() => {
  const byId = (id) => document.getElementById(id);
  const MISSING = 255, LEVELS = 254, DIM = "rgba(128,136,146,.22)", GREY = "#9aa2ab";
  // Viridis at nine points.
  const RAMP = [[68, 1, 84], [71, 44, 122], [59, 81, 139], [44, 113, 142], [33, 144, 141],
    [39, 173, 129], [92, 200, 99], [170, 220, 50], [253, 231, 37]];

  // ---------------------------------------------------------------- tables

  function sortTables() {
    for (const button of document.querySelectorAll("thead button")) {
      button.addEventListener("click", () => {
        const head = button.closest("th"), body = head.closest("table").tBodies[0];
        const down = head.getAttribute("aria-sort") !== "descending";
        for (const other of head.parentNode.children) other.removeAttribute("aria-sort");
        head.setAttribute("aria-sort", down ? "descending" : "ascending");
        const value = (row) => {
          const cell = row.cells[head.cellIndex], number = cell.querySelector("data");
          return number ? Number(number.value) : cell.textContent.trim();
        };
        const rows = [...body.rows].sort((a, b) => {
          const [x, y] = [value(a), value(b)];
          return typeof x === "number" && typeof y === "number" ? x - y : String(x).localeCompare(String(y));
        });
        body.append(...(down ? rows.reverse() : rows));
      });
    }
  }

  function followSections() {
    const links = new Map([...document.querySelectorAll("nav a")].map((a) => [a.hash.slice(1), a]));
    const seen = new IntersectionObserver((entries) => {
      for (const entry of entries) {
        if (!entry.isIntersecting) continue;
        for (const link of links.values()) link.removeAttribute("aria-current");
        links.get(entry.target.id)?.setAttribute("aria-current", "true");
      }
    }, { rootMargin: "-10% 0px -75% 0px" });
    for (const section of document.querySelectorAll("main section")) seen.observe(section);
  }

  // ---------------------------------------------------------------- points

  async function unpack(text) {
    const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
    return new Response(stream).arrayBuffer();
  }

  async function readCells(data) {
    const points = new Uint16Array(await unpack(data.points));
    const names = new TextDecoder().decode(await unpack(data.names)).split("\n");
    const columns = [];
    for (const column of data.columns) {
      columns.push({ ...column, codes: new Uint8Array(await unpack(column.codes)) });
    }
    return { n: data.n, points, names, columns };
  }

  function ramp(share) {
    const place = Math.min(Math.max(share, 0), 1) * (RAMP.length - 1), i = Math.min(Math.floor(place), RAMP.length - 2);
    return `rgb(${RAMP[i].map((low, k) => Math.round(low + (RAMP[i + 1][k] - low) * (place - i)))})`;
  }

  function colorsOf(column) {
    if (column.kind === "category") return column.colors;
    const colors = Array.from({ length: 256 }, (_, i) => ramp(column.reverse ? 1 - i / LEVELS : i / LEVELS));
    colors[MISSING] = GREY;
    return colors;
  }

  const textOf = (column, cell) => {
    const code = column.codes[cell];
    if (column.kind === "category") return column.names[code];
    return code === MISSING ? "missing" : (code / LEVELS).toFixed(2);
  };

  // ---------------------------------------------------------------- scatter

  function scatter(cells) {
    const canvas = byId("cells"), context = canvas.getContext("2d"), tip = byId("tip");
    const legend = byId("legend");
    const selected = new Uint8Array(cells.n), order = shuffled(cells.n), drawn = document.createElement("canvas");
    let column = cells.columns[0], runs = byColor(order), nSelected = 0, isDrawn = false;
    let view = { scale: 1, x: 0, y: 0 }, size = { width: 0, height: 0 }, lasso = null, grid = null, waiting = false;

    function shuffled(n) {  // no category hides another; the same at each visit
      const places = Uint32Array.from({ length: n }, (_, i) => i);
      let state = 1;
      for (let i = n - 1; i > 0; i--) {
        state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
        const j = state % (i + 1);
        [places[i], places[j]] = [places[j], places[i]];
      }
      return places;
    }

    // In each sixteenth cells of one colour follow each other, so that colours change rarely.
    function byColor(places) {
      const sorted = places.slice(), step = Math.ceil(places.length / 16) || 1;
      for (let i = 0; i < places.length; i += step) {
        sorted.subarray(i, i + step).sort((a, b) => column.codes[a] - column.codes[b]);
      }
      return sorted;
    }

    const base = () => Math.min(size.width, size.height) * 0.94;
    const toX = (cell) => size.width / 2 + ((cells.points[2 * cell] / 65535 - 0.5) * base() + view.x) * view.scale;
    const toY = (cell) => size.height / 2 + ((cells.points[2 * cell + 1] / 65535 - 0.5) * base() + view.y) * view.scale;
    const radius = () => Math.min(7, Math.max(1.1, 90 / Math.sqrt(cells.n)) * Math.sqrt(view.scale));

    function disc(color, r, ratio) {
      const image = document.createElement("canvas");
      image.width = image.height = Math.ceil(2 * (r + 1) * ratio);
      const pen = image.getContext("2d");
      pen.scale(ratio, ratio);
      pen.fillStyle = color;
      pen.beginPath();
      pen.arc(r + 1, r + 1, r, 0, 2 * Math.PI);
      pen.fill();
      return image;
    }

    function drawCells() {
      const ratio = window.devicePixelRatio || 1, r = radius(), isSmall = r < 1.6;
      drawn.width = canvas.width;
      drawn.height = canvas.height;
      const pen = drawn.getContext("2d"), colors = colorsOf(column);
      const dim = disc(DIM, r, ratio), discs = isSmall ? [] : colors.map((color) => disc(color, r, ratio));
      const width = dim.width / ratio;
      pen.scale(ratio, ratio);
      for (const pass of nSelected ? [0, 1] : [1]) {
        let last = null;
        for (const cell of runs) {
          if (nSelected && selected[cell] !== pass) continue;
          const x = toX(cell), y = toY(cell);
          if (x < -9 || y < -9 || x > size.width + 9 || y > size.height + 9) continue;
          const code = column.codes[cell];
          if (isSmall) {
            const color = pass ? colors[code] : DIM;
            if (color !== last) pen.fillStyle = last = color;
            pen.fillRect(x - r, y - r, 2 * r, 2 * r);
          } else pen.drawImage(pass ? discs[code] : dim, x - width / 2, y - width / 2, width, width);
        }
      }
      isDrawn = true;
    }

    function draw() {
      waiting = false;
      if (!isDrawn) drawCells();
      const ratio = window.devicePixelRatio || 1;
      context.setTransform(1, 0, 0, 1, 0, 0);
      context.clearRect(0, 0, canvas.width, canvas.height);
      context.drawImage(drawn, 0, 0);
      if (!lasso) return;
      context.scale(ratio, ratio);
      context.beginPath();
      lasso.forEach(([x, y], i) => (i ? context.lineTo(x, y) : context.moveTo(x, y)));
      context.closePath();
      context.strokeStyle = getComputedStyle(canvas).color;
      context.setLineDash([5, 4]);
      context.stroke();
      context.setLineDash([]);
    }

    function redraw(isChanged = true) {
      if (isChanged) [grid, isDrawn] = [null, false];
      if (!waiting) requestAnimationFrame(draw);
      waiting = true;
    }

    function fit() {
      const box = canvas.getBoundingClientRect(), ratio = window.devicePixelRatio || 1;
      if (!box.width) return;
      size = { width: box.width, height: box.height };
      canvas.width = Math.round(box.width * ratio);
      canvas.height = Math.round(box.height * ratio);
      [grid, isDrawn] = [null, false];
      draw();
    }

    // ---------- where the pointer is

    function nearest(x, y) {
      const step = 16, across = Math.ceil(size.width / step) + 1;
      if (!grid) {
        grid = new Map();
        for (let cell = 0; cell < cells.n; cell++) {
          const [i, j] = [Math.floor(toX(cell) / step), Math.floor(toY(cell) / step)];
          if (i < 0 || j < 0 || i >= across) continue;
          const key = j * across + i, list = grid.get(key);
          if (list) list.push(cell); else grid.set(key, [cell]);
        }
      }
      const [i, j] = [Math.floor(x / step), Math.floor(y / step)];
      let best = -1, closest = Math.max(9, radius() + 3) ** 2;
      for (let dj = -1; dj <= 1; dj++) {
        for (let di = -1; di <= 1; di++) {
          if (i + di < 0 || i + di >= across) continue;
          for (const cell of grid.get((j + dj) * across + i + di) || []) {
            const gap = (toX(cell) - x) ** 2 + (toY(cell) - y) ** 2;
            if (gap < closest) [best, closest] = [cell, gap];
          }
        }
      }
      return best;
    }

    function hover(x, y) {
      const cell = nearest(x, y);
      tip.hidden = cell < 0;
      if (cell < 0) return;
      const name = document.createElement("strong");
      name.textContent = cells.names[cell];
      tip.replaceChildren(name, ...cells.columns.map((each) => {
        const line = document.createElement("div"), value = document.createElement("bdi");
        value.textContent = textOf(each, cell);
        line.append(`${each.name}: `, value);
        return line;
      }));
      tip.style.left = `${Math.max(0, Math.min(x + 14, size.width - tip.offsetWidth - 4))}px`;
      tip.style.top = `${Math.max(0, Math.min(y + 14, size.height - tip.offsetHeight - 4))}px`;
    }

    function inside([px, py], polygon) {
      let within = false;
      for (let i = 0, j = polygon.length - 1; i < polygon.length; j = i++) {
        const [xi, yi] = polygon[i], [xj, yj] = polygon[j];
        if ((yi > py) !== (yj > py) && px < ((xj - xi) * (py - yi)) / (yj - yi) + xi) within = !within;
      }
      return within;
    }

    // ---------- selection

    function tellSelection() {
      nSelected = selected.reduce((sum, value) => sum + value, 0);
      const some = nSelected > 0, text = byId("barcodes"), counts = new Map();
      for (const id of ["copy", "download", "clear"]) byId(id).disabled = !some;
      text.hidden = !some;
      text.value = some ? cells.names.filter((_, cell) => selected[cell]).join("\n") : "";
      const labels = cells.columns[0];
      for (let cell = 0; some && cell < cells.n; cell++) {
        if (selected[cell]) counts.set(labels.codes[cell], (counts.get(labels.codes[cell]) || 0) + 1);
      }
      const top = [...counts].sort((a, b) => b[1] - a[1]).slice(0, 4);
      const named = top.map(([code, n]) => `${labels.names[code]} ${n.toLocaleString("en")}`).join(", ");
      byId("selected").textContent = some
        ? `${nSelected.toLocaleString("en")} cell${nSelected > 1 ? "s" : ""} selected: ${named}${counts.size > 4 ? " and others" : ""}.`
        : "No cell is selected: draw around cells, or press names in the legend.";
      for (const button of legend.querySelectorAll("button")) {
        const code = Number(button.value);
        let all = some;
        for (let cell = 0; all && cell < cells.n; cell++) all = column.codes[cell] !== code || selected[cell] === 1;
        button.setAttribute("aria-pressed", String(all));
      }
      redraw();
    }

    function choose(test, add) {
      for (let cell = 0; cell < cells.n; cell++) {
        if (test(cell)) selected[cell] = 1; else if (!add) selected[cell] = 0;
      }
      tellSelection();
    }

    function toggle(code, pressed) {
      for (let cell = 0; cell < cells.n; cell++) if (column.codes[cell] === code) selected[cell] = pressed ? 0 : 1;
      tellSelection();
    }

    // ---------- legend and colours

    function showLegend() {
      if (column.kind === "number") {
        const scale = document.createElement("div"), ends = document.createElement("div");
        scale.className = "scale";
        scale.style.background = `linear-gradient(to right, ${colorsOf(column).slice(0, 255).filter((_, i) => i % 16 === 0).join()})`;
        ends.className = "ends";
        ends.innerHTML = "<span>0</span><span>1</span>";
        legend.replaceChildren(column.name, scale, ends);
        return;
      }
      const counts = new Uint32Array(column.names.length);
      for (const code of column.codes) counts[code]++;
      const present = [...counts.keys()].filter((code) => counts[code]);
      legend.replaceChildren(...present.sort((a, b) => counts[b] - counts[a]).map((code) => {
        const button = document.createElement("button"), mark = document.createElement("span");
        const name = document.createElement("bdi"), n = document.createElement("span");
        button.type = "button";
        button.value = String(code);
        button.setAttribute("aria-pressed", "false");
        mark.className = "swatch";
        mark.style.background = column.colors[code];
        name.textContent = column.names[code];
        n.className = "n";
        n.textContent = counts[code].toLocaleString("en");
        button.append(mark, name, n);
        button.addEventListener("click", () => toggle(code, button.getAttribute("aria-pressed") === "true"));
        return button;
      }));
    }

    function offerColors() {
      cells.columns.forEach((each, i) => {
        const label = document.createElement("label"), input = document.createElement("input");
        Object.assign(input, { type: "radio", name: "coloring", value: String(i), checked: i === 0 });
        input.addEventListener("change", () => {
          column = each;
          runs = byColor(order);
          showLegend();
          tellSelection();
        });
        label.append(input, each.name);
        byId("colorings").append(label);
      });
    }

    // ---------- moving

    function zoom(factor, x = size.width / 2, y = size.height / 2) {
      const scale = Math.min(60, Math.max(0.5, view.scale * factor));
      const [dx, dy] = [x - size.width / 2, y - size.height / 2];
      view = { scale, x: view.x + dx / scale - dx / view.scale, y: view.y + dy / scale - dy / view.scale };
      redraw();
    }

    function move(dx, dy) {
      view = { ...view, x: view.x + dx / view.scale, y: view.y + dy / view.scale };
      redraw();
    }

    function reset() {
      view = { scale: 1, x: 0, y: 0 };
      redraw();
    }

    const isLasso = () => document.querySelector("[name=mode]:checked").value === "lasso";

    function listen() {
      let last = null;
      canvas.addEventListener("pointerdown", (event) => {
        canvas.setPointerCapture(event.pointerId);
        last = [event.offsetX, event.offsetY];
        if (isLasso()) lasso = [last];
        tip.hidden = true;
      });
      canvas.addEventListener("pointermove", (event) => {
        const here = [event.offsetX, event.offsetY];
        if (lasso) {
          lasso.push(here);
          redraw(false);
        } else if (last) {
          move(here[0] - last[0], here[1] - last[1]);
          last = here;
        } else hover(...here);
      });
      canvas.addEventListener("pointerup", (event) => {
        const polygon = lasso;
        [last, lasso] = [null, null];
        if (polygon && polygon.length > 2) choose((cell) => inside([toX(cell), toY(cell)], polygon), event.shiftKey);
        else redraw(false);
      });
      canvas.addEventListener("pointercancel", () => {
        [last, lasso] = [null, null];
        redraw(false);
      });
      canvas.addEventListener("pointerleave", () => { tip.hidden = true; });
      // The wheel scrolls the page, unless the map has the focus.
      canvas.addEventListener("wheel", (event) => {
        if (document.activeElement !== canvas && !event.ctrlKey) return;
        event.preventDefault();
        zoom(Math.exp(-event.deltaY / 400), event.offsetX, event.offsetY);
      }, { passive: false });
      const keys = {
        ArrowLeft: () => move(40, 0), ArrowRight: () => move(-40, 0), ArrowUp: () => move(0, 40),
        ArrowDown: () => move(0, -40), "+": () => zoom(1.4), "=": () => zoom(1.4), "-": () => zoom(1 / 1.4), 0: reset,
      };
      canvas.addEventListener("keydown", (event) => {
        if (!keys[event.key] || event.ctrlKey || event.metaKey) return;
        event.preventDefault();
        keys[event.key]();
      });
      byId("zoom-in").addEventListener("click", () => zoom(1.5));
      byId("zoom-out").addEventListener("click", () => zoom(1 / 1.5));
      byId("zoom-reset").addEventListener("click", reset);
      for (const input of document.querySelectorAll("[name=mode]")) {
        input.addEventListener("change", () => canvas.classList.toggle("lasso", isLasso()));
      }
      byId("clear").addEventListener("click", () => choose(() => false, false));
      byId("copy").addEventListener("click", copy);
      byId("download").addEventListener("click", download);
      new ResizeObserver(fit).observe(canvas);
      window.addEventListener("beforeprint", fit);
    }

    async function copy() {
      const text = byId("barcodes");
      try {
        await navigator.clipboard.writeText(text.value);
      } catch {  // without permission
        text.select();
        document.execCommand("copy");
      }
      byId("selected").textContent = `${nSelected.toLocaleString("en")} barcodes copied.`;
    }

    function download() {
      const link = document.createElement("a");
      link.href = URL.createObjectURL(new Blob([`${byId("barcodes").value}\n`], { type: "text/plain" }));
      link.download = "barcodes.txt";
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 1000);
    }

    offerColors();
    showLegend();
    listen();
    fit();
  }

  sortTables();
  followSections();
  const data = byId("cells-data");
  if (data) {
    readCells(JSON.parse(data.textContent)).then(scatter, () => {
      byId("selected").textContent = "The map needs a newer browser; all numbers are in the tables.";
    });
  }
})();
