// Moves among the measured points of a grid: choices, a slider, a sentence and a plot. No kernel, no other script.
document.addEventListener("DOMContentLoaded", () => {
  const SIZE = { width: 320, height: 200, margin: 26 };

  function svg(name, attributes, text = "") {
    const element = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    element.textContent = text;
    return element;
  }

  function control(label, element) {
    const wrapper = document.createElement("label");
    wrapper.append(label, element);
    return wrapper;
  }

  for (const box of document.querySelectorAll(".sliders")) {
    const grid = JSON.parse(box.querySelector("script").textContent);
    const choices = Object.entries(grid.choices).map(([name, options]) => {
      const select = document.createElement("select");
      options.forEach((option, number) => select.add(new Option(option, number)));
      box.append(control(name, select));
      return select;
    });
    const slider = Object.assign(document.createElement("input"), { type: "range", min: 0, step: 1 });
    const sentence = document.createElement("output");
    const plot = svg("svg", { viewBox: `0 0 ${SIZE.width} ${SIZE.height}`, "aria-hidden": "true" });
    box.append(control(grid.slider, slider), sentence, plot);

    const x = (value) => SIZE.margin + value * (SIZE.width - 2 * SIZE.margin);
    const y = (value) => SIZE.height - SIZE.margin - value * (SIZE.height - 2 * SIZE.margin);

    function show() {
      const points = grid.series[choices.map((select) => select.value).join(",")] ?? [];
      slider.disabled = points.length < 2;
      slider.max = Math.max(points.length - 1, 0);
      plot.replaceChildren(
        svg("path", { class: "axes", d: `M${x(0)} ${y(1)}V${y(0)}H${x(1)}` }),
        svg("text", { x: x(0), y: y(1) - 8 }, `↑ ${grid.upward}, 0 to 1`),
        svg("text", { x: x(1), y: SIZE.height - 6, "text-anchor": "end" }, `${grid.across} →`),
      );
      if (!points.length) {
        sentence.textContent = "This was not measured.";
        return;
      }
      const [across, upward, words] = points[slider.value];
      slider.setAttribute("aria-valuetext", words[0]);
      sentence.textContent = grid.sentence.replace(/\{(\d)\}/g, (_, number) => words[number]);
      const line = points.map(([px, py]) => `${x(px)},${y(py)}`).join(" ");
      plot.append(
        svg("polyline", { points: line }),
        svg("circle", { cx: x(across), cy: y(upward), r: 6 }),
      );
    }

    for (const select of choices) select.addEventListener("change", show);
    slider.addEventListener("input", show);
    const [first] = Object.values(grid.series);
    slider.max = first.length - 1;
    slider.value = Math.max(first.length - 2, 0);
    show();
  }
});
