# The image that Airbyte's platform runs. For this machine's architecture:
#
#   docker build -t airbyte/destination-kinesis:0.2.0 .
#
# For both, into a registry (where a machine of each is at hand, `docker buildx create --append` saves the emulation):
#
#   docker buildx build --platform linux/amd64,linux/arm64 -t <registry>/destination-kinesis:0.2.0 --push .
#
# integration_tests/image.sh builds and tries this very file without a registry or a daemon.

FROM rust:1.95-slim-trixie AS build
WORKDIR /build
# The dependencies alone: they are built again only when one of these two files changes. Cargo wants a file for every target that
# Cargo.toml names, built or not.
COPY Cargo.toml Cargo.lock ./
RUN mkdir src benches \
 && echo '//! Stands in for the source.' | tee src/lib.rs benches/micro.rs benches/pacing.rs benches/soak.rs benches/throughput.rs > src/main.rs \
 && echo 'fn main() {}' >> src/main.rs \
 && cargo build --release --locked \
 && rm -r src
COPY src src
# Cargo goes by the age of the files, and these may be older than what was just built in their place.
RUN touch src/lib.rs src/main.rs \
 && cargo build --release --locked

# The platform starts connectors with a script inside the image, which needs sh, sleep, mv and kill; all of them are here.
FROM debian:trixie-slim
RUN groupadd --gid 1000 airbyte \
 && useradd --uid 1000 --gid airbyte --home-dir /airbyte --no-create-home --shell /usr/sbin/nologin airbyte \
 && install --directory --owner=airbyte --group=airbyte /airbyte
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /build/target/release/destination-kinesis /usr/local/bin/destination-kinesis
WORKDIR /airbyte
USER 1000:1000
# Large blocks of memory go back to the system when they are freed. By default, glibc keeps them after a while, and a long
# sync with faults grows slowly (docs/guarantees.md, "Measured").
ENV MALLOC_MMAP_THRESHOLD_=131072
ENV AIRBYTE_ENTRYPOINT="/usr/local/bin/destination-kinesis"
ENTRYPOINT ["/usr/local/bin/destination-kinesis"]
LABEL io.airbyte.name="airbyte/destination-kinesis" \
      io.airbyte.version="0.2.0"
