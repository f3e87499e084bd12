/** The client: what `openapi-fetch` types by the service's own description, with retries, errors and batches. */

import createClient, { type Client as Fetching } from "openapi-fetch";

import type { components, paths as Api } from "./api.js";
import { Problem, readList, readObject } from "./problems.js";
import { sendUntilAnswered } from "./retries.js";

type Schemas = components["schemas"];
export type Outcome = Schemas["OutcomeView"];
export type Report = Schemas["Report"];
export type Verdict = Schemas["VerdictView"];

/** The names of the models that a description has. */
export type ModelOf<Paths> = keyof Paths extends infer Path
  ? Path extends `/v1/models/${infer Name}/predict`
    ? Name
    : never
  : never;

type Post<Paths, Model extends string> = Paths extends Record<`/v1/models/${Model}/predict`, { post: infer Operation }>
  ? Operation
  : never;
type Asked<Operation> = Operation extends { requestBody: { content: { "application/json": infer Body } } } ? Body : never;
type Said<Operation> = Operation extends { responses: { 200: { content: { "application/json": infer Body } } } }
  ? Body
  : never;

/** One row of a model: its client, its inputs and, if wanted, its key. */
export type InstanceOf<Paths, Model extends string> = Exclude<Asked<Post<Paths, Model>>, { instances: unknown }>;
/** What a model answers for a row. */
export type PredictionOf<Paths, Model extends string> = Exclude<Said<Post<Paths, Model>>, { predictions: unknown }>;

/** What a client is made with. */
export interface Options {
  /** Where the service is, such as `http://localhost:3000`. */
  url: string;
  /** Sent as a bearer token, and nowhere else. */
  token?: string;
  /** Seconds that a call may take with all repeats; 30 unless you say. */
  timeout?: number;
  /** Sends the requests, in the place of `fetch`. */
  fetch?: typeof globalThis.fetch;
}

/** What one call may say. */
export interface CallOptions {
  /** Seconds that it may take with all repeats. */
  timeout?: number;
  /** Ends it. */
  signal?: AbortSignal;
  /** What the clients belong to, for the rules of the split. */
  segment?: string;
}

/** What a call with many rows may say. */
export interface ManyOptions extends CallOptions {
  /** Rows of a request; 256 unless you say. */
  batch?: number;
  /** Requests at the same time; 4 unless you say. */
  atOnce?: number;
}

const TIMEOUT_S = 30;
const BATCH = 256;
const AT_ONCE = 4;

/**
 * A client of a Rollout service. `Paths` are those that `openapi-typescript` makes of your service's `/openapi.json`:
 * with them, inputs and answers of your models have types.
 */
export class Client<Paths extends object = Api> {
  readonly #options: Options;

  constructor(options: Options) {
    this.#options = { ...options, url: options.url.replace(/\/+$/, "") };
  }

  /** Every call of the API with its types, retries and errors: `client.api().GET("/v1/models/{model}/split", …)`. */
  api(call: CallOptions = {}): Fetching<Api> {
    const { url, token, fetch } = this.#options;
    return createClient<Api>({
      baseUrl: url,
      headers: {
        ...(token !== undefined && { Authorization: `Bearer ${token}` }),
        ...(call.segment !== undefined && { "X-Client-Segment": call.segment }),
      },
      fetch: (request) => sendUntilAnswered(request, call.timeout ?? this.#options.timeout ?? TIMEOUT_S, fetch),
      ...(call.signal && { signal: call.signal }),
    });
  }

  /** Predicts one row. */
  async predict<Model extends ModelOf<Paths> & string>(
    model: Model,
    instance: InstanceOf<Paths, Model>,
    call: CallOptions = {},
  ): Promise<PredictionOf<Paths, Model>> {
    return (await this.#post(model, "predict", instance, call)) as PredictionOf<Paths, Model>;
  }

  /** Predicts many rows in requests of bounded size, and returns the answers in their order. */
  async predictMany<Model extends ModelOf<Paths> & string>(
    model: Model,
    instances: readonly InstanceOf<Paths, Model>[],
    call: ManyOptions = {},
  ): Promise<PredictionOf<Paths, Model>[]> {
    return this.#inBatches(instances, call, async (some) => {
      const said = await this.#post(model, "predict", { instances: some }, call);
      return readList<PredictionOf<Paths, Model>>(said, "predictions", some.length);
    });
  }

  /** Reports what turned out to be true of a prediction. The same report again is no other one. */
  async feedback(model: string, report: Report, call: CallOptions = {}): Promise<Outcome> {
    return (await this.#post(model, "feedback", report, call)) as Outcome;
  }

  /** Reports many outcomes in requests of bounded size, and returns them in their order. */
  async feedbackMany(model: string, reports: readonly Report[], call: ManyOptions = {}): Promise<Outcome[]> {
    return this.#inBatches(reports, call, async (some) => {
      const said = await this.#post(model, "feedback", { outcomes: some }, call);
      return readList<Outcome>(said, "outcomes", some.length);
    });
  }

  /** Says what the evidence demands of the challenger. */
  async verdict(model: string, call: CallOptions = {}): Promise<Verdict> {
    const { GET } = this.api(call);
    return (await readObject(GET("/v1/models/{model}/verdict", { params: { path: { model } } }))) as Verdict;
  }

  async #post(model: string, what: "predict" | "feedback", body: unknown, call: CallOptions): Promise<object> {
    // Its types are those of the caller's models, which the client's own description does not know.
    const { POST } = this.api(call) as unknown as {
      POST(path: string, init: { body: unknown }): Promise<{ data?: unknown }>;
    };
    return readObject(POST(`/v1/models/${encodeURIComponent(model)}/${what}`, { body }));
  }

  async #inBatches<Row, Answer>(
    rows: readonly Row[],
    call: ManyOptions,
    send: (some: readonly Row[]) => Promise<Answer[]>,
  ): Promise<Answer[]> {
    const size = call.batch ?? BATCH;
    if (!(size >= 1)) throw new RangeError("batch must be 1 or more");
    const starts = Array.from({ length: Math.ceil(rows.length / size) }, (_, number) => number * size);
    const answers: Answer[][] = new Array(starts.length);
    let next = 0;
    const work = async (): Promise<void> => {
      for (let own = next++; own < starts.length; own = next++) {
        const start = starts[own]!;
        try {
          answers[own] = await send(rows.slice(start, start + size));
        } catch (error) {
          next = starts.length; // nothing more is begun
          throw error instanceof Problem ? error.moved(start) : error;
        }
      }
    };
    await Promise.all(Array.from({ length: Math.min(call.atOnce ?? AT_ONCE, starts.length) }, work));
    return answers.flat();
  }
}
