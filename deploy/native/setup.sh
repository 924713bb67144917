#!/bin/sh
# Installs what `make run` needs: servers from Debian's packages, Python packages by locked hashes.
# A second run with nothing changed only checks. See --help.
set -eu

usage() {
    cat <<'TEXT'
Usage: deploy/native/setup.sh [--servers] [--packages | --operation | --test | --bench]

  (no option)  what running the stack needs
  --servers    only the Debian packages of it, as root, for users who may not install any
  --packages   only the Python packages: for `make rotate`, `make backup` and others beside a stack in containers
  --operation  only what writing and testing an operation needs: batch-processor and pytest
  --test       also what tests, linters and benchmarks need (same as --bench)

As root it installs missing Debian packages itself; otherwise it prints the command to type.
TEXT
}

say() { printf '%s\n' "$*"; }
fail() { printf '\n%s\n' "$*" >&2; exit 1; }

root=$(CDPATH='' cd -- "$(dirname -- "$0")/../.." && pwd)
cd "$root"
venv=.venv
lock=requirements.lock
stamps='run dev'
stamp=run
development=no servers=yes only_servers=no
[ "${1:-}" != --servers ] || { only_servers=yes; shift; }
chosen=$*
# Of the packages for development a small part is ever imported, and compiled then: all of them take a minute.
compiles=--compile
case "${1:-}" in
    '') ;;
    --packages) servers=no ;;
    --operation) servers=no lock=requirements-dev.lock stamps='dev operation' stamp=operation ;;
    --test | --bench) development=yes lock=requirements-dev.lock stamps=dev stamp=dev compiles=--no-compile ;;
    -h | --help) usage; exit 0 ;;
    *) usage >&2; exit 2 ;;
esac

# Of two calls at once, both would write into the same virtual environment. The kernel ends the lock with this script.
if command -v flock >/dev/null 2>&1; then
    exec 9<deploy/native/setup.sh
    flock --nonblock 9 || {
        say 'Waiting for another installation in this folder'
        flock 9
    }
fi

# ── servers ──────────────────────────────────────────────────────────────────────────────────────

present() { command -v "$1" >/dev/null 2>&1; }
any_file() { [ -e "$1" ]; }  # called with a pattern: true when it names a file

# Administrators' programs are not on everybody's PATH.
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
export PATH

venv_works() { "$venv/bin/python" -c '' 2>/dev/null; }

missing_packages() {
    venv_works || suitable_python >/dev/null || printf 'python3-venv '
    [ $servers = yes ] || return 0
    any_file /usr/lib/rabbitmq/lib/*/sbin/rabbitmq-server || printf 'rabbitmq-server '
    any_file /usr/lib/postgresql/*/bin/postgres || printf 'postgresql '
    present memcached || printf 'memcached '
    present prometheus || printf 'prometheus '
    present prometheus-postgres-exporter || printf 'prometheus-postgres-exporter '
    if [ $development = yes ]; then
        present smtp-sink || printf 'postfix '
        present wrk || printf 'wrk '
        present chromium || printf 'chromium '
    fi
}

suitable_python() {
    for candidate in python3.13 python3.12 python3.11 python3 /usr/bin/python3 python3.14; do
        present "$candidate" || continue
        "$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || continue
        printf '%s' "$candidate"
        return 0
    done
    return 1
}

policy=/usr/sbin/policy-rc.d
cluster_choice=/etc/postgresql-common/createcluster.d/tickwire.conf
made_policy=no
made_choice=no

take_back() {
    if [ $made_policy = yes ]; then rm -f "$policy"; fi
    if [ $made_choice = yes ]; then rm -f "$cluster_choice"; fi
}

# The stack runs its own servers: apt must not start the distribution's daemons as well.
keep_daemons_off() {
    trap take_back EXIT
    trap 'exit 130' INT TERM HUP
    if [ ! -e "$policy" ]; then
        made_policy=yes
        printf '#!/bin/sh\nexit 101\n' >"$policy"
        chmod 755 "$policy"
    fi
    if [ ! -e "$cluster_choice" ] && ! any_file /usr/lib/postgresql/*/bin/postgres; then
        made_choice=yes
        mkdir -p "$(dirname "$cluster_choice")"
        printf 'create_main_cluster = false\n' >"$cluster_choice"
    fi
}

apt() {
    DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300 "$@" >>"$apt_log" 2>&1 ||
        fail "apt-get $1 failed; the end of $apt_log:
$(tail -n 15 "$apt_log")

Next: look at the whole file, mend it, and call this again."
}

as_root() { if present sudo; then echo "sudo $1"; else echo "su -c '$1'"; fi; }

install_packages() {
    wanted=$*
    present apt-get ||
        fail "Missing: $wanted. This system has no apt-get: install the matching packages, then call this again."
    [ "$(id -u)" = 0 ] ||
        fail "Some programs are missing. Type this, then the same command again:

    $(as_root "deploy/native/setup.sh --servers${chosen:+ $chosen}")

It installs these packages and keeps their daemons off, as Tickwire starts its own: $wanted"
    apt_log=${TMPDIR:-/tmp}/tickwire-apt.log
    : >"$apt_log"
    say "Installing Debian packages: $wanted"
    keep_daemons_off
    apt update
    # shellcheck disable=SC2086  # one word for each package
    apt install -y --no-install-recommends $wanted
    take_back
    made_policy=no made_choice=no
}

missing=$(missing_packages)
# shellcheck disable=SC2086
[ -z "$missing" ] || {
    install_packages $missing
    missing=$(missing_packages)
}
[ -z "$missing" ] || fail "Still missing after the installation: $missing
Python 3.11 or newer with venv is needed, and the servers named in docs; Debian 12 or newer has all of them."
[ $only_servers = no ] || exit 0

# ── Python packages ──────────────────────────────────────────────────────────────────────────────

projects='contracts chassis gateway stock-data email batch-processor'
[ $stamp != operation ] || projects='contracts chassis batch-processor'
# Their requirements, and those of the tests of an operation and of its installation.
of_operations='tickwire-contracts tickwire-chassis tickwire-batch-processor
    editables hatchling jsonschema-rs pytest pytest-asyncio'

fingerprint() {
    { printf '%s\n' "$root"; cat "$1" services/*/pyproject.toml; } | sha256sum | cut -d ' ' -f 1
}

fresh() {
    venv_works || return 1
    for kind in $stamps; do
        case $kind in run) file=requirements.lock ;; *) file=requirements-dev.lock ;; esac
        [ "$(cat "$venv/.tickwire-$kind" 2>/dev/null)" = "$(fingerprint "$file")" ] && return 0
    done
    return 1
}

pip() {
    "$venv/bin/python" -m pip --quiet --disable-pip-version-check --no-input "$@" ||
        fail "pip could not install the packages (see above).
Next: check the network, then call this again; rm -r $venv starts from nothing."
}

install_python_packages() {
    [ -w "$venv" ] || [ -w . ] || fail "$(id -un) cannot write to $root, where the packages (.venv) and the data (.run) go.
Next: clone Tickwire into a folder that this user may write to, and call this there."
    venv_works || {
        python=$(suitable_python) || fail 'Python 3.11 or newer with venv is needed.'
        say "Making the virtual environment $venv with $($python --version)"
        rm -rf "$venv"
        "$python" -m venv "$venv"
    }
    # Computed before the work, so that the next call notices a file that changes meanwhile.
    installed=$(fingerprint "$lock")
    say "Installing the Python packages of $lock (hashes checked)"
    wanted=$lock
    if [ $stamp = operation ]; then
        wanted=$venv/operation.lock
        # shellcheck disable=SC2086  # one word for each package
        "$venv/bin/python" deploy/containers/narrow.py "$lock" $of_operations >"$wanted"
    fi
    pip install "$compiles" --require-hashes -r "$wanted"
    set --
    for project in $projects; do set -- "$@" -e "services/$project"; done
    pip install --no-deps --no-build-isolation "$@"
    # The development lock includes everything in the other one, with the same versions.
    [ $stamp = operation ] || rm -f "$venv"/.tickwire-*
    printf '%s\n' "$installed" >"$venv/.tickwire-$stamp"
    say "Ready to run."
}

fresh || install_python_packages
