// Shows openapi.json. After a successful login or token refresh on the page, its requests send the new token.
"use strict";

// PUBLIC_URL, or nothing
const base = "{base}";
const tokenPaths = ["/api/login", "/api/token/refresh"].map((path) => new URL(base + path, location.href).pathname);

const ui = SwaggerUIBundle({
  url: base + "/openapi.json",
  dom_id: "#page",
  deepLinking: true,
  displayRequestDuration: true,
  docExpansion: "list",
  filter: true,
  tryItOutEnabled: true,
  validatorUrl: null,
  responseInterceptor: (response) => {
    const path = new URL(response.url, location.href).pathname.replace(/\/$/, "");
    if (response.ok && tokenPaths.includes(path)) {
      ui.preauthorizeApiKey("bearer", JSON.parse(response.text).token);
    }
    return response;
  },
});
