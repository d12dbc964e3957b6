// Tables are sorted by their heads; what is missing comes last, either way.
for (const head of document.querySelectorAll("th:has(button)")) head.querySelector("button").addEventListener("click", () => {
  const table = head.closest("table"), body = table.tBodies[0], place = head.cellIndex;
  const up = head.getAttribute("aria-sort") !== "ascending";
  for (const other of table.querySelectorAll("th")) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", up ? "ascending" : "descending");
  const value = row => { const cell = row.cells[place], text = cell.dataset.value ?? cell.textContent; return text === "" || isNaN(text) ? text : Number(text); };
  const rows = [...body.rows].sort((a, b) => {
    const x = value(a), y = value(b);
    if (x === "" || y === "") return (x === "") - (y === "");
    return (typeof x === typeof y ? (x < y ? -1 : x > y ? 1 : 0) : typeof x === "number" ? -1 : 1) * (up ? 1 : -1);
  });
  body.append(...rows);
});

// Values under the pointer, or by the arrow keys: of every curve at the nearest place along the axis. A path is its values.
for (const svg of document.querySelectorAll(".area > svg")) {
  const view = svg.viewBox.baseVal, area = svg.parentElement, {x: name, xLog, yLog} = svg.dataset;
  const paths = [...svg.querySelectorAll("path, use")].map(one => one.matches("use") ? document.querySelector(one.getAttribute("href")) : one);
  const curves = [...new Set(paths)].filter(path => path?.dataset.name).map(path => {
    const points = [...path.getAttribute("d").matchAll(/(-?[\d.e+-]+) (-?[\d.e+-]+)/g)].map(found => [Number(found[1]), Number(found[2])]);
    return {name: path.dataset.name, points};
  }).filter(curve => curve.points.length);
  if (!curves.length) continue;
  const [tip, guide] = ["tip", "hair"].map(look => {
    const element = document.createElement("div");
    element.className = look;
    element.hidden = true;
    area.append(element);
    return element;
  });
  const number = (value, isLog) => String(Number((isLog === undefined ? value : 10 ** value).toPrecision(4)));
  let current = NaN;
  const show = along => {
    const nearest = curves.map(({name, points}) => ({name, point: points.reduce((a, b) => Math.abs(b[0] - along) < Math.abs(a[0] - along) ? b : a)}));
    current = nearest.reduce((a, b) => Math.abs(b.point[0] - along) < Math.abs(a.point[0] - along) ? b : a).point[0];
    const lines = nearest.filter(({point}) => point[0] === current).map(({name, point}) => `${name}: ${number(point[1], yLog)}`);
    tip.textContent = [`${name || "step"} ${number(current, xLog)}`, ...new Set(lines)].join("\n");
    tip.hidden = guide.hidden = false;
    const left = (current - view.x) / view.width * area.clientWidth;
    guide.style.left = `${left}px`;
    tip.style.left = `${left + 10 + tip.offsetWidth > area.clientWidth ? Math.max(0, left - tip.offsetWidth - 10) : left + 10}px`;
  };
  const hide = () => { tip.hidden = guide.hidden = true; };
  for (const moved of ["pointermove", "pointerdown"]) svg.addEventListener(moved, event => {
    const box = svg.getBoundingClientRect();
    show(view.x + (event.clientX - box.x) / box.width * view.width);
  });
  svg.addEventListener("pointerleave", hide);
  svg.addEventListener("blur", hide);
  svg.addEventListener("keydown", event => {
    const step = {ArrowLeft: -1, ArrowRight: 1}[event.key];
    if (!step) return;
    event.preventDefault();
    const places = [...new Set(curves.flatMap(curve => curve.points.map(point => point[0])))].sort((a, b) => a - b);
    const next = isNaN(current) ? (step > 0 ? 0 : places.length - 1) : places.indexOf(current) + step;
    show(places[Math.max(0, Math.min(places.length - 1, next))]);
  });
}

// What is folded on a screen is open on paper; the style sheet hides what only a computer reads.
const folded = [...document.querySelectorAll("details:not([open])")];
addEventListener("beforeprint", () => folded.forEach(one => { one.open = true; }));
addEventListener("afterprint", () => folded.forEach(one => { one.open = false; }));
