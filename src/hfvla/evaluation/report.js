(function () {
  "use strict";
  const tip = document.createElement("div");
  tip.className = "tip";
  tip.hidden = true;
  document.body.append(tip);

  function show(text, x, y) {
    tip.textContent = text;
    tip.hidden = false;
    const box = tip.getBoundingClientRect();
    tip.style.left = Math.max(4, Math.min(x + 14, innerWidth - box.width - 6)) + "px";
    tip.style.top = (y + box.height + 22 > innerHeight ? y - box.height - 10 : y + 16) + "px";
  }

  function nearest(svg, event) {
    const matrix = svg.getScreenCTM();
    if (!matrix) return null;
    const x = (event.clientX - matrix.e) / matrix.a, y = (event.clientY - matrix.f) / matrix.d;
    let best = null, least = 30 * 30;
    for (const group of svg.querySelectorAll(".points")) {
      group.known = group.known || JSON.parse(group.dataset.points);
      for (const point of group.known) {
        const distance = (point[0] - x) ** 2 + (point[1] - y) ** 2;
        if (distance < least) { least = distance; best = point; }
      }
    }
    return best;
  }

  function point(event) {
    const mark = event.target.closest ? event.target.closest("[data-tip]") : null;
    if (mark) return show(mark.dataset.tip, event.clientX, event.clientY);
    const svg = event.target.closest ? event.target.closest("svg.chart") : null;
    const found = svg && nearest(svg, event);
    if (found) return show(found[2], event.clientX, event.clientY);
    tip.hidden = true;
  }
  addEventListener("pointermove", point);
  addEventListener("pointerdown", point);
  addEventListener("scroll", () => { tip.hidden = true; }, { passive: true });

  const dialog = document.createElement("dialog");
  dialog.className = "zoom";
  document.body.append(dialog);
  dialog.addEventListener("click", (event) => { if (event.target.tagName !== "svg") dialog.close(); });
  function zoom(element) {
    dialog.replaceChildren(element.cloneNode(true));
    dialog.append(tip);
    dialog.showModal();
  }
  dialog.addEventListener("close", () => document.body.append(tip));
  addEventListener("click", (event) => {
    const image = event.target.closest(".example img, figure .plot img");
    if (image && !dialog.contains(image)) zoom(image);
    const button = event.target.closest("button.enlarge");
    if (button) zoom(button.closest("figure").querySelector(".plot > *"));
  });

  function value(row, index) {
    const cell = row.cells[index];
    if (!cell) return "";
    const text = (cell.querySelector(".text") || cell).textContent.trim();
    const number = parseFloat(text.replace(/[,★\s]/g, "").replace("−", "-"));
    return Number.isNaN(number) ? text.toLowerCase() : number;
  }
  for (const table of document.querySelectorAll("table")) {
    const head = table.tHead && table.tHead.rows[0];
    if (!head || table.tBodies[0].rows.length < 2) continue;
    Array.from(head.cells).forEach((cell, index) => {
      cell.tabIndex = 0;
      cell.classList.add("sortable");
      const sort = () => {
        const up = cell.getAttribute("aria-sort") === "descending";
        for (const other of head.cells) other.removeAttribute("aria-sort");
        cell.setAttribute("aria-sort", up ? "ascending" : "descending");
        const rows = Array.from(table.tBodies[0].rows);
        rows.sort((one, two) => {
          const a = value(one, index), b = value(two, index);
          const order = typeof a === typeof b ? (a < b ? -1 : a > b ? 1 : 0) : typeof a === "number" ? 1 : -1;
          return up ? order : -order;
        });
        table.tBodies[0].append(...rows);
      };
      cell.addEventListener("click", sort);
      cell.addEventListener("keydown", (event) => { if (event.key === "Enter") sort(); });
    });
  }
})();
