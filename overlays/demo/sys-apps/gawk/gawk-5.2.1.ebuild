# Distributed under the terms of the MIT license

EAPI=8

DESCRIPTION="The GNU awk"
HOMEPAGE="https://www.gnu.org/software/gawk/"
# Debian's repack, without the documentation it does not count as free.
SRC_URI="${P}-debian.tar.xz"

LICENSE="GPL-3+"
SLOT="0"
KEYWORDS="amd64 arm arm64 ppc ppc64 riscv"
IUSE="+readline"
RESTRICT="test"

DEPEND="readline? ( sys-libs/readline:= )"
RDEPEND="${DEPEND}"

src_prepare() {
	default
	# What is left of doc/ and awklib/ cannot be made without the manual.
	sed -i -e '/^SUBDIRS = /s/ extras doc awklib po test$//' Makefile.in || die
}

src_configure() {
	econf --disable-mpfr --disable-nls --with-readline=$(usex readline "${EPREFIX}/usr" no)
}

src_install() {
	default
	find "${ED}" -name '*.la' -delete || die
	doman doc/gawk.1
}
