# Part of ./dev: the tiers of `./dev test`.
RESULTS=$ROOT/build/results

help_test() {
  cat <<'TEXT'
usage: ./dev test [--quick | --full | --long]

  --quick   format, release build with its tests, Python tests, the wheel in an environment of its own: under 5 minutes
  --full    (default) that, the long tests, the tests under address, undefined-behaviour and thread sanitizers, the demo
            and the benchmarks in short: under 45 minutes on 2 cores
  --long    the full tier with ten times as many random cases

Stops at the first failing stage and prints the end of its log. The last line counts the tests of all stages.

  FNCE_TEST_CASES=N, FNCE_TEST_SEED=N   how many random cases, and from which seed
  FNCE_TEST_DEVICE=cpu                  the device that the tests of the C interface run on
TEXT
}

# ctest_stage NAME PRESET [options of ctest]
ctest_stage() {
  local name=$1 preset=$2 ctest
  shift 2
  ctest=$(cmake_program ctest)
  stage "$name" "$ctest" --test-dir "build/$preset" -j "$JOBS" --output-on-failure --no-tests=error \
    --output-junit "$RESULTS/${name//[^a-zA-Z0-9]/-}.xml" "$@"
}

# pytest_stage NAME ARGUMENTS...
pytest_stage() {
  local name=$1
  shift
  stage "$name" env "${PYTHON_ENVIRONMENT[@]}" "$VENV/bin/python" -m pytest -q -p no:cacheprovider \
    --junitxml "$RESULTS/${name//[^a-zA-Z0-9]/-}.xml" "$@"
}

print_results() { "$VENV/bin/python" tools/sum_results.py "$RESULTS"; }

# The wheel goes into an environment that has nothing else; PyTorch and NumPy are lent to single tests only.
install_wheel() {
  build_wheel
  rm -rf build/wheel-venv
  "$VENV/bin/python" -m venv --without-pip build/wheel-venv
  "$VENV/bin/python" -m pip --python build/wheel-venv/bin/python install -q --no-deps --no-index dist/*.whl
}

demo_smoke() {
  rm -rf build/demo-smoke
  env "${PYTHON_ENVIRONMENT[@]}" "$VENV/bin/python" examples/moco_fashion_mnist/train.py "$@" --out build/demo-smoke
}

test_quick() {
  stage "format" format_check
  build_preset release ""
  ctest_stage "tests release" release -L quick
  pytest_stage "tests python" tests/python
  stage "wheel" install_wheel
  pytest_stage "tests wheel" tests/package/test_wheel.py
}

# test_full CASES
test_full() {
  FNCE_TEST_CASES=${FNCE_TEST_CASES:-$1} FNCE_TEST_SEED=${FNCE_TEST_SEED:-100001} \
    ctest_stage "tests long grid" release -R "randomised grid"
  ctest_stage "tests instruction sets" release -L full
  build_preset asan ""
  ctest_stage "tests asan ubsan" asan -L quick
  build_preset tsan "api_tests cpu_tests"
  # The pool is tested across a fork as well.
  TSAN_OPTIONS=die_after_fork=0 ctest_stage "tests tsan" tsan -R "api_tests|cpu_tests"
  stage "demo in short" demo_smoke --steps 40 --limit 2000 --queue-size 1024 --no-progress
  build_bench
  stage "bench in short" bench_program --rounds 1 --shapes 32x4096x64 --threads 1 --no-memory
}

cmd_test() {
  local tier=full
  case ${1:-} in
    "") ;;
    --quick | --full | --long) tier=${1#--} ;;
    *) die "test takes --quick, --full or --long, not '$1'" ;;
  esac
  if [[ $tier == quick ]]; then setup_system base test; else setup_system base test analysis demo; fi
  setup_python
  rm -rf "$RESULTS"
  mkdir -p "$RESULTS"
  on_failure() { print_results || true; }
  SECONDS=0
  test_quick
  case $tier in
    full) test_full 4000 ;;
    long) test_full 40000 ;;
  esac
  printf '%-44s %s %7.1f s\n' "all of it" "ok    " "$SECONDS"
  print_results
}
