/** What can go wrong between a caller and the service. */

import type { components } from "./api.js";

type Schemas = components["schemas"];

/** A problem document, RFC 9457. */
export type ProblemDocument = Schemas["Problem"];
/** What a problem is about, such as `invalid-request`. */
export type ProblemType = Named<ProblemDocument["type"]>;
type Named<Type> = Type extends `urn:rollout:problem:${infer Name}` ? Name : never;

const PREFIX = "urn:rollout:problem:";
const PLACE = /(\/(?:instances|outcomes)\/)(\d{1,15})(?!\d)/g;
const SHOWN = 300; // characters of an answer that is no problem document

/** One fault in a request: a JSON pointer to it, such as `/instances/3/inputs/image`, and what would be right. */
export interface Fault {
  readonly pointer: string;
  readonly detail: string;
}

/** Base of everything that goes wrong between a caller and the service. */
export class ClientError extends Error {
  constructor(message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = new.target.name;
  }
}

/** The service did not answer: there is no connection, or it broke. */
export class UnreachableError extends ClientError {}

/** No answer came within the caller's own timeout. */
export class NoAnswerError extends ClientError {}

/** What answered is no Rollout service that this client knows; a proxy in front of one, perhaps. */
export class UnexpectedAnswerError extends ClientError {
  constructor(
    readonly status: number,
    readonly text: string,
    readonly retryAfter: number | undefined,
  ) {
    super(`an answer with status ${status} that no Rollout service gives: ${text || "it is empty"}`);
  }
}

/** The service refused or failed, and says why. */
export class Problem extends ClientError {
  readonly type: ProblemType;
  readonly status: number;
  readonly title: string;
  readonly detail: string;
  /** The faults one by one, where fields are at fault. */
  readonly errors: readonly Fault[];

  constructor(
    readonly document: ProblemDocument,
    /** The trace of the request, to find it in the service's log; empty without one. */
    readonly traceId: string,
    /** Seconds after which to come back, if the service says so. */
    readonly retryAfter: number | undefined,
  ) {
    const type = document.type.slice(PREFIX.length) as ProblemType;
    super(`${document.status} ${type}: ${document.detail}${traceId && ` (trace ${traceId})`}`);
    this.type = type;
    this.status = document.status;
    this.title = document.title;
    this.detail = document.detail;
    this.errors = (document.errors ?? []).map((one) => ({ ...one, pointer: one.pointer.replace(/^#/, "") }));
  }

  /** Returns the same for rows that were sent as a part of more, with pointers into all of them. */
  moved(first: number): Problem {
    const move = (text: string) =>
      text.replace(PLACE, (_, path: string, row: string) => path + (Number(row) + first));
    const errors = this.document.errors?.map((one) => ({ ...one, pointer: move(one.pointer) }));
    const document = { ...this.document, detail: move(this.detail), ...(errors && { errors }) };
    return new Problem(document, this.traceId, this.retryAfter);
  }
}

/** Returns what an answer that is not 2xx says. */
export function readProblem(status: number, headers: Headers, text: string): Problem | UnexpectedAnswerError {
  const retryAfter = readRetryAfter(headers.get("retry-after"));
  const trace = /^[0-9a-f]{2}-([0-9a-f]{32})-/.exec(headers.get("traceparent") ?? "")?.[1] ?? "";
  try {
    const said: unknown = JSON.parse(text);
    if (isProblem(said)) return new Problem(said, trace, retryAfter);
  } catch {
    // no problem document
  }
  return new UnexpectedAnswerError(status, text.slice(0, SHOWN), retryAfter);
}

/** Whether somebody who answers says what a problem document says: any JSON may come. */
function isProblem(said: unknown): said is ProblemDocument {
  if (!isObject(said)) return false;
  const { type, title, status, detail, errors } = said;
  const faults: unknown = errors ?? [];
  return (
    [type, title, detail].every(isText) &&
    (type as string).startsWith(PREFIX) &&
    Number.isInteger(status) &&
    Array.isArray(faults) &&
    faults.every((one: unknown) => isObject(one) && isText(one["pointer"]) && isText(one["detail"]))
  );
}

function isText(said: unknown): said is string {
  return typeof said === "string";
}

function isObject(said: unknown): said is Record<string, unknown> {
  return typeof said === "object" && said !== null;
}

/** Returns what an answer that is 2xx holds, which is to be an object. */
export async function readObject(call: Promise<{ data?: unknown }>): Promise<object> {
  const { data } = await call.catch((error: unknown) => {
    if (error instanceof SyntaxError) throw new UnexpectedAnswerError(200, error.message, undefined);
    throw error;
  });
  if (isObject(data)) return data;
  throw new UnexpectedAnswerError(200, String(data), undefined);
}

/** Returns the list under a name of an answer, one for each row that was sent. */
export function readList<Answer>(said: object, name: string, count: number): Answer[] {
  const list = (said as Record<string, unknown>)[name];
  if (Array.isArray(list) && list.length === count) return list as Answer[];
  throw new UnexpectedAnswerError(200, `its ${name} are not ${count}`, undefined);
}

/** Returns the seconds that `Retry-After` says, as a number or as a date. */
export function readRetryAfter(header: string | null, now: number = Date.now()): number | undefined {
  if (header === null) return undefined;
  if (/^\d+$/.test(header)) return Number(header);
  const date = Date.parse(header);
  return Number.isNaN(date) ? undefined : Math.max(0, (date - now) / 1000);
}
