# need_packages NAME...: makes sure that Debian packages are installed, or says how. Sourced.
need_packages() {
  local missing=() name
  command -v dpkg-query >/dev/null || {
    echo "error: this script installs Debian packages; elsewhere, provide: $*" >&2
    return 1
  }
  for name in "$@"; do
    dpkg-query -W -f='${Status}' "$name" 2>/dev/null | grep -q 'install ok installed' ||
      missing+=("$name")
  done
  [ ${#missing[@]} -eq 0 ] && return 0
  local as_root=()
  if [ "$(id -u)" -ne 0 ]; then
    if ! command -v sudo >/dev/null || ! sudo -n true 2>/dev/null; then
      echo "error: packages are missing; run: sudo apt-get install -y ${missing[*]}" >&2
      return 1
    fi
    as_root=(sudo)
  fi
  echo "installing ${missing[*]}" >&2
  if ! { "${as_root[@]}" apt-get update -qq &&
    DEBIAN_FRONTEND=noninteractive "${as_root[@]}" apt-get install -y -qq \
      --no-install-recommends "${missing[@]}"; } >/dev/null 2>&1; then
    echo "error: apt-get could not install: ${missing[*]} (no network, or the disk is full?)" >&2
    return 1
  fi
}
