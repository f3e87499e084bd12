/** Against a running service, whose address is in ROLLOUT_URL, and whose models models.ts describes. */

import assert from "node:assert/strict";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import { type AddressInfo } from "node:net";
import { test } from "node:test";
import { gzipSync } from "node:zlib";

import { Client, NoAnswerError, Problem, UnexpectedAnswerError, UnreachableError } from "../src/index.js";
import type { paths } from "./models.js";

const client = new Client<paths>({ url: process.env["ROLLOUT_URL"]! });
const image = Array.from({ length: 32 }, (_, row) => Array.from({ length: 32 }, (_, column) => (row * column) % 256));
const broken = image.slice(1);
const run = `${process.pid}-${Date.now()}`;

test("a prediction has the types of its model", async () => {
  const one = await client.predict("digits", { client_id: "c-1", key: `${run}-0`, inputs: { image } });
  const label: string = one.label;
  assert.ok(label in one.scores);
  assert.equal(one.confidence, one.scores[label]);
  const arm: "champion" | "control" | "challenger" = one.arm;
  assert.ok(["champion", "control", "challenger"].includes(arm));
  assert.equal(one.key, `${run}-0`);
  // @ts-expect-error  there is no such model
  await assert.rejects(client.predict("cats", { client_id: "c-1", inputs: { image } }), { type: "unknown-model" });
  // @ts-expect-error  nor such an input
  await assert.rejects(client.predict("digits", { client_id: "c-1", inputs: { pixels: image } }), Problem);
});

test("each head of several has its own answer", async () => {
  const one = await client.predict("tiny-heads", { client_id: "c-1", inputs: { x: [1, 0, 0, 0] } });
  const letter: string = one.heads.letter.label;
  const topics: string[] = one.heads.topics.labels;
  assert.equal(letter, "a");
  assert.ok(Array.isArray(topics));
  assert.equal(typeof one.heads.rank.score, "number");
});

test("many rows are answered in their order, and faults are pointed at among all of them", async () => {
  const rows = Array.from({ length: 10 }, (_, number) => ({ client_id: `c-${number}`, inputs: { image } }));
  const answers = await client.predictMany("digits", rows, { batch: 3 });
  assert.deepEqual(answers.map((one) => one.client_id), rows.map((one) => one.client_id));
  rows[7] = { client_id: "c-7", inputs: { image: broken } };
  const failed = await client.predictMany("digits", rows, { batch: 3, atOnce: 1 }).catch((error: unknown) => error);
  assert.ok(failed instanceof Problem);
  assert.equal(failed.type, "invalid-request");
  assert.equal(failed.status, 422);
  assert.match(failed.traceId, /^[0-9a-f]{32}$/);
  assert.deepEqual(failed.errors.map((one) => one.pointer), ["/instances/7/inputs/image"]);
  assert.deepEqual(await client.predictMany("digits", []), []);
});

test("outcomes are joined with their predictions, and contradictions are a conflict", async () => {
  const keys = [1, 2, 3].map((number) => `${run}-${number}`);
  await client.predictMany("digits", keys.map((key) => ({ client_id: "c-1", key, inputs: { image } })));
  const reports = keys.map((key) => ({ client_id: "c-1", key, label: "7" }));
  const outcomes = await client.feedbackMany("digits", reports, { batch: 2 });
  assert.deepEqual(outcomes.map((one) => one.key), keys);
  assert.equal((await client.feedback("digits", reports[0]!)).repeated, true);
  const other = client.feedback("digits", { ...reports[0]!, label: "8" });
  await assert.rejects(other, (error) => error instanceof Problem && error.type === "outcome-conflict");
});

test("the rest of the API has types too", async () => {
  const verdict = await client.verdict("digits");
  assert.ok(["promote", "hold", "rollback"].includes(verdict.verdict));
  const { data } = await client.api().GET("/v1/models");
  assert.ok(data);
  const split = client.api().GET("/v1/models/{model}/split", { params: { path: { model: "digits" } } });
  await assert.rejects(split, (error) => error instanceof Problem && error.status === 401);
});

/** A service that answers as it is told. */
async function answering(answer: (request: IncomingMessage, response: ServerResponse, tries: number) => void) {
  let tries = 0;
  const server = createServer((request, response) => {
    request.resume();
    request.on("end", () => answer(request, response, tries++));
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  return { url, tries: () => tries, close: () => (server.closeAllConnections(), server.close()) };
}

const overloaded = { type: "urn:rollout:problem:overloaded", title: "Busy", status: 503, detail: "come back" };

test("what is shed is sent again, not before Retry-After, with what is left of the time", async () => {
  const seen: number[] = [];
  const service = await answering((request, response, tries) => {
    seen.push(Number(request.headers["x-request-timeout"]));
    assert.equal(request.headers.authorization, "Bearer secret");
    response.statusCode = tries < 1 ? 503 : 200;
    response.setHeader("Content-Type", "application/json");
    if (tries < 1) response.setHeader("Retry-After", "1");
    response.end(JSON.stringify(tries < 1 ? overloaded : { label: "7" }));
  });
  const started = performance.now();
  const busy = new Client<paths>({ url: service.url, token: "secret", timeout: 10 });
  assert.equal((await busy.predict("digits", { client_id: "c", inputs: { image } })).label, "7");
  assert.ok(performance.now() - started >= 1000);
  assert.equal(service.tries(), 2);
  assert.ok(seen[0]! < 10_000 && seen[1]! <= seen[0]! - 1000);
  service.close();
});

test("who cannot wait as long is told at once", async () => {
  const service = await answering((_, response) => {
    response.writeHead(503, { "Retry-After": "30" }).end(JSON.stringify(overloaded));
  });
  const hurried = new Client<paths>({ url: service.url, timeout: 2 }).verdict("digits");
  await assert.rejects(hurried, (error) => error instanceof Problem && error.retryAfter === 30);
  assert.equal(service.tries(), 1);
  service.close();
});

test("what is no Rollout service, does not answer, or is not there has an error of its own", async () => {
  const proxy = await answering((_, response) => response.writeHead(404).end("<h1>nginx</h1>"));
  const strange = new Client<paths>({ url: proxy.url }).verdict("digits");
  await assert.rejects(strange, (error) => error instanceof UnexpectedAnswerError && error.text.includes("nginx"));
  proxy.close();
  await assert.rejects(new Client<paths>({ url: proxy.url, timeout: 0.5 }).verdict("digits"), UnreachableError);
  const silent = await answering(() => {});
  await assert.rejects(new Client<paths>({ url: silent.url, timeout: 0.3 }).verdict("digits"), NoAnswerError);
  const aborted = new AbortController();
  const call = new Client<paths>({ url: silent.url }).verdict("digits", { signal: aborted.signal });
  setTimeout(() => aborted.abort(), 50);
  await assert.rejects(call, { name: "AbortError" });
  silent.close();
});

test("a problem document that says too little, or what is none, is no problem of the service", async () => {
  const { detail: _, ...silent } = overloaded;
  const strange = [silent, { ...overloaded, title: 7 }, { ...overloaded, status: "503" }, { ...overloaded, errors: 7 }];
  for (const errors of [[null], [{ detail: "wrong" }], [{ pointer: 7, detail: "wrong" }]]) {
    strange.push({ ...overloaded, errors } as never);
  }
  for (const said of [...strange, null, [], 7, { type: 7 }]) {
    const service = await answering((_, response) => {
      response.writeHead(422, { "Content-Type": "application/problem+json" }).end(JSON.stringify(said));
    });
    await assert.rejects(new Client<paths>({ url: service.url }).verdict("digits"), UnexpectedAnswerError);
    service.close();
  }
});

test("whatever answers is an error of its own, and in time", async () => {
  const answers = ["<h1>fine</h1>", "null", "[]", '{"predictions":[]}', '{"predictions":{"length":2}}', ""];
  const strange = await answering((_, response, tries) => {
    response.writeHead(200, { "Content-Type": "application/json" }).end(answers[tries]);
  });
  const rows = [1, 2].map(() => ({ client_id: "c", inputs: { image } }));
  for (const _ of answers) {
    const many = new Client<paths>({ url: strange.url }).predictMany("digits", rows);
    await assert.rejects(many, UnexpectedAnswerError);
  }
  await assert.rejects(new Client<paths>({ url: strange.url }).verdict("digits"), UnexpectedAnswerError);
  strange.close();
  const dripping = await answering((_, response) => {
    response.writeHead(200, { "Content-Type": "application/json" }).write("{");
    const more = setInterval(() => response.write(" "), 20);
    response.on("close", () => clearInterval(more));
  });
  await assert.rejects(new Client<paths>({ url: dripping.url, timeout: 0.5 }).verdict("digits"), NoAnswerError);
  dripping.close();
  const zeros = gzipSync(Buffer.alloc(300 * 1024 * 1024, " "));
  const bomb = await answering((_, response) => {
    response.writeHead(200, { "Content-Encoding": "gzip" }).end(zeros);
  });
  const unpacked = new Client<paths>({ url: bomb.url, timeout: 60 }).verdict("digits");
  await assert.rejects(unpacked, (error) => error instanceof UnexpectedAnswerError && error.text.includes("more than"));
  bomb.close();
});
