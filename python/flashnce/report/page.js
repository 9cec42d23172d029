"use strict";
// Draws the curves, and the distributions of the step that the slider says.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const config = {displaylogo: false, responsive: true, displayModeBar: false};
  const grid = "#e6e6e6", grey = "#8a8a8a";
  const plots = [];

  const axis = (title, more) => ({title: {text: title, standoff: 6}, gridcolor: grid, zerolinecolor: "#ccc",
    automargin: true, exponentformat: "power", ...more});
  const layout = (x, y, moreX, moreY) => ({
    margin: {l: 58, r: 10, t: 6, b: 40}, showlegend: false, hovermode: "closest",
    font: {family: "system-ui, sans-serif", size: 12, color: "#222"}, paper_bgcolor: "#fff", plot_bgcolor: "#fff",
    xaxis: axis(x, moreX), yaxis: axis(y, moreY),
  });

  const figure = (parent, title, tall) => {
    const frame = parent.appendChild(document.createElement("figure"));
    const caption = frame.appendChild(document.createElement("figcaption"));
    caption.textContent = title;
    const plot = frame.appendChild(document.createElement("div"));
    plot.className = tall ? "plot tall" : "plot";
    plot.setAttribute("role", "img");
    plot.setAttribute("aria-label", title);
    plots.push(plot);
    return {plot, caption};
  };

  const curves = document.getElementById("curves");
  // All frames first, so that the grid has its columns when a plot asks for its width.
  data.panels.map((panel) => [figure(curves, panel.title, false).plot, panel]).forEach(([plot, panel]) =>
    Plotly.newPlot(plot, panel.traces, layout("step", panel.unit), config));

  // ---- Distributions ----
  const words = {pos: "Positives", neg: "Negatives"};
  const expected = (s, l) => s + 2 * l * (1 - l) * (1 - s);

  // The lowest and highest bin that any step fills, with a bin to either side.
  const extent = (lists) => {
    let low = data.centres.length, high = -1;
    for (const list of lists) for (const row of list) row.forEach((y, i) => {
      if (y > 0) { low = Math.min(low, i); high = Math.max(high, i); }
    });
    const at = (i) => data.centres[Math.max(0, Math.min(data.centres.length - 1, i))];
    return high < 0 ? [-1, 1] : [at(low - 2), at(high + 2)];
  };

  const densityTraces = (run, side, i) => {
    const traces = [];
    for (const [when, dash, fill] of [["before", "solid", "tozeroy"], ["after", "dash", "none"]]) {
      const rows = run.densities[`${side}_${when}`];
      if (!rows) continue;
      traces.push({x: data.centres, y: rows[i], mode: "lines", fill, fillcolor: run.color + "22",
        line: {color: run.color, width: 2, dash, shape: "hvh"}, hovertemplate: "score %{x:.3f}: %{y:.3g}",
        name: when === "before" ? "before mixing" : "in the loss"});
    }
    return traces;
  };

  const ridgeTraces = (run, side, i) => {
    const rows = run.densities[`${side}_before`], count = Math.min(12, rows.length);
    const picks = [...Array(count).keys()].map((j) => count < 2 ? 0 : Math.round(j * (rows.length - 1) / (count - 1)));
    if (!picks.includes(i)) picks[picks.findIndex((p) => p > i)] = i;
    const top = Math.max(1e-9, ...picks.map((p) => Math.max(...rows[p])));
    const traces = [];
    picks.forEach((p, j) => {
      const here = p === i;
      traces.push({x: data.centres, y: data.centres.map(() => j), mode: "lines", line: {width: 0}, hoverinfo: "skip"});
      traces.push({x: data.centres, y: rows[p].map((y) => j + 1.7 * y / top), mode: "lines", fill: "tonexty",
        fillcolor: run.color + (here ? "66" : "22"), line: {color: here ? "#000" : run.color, width: here ? 2 : 1},
        name: `step ${run.steps[p]}`, hovertemplate: `step ${run.steps[p]}, score %{x:.3f}`});
    });
    return {traces, ticks: {tickvals: picks.map((_, j) => j), ticktext: picks.map((p) => String(run.steps[p]))}};
  };

  const pairTraces = (run, i) => {
    const pairs = run.pairs[i], l = run.lambda[i];
    const low = Math.min(0, ...pairs.before), line = [low, 1];
    const traces = [{x: line, y: line, mode: "lines", line: {color: grey, width: 1, dash: "dot"}, hoverinfo: "skip"}];
    if (l !== null && l !== undefined)
      traces.push({x: line, y: line.map((s) => expected(s, l)), mode: "lines", line: {color: "#000", width: 1.5},
        hoverinfo: "skip"});
    traces.push({x: pairs.before, y: pairs.after, mode: "markers", marker: {color: run.color, size: 5, opacity: 0.7},
      hovertemplate: "before %{x:.3f}, in the loss %{y:.3f}"});
    return traces;
  };

  // The step with details that is not later than the slider's.
  const indexAt = (run, step) => Math.max(0, run.steps.filter((s) => s <= step).length - 1);
  const percent = (x) => (100 * x).toPrecision(2) + " %";

  const drawRun = (run, parent) => {
    const head = parent.appendChild(document.createElement("h3"));
    const swatch = head.appendChild(document.createElement("span"));
    swatch.className = "swatch";
    swatch.style.background = run.color;
    const title = head.appendChild(document.createElement("span"));
    const now = parent.appendChild(Object.assign(document.createElement("div"), {className: "grid"}));
    const past = parent.appendChild(Object.assign(document.createElement("div"), {className: "grid"}));
    const sides = ["pos", "neg"].filter((side) => run.densities[`${side}_before`]);
    const frames = {};
    for (const side of sides) frames[side] = figure(now, "", false);
    if (run.mixes) frames.pairs = figure(now, "", false);
    for (const side of sides) frames[side + "_ridge"] = figure(past, `${words[side]}${run.mixes ? " before mixing" : ""}, through training`, true);
    const ranges = Object.fromEntries(sides.map((side) =>
      [side, extent(["before", "after"].map((when) => run.densities[`${side}_${when}`] || []))]));
    const tops = Object.fromEntries(sides.map((side) => [side, 1.05 * Math.max(1e-9,
      ...["before", "after"].flatMap((when) => (run.densities[`${side}_${when}`] || []).map((r) => Math.max(...r))))]));
    return (step) => {
      const i = indexAt(run, step), l = run.lambda[i], ln = run.lambda_neg[i];
      title.textContent = `${run.name} at step ${run.steps[i]}`;
      for (const side of sides) {
        const mixed = side === "pos" ? l : ln, kind = side === "pos" ? "extrapolation" : "interpolation";
        const beyond = Math.max(...["before", "after"].map((when) => (run.outside[`${side}_${when}`] || [0])[i] || 0));
        frames[side].caption.textContent = !run.mixes ? words[side]
          : mixed ? `${words[side]}: before (solid) and after ${kind} (dashed)`
          : `${words[side]}: before mixing (solid), in the loss (dashed)`;
        const note = frames[side].caption.appendChild(document.createElement("small"));
        note.textContent = (mixed ? ` λ = ${mixed.toFixed(3)}` : "") + (beyond ? `, ${percent(beyond)} outside the axis` : "");
        Plotly.react(frames[side].plot, densityTraces(run, side, i),
          layout("score", "density", {range: ranges[side]}, {range: [0, tops[side]]}), config);
        const ridge = ridgeTraces(run, side, i), own = extent([run.densities[`${side}_before`]]);
        Plotly.react(frames[side + "_ridge"].plot, ridge.traces,
          layout("score", "step", {range: own}, {...ridge.ticks, zeroline: false}), config);
      }
      if (!run.mixes) return;
      frames.pairs.caption.textContent = "Pairs: score in the loss over score S before";
      frames.pairs.caption.appendChild(document.createElement("small")).textContent =
        l ? ` line: 2λ(1−λ)(1−S)+S, dotted: no mixing` : " dotted: no mixing";
      Plotly.react(frames.pairs.plot, pairTraces(run, i), layout("S = q·k", "score in the loss"), config);
    };
  };

  const steps = [...new Set(data.distributions.flatMap((run) => run.steps))].sort((a, b) => a - b);
  if (!steps.length) {
    document.getElementById("through").hidden = true;
  } else {
    const parent = document.getElementById("distributions"), slider = document.getElementById("slider");
    const updates = data.distributions.map((run) => drawRun(run, parent));
    const show = () => {
      const step = steps[Number(slider.value)];
      document.getElementById("step").textContent = String(step);
      slider.setAttribute("aria-valuetext", `step ${step}`);
      updates.forEach((update) => update(step));
    };
    slider.max = String(steps.length - 1);
    slider.value = slider.max;
    slider.addEventListener("input", show);
    show();
  }
  const resize = () => plots.forEach((plot) => Plotly.Plots.resize(plot));
  window.addEventListener("beforeprint", resize);
  window.addEventListener("afterprint", resize);
  window.matchMedia("print").addEventListener("change", resize);
  document.documentElement.dataset.ready = "yes";
})();
