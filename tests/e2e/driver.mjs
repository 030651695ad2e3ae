// An editor made of the protocol's own JavaScript SDK, driven line by line, as driver.py is:
//
//     node driver.mjs PACKAGES HOW
//
// PACKAGES is the folder under which the SDK is installed, HOW says how to come to the agent:
// {"url", "token"} or {"command", "env"}. Standard input and output are those of driver.py:
//
//     {"id": 1, "do": "request", "with": {"method": …, "params": …}}
//     {"id": 2, "do": "notify", "with": {"method": …, "params": …}}
//     {"id": 3, "do": "give_up", "with": {"request": 1}}     abort the signal of a request
//     {"answer": "CALL", "option": "ID"}                      answer a question; null: cancelled
//
//     {"id": 1, "result": {…}}, {"id": 1, "error": {"code": …, "message": …, "data": …}}
//     {"heard": {…}, "model": "PromptResponse", "problem": null}     any message that arrived,
//         and what the protocol's JSON schema makes of it
//     {"complaint": "…"}            what the SDK wrote on its console
//     {"shown": {…}}, {"asked": "CALL"}, {"retracted": "CALL"}, {"lent": …}
//     {"left": 0, "stderr": "…"}    how the agent's process ended, once standard input has

import { spawn } from "node:child_process";
import { readFile, writeFile } from "node:fs/promises";
import { createRequire } from "node:module";
import path from "node:path";
import { createInterface } from "node:readline";
import { Readable, Writable } from "node:stream";
import { pathToFileURL } from "node:url";

const [packages, given] = process.argv.slice(2);
const how = JSON.parse(given);
const require = createRequire(path.join(packages, "index.js"));
const load = async (name) => import(pathToFileURL(require.resolve(name)));

const acp = await load("@agentclientprotocol/sdk");
const schema = JSON.parse(
  await readFile(require.resolve("@agentclientprotocol/sdk/schema/v1/schema.json")),
);

const tell = (line) => process.stdout.write(JSON.stringify(line) + "\n");
for (const level of ["error", "warn", "log", "info", "debug"]) {
  console[level] = (...words) => tell({ complaint: words.map(String).join(" ") });
}

// ---- the protocol's schema

const Ajv = require("ajv/dist/2020");
const ajv = new Ajv({ strict: false, validateFormats: false });
ajv.addSchema({ $id: "acp", $defs: schema.$defs });
const named = (side, method, suffix) =>
  Object.keys(schema.$defs).find(
    (name) =>
      name.endsWith(suffix) &&
      schema.$defs[name]["x-side"] === side &&
      schema.$defs[name]["x-method"] === method,
  );
const sent = new Map(); // our request's id -> its method

function judged(message) {
  const [name, value] = shape(message);
  if (name === undefined) return { heard: message, model: null, problem: null };
  const fits = ajv.getSchema(`acp#/$defs/${name}`);
  const problem = fits(value) ? null : ajv.errorsText(fits.errors);
  return { heard: message, model: name, problem };
}

function shape(message) {
  if (message.method === "$/cancel_request") return ["CancelRequestNotification", message.params];
  if (message.method !== undefined) {
    const suffix = message.id === undefined ? "Notification" : "Request";
    return [named("client", message.method, suffix), message.params];
  }
  if (message.error !== undefined) return ["Error", message.error];
  return [named("agent", sent.get(message.id), "Response"), message.result];
}

function watched(stream) {
  const into = new TransformStream({
    transform(message, controller) {
      tell(judged(message));
      controller.enqueue(message);
    },
  });
  const out = new TransformStream({
    transform(message, controller) {
      if (message.method !== undefined && message.id !== undefined) {
        sent.set(message.id, message.method);
      }
      controller.enqueue(message);
    },
  });
  out.readable.pipeTo(stream.writable).catch(() => {});
  return { readable: stream.readable.pipeThrough(into), writable: out.writable };
}

// ---- the way to the agent

let child = null;
let errors = "";

async function open() {
  if (how.url !== undefined) {
    const { createWebSocketStream } = await load("@agentclientprotocol/sdk/experimental/ws-client");
    const { WebSocket } = require("ws");
    const headers = { Authorization: `Bearer ${how.token}` };
    return createWebSocketStream(how.url, { headers, WebSocket });
  }
  const [program, ...rest] = how.command;
  child = spawn(program, rest, { env: { ...process.env, ...how.env }, stdio: "pipe" });
  child.stderr.on("data", (data) => (errors += data));
  return acp.ndJsonStream(Writable.toWeb(child.stdin), Readable.toWeb(child.stdout));
}

// ---- what the editor does when it is asked

const answers = new Map(); // tool call -> how to answer the question about it
const terminals = new Map();

const app = acp
  .client({ name: "an editor" })
  .onNotification("session/update", ({ params }) => tell({ shown: params }))
  .onRequest("session/request_permission", ({ params, signal }) => {
    const call = params.toolCall.toolCallId;
    tell({ asked: call });
    signal.addEventListener("abort", () => tell({ retracted: call }));
    return new Promise((resolve) => answers.set(call, resolve));
  })
  .onRequest("fs/read_text_file", async ({ params }) => {
    tell({ lent: "read_text_file", path: params.path });
    return { content: "as edited: " + (await readFile(params.path, "utf8")) };
  })
  .onRequest("fs/write_text_file", async ({ params }) => {
    tell({ lent: "write_text_file", path: params.path });
    await writeFile(params.path, params.content);
    return {};
  })
  .onRequest("terminal/create", ({ params }) => {
    const running = spawn(params.command, params.args, { cwd: params.cwd });
    const terminal = { running, output: "", ended: null };
    for (const stream of [running.stdout, running.stderr]) {
      stream.on("data", (data) => (terminal.output += data));
    }
    terminal.over = new Promise((resolve) => running.on("close", (exitCode, signal) => {
      terminal.ended = { exitCode, signal };
      resolve(terminal.ended);
    }));
    const terminalId = `terminal-${running.pid}`;
    terminals.set(terminalId, terminal);
    tell({ lent: "create_terminal", terminal: terminalId });
    return { terminalId };
  })
  .onRequest("terminal/output", ({ params }) => {
    const { output, ended } = terminals.get(params.terminalId);
    return { output, truncated: false, exitStatus: ended };
  })
  .onRequest("terminal/wait_for_exit", ({ params }) => terminals.get(params.terminalId).over)
  .onRequest("terminal/kill", ({ params }) => {
    terminals.get(params.terminalId).running.kill("SIGKILL");
    return {};
  })
  .onRequest("terminal/release", ({ params }) => {
    terminals.delete(params.terminalId);
    tell({ lent: "release_terminal", terminal: params.terminalId });
    return {};
  });

// ---- what it is told to do

const connection = app.connect(watched(await open()));
const given_up = new Map(); // order -> how to abort its request

async function request({ id, with: { method, params } }) {
  const aborting = new AbortController();
  given_up.set(id, aborting);
  try {
    const options = { cancellationSignal: aborting.signal };
    tell({ id, result: await connection.agent.request(method, params, options) });
  } catch (error) {
    tell({ id, error: { code: error.code ?? 0, message: String(error.message), data: error.data } });
  }
}

async function perform(order) {
  if ("answer" in order) {
    const outcome =
      order.option === null
        ? { outcome: "cancelled" }
        : { outcome: "selected", optionId: order.option };
    answers.get(order.answer)({ outcome });
  } else if (order.do === "request") {
    await request(order);
  } else if (order.do === "notify") {
    await connection.agent.notify(order.with.method, order.with.params);
    tell({ id: order.id, result: null });
  } else {
    given_up.get(order.with.request).abort();
    tell({ id: order.id, result: null });
  }
}

tell({ ready: true });
for await (const line of createInterface({ input: process.stdin })) {
  perform(JSON.parse(line));
}
connection.close();
if (child !== null) {
  const code = await new Promise((resolve) => {
    child.on("close", resolve);
    child.stdin.end();
  });
  tell({ left: code, stderr: errors });
}
process.exit(0);
