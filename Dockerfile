# The server as an image: one program, no shell, not root. Works with the classic builder and with BuildKit.

FROM rust:1.95-slim-trixie AS build
WORKDIR /src
# what we build on, in a layer of its own: it is built anew only when Cargo.toml or Cargo.lock changes
COPY Cargo.toml Cargo.lock ./
RUN mkdir src \
 && echo 'fn main() {}' > src/main.rs \
 && touch src/lib.rs \
 && cargo build --release --locked --bin testshop \
 && rm -r src
COPY sql sql
COPY src src
# the placeholders above are younger than these files
RUN touch src/main.rs src/lib.rs \
 && cargo build --release --locked --bin testshop
# empty folders with the right owner: a fresh volume takes it over
RUN mkdir -p /folders/exports /folders/secrets/db /folders/secrets/cache /folders/secrets/api /folders/secrets/owner \
             /folders/secrets/pooler /folders/secrets/demo

FROM gcr.io/distroless/cc-debian13:nonroot
LABEL org.opencontainers.image.title="TestShop" \
      org.opencontainers.image.description="The server of an online shop" \
      org.opencontainers.image.licenses="MIT"
COPY --from=build /src/target/release/testshop /usr/local/bin/testshop
COPY --from=build --chown=65532:65532 /folders/exports /var/lib/testshop/exports
COPY --from=build --chown=65532:65532 /folders/secrets /secrets
ENV EXPORT_DIR=/var/lib/testshop/exports \
    LOG_FORMAT=json
USER 65532:65532
EXPOSE 8000 9000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=5s --timeout=4s --start-period=30s --retries=3 CMD ["/usr/local/bin/testshop", "healthcheck"]
ENTRYPOINT ["/usr/local/bin/testshop"]
CMD ["serve"]
