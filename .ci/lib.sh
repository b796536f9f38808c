# SPDX-License-Identifier: Apache-2.0
#
# Sourced by every check: strict mode, the root of the tree, and what the
# workspace consists of. Nothing here names a module, so that the selftest can
# run the same checks over a workspace of its own.
set -euo pipefail
unset CDPATH
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
cd "$root"

# modules prints the directories of go.work, one a line.
# Read from the file itself: the go command refuses to list a workspace whose go
# lines disagree, and one of the checks is about just that.
modules() { sed -n 's|^[[:space:]]*\(use \)\?\./\([^ ]*\)$|\2|p' go.work; }

# libraries prints the modules meant for importers: those that .ci/layers declares. Its lines with
# a slash before the colon are packages.
libraries() { sed -n 's/^\([a-z0-9]*\):.*/\1/p' .ci/layers; }

# extras prints the modules outside go.work, which need GOWORK=off.
extras() { local m; for m in bench tools; do [ ! -f "$m/go.mod" ] || echo "$m"; done; }

# prefix prints the common prefix of the module paths.
prefix() { local path; path=$(sed -n 's/^module //p' "$(modules | sed -n 1p)/go.mod"); echo "${path%/*}"; }

# declared prints what .ci/layers allows module or package $1 to import, one a line.
declared() { sed -n "s|^$1:\([^#]*\).*|\1|p" .ci/layers | tr -s ' \t' '\n\n' | sed '/^$/d' | sort -u; }

# allowed prints that and what the declared siblings are allowed in turn.
allowed() {
  local d
  declared "$1"
  for d in $(declared "$1" | grep -v / || true); do allowed "$d"; done
}

# complain reports one violation; the check goes on and ends with `verdict`.
complaints=0
complain() { echo "$*" >&2; complaints=$((complaints + 1)); }
verdict() { [ "$complaints" = 0 ]; }

# runs_386 tells whether this kernel executes 32-bit programs. Some are built without, which the
# shell reports as 126. Any other end, a crash too, is of a program that ran.
runs_386() {
  local dir code=0
  dir=$(mktemp -d)
  printf 'package main\n\nfunc main() {}\n' >"$dir/main.go"
  GOARCH=386 go build -o "$dir/main" "$dir/main.go" || exit
  "$dir/main" 2>/dev/null || code=$?
  rm -r "$dir"
  [ "$code" != 126 ]
}

# command_of prints the one line of README.md's shell blocks that begins with $1.
command_of() {
  local lines
  lines=$(awk '/^```/ { open = !open; next } open' README.md | grep -E "^$1( |\$)" | sort -u || true)
  if [ -z "$lines" ] || [ "$(wc -l <<<"$lines")" != 1 ]; then
    echo "README.md: want exactly one command that begins with '$1', have:" >&2
    printf '%s\n' "${lines:-none}" >&2
    return 1
  fi
  echo "$lines"
}

# need wants the command $1, which is in the Debian package $2. It changes the machine only when
# asked, by GOSTKIT_INSTALL=1 or by the CI=true that hosted services set; else it says what to run.
# A mirror that does not answer costs $3 seconds at most.
need() {
  command -v "$1" >/dev/null && return
  local install="apt-get install -y $2"
  if [ "${GOSTKIT_INSTALL-}" != 1 ] && [ "${CI-}" != true ]; then
    echo "no $1 here: $install (or GOSTKIT_INSTALL=1)" >&2
    return 1
  fi
  echo "installing $2 for $1"
  local root=
  [ "$(id -u)" = 0 ] || root=sudo
  timeout -k 5 "${3:-120}" $root sh -c "apt-get update -qq; DEBIAN_FRONTEND=noninteractive $install -qq >/dev/null" ||
    { echo "cannot install $2" >&2; return 1; }
}

# scratch makes a directory that goes away with the check.
scratch() {
  tmp=$(mktemp -d)
  trap 'chmod -R u+w "$tmp" 2>/dev/null; rm -rf "$tmp"' EXIT
}
