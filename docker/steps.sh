#!/usr/bin/env bash
# The Dockerfile's steps where there is no Docker: its pip lines, word for word, in a clean virtual environment; then what its
# image is for: hfvla's help and doctor, and a server that the image's healthcheck finds well.
#
#   docker/steps.sh              install and run
#   DRY_RUN=1 docker/steps.sh    only let pip resolve the pinned versions
set -euo pipefail
cd "$(dirname "$0")/.."

work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
export PATH="$work/venv/bin:$PATH" PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_PROGRESS_BAR=off DS_BUILD_OPS=0
unset PYTHONPATH

grep -E '^RUN pip install ' Dockerfile | sed 's/^RUN //' > "$work/lines"
test "$(wc -l < "$work/lines")" -eq 2
while read -r line; do
  echo "+ $line"
  if [ -n "${DRY_RUN:-}" ]; then line="${line/pip install/pip install --quiet --dry-run}"; fi
  bash -c "$line"
done < "$work/lines"
if [ -n "${DRY_RUN:-}" ]; then exit 0; fi

cd "$work" # what was installed is used, not the checkout
hfvla --help > /dev/null
hfvla doctor || true # says what this machine lacks; the image brings FFmpeg and OSMesa itself
python - << 'END'
from hfvla.registry import get_family

spec = get_family("ember_vlm")
recipe = {"config": spec.load("config").tiny().to_dict(), "options": {}}
model, processor = spec.load("initialise")(recipe, spec.load("examples")(8, 0), seed=0)
model.save_pretrained("final"), processor.save_pretrained("final")
END
hfvla serve final --port 18000 --device cpu & # in the image: with --host 0.0.0.0
server=$!
trap 'kill "$server" 2> /dev/null || true; rm -rf "$work"' EXIT
for _ in $(seq 120); do
  if curl --silent --fail http://127.0.0.1:18000/health; then
    kill "$server" && wait "$server" || true
    echo "image steps: ok"
    exit 0
  fi
  sleep 1
done
echo "the server did not answer" >&2
exit 1
