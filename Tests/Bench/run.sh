#!/bin/bash
# Speed of every kernel table, against OpenBLAS and, where `make test-vllm` has
# made its environment, against torch and vLLM, and of the layer's two forms;
# results and charts in .build/bench.
#
#   Tests/Bench/run.sh [options of mla-bench]
set -euo pipefail
cd "$(dirname "$0")/../.."

results=.build/bench
mkdir -p "$results"
swift build -c release --product mla-bench 2>&1 | tail -1
.build/release/mla-bench --isa all --seq 16,64,128,256,512,1024,2048,4096,8192,8x128,64x16 \
  --json "$results/speed.json" "$@"

.build/release/mla-bench --forms 1024,2048,4096,8192,16384 --rounds 3 --json "$results/forms.json"

# Peers run in the environment that has them; it carries this library too.
peers=()
python=${VLLM_ENVIRONMENT:-.build-vllm}/bin/python
. Tests/vLLM/capped.sh
if "$python" -c 'import vllm, mla_prefill' 2>/dev/null; then
  "$python" Tests/Bench/peers.py --json "$results/peers.json"
  "$python" Tests/Bench/layer.py --json "$results/layer.json"
  peers=(--peers "$results/peers.json" --layer "$results/layer.json")
else
  echo "no peers: make test-vllm makes the environment that has torch and vLLM"
fi

if ! "$results/venv/bin/python" -c 'import matplotlib' 2>/dev/null; then
  python3 -m venv "$results/venv"
  "$results/venv/bin/pip" install -q matplotlib
fi
"$results/venv/bin/python" Tests/Bench/chart.py "$results/speed.json" "${peers[@]}" \
  -o "$results/speed.png"
"$results/venv/bin/python" Tests/Bench/forms_chart.py "$results/forms.json" -o "$results/forms.png"
echo "charts: $results/speed.png $results/forms.png"
