# Part of ./dev: stages with their time, CMake builds, the Python environment of a build.
LOGS=$ROOT/build/logs
VENV=$ROOT/.venv
JOBS=${JOBS:-$(nproc)}
# Python finds the package in the tree and the library in the release build; PyTorch's idle threads sleep, not spin.
PYTHON_ENVIRONMENT=(PYTHONPATH="$ROOT/python" FLASHNCE_LIBRARY="$ROOT/build/release/src/libflashnce.so"
  OMP_WAIT_POLICY=PASSIVE)

# The tests compile the library again in wheels and in projects of their own: ccache, where it is there, does it once.
if command -v ccache >/dev/null; then
  export CMAKE_C_COMPILER_LAUNCHER=${CMAKE_C_COMPILER_LAUNCHER:-ccache}
  export CMAKE_CXX_COMPILER_LAUNCHER=${CMAKE_CXX_COMPILER_LAUNCHER:-ccache}
  export CCACHE_DIR=${CCACHE_DIR:-$ROOT/build/ccache}
fi

die() {
  echo "dev: $*" >&2
  exit 1
}

first_program() {
  local name
  for name in "$@"; do
    if command -v "$name" >/dev/null; then echo "$name"; return 0; fi
  done
  return 1
}

# Stages that have no result to build on: the failed ones, and those left out because of them. Filled where KEEP_GOING
# is set.
declare -A BROKEN=()
FAILED=() LEFT_OUT=()

# stage NAME COMMAND...: runs the command with its output in build/logs/NAME.log, prints one line with the time it took;
# on failure the end of the log, and the end of everything, unless KEEP_GOING is set.
stage() {
  local name=$1 log start status=0
  shift
  log=$LOGS/${name//[^a-zA-Z0-9]/-}.log
  mkdir -p "$LOGS"
  start=$(date +%s.%N)
  # A subshell with -e of its own: a condition around the call would switch -e off inside it.
  set +e
  (set -e; "$@") >"$log" 2>&1 </dev/null
  status=$?
  set -e
  printf '%-44s %s %7.1f s\n' "$name" "$([[ $status -eq 0 ]] && echo "ok    " || echo "FAILED")" \
    "$(echo "$(date +%s.%N) $start" | awk '{print $1 - $2}')"
  if [[ $status -ne 0 ]]; then
    echo "---- the end of ${log#"$ROOT"/} ----"
    # Without ctest's lines on what went well.
    grep -v -E '^ +Start +[0-9]+:|Test +#[0-9]+: .* Passed +[0-9.]+ sec' "$log" | tail -n 80
    if [[ -n ${KEEP_GOING:-} ]]; then
      BROKEN[$name]=1
      FAILED+=("$name (${log#"$ROOT"/})")
      return 0
    fi
    if declare -F on_failure >/dev/null; then on_failure; fi
    exit 1
  fi
}

# after STAGE FUNCTION NAME [ARGUMENTS...]: calls the function, whose stage is NAME, if STAGE has not failed; else says
# so.
after() {
  local needed=$1 name=$3
  shift
  if [[ -n ${BROKEN[$needed]:-} ]]; then
    printf '%-44s left out: needs "%s"\n' "$name" "$needed"
    BROKEN[$name]=1
    LEFT_OUT+=("$name")
    return 0
  fi
  "$@"
}

# What failed and what was left out, in words; fails if there is anything.
report_failures() {
  local name
  for name in "${FAILED[@]}"; do echo "failed: $name"; done
  for name in "${LEFT_OUT[@]}"; do echo "left out: $name"; done
  [[ ${#FAILED[@]} -eq 0 ]]
}

# The system's CMake, or the one of .venv where that is too old.
cmake_program() {
  if [[ -x $VENV/bin/cmake ]]; then echo "$VENV/bin/$1"; else echo "$1"; fi
}

# configure_preset PRESET [-D...]: into build/PRESET. On a CI machine the release build takes warnings as errors.
configure_preset() {
  local preset=$1 options=() cc
  shift
  if [[ $preset == tsan || $preset == fuzz ]]; then
    cc=$(first_program clang-14 clang clang-20 clang-19 clang-18 clang-17 clang-16 clang-15) ||
      die "clang is not installed"
    options=(-DCMAKE_C_COMPILER="$cc" -DCMAKE_CXX_COMPILER="${cc/clang/clang++}")
  elif [[ -n ${CI:-} && $preset == release ]]; then
    options=(-DFLASHNCE_WERROR=ON)
  fi
  "$(cmake_program cmake)" --preset "$preset" "${options[@]}" "$@"
}

# build_preset PRESET TARGETS [-D...]: the targets, or all of it where that is empty.
build_preset() {
  local preset=$1 targets=$2
  shift 2
  build_steps() {
    configure_preset "$preset" "$@"
    # shellcheck disable=SC2086
    "$(cmake_program cmake)" --build "build/$preset" -j "$JOBS" ${targets:+--target $targets}
  }
  stage "build $preset" build_steps "$@"
}

build_library() { build_preset release flashnce; }
build_bench() { build_preset release "flashnce flashnce_bench" -DFLASHNCE_BENCH=ON; }

bench_program() {
  env "${PYTHON_ENVIRONMENT[@]}" "$VENV/bin/python" bench/run.py "$@"
}

# build_wheel AUTO|ON|OFF FOLDER [OPTIONS of pip]: with the CUDA backend or without. Its kernels for all architectures
# take minutes.
# The wheel says by its tag on which systems it runs: auditwheel finds that out.
build_wheel() {
  local cuda=$1 folder=$2
  shift 2
  rm -rf "$folder" build/dist
  "$VENV/bin/python" -m pip wheel . --wheel-dir build/dist --no-deps --no-build-isolation -q \
    "--config-settings=build-dir=build/wheel-${cuda,,}" "--config-settings=cmake.define.FLASHNCE_CUDA=$cuda" \
    "--config-settings=cmake.define.FLASHNCE_CUDA_ARCHS=release" "$@"
  PATH="$VENV/bin:$PATH" "$VENV/bin/python" -m auditwheel repair --wheel-dir "$folder" build/dist/flashnce-*.whl
}

# Without the theme's notice of its successor.
DOCS_ENVIRONMENT=(NO_MKDOCS_2_WARNING=1)
build_docs() { env "${DOCS_ENVIRONMENT[@]}" "$VENV/bin/python" -m mkdocs build --strict; }

clang_format() {
  local folders=() folder
  for folder in include src kernels tests bench examples python; do
    if [[ -d $folder ]]; then folders+=("$folder"); fi
  done
  find "${folders[@]}" -type f \
    \( -name '*.h' -o -name '*.hpp' -o -name '*.c' -o -name '*.cpp' -o -name '*.cu' -o -name '*.cuh' \) \
    -not -path 'include/flashnce/flashnce.h' -print0 | xargs -0 "$VENV/bin/clang-format" "$@"
}

format_check() {
  local status=0
  clang_format --dry-run --Werror || status=$?
  if [[ $status -ne 0 ]]; then echo "./dev format puts this right"; fi
  return "$status"
}
