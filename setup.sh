# Shared by quickstart and tests/run: Debian packages (the only step that uses root) and a
# virtual environment. Source it with the checkout as the working directory.

say() { printf '%s\n' "$*"; }
die() { printf '%s: %s\n' "${0##*/}" "$*" >&2; exit 1; }

# with_progress TEXT COMMAND... : run it, say every four seconds that it still runs, show its end if it fails.
with_progress() {
	local text=$1 log start child status=0
	shift
	log=$(mktemp)
	start=$SECONDS
	say "… $text"
	"$@" > "$log" 2>&1 < /dev/null &
	child=$!
	while kill -0 "$child" 2> /dev/null; do
		for _ in 1 2 3 4 5 6 7 8; do
			sleep 0.5
			kill -0 "$child" 2> /dev/null || break
		done
		kill -0 "$child" 2> /dev/null && say "  $text: $((SECONDS - start)) s"
	done
	wait "$child" || status=$?
	if [ "$status" -ne 0 ]; then
		tail -n 20 "$log" >&2
		rm -f "$log"
		die "$text failed with exit status $status"
	fi
	rm -f "$log"
	say "✓ $text $((SECONDS - start)) s"
}

wanted_packages() {
	sed '/^#/d' stage-images/host-packages.txt
}

missing_packages() {
	local package
	for package in $(wanted_packages | sort -u) "$@"; do
		dpkg-query -W -f '${Status}' "$package" 2> /dev/null | grep -q '^install ok installed$' || printf '%s ' "$package"
	done
}

# install_packages EXTRA... : what is missing of the host's packages and of EXTRA.
install_packages() {
	local missing root="" install
	command -v dpkg-query > /dev/null || die "this is no Debian machine: install what stage-images/host-packages.txt lists"
	missing=$(missing_packages "$@")
	known=$(apt-get indextargets --format '$(ORIGIN)' 'Created-By: Packages' 2> /dev/null | grep -c '^Debian$' || :)
	[ -n "$missing" ] || [ "$known" -eq 0 ] || return 0
	install="apt-get update && apt-get install -y --no-install-recommends $missing"
	[ -n "$missing" ] || install="apt-get update"
	if [ "$(id -u)" -ne 0 ]; then
		command -v sudo > /dev/null || die "Debian packages are missing and there is no sudo. As root, run: $install"
		root=sudo
		sudo -n true 2> /dev/null || sudo -v || die "Debian packages are missing. As root, run: $install"
	fi
	with_progress "apt-get update" $root apt-get update
	[ -z "$missing" ] ||
		with_progress "apt-get install $missing" $root env DEBIAN_FRONTEND=noninteractive \
			apt-get install -y --no-install-recommends $missing
}

# make_environment DIRECTORY EXTRA : a virtual environment with this checkout installed, made anew when pyproject.toml changed.
make_environment() {
	local directory=$1 extra=${2:-} stamp
	stamp=$(cat pyproject.toml setup.sh | sha256sum | cut -c 1-16)$extra
	[ "$(cat "$directory/stamp" 2> /dev/null)" = "$stamp" ] && return 0
	with_progress "python3 -m venv $directory" /usr/bin/python3 -m venv "$directory"
	with_progress "pip install portage-cluster$extra" "$directory/bin/pip" install --disable-pip-version-check -e ".$extra"
	printf '%s' "$stamp" > "$directory/stamp"
}
