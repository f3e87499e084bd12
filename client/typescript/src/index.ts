export * from "./client.js";
export * from "./problems.js";
export type { components, paths } from "./api.js";
