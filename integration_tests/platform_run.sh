#!/usr/bin/env bash
# The connector of an image as a command (spec, check, write), run as Airbyte's platform runs it: platform_launch.sh inside, FIFOs in
# a shared folder, the exit code in a file. image.sh says in which container:
#
#   IMAGE_BUILDAH     the command that knows the container, with its options
#   IMAGE_CONTAINER   the container
#   IMAGE_WORK        a folder for the shared ones, and for a log
#   PLATFORM_FOLDER   where the shared folder shall be; one with a new name otherwise

set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
folder=${PLATFORM_FOLDER:-$(mktemp -d "$IMAGE_WORK/shared.XXXXXX")}
mkdir -p "$folder"

arguments=$1
shift
while (($#)); do
  case $1 in
    --config) file=connectorConfig.json ;;
    --catalog) file=catalog.json ;;
    *) printf 'platform_run: unknown option %s\n' "$1" >&2 && exit 2 ;;
  esac
  cp "$2" "$folder/$file"
  arguments+=" $1 /dest/$file"
  shift 2
done
mkfifo "$folder/stdin" "$folder/stdout" "$folder/stderr"
chown -R 1000:1000 "$folder"

cat > "$folder/stdin" <&0 &
writer=$!
cat "$folder/stdout" &
readers=$!
cat "$folder/stderr" >&2 &
readers+=" $!"

$IMAGE_BUILDAH run --user 1000:1000 --cap-drop all \
  --volume "$folder:/dest" --workingdir /dest --env LOG_LEVEL=INFO --env DATA_CHANNEL_MEDIUM=STDIO \
  --env DATA_CHANNEL_FORMAT=JSONL --env USE_FILE_TRANSFER=false --env "CONNECTOR_ARGUMENTS=$arguments" \
  "$IMAGE_CONTAINER" -- sh -c "$(< "$here/platform_launch.sh")" 2>> "$IMAGE_WORK/log" > "$folder/launch.log" < /dev/null || true

# stdout and stderr end when the connector has, even where the script around it was killed before.
for reader in $readers; do
  wait "$reader" || true
done
kill "$writer" 2> /dev/null || true
if [[ ! -f $folder/exitCode.txt ]]; then
  printf 'platform_run: the script in the image has left no exit code\n' >&2
  exit 125
fi
exit "$(< "$folder/exitCode.txt")"
