// What a client of the shop does, for the generated clients in TypeScript. client_test.py compares the printed
// observations with the expected ones; scenario.py does the same in Python.

export interface Tokens {
  token: string;
}
export interface Product {
  id: number;
  name: string;
  price: number;
  category_name: string;
  created_at: string | Date;
  tags: string[];
}
export interface ProductRequest {
  name: string;
  price: number;
  category_name: string;
  tags: string[];
}
export interface ListQuery {
  category?: string[];
  price_max?: number;
  created_after?: Date;
  ordering?: "-price";
  page_size?: number;
  cursor?: string;
}
export interface Report {
  created: number;
  updated: number;
  unchanged: number;
  skipped: number;
  errors: { row: number; price?: string[] }[];
}

/** `data` of a success or `error` of a failure. */
export interface Answer<Data> {
  response: { status: number; headers: Headers };
  data?: Data;
  error?: unknown;
}

/** A generated client behind names of our own. */
export interface Client {
  authorize(token: string): void;
  register(body: { username: string; email: string; password: string }): Promise<Answer<unknown>>;
  logIn(body: { username: string; password: string }): Promise<Answer<Tokens>>;
  list(query: ListQuery): Promise<Answer<Product[]>>;
  get(id: number): Promise<Answer<Product>>;
  create(body: ProductRequest): Promise<Answer<Product>>;
  update(id: number, ifMatch: string, body: { price: number }): Promise<Answer<Product>>;
  remove(id: number, ifMatch: string): Promise<Answer<unknown>>;
  exportFile(): Promise<Answer<Blob>>;
  importFile(file: Blob): Promise<Answer<Report>>;
}

export const SHOP = process.env.SHOP!;
const PASSWORD = process.env.SHOP_PASSWORD!;

function failure(answer: Answer<unknown>): unknown[] {
  return [answer.response.status, ...Object.keys(answer.error as object).sort()];
}

function data<Data>(answer: Answer<Data>): Data {
  if (answer.data === undefined) throw new Error(`unexpected response: ${JSON.stringify(failure(answer))}`);
  return answer.data;
}

function nextCursor(answer: Answer<unknown>): string | undefined {
  const link = /<([^>]*)>; rel="next"/.exec(answer.response.headers.get("Link") ?? "");
  return link ? (new URL(link[1]!, SHOP).searchParams.get("cursor") ?? undefined) : undefined;
}

async function pageLengths(client: Client): Promise<number[]> {
  const lengths: number[] = [];
  let cursor: string | undefined;
  do {
    const page = await client.list({ page_size: 90, cursor });
    lengths.push(data(page).length);
    cursor = nextCursor(page);
  } while (cursor);
  return lengths;
}

async function observe(name: string, client: Client): Promise<Record<string, unknown>> {
  const seen: Record<string, unknown> = {};
  const account = { username: name, email: `${name}@example.com`, password: PASSWORD };
  seen["register"] = (await client.register(account)).response.status;
  seen["register again"] = failure(await client.register(account));
  seen["log in with a wrong password"] = failure(await client.logIn({ username: name, password: "wrong password" }));
  seen["list without a token"] = failure(await client.list({}));
  client.authorize(data(await client.logIn({ username: "staff", password: PASSWORD })).token);

  const category = data(await client.list({ page_size: 1 }))[0]!.category_name;
  const request = { name: `Kettle of ${name}`, price: 19.99, category_name: category, tags: ["steel", "new"] };
  const creation = await client.create(request);
  const product = data(creation);
  seen["create"] = [creation.response.status, product.name === request.name, product.price, product.tags];
  seen["create in an unknown category"] = failure(await client.create({ ...request, category_name: "No category" }));

  const since = new Date(product.created_at);
  const filters: ListQuery = { category: [category], price_max: 19.99, created_after: since, ordering: "-price" };
  seen["list with filters"] = data(await client.list(filters)).map((found) => found.id === product.id);
  seen["follow pages"] = await pageLengths(client);

  const etag = creation.response.headers.get("ETag")!;
  const update = await client.update(product.id, etag, { price: 17.5 });
  seen["patch with If-Match"] = [update.response.status, data(update).price];
  seen["patch with an old If-Match"] = failure(await client.update(product.id, etag, { price: 1 }));
  seen["get an unknown product"] = failure(await client.get(2 ** 40));

  const file = data(await client.exportFile());
  seen["export"] = (await file.slice(0, 2).text()) === "PK";
  const { created, updated, unchanged, skipped, errors } = data(await client.importFile(file));
  seen["import the export"] = [created, updated, unchanged, skipped, errors.length];
  seen["import no table"] = failure(await client.importFile(new Blob(["no table"], { type: "text/csv" })));
  seen["delete"] = (await client.remove(product.id, update.response.headers.get("ETag")!)).response.status;
  return seen;
}

export async function run(name: string, client: Client): Promise<void> {
  console.log(JSON.stringify(await observe(name, client)));
}
