#!/bin/sh
# The commands of README.md on fresh machines: bare Debian systems with git, make and a Rust toolchain, and nothing else.
# On the first, the package is then built for arm64 as well, and its program runs under qemu.
#
# Usage: unshare --mount --pid --fork --kill-child tests/fresh.sh BUNDLE TOOLCHAIN RELEASE…     (as root)
# BUNDLE is a git bundle of the tree, TOOLCHAIN what `rustc --print sysroot` says, with the standard library for arm64
# too, and each RELEASE a codename of Debian, the oldest first. With its namespaces go all mounts, processes and files.
set -eu

bundle=$1 toolchain=$2
shift 2
# shellcheck disable=SC2016 # a field of apt, not of the shell
mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Label: Debian' 'Component: main' | head -n 1)
[ -n "$mirror" ] || { echo "$0: apt names no archive of Debian: add one to its sources" >&2; exit 69; }

# fresh SCRIPT: on the fresh machine, in its home directory. Whether it builds does not depend on how much the compiler
# optimizes.
fresh() {
  printf '\n*** %s, second %s: %s\n' "$release" "$(($(date +%s) - start))" "$1"
  env -i HOME=/root LC_ALL=C.UTF-8 CARGO_PROFILE_RELEASE_OPT_LEVEL=0 PATH=/opt/rust/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    chroot "$root" sh -euc "cd; $1" </dev/null
}

start=$(date +%s)
mount -t tmpfs -o mode=755 tmpfs /mnt
mkdir /mnt/home
cp "$bundle" /mnt/home/nattrail.bundle
for release; do
  # A mount, as every system's root is: `ip netns exec` depends on it.
  root=/mnt/$release
  mkdir "$root"
  mount -t tmpfs -o mode=755 tmpfs "$root"
  mmdebstrap --quiet --variant=apt --include=ca-certificates,git,make "$release" "$root" "$mirror"
  mount -t proc proc "$root/proc"
  mount -t sysfs sysfs "$root/sys"
  mount --rbind /dev "$root/dev"
  mkdir "$root/opt/rust"
  mount --bind -o ro "$toolchain" "$root/opt/rust"
  # The authorities that this machine trusts.
  mount --bind -o ro "${SSL_CERT_FILE:-/etc/ssl/certs/ca-certificates.crt}" "$root/etc/ssl/certs/ca-certificates.crt"
  # Its network is that of this machine, where no service is to start.
  printf '#!/bin/sh\nexit 101\n' >"$root/usr/sbin/policy-rc.d"
  chmod 755 "$root/usr/sbin/policy-rc.d"
  # What the first compiled, the next only links, with the libraries of its own release.
  mount --bind /mnt/home "$root/root"
  [ -d /mnt/home/nattrail ] || fresh 'git clone --quiet nattrail.bundle nattrail'

  fresh 'cd nattrail; touch src/main.rs; make run'
  fresh 'cd nattrail; make deb'
  fresh 'apt-get install -q -y ./nattrail/target/deb/nattrail_*_"$(dpkg --print-architecture)".deb; nattrail --version'
done

[ -d "$toolchain/lib/rustlib/aarch64-unknown-linux-gnu" ] || exit 0
release=$1 root=/mnt/$1
fresh 'cd nattrail; dpkg --add-architecture arm64; tests/packages.sh \
  crossbuild-essential-arm64 qemu-user-static libmnl-dev:arm64 libnftnl-dev:arm64 libsqlite3-dev:arm64'
fresh 'cd nattrail; DEB_HOST_ARCH=arm64 make deb'
fresh 'dpkg-deb --extract nattrail/target/deb/nattrail_*_arm64.deb arm64
  qemu-aarch64-static arm64/usr/sbin/nattrail --version'
