// Prints the part of a compiled contract that is committed: its interface and the code that deploys it.
const path = require("path");

const name = process.argv[2];
const built = require(path.join(__dirname, "..", "out", `${name}.sol`, `${name}.json`));
console.log(JSON.stringify({ abi: built.abi, bytecode: { object: built.bytecode.object } }, null, 1));
