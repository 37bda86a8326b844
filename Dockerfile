# Image of the server: a single program, no shell, non-root. Builds with BuildKit and with the classic builder.

FROM rust:1.95-slim-trixie AS build
WORKDIR /src
# without values, Cargo.toml decides; `make docker-test` trades speed of the program for time
ARG CARGO_PROFILE_RELEASE_LTO
ARG CARGO_PROFILE_RELEASE_CODEGEN_UNITS
ARG CARGO_PROFILE_RELEASE_OPT_LEVEL
# dependencies in a layer of their own, rebuilt only when Cargo.toml or Cargo.lock changes
COPY Cargo.toml Cargo.lock ./
RUN mkdir src \
 && echo 'fn main() {}' > src/main.rs \
 && touch src/lib.rs \
 && cargo build --release --locked --bin testshop \
 && rm -r src
COPY sql sql
COPY src src
# Cargo compares modification times, and the placeholders above are newer than the copied files
RUN touch src/main.rs src/lib.rs \
 && cargo build --release --locked --bin testshop
# empty directories with the right owner: a new volume mounted there inherits it
RUN mkdir -p /dirs/exports /dirs/secrets/db /dirs/secrets/cache /dirs/secrets/api /dirs/secrets/owner \
             /dirs/secrets/pooler /dirs/secrets/demo /dirs/secrets/tls

FROM gcr.io/distroless/cc-debian13:nonroot
LABEL org.opencontainers.image.title="TestShop" \
      org.opencontainers.image.description="REST API server of an online shop" \
      org.opencontainers.image.licenses="MIT"
COPY --from=build /src/target/release/testshop /usr/local/bin/testshop
COPY --from=build --chown=65532:65532 /dirs/exports /var/lib/testshop/exports
COPY --from=build --chown=65532:65532 /dirs/secrets /secrets
ENV EXPORT_DIR=/var/lib/testshop/exports \
    LOG_FORMAT=json
USER 65532:65532
EXPOSE 8000 9000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=5s --timeout=4s --start-period=30s --retries=3 CMD ["/usr/local/bin/testshop", "healthcheck"]
ENTRYPOINT ["/usr/local/bin/testshop"]
CMD ["serve"]
