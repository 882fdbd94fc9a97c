#!/usr/bin/env bash
# Builds the image of the Dockerfile without a registry and without a daemon, and runs it as Airbyte's platform does: as user
# 1000 without capabilities, started by a script inside the image, over FIFOs.
#
#   integration_tests/image.sh        # as root, on Debian; installs buildah and debootstrap if they are missing
#
# The base images that the Dockerfile names are made on the spot: from Debian's packages and, for the builder, this machine's Rust
# toolchain. All of it lives in a temporary folder, about 3 GB, which is gone at the end.

set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
project=$(dirname "$here")
mirror=${DEBIAN_MIRROR:-http://deb.debian.org/debian}
readonly here project mirror
readonly image=destination-kinesis:under-test
readonly megabytes_max=100

say() { printf '%s\n' "$*"; }
fail() {
  printf 'image: %s\n' "$*" >&2
  exit 1
}

[[ $(id -u) == 0 ]] || fail "must run as root, for debootstrap and for images that belong to it"

# ---- tools ---------------------------------------------------------------------------------------

missing=()
for tool in buildah debootstrap; do
  command -v "$tool" > /dev/null || missing+=("$tool")
done
if ((${#missing[@]})); then
  say "Installing ${missing[*]}."
  apt-get update -qq > /dev/null
  DEBIAN_FRONTEND=noninteractive apt-get install -qq --no-install-recommends "${missing[@]}" > /dev/null
fi
python=$("$here/python.sh")

# ---- a place of our own, and its end ----------------------------------------------------------------

work=$(mktemp -d /var/tmp/destination-kinesis-image.XXXXXX)
readonly work
kinesis_pid=
finish() {
  local code=$?
  trap - EXIT
  if [[ -n $kinesis_pid ]]; then
    kill "$kinesis_pid" 2> /dev/null || true
  fi
  if ((code)) && [[ -s $work/log ]]; then
    tail -n 40 "$work/log" >&2
  fi
  # What is still mounted below belongs to somebody else, such as the cargo registry.
  while read -r mount; do
    umount --lazy "$mount" || true
  done < <(awk -v work="$work/" 'index($5, work) == 1 { print $5 }' /proc/self/mountinfo | sort -r)
  rm -rf --one-file-system "$work"
  exit "$code"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# Neither namespaces nor a file system that layers are asked for more than any container has.
export BUILDAH_ISOLATION=chroot
readonly storage=(--storage-driver vfs --root "$work/storage" --runroot "$work/run")
buildah_quietly() { buildah "${storage[@]}" "$@" 2>> "$work/log"; }

# ---- the images that the Dockerfile builds upon -----------------------------------------------------

# base_image NAME ENTRY.. -- PACKAGE..: an image of Debian's minimal system with these packages and variables.
base_image() {
  local name=$1 environment=() suite root container
  shift
  while [[ $1 != -- ]]; do
    environment+=(--env "$1")
    shift
  done
  shift
  suite=${name##*:}
  suite=${suite%-slim}
  suite=${suite##*-}
  root=$work/root
  say "Making $name from Debian's packages ($suite${*:+, with $*})."
  mkdir -p "$work/packages" "$root"
  debootstrap --variant=minbase --cache-dir="$work/packages" ${1:+--include="$(IFS=,; echo "$*")"} \
    "$suite" "$root" "$mirror" >> "$work/log"
  # What Debian's own slim images leave out.
  rm -rf "$root"/var/cache/apt/* "$root"/var/lib/apt/lists/* "$root"/var/log/*.log \
    "$root"/usr/share/{man,info,locale,groff,lintian}/*
  find "$root/usr/share/doc" -mindepth 2 -not -type d -not -name copyright -delete
  container=$(buildah_quietly from scratch)
  buildah_quietly copy --quiet "$container" "$root" / >> "$work/log"
  buildah_quietly config "${environment[@]}" --cmd bash "$container"
  buildah_quietly commit --quiet "$container" "$name" >> "$work/log"
  buildah_quietly rm "$container" >> "$work/log"
  rm -rf --one-file-system "$root"
}

mapfile -t bases < <(awk '$1 == "FROM" { print $2 }' "$project/Dockerfile")
((${#bases[@]} == 2)) || fail "the Dockerfile has ${#bases[@]} stages, and this script knows of a builder and an image"
readonly system_path=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin

say "Fetching the crates."
cargo fetch --quiet --locked --target "$(rustc -vV | sed -n 's/^host: //p')" --manifest-path "$project/Cargo.toml"
toolchain=$(cd "$project" && rustc --print sysroot)
registry=${CARGO_HOME:-$HOME/.cargo}/registry
base_image "${bases[0]}" "PATH=/usr/local/rust/bin:$system_path" CARGO_HOME=/usr/local/cargo CARGO_NET_OFFLINE=true \
  -- gcc libc6-dev ca-certificates
base_image "${bases[1]}" "PATH=$system_path" --

# ---- the image ------------------------------------------------------------------------------------

say "Building the Dockerfile with $("$toolchain/bin/rustc" --version)."
began=$SECONDS
buildah_quietly bud --pull-never --quiet --tag "$image" \
  --volume "$toolchain:/usr/local/rust:ro" --volume "$registry:/usr/local/cargo/registry:ro" \
  "$project" >> "$work/log" 2>&1
say "Built in $((SECONDS - began)) s."

container=$(buildah_quietly from --pull-never "$image")
root=$(buildah_quietly mount "$container")
bytes=$(du --summarize --one-file-system --apparent-size --block-size=1 "$root" | cut -f1)
say "The image has $((bytes / 1000000)) MB unpacked, $(($(stat -c %s "$root/usr/local/bin/destination-kinesis") / 1000000)) MB of it the connector."
((bytes <= megabytes_max * 1000000)) || fail "that is more than $megabytes_max MB"

inspect() { buildah_quietly inspect --type image --format "{{$1}}" "$image"; }
expect() {
  [[ $2 == "$3" ]] || fail "$1 is '$2' and should be '$3'"
  say "$1: $2"
}
version=$(cargo metadata --no-deps --offline --format-version 1 --manifest-path "$project/Cargo.toml" \
  | "$python" -c 'import json, sys; print(json.load(sys.stdin)["packages"][0]["version"])')
readonly binary=/usr/local/bin/destination-kinesis
expect "label io.airbyte.name" "$(inspect 'index .OCIv1.Config.Labels "io.airbyte.name"')" airbyte/destination-kinesis
expect "label io.airbyte.version" "$(inspect 'index .OCIv1.Config.Labels "io.airbyte.version"')" "$version"
expect "entry point" "$(inspect '.OCIv1.Config.Entrypoint')" "[$binary]"
expect "user" "$(inspect '.OCIv1.Config.User')" 1000:1000
expect "working directory" "$(inspect '.OCIv1.Config.WorkingDir')" /airbyte

# in_image OPTION.. -- COMMAND..: as the platform has it, without a capability.
in_image() {
  local options=()
  while [[ $1 != -- ]]; do
    options+=("$1")
    shift
  done
  shift
  buildah_quietly run --user 1000:1000 --cap-drop all "${options[@]}" "$container" -- "$@"
}
# The bounding set is left out: to become another user, this kind of isolation keeps one capability there.
# shellcheck disable=SC2016 # expanded inside
identity=$(in_image -- sh -c 'id -u; grep -c "^Cap\(Inh\|Prm\|Eff\|Amb\):.0*$" /proc/self/status
  echo "$AIRBYTE_ENTRYPOINT"; touch here /tmp/here && rm here /tmp/here && pwd; $AIRBYTE_ENTRYPOINT --version' | paste -sd ' ')
expect "user, empty sets of capabilities, AIRBYTE_ENTRYPOINT, writable directory, version" \
  "$identity" "1000 4 $binary /airbyte destination-kinesis $version"

# ---- the three verbs, through the platform's script -------------------------------------------------

say "Starting a Kinesis."
(cd "$project" && cargo build --quiet --locked --example kinesis_server)
target=$(cargo metadata --no-deps --offline --format-version 1 --manifest-path "$project/Cargo.toml" \
  | "$python" -c 'import json, sys; print(json.load(sys.stdin)["target_directory"])')
port=$("$python" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
"$target/debug/examples/kinesis_server" "$port" > "$work/kinesis.log" 2>&1 &
kinesis_pid=$!
endpoint=http://127.0.0.1:$port

export IMAGE_WORK=$work IMAGE_CONTAINER=$container IMAGE_BUILDAH="buildah ${storage[*]}"

cp "$here/config.json" "$work/config.json"
sed -i "s|http://127.0.0.1:4567|$endpoint|" "$work/config.json"
"$python" "$here/run.py" --connector "$here/platform_run.sh" --endpoint "$endpoint" | sed 's/^/  /'

# start NAME: `write` with the sample catalog, and an input that stays open as descriptor 3.
start() {
  mkfifo "$work/$1.input"
  PLATFORM_FOLDER=$work/$1 "$here/platform_run.sh" write --config "$work/config.json" \
    --catalog "$here/configured_catalog.json" < "$work/$1.input" > "$work/$1.out" 2> "$work/$1.err" &
  running=$!
  exec 3> "$work/$1.input"
}
# until_there PATTERN FILE: waits for a line.
until_there() {
  local deadline=$((SECONDS + 60))
  until grep -qs "$1" "$2"; do
    ((SECONDS < deadline)) || fail "no $1 in ${2##*/} after 60 s"
    sleep 0.1
  done
}
# ends NAME CODE: closes the input, and waits for the exit code.
ends() {
  local code=0
  exec 3>&-
  wait "$running" || code=$?
  expect "$1: exit code, and in exitCode.txt" "$code $(< "$work/$1/exitCode.txt")" "$2 $2"
  [[ ! -s $work/$1.err ]] || fail "$1: something came on stderr: $(head -c 300 "$work/$1.err")"
}
readonly record='{"type":"RECORD","record":{"stream":"users","data":{"n":1},"emitted_at":1}}'
readonly state='{"type":"STATE","state":{"type":"STREAM","stream":{"stream_descriptor":{"name":"users"}}}}'

say "Input that the connector cannot deliver:"
start unknown_stream
printf '%s\n' "${record/users/nobody}" >&3
ends unknown_stream 1
until_there '"failure_type":"system_error"' "$work/unknown_stream.out"

say "A configuration that is wrong:"
sed 's/"bufferSize": 100/"bufferSize": 501/' "$work/config.json" > "$work/wrong.json"
code=0
verdict=$("$here/platform_run.sh" check --config "$work/wrong.json" < /dev/null) || code=$?
expect "check: exit code, verdicts of FAILED" "$code $(grep -c '"status":"FAILED"' <<< "$verdict")" "0 1"

say "The platform kills the script around it:"
start killed
printf '%s\n%s\n' "$record" "$state" >&3
until_there '"recordCount":1.0' "$work/killed.out"
touch "$work/killed/TERMINATE"
until_there 143 "$work/killed/exitCode.txt"
ends killed 143

say "A reader that goes away while the input stays open:"
mkfifo "$work/no_reader.input"
(
  export PLATFORM_FOLDER=$work/no_reader
  "$here/platform_run.sh" write --config "$work/config.json" --catalog "$here/configured_catalog.json" \
    < "$work/no_reader.input" 2> "$work/no_reader.err" | head -n 1 > "$work/no_reader.out"
) &
running=$!
exec 3> "$work/no_reader.input"
until_there 1 "$work/no_reader/exitCode.txt"
exec 3>&-
wait "$running" || true
expect "no_reader: exitCode.txt" "$(< "$work/no_reader/exitCode.txt")" 1
[[ ! -s $work/no_reader.err ]] || fail "no_reader: something came on stderr"

say "SIGTERM for the connector itself, as from docker stop:"
mkdir "$work/stopped"
cp "$work/config.json" "$here/configured_catalog.json" "$work/stopped"
mkfifo "$work/stopped/stdin"
chown -R 1000:1000 "$work/stopped"
# shellcheck disable=SC2016 # expanded inside
in_image --volume "$work/stopped:/dest" --workingdir /dest -- sh -c '
  $AIRBYTE_ENTRYPOINT write --config config.json --catalog configured_catalog.json < stdin > stdout 2> stderr &
  while [ ! -f TERMINATE ]; do sleep 1; done
  kill $!
  wait $!
  echo $? > exitCode.txt' &
running=$!
exec 3> "$work/stopped/stdin"
printf '%s\n%s\n' "$record" "$state" >&3
until_there '"recordCount":1.0' "$work/stopped/stdout"
printf '%s\n%s\n' "$record" "$state" >&3
touch "$work/stopped/TERMINATE"
wait "$running"
exec 3>&-
expect "stopped: exit code, states" \
  "$(< "$work/stopped/exitCode.txt") $(grep -c '"type":"STATE"' "$work/stopped/stdout")" "1 2"
until_there SIGTERM "$work/stopped/stdout"
[[ ! -s $work/stopped/stderr ]] || fail "stopped: something came on stderr"

say "The image is as it should be."
