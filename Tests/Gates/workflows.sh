#!/bin/bash
# The workflow files are what the forge reads, without what makes them unsafe, and name
# targets that there are. Run in the project's folder.
set -euo pipefail

out=$PWD/.build-python/workflows
[ -x "$out/bin/pip" ] || python3 -m venv "$out"
# Status 77: without a network the linters may be missing.
"$out/bin/pip" install -q --disable-pip-version-check check-jsonschema==0.39.0 zizmor==1.32.0 yamllint==1.38.0 ||
  { echo "could not install the linters"; exit 77; }
failed=0

. Tests/Packaging/check.sh

# Every target that they make, by itself or in a matrix.
targets() {
  { grep -hoP 'run: make \K[a-z-]+' .github/workflows/*.yml; grep -hoP 'target: \[\K[^]]+' .github/workflows/*.yml; } |
    tr -d ' ' | tr , '\n'
}

has_targets() {
  local target status=0
  for target in $(targets); do
    make -n "$target" > /dev/null || status=1
  done
  return $status
}

check "workflows: of the schema" "$out/bin/check-jsonschema" --builtin-schema vendor.github-workflows .github/workflows/*.yml
check "workflows: safe" "$out/bin/zizmor" --offline --pedantic .github/workflows
check "workflows: tidy" "$out/bin/yamllint" -s -d "{extends: default, rules: {line-length: {max: 120}, \
  document-start: disable, truthy: {check-keys: false}, comments: {min-spaces-from-content: 1}}}" .github/workflows
check "workflows: make what there is" has_targets
exit $failed
