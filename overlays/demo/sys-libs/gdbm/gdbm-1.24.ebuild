# Distributed under the terms of the MIT license

EAPI=8

DESCRIPTION="GNU library of hashed database files"
HOMEPAGE="https://www.gnu.org.ua/software/gdbm/"
SRC_URI="mirror://gnu/gdbm/${P}.tar.gz"

LICENSE="GPL-3+"
SLOT="0/6"
KEYWORDS="amd64 arm arm64 ppc ppc64 riscv"
IUSE="+readline"

DEPEND="readline? ( sys-libs/readline:= )"
RDEPEND="${DEPEND}"

src_configure() {
	econf --disable-nls $(use_with readline)
}

src_install() {
	default
	find "${ED}" -name '*.la' -delete || die
}
