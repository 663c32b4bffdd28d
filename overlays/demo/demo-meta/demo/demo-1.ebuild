# Distributed under the terms of the MIT license

EAPI=8

DESCRIPTION="The packages of the demonstration"
HOMEPAGE="https://example.org/portage-cluster"

LICENSE="MIT"
SLOT="0"
KEYWORDS="amd64 arm arm64 ppc ppc64 riscv"

RDEPEND="
	app-arch/gzip
	app-arch/lzip
	app-arch/pigz
	app-arch/xz-utils
	app-arch/zstd
	app-misc/hello
	demo-meta/quickstart
	dev-lang/lua
	dev-libs/libpcre2
	sys-apps/file
	sys-apps/gawk
	sys-apps/grep
	sys-apps/less
	sys-apps/sed
	sys-libs/gdbm
	sys-libs/ncurses
	sys-libs/readline
"
