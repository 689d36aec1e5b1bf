# syntax=docker/dockerfile:1

# Debian's glibc of both stages is the same; the C compiler here is for the crypto library.
FROM rust:1.95-bookworm AS build
WORKDIR /build
COPY Cargo.toml Cargo.lock ./
COPY src src
# Never built here, but the manifest names files in them.
COPY benches benches
COPY tests tests
COPY tools tools
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/build/target \
    cargo build --locked --release --bin sfu && cp target/release/sfu /sfu

# glibc, libgcc and nothing else: no shell, no package manager.
FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /sfu /sfu
# Numeric, so that Kubernetes can see that it is not root.
USER 65532:65532
EXPOSE 5005/tcp 3478/udp
HEALTHCHECK --interval=10s --timeout=5s --start-period=5s --retries=3 CMD ["/sfu", "--health"]
ENTRYPOINT ["/sfu"]
