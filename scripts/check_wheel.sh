#!/usr/bin/env bash
# Build sdist and wheel, and use the installed wheel from another folder. Exits with status 1 if anything fails.
set -euo pipefail

root="$(cd "$(dirname "$0")/.." && pwd)"
python="${PYTHON_WITH_DEPENDENCIES:-$root/.venv/bin/python}"
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
export OMP_NUM_THREADS=1
unset PYTHONPATH

fail() { echo "check_wheel: $*" >&2; exit 1; }

# The sources are copied, so that no build folder of an earlier version gets into the wheel.
mkdir "$work/source"
(cd "$root" && tar -c --exclude=__pycache__ pyproject.toml README* LICENSE* kdzoo conf hydra_plugins 2>/dev/null || true) | tar -x -C "$work/source"
isolation=()
"$python" -c "import setuptools" 2>/dev/null && isolation=(--no-isolation)
"$python" -m build "${isolation[@]}" --outdir "$work/dist" "$work/source" >"$work/build.log" 2>&1 || {
  tail -20 "$work/build.log" >&2
  fail "the build failed"
}

wheel="$(echo "$work"/dist/*.whl)"
"$python" -m zipfile -l "$wheel" >"$work/listing"
for name in kdzoo/py.typed kdzoo/conf/train.yaml kdzoo/conf/__init__.py; do
  grep -q "^$name " "$work/listing" || fail "$name is not in the wheel"
done
(cd "$root/conf" && find . -name '*.yaml' | sed 's|^\./||') | while read -r name; do
  grep -q "^kdzoo/conf/$name " "$work/listing" || fail "conf/$name is not in the wheel"
done
tar -tzf "$work"/dist/*.tar.gz >"$work/sources"
grep -q "/conf/train.yaml$" "$work/sources" || fail "conf is not in the sdist"

# A path file (.pth) makes the dependencies of the present environment available, since installing torch again would take
# a minute. Path files inside the added folder are not read, and the editable install of this project is such a file:
# the only kdzoo that can be imported is that of the wheel.
"$python" -m venv --without-pip "$work/venv"
dependencies="$("$python" -c "import sysconfig; print(sysconfig.get_paths()['purelib'])")"
site="$("$work/venv/bin/python" -c "import sysconfig; print(sysconfig.get_paths()['purelib'])")"
"$python" -m pip --quiet --python "$work/venv/bin/python" install --no-deps --no-index "$wheel"
echo "$dependencies" >"$site/dependencies.pth"

mkdir "$work/elsewhere"
cd "$work/elsewhere"
kdzoo="$work/venv/bin/kdzoo"
imported="$("$work/venv/bin/python" -c "import kdzoo; print(kdzoo.__file__)")"
[[ "$imported" == "$site/kdzoo/__init__.py" ]] || fail "kdzoo was imported from $imported"

check_run() { # expected number of reports, arguments of kdzoo
  local expected="$1"; shift
  "$kdzoo" "$@" >"$work/run.log" 2>&1 || { tail -20 "$work/run.log" >&2; fail "kdzoo $* failed"; }
  ! grep -q "Hydra plugins scanner" "$work/run.log" || fail "Hydra cannot import the sweepers"
  local n_reports
  n_reports="$(find outputs -name report.json | wc -l)"
  [[ "$n_reports" == "$expected" ]] || fail "after kdzoo $* there are $n_reports reports, not $expected"
  echo "ok: kdzoo $*"
}

"$kdzoo" --help >"$work/help"
grep -q "logit_kd" "$work/help" || fail "--help does not list the distillers"
small=(debug=fast control=false student.hidden=[8] teacher.hidden=[8])
check_run 1 debug=fast
check_run 2 "${small[@]}" distiller.temperature=3
check_run 4 -m "${small[@]}" distiller.temperature=1,2
cp -r "$root/examples/my_dkd/." .
check_run 5 --config-dir conf distiller=my_dkd "${small[@]}" distiller.temperature=2
echo "check_wheel: $(basename "$wheel") works"
