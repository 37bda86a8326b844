import * as shop from "./generated/orval";
import { type Answer, run, SHOP } from "./scenario";

let headers: Record<string, string> = {};
const { fetch } = globalThis;
// the generated client sends requests to paths
globalThis.fetch = (path, options) =>
  fetch(SHOP + path, { ...options, headers: { ...headers, ...(options?.headers as Record<string, string>) } });

type DataOf<Result> = Result extends { status: 200 | 201 | 204; data: infer Data } ? Data : never;

async function answer<Result extends { status: number; headers: Headers; data: unknown }>(
  result: Promise<Result>,
): Promise<Answer<DataOf<Result>>> {
  const response = await result;
  const isSuccess = response.status < 300;
  return isSuccess ? { response, data: response.data as DataOf<Result> } : { response, error: response.data };
}

run("orval", {
  authorize: (token) => (headers = { Authorization: `Bearer ${token}` }),
  register: (body) => answer(shop.postRegister(body)),
  logIn: (body) => answer(shop.postLogin(body)),
  list: ({ created_after, ...query }) =>
    answer(shop.getProducts({ ...query, created_after: created_after?.toISOString() })),
  get: (id) => answer(shop.getOneProducts(id)),
  create: (body) => answer(shop.postProducts(body)),
  update: (id, ifMatch, body) => answer(shop.patchOneProducts(id, body, { headers: { "If-Match": ifMatch } })),
  remove: (id, ifMatch) => answer(shop.deleteOneProducts(id, { headers: { "If-Match": ifMatch } })),
  exportFile: () => answer(shop.getProductsExport()),
  importFile: (body) => answer(shop.postProductsImport(body)),
});
