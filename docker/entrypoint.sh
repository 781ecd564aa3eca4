#!/bin/sh
# launch ARGS...  starts recipes/train.py on every visible GPU; bash opens a shell; anything else goes to hfvla.
set -eu
case "${1:-}" in
  launch)
    shift
    exec accelerate launch recipes/train.py "$@"
    ;;
  accelerate | bash | python)
    exec "$@"
    ;;
  *)
    exec hfvla "$@"
    ;;
esac
