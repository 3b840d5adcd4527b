#!/bin/sh
# Installs the missing ones of the given Debian packages; does nothing when none is missing.
#
# Uses sudo when it is not run by root. Asks no questions. Exits 69 when it cannot install a missing package.
set -eu

if ! command -v dpkg-query >/dev/null; then
  echo "this is not a Debian system: install the equivalents of these packages: $*" >&2
  exit 0
fi

missing=
for package; do
  # shellcheck disable=SC2016 # a field of dpkg, not of the shell
  status=$(dpkg-query --show --showformat '${db:Status-Abbrev}' "$package" 2>/dev/null || :)
  case $status in
    ii*) ;;
    *) missing="$missing $package" ;;
  esac
done
[ -n "$missing" ] || exit 0

if [ "$(id -u)" -eq 0 ]; then
  as_root=
elif command -v sudo >/dev/null; then
  as_root=sudo
else
  echo "these packages are missing, and installing them needs root or sudo; as root: apt-get install$missing" >&2
  exit 69
fi

echo "installing:$missing"
apt() {
  $as_root env DEBIAN_FRONTEND=noninteractive apt-get -q -y "$@" </dev/null
}
# A fresh system has no package lists, an idle one has old lists that name packages the archive no longer has.
# shellcheck disable=SC2086 # several words
if ! apt-cache show $missing >/dev/null 2>&1 || ! apt install --no-install-recommends $missing; then
  apt update && apt install --no-install-recommends $missing
fi || {
  echo "apt-get could not install$missing: see above" >&2
  exit 69
}
