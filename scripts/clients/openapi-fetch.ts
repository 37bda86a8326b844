import createClient from "openapi-fetch";
import type { paths } from "./generated/openapi-fetch";
import { run, SHOP } from "./scenario";

const shop = createClient<paths>({ baseUrl: SHOP });

run("openapi-fetch", {
  authorize: (token) =>
    shop.use({ onRequest: ({ request }) => request.headers.set("Authorization", `Bearer ${token}`) }),
  register: (body) => shop.POST("/api/register/", { body }),
  logIn: (body) => shop.POST("/api/login/", { body }),
  list: ({ created_after, ...query }) =>
    shop.GET("/api/products/", { params: { query: { ...query, created_after: created_after?.toISOString() } } }),
  get: (id) => shop.GET("/api/products/{id}/", { params: { path: { id } } }),
  create: (body) => shop.POST("/api/products/", { body }),
  update: (id, ifMatch, body) =>
    shop.PATCH("/api/products/{id}/", { params: { path: { id }, header: { "If-Match": ifMatch } }, body }),
  remove: (id, ifMatch) =>
    shop.DELETE("/api/products/{id}/", { params: { path: { id }, header: { "If-Match": ifMatch } } }),
  exportFile: () => shop.GET("/api/products/export/", { parseAs: "blob" }),
  importFile: (file) =>
    shop.POST("/api/products/import/", {
      // openapi-typescript gives the format `binary` the type `string`
      body: file as unknown as string,
      bodySerializer: (body) => body,
      headers: { "Content-Type": "application/octet-stream" },
    }),
});
