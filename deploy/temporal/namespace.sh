#!/bin/sh
# Makes TEMPORAL_NAMESPACE with its RETENTION and SEARCH_ATTRIBUTES, or brings it up to date.
set -eu

# The server listens a little before it serves, and knows a new namespace a little after it was made.
patiently() {
  attempts=60
  until "$@"; do
    attempts=$((attempts - 1))
    [ "$attempts" -gt 0 ] || { echo "gave up on: $*" >&2; exit 1; }
    sleep 1
  done
}

namespace() {
  if temporal operator namespace describe --namespace "$TEMPORAL_NAMESPACE" >/dev/null 2>&1; then
    temporal operator namespace update --namespace "$TEMPORAL_NAMESPACE" --retention "$RETENTION"
  else
    temporal operator namespace create --namespace "$TEMPORAL_NAMESPACE" --retention "$RETENTION"
  fi
}

patiently temporal operator cluster health
patiently namespace
for name in $SEARCH_ATTRIBUTES; do
  patiently temporal operator search-attribute create --name "$name" --type Keyword
done
