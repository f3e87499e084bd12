/**
 * When a request is sent again. Every call may be: a prediction follows from its inputs and its client, its review item
 * is made once, and an outcome that comes again is the same one.
 */

import {
  ClientError,
  NoAnswerError,
  Problem,
  readProblem,
  UnexpectedAnswerError,
  UnreachableError,
} from "./problems.js";

const FIRST_PAUSE_S = 0.1;
const LONGEST_PAUSE_S = 5;
const LATER = 0.25; // those who were told to come back at the same time do not all do so
const LONGEST_TIMEOUT_MS = 600_000;
const MOST_BYTES = 256 * 1024 * 1024; // of an answer; rows that have more together go in smaller batches
const PASSES = new Set([429, 502, 503, 504]);

/** Sends a request until there is an answer, and throws a `ClientError` where there is none in time. */
export async function sendUntilAnswered(
  request: Request,
  timeoutS: number,
  fetch: typeof globalThis.fetch = globalThis.fetch,
): Promise<Response> {
  const deadline = performance.now() + timeoutS * 1000;
  const body = request.body === null ? null : await request.arrayBuffer();
  let last: ClientError | undefined;
  for (let tries = 0; ; tries += 1) {
    const left = deadline - performance.now();
    if (left <= 0) throw new NoAnswerError(`no answer from ${request.url} within ${timeoutS} s${last ? `: ${last.message}` : ""}`);
    const headers = new Headers(request.headers);
    // The service stops a little before the caller, so that its answer arrives.
    const forService = Math.min(LONGEST_TIMEOUT_MS, Math.max(1, Math.floor(left - Math.min(50, left / 10))));
    headers.set("X-Request-Timeout", String(forService));
    const overdue = AbortSignal.timeout(Math.ceil(left));
    const signal = AbortSignal.any([overdue, request.signal]);
    try {
      const sent = { method: request.method, headers, body, signal, redirect: "manual" as const };
      const response = await fetch(request.url, sent);
      const said = await readAll(response);
      if (response.ok) return new Response(said, response);
      last = readProblem(response.status, response.headers, await (said?.text() ?? ""));
    } catch (error) {
      if (request.signal.aborted || error instanceof ClientError) throw error; // the first as the caller wanted
      if (overdue.aborted) continue; // which ends it
      last = new UnreachableError(`${request.url} does not answer: ${reason(error)}`, { cause: error });
    }
    const pause = pauseAfter(last, tries);
    if (pause === undefined || performance.now() + pause * 1000 >= deadline) throw last;
    await new Promise((resolve) => setTimeout(resolve, pause * 1000));
    request.signal.throwIfAborted();
  }
}

/** Returns the seconds after which a request is sent again, drawn a little at random; `undefined` for never. */
export function pauseAfter(error: ClientError, tries: number, drawn: number = Math.random()): number | undefined {
  const answered = error instanceof Problem || error instanceof UnexpectedAnswerError;
  if (answered && !PASSES.has(error.status)) return undefined;
  if (error instanceof Problem && error.status === 504) return undefined; // it would take as long again
  if (answered && error.retryAfter !== undefined) {
    return Math.max(error.retryAfter, FIRST_PAUSE_S) * (1 + LATER * drawn);
  }
  return (Math.min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2 ** Math.min(tries, 10)) * (1 + drawn)) / 2;
}

/** Returns a body, unpacked, or `null` where there is none; its size has an end, whatever answers. */
async function readAll(response: Response): Promise<Blob | null> {
  if (response.body === null) return null;
  const pieces: Uint8Array<ArrayBuffer>[] = [];
  let size = 0;
  for (const reader = response.body.getReader(); ; ) {
    const { done, value } = await reader.read();
    if (done) return new Blob(pieces);
    pieces.push(value);
    size += value.length;
    if (size > MOST_BYTES) {
      await reader.cancel();
      throw new UnexpectedAnswerError(response.status, `it has more than ${MOST_BYTES} bytes`, undefined);
    }
  }
}

function reason(error: unknown): string {
  const cause = error instanceof Error && error.cause instanceof Error ? error.cause : error;
  return cause instanceof Error ? cause.message : String(cause);
}
