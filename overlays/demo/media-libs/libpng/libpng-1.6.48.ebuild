# Distributed under the terms of the MIT license

EAPI=8

DESCRIPTION="Library that reads and writes PNG images"
HOMEPAGE="http://www.libpng.org/"
SRC_URI="https://github.com/pnggroup/libpng/archive/v${PV}.tar.gz -> ${P}.tar.gz"

LICENSE="libpng2"
SLOT="0/16"
KEYWORDS="amd64 arm arm64 ppc ppc64 riscv"
IUSE="test"
RESTRICT="!test? ( test )"

DEPEND="sys-libs/zlib:="
RDEPEND="${DEPEND}"

DOCS=( ANNOUNCE CHANGES README TODO )

src_configure() {
	econf --disable-tools $(use_enable test tests)
}

src_install() {
	default
	find "${ED}" -name '*.la' -delete || die
}
