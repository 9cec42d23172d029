# Part of ./dev: what has to be on the machine, and how it gets there.

# The packages of Debian and Ubuntu, in groups. `a|b` takes the first that the machine knows, `a,b` goes together.
PACKAGES_base="g++ cmake ninja-build git pkg-config python3 python3-venv libhwy-dev catch2"
PACKAGES_test="python3-dev libbenchmark-dev ccache"
PACKAGES_demo="dataset-fashion-mnist"
PACKAGES_analysis="clang-14,libclang-rt-14-dev|clang-18,libclang-rt-18-dev|clang-19,libclang-rt-19-dev|clang"
PACKAGES_arm64="g++-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user"
PACKAGES_lint="clang-tidy-14|clang-tidy"
PACKAGES_browser="chromium|chromium-browser"
# The demo also takes a folder of images, arm64 machines need no cross compiler, ccache only saves time, and tests that
# need a browser say so: without these it goes on.
PACKAGES_optional=" ccache dataset-fashion-mnist $PACKAGES_arm64 $PACKAGES_browser "

installed() { [[ $(dpkg-query -W -f '${Status}' "$1" 2>/dev/null) == "install ok installed" ]]; }

all_of() {
  local test=$1 package
  for package in ${2//,/ }; do "$test" "$package" || return 1; done
}

available() { [[ -n $(apt-cache policy "$1" 2>/dev/null | awk '/Candidate:/ && $2 != "(none)" {print $2}') ]]; }

apt_get() {
  local sudo=()
  if [[ $(id -u) -ne 0 ]]; then sudo=(sudo -n); fi
  "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get "$@"
}

# setup_system GROUP...: installs what these groups lack.
setup_system() {
  local group choice choices wanted missing=() install=()
  if ! command -v dpkg-query >/dev/null; then
    first_program g++ clang++ >/dev/null && command -v ninja >/dev/null && command -v git >/dev/null ||
      die "not Debian or Ubuntu: install a C++20 compiler, ninja, git, Python 3 with venv, Catch2 and Highway's headers"
    return 0
  fi
  for group in "$@"; do
    wanted=PACKAGES_$group
    for choices in ${!wanted}; do
      for choice in ${choices//|/ }; do all_of installed "$choice" && continue 2; done
      missing+=("$choices")
    done
  done
  if [[ ${#missing[@]} -eq 0 ]]; then return 0; fi
  if [[ $(id -u) -ne 0 ]] && ! sudo -n true 2>/dev/null; then
    missing=("${missing[@]%%|*}")
    die "please run: sudo apt-get install ${missing[*]//,/ }"
  fi
  stage "package lists" apt_get update -q
  for choices in "${missing[@]}"; do
    for choice in ${choices//|/ }; do
      if all_of available "$choice"; then
        # shellcheck disable=SC2206
        install+=(${choice//,/ })
        continue 2
      fi
    done
    [[ $PACKAGES_optional == *" $choices "* ]] || die "no package source of this machine has ${choices//|/ or }"
    echo "this machine's package sources have no $choices; going on without"
  done
  if [[ ${#install[@]} -gt 0 ]]; then
    stage "system packages" apt_get install -y -q --no-install-recommends "${install[@]}"
  fi
}

version_at_least() { [[ $(printf '%s\n%s\n' "$2" "$1" | sort -V | head -n 1) == "$2" ]]; }

venv_python() { echo "${PYTHON:-python3}"; }

make_venv() {
  local options=()
  if "$(venv_python)" -c 'import torch, sys
sys.exit(tuple(int(part) for part in torch.__version__.split(".")[:2]) < (2, 4))' 2>/dev/null; then
    options=(--system-site-packages)
  fi
  "$(venv_python)" -m venv "${options[@]}" "$VENV"
}

# CMake 3.25 or newer: the system's or, from pip, that of .venv.
setup_cmake() {
  local version
  version=$(cmake --version 2>/dev/null | awk 'NR == 1 {print $3}')
  if [[ -n $version ]] && version_at_least "$version" 3.25; then return 0; fi
  if [[ -x $VENV/bin/cmake ]]; then return 0; fi
  [[ -d $VENV ]] || stage "python environment" make_venv
  stage "cmake from pip" "$VENV/bin/python" -m pip install -q "cmake>=3.25,<4"
}

# The requirements apart from PyTorch, by file.
requirement_files() {
  echo tools/requirements.txt
  # Where cmake/cuda_arch.cmake looks for it.
  if first_program "${CUDACXX:-}" nvcc "${CUDA_PATH:-}/bin/nvcc" /usr/local/cuda/bin/nvcc >/dev/null; then
    echo tools/requirements-cuda.txt
  fi
}

install_requirements() {
  local requirement=${FLASHNCE_TORCH:-} file
  for file in $(requirement_files); do "$VENV/bin/python" -m pip install -q -r "$file"; done
  "$VENV/bin/python" -m pip install -q --no-deps -r tools/requirements-peers.txt
  if [[ -z $requirement ]] && "$VENV/bin/python" -c 'import torch' 2>/dev/null; then return 0; fi
  # Where pip can find a CPU build of the same version (a larger local version), it takes that one.
  if [[ -n $requirement ]]; then
    "$VENV/bin/python" -m pip install -q "$requirement"
  else
    "$VENV/bin/python" -m pip install -q -r tools/requirements-torch.txt
  fi
}

# What the site is built with, apart from the rest: only ./dev docs and the full tier need it.
setup_docs() {
  local stamp=$VENV/flashnce-docs-stamp
  if cmp -s "$stamp" tools/requirements-docs.txt; then return 0; fi
  stage "packages for the site" "$VENV/bin/python" -m pip install -q -r tools/requirements-docs.txt
  cp tools/requirements-docs.txt "$stamp"
}

# What score statistics are written to, and a browser that looks at their report: only the full tier needs them.
setup_scores() {
  local stamp=$VENV/flashnce-scores-stamp
  setup_system browser
  if cmp -s "$stamp" tools/requirements-scores.txt; then return 0; fi
  stage "packages for scores" "$VENV/bin/python" -m pip install -q -r tools/requirements-scores.txt
  cp tools/requirements-scores.txt "$stamp"
}

# The Python environment; its stamp holds what it was made from, so that a change of that makes it anew.
setup_python() {
  local stamp=$VENV/flashnce-stamp wanted
  setup_cmake
  # shellcheck disable=SC2046
  wanted=$(cat $(requirement_files) tools/requirements-{peers,torch}.txt; echo "${FLASHNCE_TORCH:-} $(venv_python)")
  if [[ -f $stamp && $(cat "$stamp") == "$wanted" ]]; then return 0; fi
  [[ -x $VENV/bin/python ]] || stage "python environment" make_venv
  stage "python packages" install_requirements
  echo "$wanted" >"$stamp"
}
