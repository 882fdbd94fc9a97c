#!/usr/bin/env bash
# Prints the path of the Python that the scripts of this folder run with: a virtual environment in target/, made when it is needed
# first, with exactly the packages of requirements.txt.

set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
base=${PYTHON:-python3}
if ! "$base" -c 'import venv, ensurepip' 2> /dev/null; then
  if [[ $(id -u) != 0 ]] || ! command -v apt-get > /dev/null; then
    printf 'Python 3.10 or newer with venv is needed (on Debian: apt-get install python3-venv).\n' >&2
    exit 1
  fi
  apt-get update -qq > /dev/null
  DEBIAN_FRONTEND=noninteractive apt-get install -qq --no-install-recommends python3-venv > /dev/null
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
