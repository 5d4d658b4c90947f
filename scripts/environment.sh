# shellcheck shell=bash
# Sourced by run and test, which set `repository` first. After `prepare_environment NEED`,
# $venv/bin/python has the packages for NEED: runtime, demo or dev, each holding those before it.
#
# A finished installation leaves a copy of what it was made from in .venv/installed-NEED. While
# that copy is right, nothing is started but one bare Python. .venv/whole says where .venv was
# made; it is away during an installation, so that after one that was cut off .venv is made anew.
#
# Only what bash 3.2 has (macOS), and no tool beside Python.

venv="$repository/.venv"

say() { printf '%s\n' "$*" >&2; }

fail() {
    say "$*"
    exit 1
}

prepare_environment() {
    local need=$1
    recipe="$(<"$repository/pyproject.toml")
$(<"$repository/constraints.txt")" || fail "A file of the project is missing: see the message above."
    installed "$need" && return

    find_python
    trap 'fail "Interrupted while preparing .venv: the next start begins it anew."' INT TERM
    lock || fail "The environment could not be locked: see the message above."
    if ! installed "$need"; then # else another start has just done it
        usable || make_venv
        install "$need"
    fi
    exec 9<&- # unlocks
    trap - INT TERM
}

# Whether .venv has what NEED names, installed from the files as they are now.
installed() {
    usable && [[ -f $venv/installed-$1 && $(<"$venv/installed-$1") == "$recipe" ]]
}

# Whether .venv is whole and ours: made here (paths are written into it), its Python runs, and its
# packages belong to that Python.
usable() {
    local version
    [[ -f $venv/whole && $(<"$venv/whole") == "$repository" ]] &&
        version=$("$venv/bin/python" -ISc 'import sys; print("%d.%d" % sys.version_info[:2])' \
            2>/dev/null) &&
        [[ -d $venv/lib/python$version/site-packages ]]
}

# Sets `python` to the first interpreter that is new enough and can make environments.
find_python() {
    local name without_venv=""
    for name in python3.13 python3.12 python3.11 python3 python; do
        "$name" -ISc 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || continue
        if "$name" -Ic 'import ensurepip, venv' 2>/dev/null; then
            python=$name
            return
        fi
        without_venv=$name
    done
    [[ -z $without_venv ]] || fail "Python's venv module is missing from $without_venv: install it" \
        "(Debian, Ubuntu: apt install python3-venv) and try again."
    fail "Python 3.11 or newer was not found: install it (Debian, Ubuntu: apt install python3" \
        "python3-venv; macOS: brew install python; Windows: use WSL) and try again."
}

# One installation at a time. The lock is on a file that is always there and ends with this shell;
# Python takes it, because not every system has flock(1).
lock() {
    exec 9<"$repository/pyproject.toml" && "$python" -Ic '
import fcntl, sys
try:
    fcntl.flock(9, fcntl.LOCK_EX | fcntl.LOCK_NB)
except BlockingIOError:
    print("Waiting for another start to finish its installation ...", file=sys.stderr, flush=True)
    fcntl.flock(9, fcntl.LOCK_EX)
'
}

make_venv() {
    say "Making .venv with $("$python" --version) ..."
    "$python" -m venv --clear "$venv" >&2 ||
        fail "The environment $venv could not be made: see the message above."
}

# Runs pip in the repository, because pip splits the paths in its variables at spaces. They carry
# the pins into the isolated build too: pip before 25.3 reads the first there, later ones the second.
install() {
    local need=$1 project smaller
    case $need in
        runtime) project="." smaller="" ;;
        demo) project=".[demo]" smaller="runtime" ;;
        dev) project=".[dev]" smaller="runtime demo" ;;
    esac
    say "Installing packages ($need); the first time takes about a minute ..."
    rm -f "$venv/whole"
    if ! (cd "$repository" && PIP_CONSTRAINT=constraints.txt PIP_BUILD_CONSTRAINT=constraints.txt \
        "$venv/bin/python" -m pip install -qq --no-input --disable-pip-version-check \
        --no-warn-script-location --editable "$project" >&2); then
        # pip leaves things as they were when it fails, so that what was installed still serves.
        printf '%s\n' "$repository" >"$venv/whole"
        fail "The packages could not be installed: see pip's message above" \
            "(the first installation needs the internet or a mirror that pip is set to)."
    fi
    rm -f "$venv"/installed-*
    for need in $smaller "$need"; do
        printf '%s\n' "$recipe" >"$venv/installed-$need"
    done
    printf '%s\n' "$repository" >"$venv/whole"
}
