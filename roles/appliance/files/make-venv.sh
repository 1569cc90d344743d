#!/bin/sh
# make-venv.sh WHEELHOUSE.tar DIR LAUNCHER: makes the venv DIR out of the wheels alone: no index, no
# compiler. `LAUNCHER DIR/bin/python ARGUMENTS` runs the venv's Python, or one that stands in for it.
# DIR/complete says that nothing is missing. Venvs that nobody points to any more are removed.
set -eu
umask 022
bundle=$1
venv=$2
launcher=$3
# Bytecode holds the hash of its source and no time: an image's root is read-only, and two builds
# of it give the same bytes.
export PYTHONDONTWRITEBYTECODE=1 PYTHONHASHSEED=0

root=${venv%/*}
mkdir -p "$root"
current=$(readlink "$root/venv" || true)
for other in "$root"/*/; do
    other=${other%/}
    case "$other" in
        "$root/venv" | "$root/$current" | "$root/*") ;;
        *) rm -rf "$other" ;;
    esac
done

wheels=$root/.wheels
trap 'rm -rf "$wheels"' EXIT
rm -rf "$wheels"
mkdir "$wheels"
tar --extract --no-same-owner --file "$bundle" --directory "$wheels"

# Debian's pip, which python3-venv brings as a wheel, runs from where it lies.
pip=$(ls /usr/share/python-wheels/pip-*.whl)
/usr/bin/python3 -m venv --without-pip "$venv"
"$launcher" "$venv/bin/python" "$pip/pip" install \
    --quiet --disable-pip-version-check --no-cache-dir --no-compile \
    --no-index --find-links "$wheels" --require-hashes --no-deps --requirement "$wheels/requirements.txt"
"$launcher" "$venv/bin/python" -m compileall -q --invalidation-mode unchecked-hash \
    -s "$venv" -p "$root/venv" "$venv"/lib/python3*/site-packages
"$venv/bin/appliance" --version
cp "$wheels/wheels.json" "$venv/wheels.json"
rm "$bundle"
touch "$venv/complete"
