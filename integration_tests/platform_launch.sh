# shellcheck shell=sh
# What Airbyte's platform does inside the image of a destination, with `sh -c`, in the folder that it shares with it: the verb's
# standard streams are FIFOs there, and the exit code becomes a file. The verb and its arguments are in $CONNECTOR_ARGUMENTS.

if [ -z "$AIRBYTE_ENTRYPOINT" ]; then
  echo "The image does not set AIRBYTE_ENTRYPOINT." >&2
  exit 127
fi

(eval "$AIRBYTE_ENTRYPOINT $CONNECTOR_ARGUMENTS" 2> stderr > stdout < stdin) &
connector=$!

# A file asks for the end. The signal goes to the shell around the connector, so the connector itself sees its pipes close.
(
  while [ ! -f TERMINATE ]; do
    sleep 1
  done
  kill "$connector"
) &
watcher=$!

wait "$connector"
code=$?
kill "$watcher" 2> /dev/null

echo "$code" > TEMP_EXIT_CODE.txt
mv TEMP_EXIT_CODE.txt exitCode.txt
exit "$code"
