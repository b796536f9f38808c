#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Moves the whole tree to another module path:
#
#   bash scripts/rename-prefix.sh example.org/team/net
#
# Every tracked file that names the present prefix is rewritten, imports are put
# back in order, go.mod files are tidied and everything is built. Nothing is
# committed; `git checkout .` undoes it.
set -euo pipefail
unset CDPATH
cd "$(dirname "${BASH_SOURCE[0]}")/.."

new=${1-}
if [ $# != 1 ] || ! grep -qE '^[a-z0-9-]+(\.[a-z0-9-]+)+(/[A-Za-z0-9._~-]+)*$' <<<"$new"; then
  echo "usage: rename-prefix.sh NEW, where NEW is a module path prefix such as example.org/team/net" >&2
  exit 2
fi
if [ -n "$(git status --porcelain --untracked-files=no)" ]; then
  echo "rename-prefix: there are uncommitted changes; commit them first, so that this one can be undone" >&2
  exit 2
fi
first=$(go list -m | head -n 1)
old=${first%/*}
if [ "$new" = "$old" ]; then
  echo "rename-prefix: the prefix is $old already" >&2
  exit 2
fi

# As a whole path element only: github.com/a/kit must not touch github.com/a/kitchen.
OLD=$old NEW=$new
export OLD NEW
git grep -lzF -- "$old" | xargs -0 -r perl -pi -e 's/\Q$ENV{OLD}\E(?![A-Za-z0-9_~-])/$ENV{NEW}/g'
git ls-files -z '*.go' | xargs -0 -r gofmt -w

for mod in $(git ls-files 'go.mod' '*/go.mod'); do
  (cd "$(dirname "$mod")" && GOWORK=off go mod tidy)
done
go build work
for mod in $(git ls-files '*/go.mod'); do
  dir=$(dirname "$mod")
  GOWORK=off go build -C "$dir" -o /dev/null ./...
done
echo "renamed $old to $new: $(git diff --name-only | wc -l) files"
