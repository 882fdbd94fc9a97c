#!/usr/bin/env bash
# Prints the path of the Python that the scripts of this folder run with: a virtual environment in target/, made when it is needed
# first, with exactly the packages of requirements.txt.

set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
# PyAirbyte takes no newer one than 3.12.
fits='import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))'
base=${PYTHON:-}
for candidate in python3 python3.12 python3.11 python3.10; do
  if [[ -z $base ]] && "$candidate" -c "$fits" 2> /dev/null; then
    base=$candidate
  fi
done
base=${base:-python3}
if ! "$base" -c 'import venv, ensurepip' 2> /dev/null; then
  if [[ $(id -u) != 0 ]] || ! command -v apt-get > /dev/null; then
    printf 'Python 3.10 to 3.12 with venv is needed (on Debian: apt-get install python3-venv).\n' >&2
    exit 1
  fi
  apt-get update -qq > /dev/null
  DEBIAN_FRONTEND=noninteractive apt-get install -qq --no-install-recommends python3-venv > /dev/null
fi
if ! "$base" -c "$fits"; then
  printf 'Python 3.10, 3.11 or 3.12 is needed, and %s is %s: name another one in PYTHON.\n' "$base" "$("$base" --version)" >&2
  exit 1
fi
state=$({
  "$base" --version
  cat "$here/requirements.txt" "$here/constraints.txt"
} | sha256sum | cut -c1-12)
venv=${CARGO_TARGET_DIR:-$(dirname "$here")/target}/integration_tests/venv-$state
if [[ ! -f $venv/complete ]]; then
  rm -rf "$venv"
  mkdir -p "$(dirname "$venv")"
  "$base" -m venv "$venv"
  "$venv/bin/pip" install --quiet --disable-pip-version-check --no-input \
    --requirement "$here/requirements.txt" --constraint "$here/constraints.txt" >&2
  touch "$venv/complete"
fi
printf '%s\n' "$venv/bin/python"
