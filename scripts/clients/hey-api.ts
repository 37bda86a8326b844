import * as shop from "./generated/hey-api";
import { client } from "./generated/hey-api/client.gen";
import { type Answer, run, SHOP } from "./scenario";

client.setConfig({ baseUrl: SHOP });

/** The client leaves the response out when the server cannot be reached. */
async function answer<Data>(result: Promise<Partial<Answer<Data>>>): Promise<Answer<Data>> {
  const { response, data, error } = await result;
  if (!response) throw error;
  return { response, data, error };
}

run("hey-api", {
  authorize: (token) => client.setConfig({ auth: token }),
  register: (body) => answer(shop.postRegister({ body })),
  logIn: (body) => answer(shop.postLogin({ body })),
  list: ({ created_after, ...query }) =>
    answer(shop.getProducts({ query: { ...query, created_after: created_after?.toISOString() } })),
  get: (id) => answer(shop.getOneProducts({ path: { id } })),
  create: (body) => answer(shop.postProducts({ body })),
  update: (id, ifMatch, body) =>
    answer(shop.patchOneProducts({ path: { id }, headers: { "If-Match": ifMatch }, body })),
  remove: (id, ifMatch) => answer(shop.deleteOneProducts({ path: { id }, headers: { "If-Match": ifMatch } })),
  exportFile: () => answer(shop.getProductsExport()),
  importFile: (body) => answer(shop.postProductsImport({ body })),
});
