// Makes src/coset/reports/static/plotly.js.gz: the parts of plotly.js (MIT) that Coset's pages draw with.
//
//   npm install --ignore-scripts plotly.js@4.1.1 esbuild esbuild-plugin-environment esbuild-plugin-glsl \
//     esbuild-plugin-inline-css stream-browserify
//   node release/plotly_bundle.js src/coset/reports/static/plotly.js.gz
const { environmentPlugin } = require("esbuild-plugin-environment");
const { glsl } = require("esbuild-plugin-glsl");
const inlineCss = require("esbuild-plugin-inline-css");
const { version } = require("plotly.js/package.json");

const traces = ["bar", "box", "histogram", "heatmap", "contour", "mesh3d", "scatter3d"]; // scatter is in the core
const parts = traces.map((trace) => `require("plotly.js/lib/${trace}")`).join(", ");
const contents = `const Plotly = require("plotly.js/lib/core"); Plotly.register([${parts}]); module.exports = Plotly;`;
const copyright = `/* plotly.js ${version} (core, ${traces.join(", ")}). Copyright Plotly, Inc. MIT licence. */`;

require("esbuild").build({
  stdin: { contents, resolveDir: process.cwd() },
  write: false, format: "iife", globalName: "Plotly", bundle: true, minify: true, charset: "ascii", target: "es2020",
  banner: { js: copyright }, legalComments: "none",
  plugins: [inlineCss(), glsl({ minify: true }), environmentPlugin({ NODE_DEBUG: false })],
  alias: { regl: "@plotly/regl", stream: "stream-browserify" },
  define: { global: "window", "define.amd": "false" },
}).then(({ outputFiles: [file] }) => {
  require("fs").writeFileSync(process.argv[2], require("zlib").gzipSync(file.contents, { level: 9 }));
});
