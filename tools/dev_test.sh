# Part of ./dev: the tiers of `./dev test`.
RESULTS=$ROOT/build/results

help_test() {
  cat <<'TEXT'
usage: ./dev test [--quick | --full | --long] [--keep-going]

  --quick   format, release build with its tests, Python tests, the wheel in an environment of its own: under 5 minutes
  --full    (default) that, the long tests, every instruction set, arm64 under emulation, address, undefined-behaviour
            and thread sanitizers, fuzzing, a soak, the demo and the benchmarks in short: about an hour on 2 cores
  --long    the full tier with ten times as many random cases, 10^6 fuzzing runs and 10^5 steps of soak

Stops at the first failing stage and prints the end of its log. The last line counts the tests of all stages.
With --keep-going the other stages run, too, but for those that need what has failed, and the end lists all failures.

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

# pytest_files_stage NAME ARGUMENTS...: tests/python, a process for each file, as many at a time as there are
# processors; not the files that LEFT_ALONE names.
pytest_files_stage() {
  local name=$1
  shift
  # One file: its output in one piece. Where the arguments select no test of it, pytest ends with 5.
  pytest_file() {
    local file=$1 result=$2-$(basename "$1" .py).xml output status=0
    shift 2
    output=$(env "${PYTHON_ENVIRONMENT[@]}" "$VENV/bin/python" -m pytest -q -p no:cacheprovider --junitxml "$result" \
      "$@" "$file" 2>&1) || status=$?
    printf '%s\n' "$output"
    [[ $status -eq 0 || $status -eq 5 ]]
  }
  pytest_files() {
    local file running=0 status=0 results=$RESULTS/${name//[^a-zA-Z0-9]/-}
    # Large files first, so that none is left alone at the end.
    for file in $(ls -S tests/python/test_*.py); do
      if [[ " $LEFT_ALONE " == *" $(basename "$file" .py | cut -c6-) "* ]]; then continue; fi
      if [[ $running -eq $JOBS ]]; then
        wait -n || status=1
        running=$((running - 1))
      fi
      pytest_file "$file" "$results" "$@" &
      running=$((running + 1))
    done
    while [[ $running -gt 0 ]]; do
      wait -n || status=1
      running=$((running - 1))
    done
    grep -q "<testcase" "$results"-*.xml || status=1
    return "$status"
  }
  stage "$name" pytest_files "$@"
}

print_results() { "$VENV/bin/python" tools/sum_results.py "$RESULTS"; }

# The wheel goes into an environment that has nothing else; PyTorch and NumPy are lent to single tests only.
install_wheel() {
  build_wheel OFF dist
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
  after "build release" ctest_stage "tests release" release -L quick
  LEFT_ALONE="" after "build release" pytest_files_stage "tests python" -m "not full"
  stage "wheel" install_wheel
  after "wheel" pytest_stage "tests wheel" tests/package/test_wheel.py
}

# The cross build's tests; where these packages do not exist, or the machine is arm64 itself, there is nothing to do.
test_arm64() {
  if [[ $(uname -m) != x86_64 ]] || ! first_program aarch64-linux-gnu-g++ >/dev/null; then
    echo "arm64: not tested here (needs x86-64 and the packages $PACKAGES_arm64)"
    return 0
  fi
  build_preset arm64 "all"
  FNCE_TEST_CASES=50 FNCE_TEST_EMULATED=1 after "build arm64" \
    ctest_stage "tests arm64 emulated" arm64 -L '^quick$' -E fork
}

# The wheel with CUDA; its kernels' machine code is kept for the tests of registers and instructions.
build_cuda_wheel() {
  local kernels=$ROOT/tests/static/kernels cache=$ROOT/build/release/tests/static/kernels/code
  build_wheel ON build/dist-cuda "--config-settings=cmake.define.CMAKE_CUDA_COMPILER_LAUNCHER=$(
    printf '%s;' "$VENV/bin/python" "$kernels/keep_code.py" --source "$ROOT" --cache "$cache")--"
}

# What a release holds, where nvcc is there to build it.
test_cuda_wheel() {
  if ! grep -qs '^CMAKE_CUDA_COMPILER:' build/release/CMakeCache.txt; then
    echo "wheel with CUDA, registers and instructions of kernels: not built or checked here (needs nvcc)"
    return 0
  fi
  stage "wheel with CUDA" build_cuda_wheel
  FLASHNCE_WHEELS=build/dist-cuda after "wheel with CUDA" \
    pytest_stage "tests wheel with CUDA" tests/package/test_wheel.py -k "not known_loss"
}

# Tests of the Python package that no instruction set changes.
EVERYWHERE_ALIKE="abi compile dev_stages distributed errors examples jax record report resume score_sinks verify_gpu"
EVERYWHERE_ALIKE+=" verify_gpu_cells"

# The C++ and Python tests as on a processor with AVX2 and nothing better, and as on one without: lists, messages and
# choices are those of such a machine. The API suite runs on every instruction set beside them (api_tests_isa).
test_lesser_processors() {
  local isa usable
  usable=$(env "${PYTHON_ENVIRONMENT[@]}" "$VENV/bin/python" -m flashnce info |
    sed -n 's/.*cpu (\w* of \([^)]*\)).*/\1/p') || true
  for isa in avx2 baseline; do
    if [[ ", $usable, " != *", $isa, "* || $usable == *"$isa" ]]; then
      echo "tests as on $isa: not run here (this processor has ${usable:-nothing that is known})"
      continue
    fi
    FNCE_CPU_MAX_ISA=$isa ctest_stage "tests as on $isa" release -L quick -R "^(cpu_tests|cuda_tests|header_c99)"
    FNCE_CPU_MAX_ISA=$isa LEFT_ALONE=$EVERYWHERE_ALIKE pytest_files_stage "tests python as on $isa" -m "not full"
  done
}

# test_full CASES FUZZ_RUNS SOAK_STEPS
test_full() {
  FNCE_TEST_CASES=${FNCE_TEST_CASES:-$1} FNCE_TEST_SEED=${FNCE_TEST_SEED:-100001} \
    after "build release" ctest_stage "tests long grid" release -R "randomised grid"
  test_cuda_wheel
  after "build release" ctest_stage "tests instruction sets" release -L full
  after "build release" test_lesser_processors "tests as on lesser processors"
  LEFT_ALONE="" after "build release" pytest_files_stage "tests python full" -m full
  FNCE_SOAK_STEPS=$3 after "build release" ctest_stage "soak" release -L long
  setup_docs
  after "packages for the site" stage "docs" build_docs
  pytest_stage "tests sdist" tests/package/test_sdist.py
  test_arm64
  build_preset asan ""
  after "build asan" ctest_stage "tests asan ubsan" asan -L quick
  build_preset tsan "api_tests cpu_tests cuda_tests hostcuda_selftest hostcuda_planted flashnce_hostcuda"
  # The pool is tested across a fork as well. Refusals, and tests of the tests' own oracle and policy, have no threads;
  # every pair of options meets in the covering array, so that the random grid can be smaller.
  TSAN_OPTIONS=die_after_fork=0 FNCE_TEST_CASES=50 after "build tsan" \
    ctest_stage "tests tsan" tsan -R "api_tests|cpu_tests|cuda_tests|hostcuda" \
    -E "^api_tests[.](errors|gradients|tolerance): "
  build_preset fuzz "fuzz_one_call fuzz_sequence"
  after "build fuzz" stage "fuzzing" python3 tests/fuzz/run.py --build build/fuzz --runs "$2"
  after "build release" stage "demo in short" demo_smoke --steps 40 --limit 2000 --queue-size 1024 --no-progress
  build_preset release "" -DFLASHNCE_BENCH=ON
  after "build release" ctest_stage "tests bench" release -L bench
  after "build release" stage "bench in short" \
    bench_program --rounds 1 --shapes 32x4096x64 --threads 1 --no-memory
  after "build release" stage "bench compare in short" \
    bench_program --compare build/release --rounds 6 --shapes 32x4096x64 --threads 1
}

cmd_test() {
  local tier=full argument
  KEEP_GOING=
  for argument in "$@"; do
    case $argument in
      --quick | --full | --long) tier=${argument#--} ;;
      --keep-going) KEEP_GOING=1 ;;
      *) die "test takes --quick, --full or --long, and --keep-going, not '$argument'" ;;
    esac
  done
  if [[ $tier == quick ]]; then setup_system base test; else setup_system base test analysis demo arm64; fi
  setup_python
  if [[ $tier != quick ]]; then setup_scores; fi
  rm -rf "$RESULTS"
  mkdir -p "$RESULTS"
  on_failure() { print_results || true; }
  # A stage's program may take the signal for itself and fail.
  trap 'exit 130' INT
  SECONDS=0
  test_quick
  case $tier in
    full) test_full 4000 40000 5000 ;;
    long) test_full 40000 500000 100000 ;;
  esac
  printf '%-44s %s %7.1f s\n' "all of it" "$([[ ${#FAILED[@]} -eq 0 ]] && echo "ok    " || echo "FAILED")" "$SECONDS"
  local status=0
  report_failures || status=1
  print_results || status=1
  return "$status"
}
