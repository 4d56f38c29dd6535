#!/usr/bin/env bash
# Prints the path of promtool, unpacked from Debian's prometheus package without installing the service.
# usage: promtool.sh FOLDER
set -u
folder=$1
tool=$folder/usr/bin/promtool
if command -v promtool; then exit 0; fi
if [ ! -x "$tool" ]; then
  mkdir -p "$folder" && cd "$folder" || exit 1
  if ! { apt-get download -qq prometheus || { apt-get update -qq && apt-get download -qq prometheus; }; } \
    >/dev/null 2>&1 || ! dpkg -x prometheus_*.deb .; then
    echo "error: Debian's prometheus package could not be fetched (no network?)" >&2
    exit 1
  fi
  rm -f prometheus_*.deb
fi
echo "$tool"
