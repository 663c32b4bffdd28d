# Distributed under the terms of the MIT license

EAPI=8

DESCRIPTION="The GNU make, which the benchmark builds"
HOMEPAGE="https://www.gnu.org/software/make/"
# Debian's repack, without the manual it does not count as free.
SRC_URI="${P}-debian.tar.xz"

LICENSE="GPL-3+"
SLOT="0"
KEYWORDS="amd64 arm arm64 ppc ppc64 riscv"
RESTRICT="test"

# Autoconf's tests of what a compiler refuses call functions without declaring them.
QA_CONFIG_IMPL_DECL_SKIP=( free )

src_prepare() {
	default
	# The manual and its page are not there to be made.
	sed -i -e '/^SUBDIRS = /s/ doc$//' -e 's/^man_MANS = .*/man_MANS =/' Makefile.in || die
	sed -i -e '/^ac_config_files=/s: doc/Makefile::' configure || die
}

src_configure() {
	econf --disable-nls --without-guile
}
