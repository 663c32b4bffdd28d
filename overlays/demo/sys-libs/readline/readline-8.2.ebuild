# Distributed under the terms of the MIT license

EAPI=8

DESCRIPTION="Library that edits command lines"
HOMEPAGE="https://tiswww.case.edu/php/chet/readline/rltop.html"
SRC_URI="mirror://gnu/readline/${P}.tar.gz"

LICENSE="GPL-3+"
SLOT="0/8"
KEYWORDS="amd64 arm arm64 ppc ppc64 riscv"
RESTRICT="test"

DEPEND="sys-libs/ncurses:="
RDEPEND="${DEPEND}"

src_configure() {
	econf --with-curses --with-shared-termcap-library --disable-install-examples
}

src_compile() {
	# Otherwise the library does not say that it needs libtinfo, and every program would have to.
	emake SHLIB_LIBS=-ltinfo
}

src_install() {
	emake DESTDIR="${D}" SHLIB_LIBS=-ltinfo install
	einstalldocs
}
