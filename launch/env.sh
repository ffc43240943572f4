#!/usr/bin/env bash
# Makes and fills the project's virtual environment. The other scripts source it; it does nothing when run by itself.
#
#   source "$(dirname "${BASH_SOURCE[0]}")/env.sh"
#   alif_environment core data       # extras of setup.py; afterwards $ALIF_PYTHON is the environment's interpreter
#
# Settings, all optional:
#   PYTHON=python3.12          the interpreter to build from; default python3, at least 3.11
#   ALIF_PYTHON=/path/python   use this interpreter as it is: nothing is made, installed or checked
#
# The environment is .venv in the repository's root; where PYTHON names another minor version than the one .venv was made
# with, it is .venv-3.12 and so on, beside it. A stamp for each extra holds the hash of setup.py: a second run installs
# nothing and needs no network; a run that was broken off goes on where it stopped (pip keeps what it has).

ALIF_ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
ALIF_TORCH_INDEX=https://download.pytorch.org/whl/cpu

alif_say() { printf '[%s] %s\n' "$(basename "$0")" "$*" >&2; }

alif_fail() {
  printf 'error: %s\n' "$*" >&2
  exit 2
}

# alif_minor PYTHON: prints its version as 3.11, or nothing where it does not run.
alif_minor() { "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null || true; }

# alif_size EXTRA: megabytes it adds to the download, measured on x86-64 Linux with Python 3.11 (cuda, tpu: 3.12).
alif_size() {
  case $1 in
    core) echo 185 ;; data) echo 114 ;; import) echo 68 ;; verify) echo 206 ;; tools) echo 54 ;;
    ingest) echo 37 ;; eval) echo 92 ;; x_instruction) echo 10 ;; serve) echo 5 ;; ray) echo 80 ;; gcs) echo 19 ;; plan) echo 137 ;; tpu) echo 221 ;; cuda) echo 3220 ;; *) echo 0 ;;
  esac
}

# alif_choose: sets ALIF_VENV, the environment's directory. It need not exist yet.
alif_choose() {
  local made wanted
  ALIF_VENV=$ALIF_ROOT/.venv
  [[ -n ${PYTHON:-} ]] || return 0
  wanted=$(alif_minor "$PYTHON")
  [[ -n $wanted ]] || alif_fail "PYTHON=$PYTHON is no Python that runs: give a name or path such as python3.12"
  made=$(alif_minor "$ALIF_VENV/bin/python")
  [[ -z $made || $made == "$wanted" ]] || ALIF_VENV=$ALIF_ROOT/.venv-$wanted
}

# alif_stamp: what a stamp of this environment must hold; it changes when the interpreter or setup.py does.
alif_stamp() { printf '%s %s\n' "$(alif_minor "$ALIF_VENV/bin/python")" "$(sha256sum <"$ALIF_ROOT/setup.py")"; }

# alif_missing EXTRA...: prints the extras which are not installed yet.
alif_missing() {
  local extra stamp
  stamp=$(alif_stamp)
  for extra in "$@"; do
    [[ $(cat "$ALIF_VENV/alif-$extra.stamp" 2>/dev/null) == "$stamp" ]] || echo "$extra"
  done
}

# alif_make: makes ALIF_VENV from PYTHON, after checking that PYTHON can.
alif_make() {
  local python=${PYTHON:-python3} version
  version=$(alif_minor "$python")
  [[ -n $version ]] || alif_fail "no Python at '$python': install Python 3.11 or later, or set PYTHON=/path/to/python3"
  "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    alif_fail "$python is Python $version, 3.11 or later is needed: set PYTHON=python3.12 or another that is installed"
  "$python" -c 'import venv, ensurepip' 2>/dev/null ||
    alif_fail "$python cannot make virtual environments: apt-get install python$version-venv (Debian, Ubuntu), then again"
  alif_say "making ${ALIF_VENV#"$ALIF_ROOT"/} with Python $version"
  "$python" -m venv --clear "$ALIF_VENV"
}

# alif_pip ARGUMENT...: pip install, showing the downloads of a megabyte and more. The whole output stays in a log.
alif_pip() {
  local log=$ALIF_VENV/install.log status=0
  "$ALIF_VENV/bin/python" -m pip install --disable-pip-version-check --no-input "$@" 2>&1 | tee -a "$log" |
    { grep --line-buffered -oE 'Downloading [^ ]*\.(whl|tar\.gz) .*MB\)|^Installing collected packages' >&2 || true; } ||
    status=${PIPESTATUS[0]}
  ((status != 0)) || return 0
  grep -E '^ERROR' "$log" | tail -n 5 >&2
  alif_fail "pip could not install $*: see $log; the same command goes on from here"
}

# alif_torch: PyTorch alone and before the rest, so that nothing else chooses its build.
alif_torch() {
  local pin
  pin=$(grep -oE 'torch==[0-9.]+' "$ALIF_ROOT/setup.py")
  "$ALIF_VENV/bin/python" - "${pin#torch==}" 2>/dev/null <<'PY' && return
import importlib.metadata, sys
sys.exit(importlib.metadata.version("torch").split("+")[0] != sys.argv[1])
PY
  if "$ALIF_VENV/bin/python" - "$ALIF_TORCH_INDEX/torch/" 2>/dev/null <<'PY'; then
import sys, urllib.request
urllib.request.urlopen(sys.argv[1], timeout=5).close()
PY
    alif_say "installing $pin, the CPU build from $ALIF_TORCH_INDEX"
    alif_pip "$pin" --extra-index-url "$ALIF_TORCH_INDEX"
  else
    alif_say "installing $pin from your package index, as $ALIF_TORCH_INDEX is not reachable."
    alif_say "On x86-64 the public index has the CUDA build only: about 3 GB instead of 0.2 GB."
    alif_pip "$pin"
  fi
}

# alif_install EXTRA...: makes the environment if need be and installs the extras which are missing.
alif_install() {
  local missing names extra size=0
  [[ -n $(alif_minor "$ALIF_VENV/bin/python") ]] || alif_make
  "$ALIF_VENV/bin/python" -m pip --version >/dev/null 2>&1 || "$ALIF_VENV/bin/python" -m ensurepip >/dev/null
  missing=$(alif_missing "$@")
  [[ -n $missing ]] || return 0 # another process was faster
  for extra in $missing; do size=$((size + $(alif_size "$extra"))); done
  alif_say "installing ${missing//$'\n'/, } into ${ALIF_VENV#"$ALIF_ROOT"/}: about $size MB to download (less what pip has in its cache)"
  [[ " ${missing//$'\n'/ } " != *" verify "* ]] || alif_torch
  names=$(grep -vx core <<<"$missing" | paste -sd, || true)
  alif_pip --editable "$ALIF_ROOT${names:+[$names]}"
  for extra in $missing; do alif_stamp >"$ALIF_VENV/alif-$extra.stamp"; done
}

# alif_environment EXTRA...: the environment with these extras, made or completed; sets ALIF_PYTHON.
alif_environment() {
  if [[ -n ${ALIF_PYTHON:-} ]]; then
    alif_say "using $ALIF_PYTHON as it is (ALIF_PYTHON is set)"
    return
  fi
  alif_choose
  if [[ -n $(alif_missing "$@") ]]; then
    # One at a time, when several processes of a run start on one host.
    (
      if command -v flock >/dev/null && ! flock --nonblock 9; then
        alif_say "waiting for another process that is installing"
        flock 9
      fi
      alif_install "$@"
    ) 9>"$ALIF_VENV.lock"
  fi
  ALIF_PYTHON=$ALIF_VENV/bin/python
}
