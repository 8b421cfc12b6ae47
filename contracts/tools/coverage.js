// How much of src/ the tests reach, by lines and branches: prints what they don't, and the figure.
//
// forge counts no branches of `require(condition, Error(...))` and no lines of assembly. So the tests run on a copy in which
// each require is written as `if (!(condition)) revert Error(...)`, which says the same; and a line of assembly counts as
// reached when the line before its block is.
const { execFileSync } = require("child_process");
const fs = require("fs");
const path = require("path");

const root = path.join(__dirname, "..");
const copy = path.join(root, "out", "coverage");

/// The text between the bracket at `open` and its partner, and where that ends.
function bracketed(text, open) {
  let depth = 0;
  for (let at = open; at < text.length; at++) {
    if (text[at] === "(") depth++;
    if (text[at] === ")" && --depth === 0) return { inside: text.slice(open + 1, at), end: at + 1 };
  }
  throw new Error("a bracket is never closed");
}

/// Where the last argument begins: at the last comma outside brackets.
function lastComma(text) {
  let depth = 0;
  let found = -1;
  [...text].forEach((letter, at) => {
    if (letter === "(") depth++;
    if (letter === ")") depth--;
    if (letter === "," && depth === 0) found = at;
  });
  return found;
}

function withoutRequire(text) {
  let out = "";
  let at = 0;
  for (let next; (next = text.indexOf("require(", at)) !== -1; ) {
    const { inside, end } = bracketed(text, next + "require".length);
    const comma = lastComma(inside);
    out += `${text.slice(at, next)}if (!(${inside.slice(0, comma)})) revert ${inside.slice(comma + 1).trim()}`;
    at = end;
  }
  return out + text.slice(at);
}

function prepare() {
  fs.rmSync(copy, { recursive: true, force: true });
  fs.mkdirSync(copy, { recursive: true });
  for (const name of ["src", "test", "tools", "vectors", "foundry.toml"]) {
    fs.cpSync(path.join(root, name), path.join(copy, name), { recursive: true });
  }
  fs.symlinkSync(path.join(root, "node_modules"), path.join(copy, "node_modules"));
  for (const name of fs.readdirSync(path.join(copy, "src"), { recursive: true })) {
    const file = path.join(copy, "src", name);
    if (name.endsWith(".sol")) fs.writeFileSync(file, withoutRequire(fs.readFileSync(file, "utf8")));
  }
}

function measure() {
  const options = ["coverage", "--ir-minimum", "--report", "lcov", "--report-file", "lcov.info", "--no-match-contract", "Gas|Invariants"];
  const forge = path.join(root, "node_modules", ".native", "forge");
  execFileSync(forge, options, { cwd: copy, stdio: ["ignore", "ignore", "inherit"] });
  const files = {};
  let file;
  for (const line of fs.readFileSync(path.join(copy, "lcov.info"), "utf8").split("\n")) {
    const [kind, rest] = line.split(/:(.*)/);
    if (kind === "SF") file = files[rest] = { lines: new Map(), branches: [] };
    if (kind === "DA") file.lines.set(...rest.split(",").map(Number));
    if (kind === "BRDA") file.branches.push(rest.split(","));
  }
  return Object.entries(files).filter(([name]) => name.startsWith("src/"));
}

/// Is line `number` inside a block of assembly? The sources are formatted: a block ends with the bracket that stands below
/// its first letter.
function inAssembly(text, number) {
  for (let at = number - 1; at >= 0 && !/^    }/.test(text[at]); at--) {
    const indent = /^( *)assembly\b/.exec(text[at])?.[1];
    if (indent !== undefined) return !text.slice(at, number - 1).includes(`${indent}}`);
  }
  return false;
}

let reached = 0;
const missed = [];
prepare();
for (const [name, { lines, branches }] of measure()) {
  const text = fs.readFileSync(path.join(copy, name), "utf8").split("\n");
  let before = 0;
  for (const [number, count] of [...lines].sort(([a], [b]) => a - b)) {
    if (!inAssembly(text, number)) before = count;
    before ? reached++ : missed.push(`${name}:${number} line`);
  }
  for (const [number, , side, count] of branches) {
    Number(count) ? reached++ : missed.push(`${name}:${number} branch ${side}`);
  }
}
missed.forEach((what) => console.log(`not reached: ${what}`));
console.log(`lines and branches of contracts/src: ${reached} reached, ${missed.length} not`);
console.log(`figure contracts.coverage_unexplained ${missed.length} lines`);
process.exit(missed.length ? 1 : 0);
