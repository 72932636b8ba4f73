/* Draws the plots that the page carries as JSON: one layout for wide pages, one for narrow ones and paper. */
(function () {
  "use strict";
  const config = { displayModeBar: false, responsive: true, typesetMath: false };
  const narrow = window.matchMedia("(max-width: 44rem)");
  const places = Array.from(document.querySelectorAll("[data-plot]"));

  function draw() {
    for (const place of places) {
      const figures = JSON.parse(document.getElementById(place.dataset.plot).textContent);
      const figure = narrow.matches ? figures.narrow : figures.wide;
      Plotly.react(place, figure.data, figure.layout, config);
    }
  }

  /* Paper is narrower than most windows: plots take its width, and folded parts open. */
  const paperWidth = 660;
  const opened = [];

  function toPaper() {
    for (const part of document.querySelectorAll("details:not([open], .screen-only)")) {
      part.open = true;
      opened.push(part);
    }
    for (const place of places) {
      if (place.offsetWidth > paperWidth) Plotly.relayout(place, { width: paperWidth, autosize: false });
    }
  }

  function toScreen() {
    while (opened.length) opened.pop().open = false;
    for (const place of places) Plotly.relayout(place, { width: null, autosize: true });
  }

  draw();
  narrow.addEventListener("change", draw);
  window.addEventListener("beforeprint", toPaper);
  window.addEventListener("afterprint", toScreen);
})();
