# The wsevent image: one static binary, the CA certificates, nothing else.
#
#   scripts/build/docker-build                 builds thednp/wsevent:latest
#   docker run --rm -it thednp/wsevent --help
#
# scripts/build/check-image reads this file and proves the result where no container engine runs.

FROM rust:1.95-slim-bookworm AS build
WORKDIR /src

# The dependencies come first, built around an empty program, in a layer that stays until a manifest changes.
# (The benches are here because cargo wants the ones that Cargo.toml names to exist.)
COPY Cargo.toml Cargo.lock ./
COPY benches benches
COPY scripts/build/static scripts/build/static
RUN mkdir src && touch src/lib.rs && echo 'fn main() {}' >src/main.rs && scripts/build/static /empty

# Sources keep their times in a COPY; touched, they are newer than the empty program.
COPY src src
RUN touch src/lib.rs src/main.rs && scripts/build/static /image

FROM scratch
LABEL org.opencontainers.image.title="wsevent" \
      org.opencontainers.image.description="Moves endless event streams over point-to-point links: one connection in, thousands of subscribers out, no broker" \
      org.opencontainers.image.licenses="MIT OR Apache-2.0"
COPY --from=build /image/ /
ENV WSEVENT_SERVE_ADDRESS=0.0.0.0:8080
EXPOSE 8080
USER 65534:65534
ENTRYPOINT ["/wsevent"]
