// Shows openapi.json. After a successful login or token refresh on the page, its requests send the new token.
"use strict";

const ui = SwaggerUIBundle({
  url: "/openapi.json",
  dom_id: "#page",
  deepLinking: true,
  displayRequestDuration: true,
  docExpansion: "list",
  filter: true,
  tryItOutEnabled: true,
  validatorUrl: null,
  responseInterceptor: (response) => {
    const path = new URL(response.url, location.href).pathname.replace(/\/$/, "");
    if (response.ok && ["/api/login", "/api/token/refresh"].includes(path)) {
      ui.preauthorizeApiKey("bearer", JSON.parse(response.text).token);
    }
    return response;
  },
});
