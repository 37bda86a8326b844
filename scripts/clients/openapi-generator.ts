import { AccountsApi, type ApiResponse, Configuration, ProductsApi, ResponseError } from "./generated/openapi-generator";
import { type Answer, run, SHOP } from "./scenario";

let accessToken = "";
const configuration = new Configuration({ basePath: SHOP, accessToken: () => accessToken });
const [accounts, products] = [new AccountsApi(configuration), new ProductsApi(configuration)];

async function answer<Data>(request: Promise<ApiResponse<Data>>): Promise<Answer<Data>> {
  try {
    const response = await request;
    return { response: response.raw, data: await response.value() };
  } catch (error) {
    if (error instanceof ResponseError) return { response: error.response, error: await error.response.json() };
    throw error;
  }
}

run("openapi-generator", {
  authorize: (token) => (accessToken = token),
  register: (Registration) => answer(accounts.postRegisterRaw({ Registration })),
  logIn: (Credentials) => answer(accounts.postLoginRaw({ Credentials })),
  list: (query) => answer(products.getProductsRaw(query)),
  get: (id) => answer(products.getOneProductsRaw({ id })),
  create: (ProductRequest) => answer(products.postProductsRaw({ ProductRequest })),
  update: (id, If_Match, ProductPatch) => answer(products.patchOneProductsRaw({ id, If_Match, ProductPatch })),
  remove: (id, If_Match) => answer(products.deleteOneProductsRaw({ id, If_Match })),
  exportFile: () => answer(products.getProductsExportRaw({})),
  importFile: (body) => answer(products.postProductsImportRaw({ body })),
});
