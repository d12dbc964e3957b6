// Tables are sorted by their heads; what is missing comes last, either way.
for (const head of document.querySelectorAll("th:has(button)")) head.querySelector("button").addEventListener("click", () => {
  const table = head.closest("table"), body = table.tBodies[0], place = head.cellIndex;
  const up = head.getAttribute("aria-sort") !== "ascending";
  for (const other of table.querySelectorAll("th")) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", up ? "ascending" : "descending");
  const value = row => { const text = row.cells[place].dataset.value; return text === "" || isNaN(text) ? text : Number(text); };
  const rows = [...body.rows].sort((a, b) => {
    const x = value(a), y = value(b);
    if (x === "" || y === "") return (x === "") - (y === "");
    return (typeof x === typeof y ? (x < y ? -1 : x > y ? 1 : 0) : typeof x === "number" ? -1 : 1) * (up ? 1 : -1);
  });
  body.append(...rows);
});

// Values under the pointer: of every curve at the nearest place along the axis, or of the nearest point.
const NEAR = 24;  // pixels
for (const svg of document.querySelectorAll("svg[data-hover]")) {
  const axes = JSON.parse(svg.dataset.hover), figure = svg.closest("figure");
  const [tip, guide] = ["tip", "guide"].map(name => {
    const element = document.createElement("div");
    element.className = name;
    element.hidden = true;
    figure.append(element);
    return element;
  });
  const hide = () => { tip.hidden = guide.hidden = true; };
  const show = event => {
    hide();
    const {x: left0, y: top0, width, height} = svg.getBoundingClientRect();
    const x = event.clientX - left0, y = event.clientY - top0;
    const axis = axes.find(({box: [left, bottom, right, top]}) =>
      x >= left * width - NEAR && x <= right * width + NEAR && y >= top * height && y <= bottom * height);
    if (!axis) return;
    const distance = point => axis.along ? Math.abs(point[0] * width - x) : Math.hypot(point[0] * width - x, point[1] * height - y);
    const nearest = axis.series.filter(one => one.points.length).map(one =>
      ({name: one.name, point: one.points.reduce((a, b) => distance(b) < distance(a) ? b : a)}));
    if (!nearest.length) return;
    const closest = nearest.reduce((a, b) => distance(b.point) < distance(a.point) ? b : a).point;
    if (!axis.along && distance(closest) > NEAR) return;
    const shown = nearest.filter(({point}) => axis.along ? Math.abs(point[0] - closest[0]) < 1e-3 : point === closest);
    const lines = shown.map(({name, point}) => (name ? name + ": " : "") + point[2].split("\n").pop());
    const head = closest[2].split("\n").slice(0, -1);
    tip.textContent = [...head, ...lines].join("\n");
    tip.hidden = false;
    const [left, top] = [closest[0] * width, axis.along ? axis.box[3] * height : closest[1] * height];
    tip.style.left = `${Math.max(0, left + 10 + tip.offsetWidth > figure.clientWidth ? left - tip.offsetWidth - 10 : left + 10)}px`;
    tip.style.top = `${top}px`;
    guide.hidden = !axis.along;
    guide.style.cssText = `left: ${left}px; top: ${top}px; height: ${(axis.box[1] - axis.box[3]) * height}px`;
  };
  svg.addEventListener("pointermove", show);
  svg.addEventListener("pointerdown", show);
  svg.addEventListener("pointerleave", hide);
}
